"""Results as Markdown."""

from __future__ import annotations

from benchmarks.methods import OURS
from benchmarks.quality import page
from tests.benchmarks.quality.test_curve import POINTS


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_our_points_have_the_mean_and_the_largest_task() -> None:
    head, rule, *lines = page.points({"points": POINTS}).splitlines()
    assert len(cells(head)) == len(cells(rule))
    (ours,) = map(cells, lines)
    assert ours[1:] == ["`--keep 0.1`", "0.8000 (accuracy ratio)", "2.0000", "2.0", "3.0"]


def test_the_standing_has_a_line_for_every_method_and_a_verdict() -> None:
    text = page.standing({"points": POINTS})
    table = [cells(line) for line in text.splitlines() if line.startswith("|")]
    assert [line[0] for line in table] == ["classifiers", "---", f"{OURS}: bits", "trim"]
    assert len({len(line) for line in table}) == 1
    assert f"{OURS} is at or left of every method" in text


def test_missed_targets_are_told() -> None:
    def point(target: float, ratio: float) -> dict[str, object]:
        known = {"task": "a", "method": OURS, "setting": {"target": target}, "nbytes": 1, "bits": 1}
        return {"group": "classifiers", "accuracy_ratio": ratio, **known}

    told = page.missed({"points": [point(0.98, 0.99), point(0.99, 0.985)]})
    assert told == "- classifiers: asked 0.99, kept 0.9850\n"
    assert page.missed({"points": [point(0.98, 0.98)]}) == "None.\n"


def test_the_papers_rule_stands_beside_its_peers() -> None:
    def point(method: str, keep: float) -> dict[str, object]:
        known = {"task": "a", "method": method, "setting": {"keep": keep}, "nbytes": 1, "bits": 1}
        return {"group": "classifiers", "accuracy_ratio": keep, **known}

    points = [point("NPS top-k", 0.04), point("NPS top-k", 0.3), point("DARE", 0.1)]
    lines = {line[0]: line[1:] for line in map(cells, page.versus({"points": points}).splitlines())}
    assert lines["NPS top-k"] == ["0.0400", "-", "-"]
    assert lines["DARE"] == ["-", "0.1000", "-"]


def test_claims_are_one_table_a_rule() -> None:
    rows = [
        {"rule": rule, "name": name, "gain_kept": 0.5, "accuracy_ratio": 0.75}
        for rule in ("topk", "nps")
        for name in ("as it is", "seed 1")
    ]
    first, second = page.claims({"rows": rows}).strip().split("\n\n")
    assert cells(first.splitlines()[0])[0] == "topk at keep 0.04"
    assert cells(second.splitlines()[-1]) == ["2 seeds", "0.7500 +- 0.0000", "0.5000 +- 0.0000"]
