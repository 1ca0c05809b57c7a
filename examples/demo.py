"""`make demo`: serve the shipped store, then do the whole job once, live.

1. Serves `debian-8tasks.nps` and sends it the test texts of all 8 tasks, mixed.
2. Fine-tunes one more task on this machine, compresses it with a quality target, adds it to the
   running store, and asks it.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import debian, minilm, zoo
from examples.service import Client, serve
from nps_store.cli.output import size

HERE = Path(__file__).parent
SHIPPED = HERE / "debian-8tasks.nps"
DENSE_FIGURES = HERE.parent / "benchmarks" / "results" / "shipped.json"
NEW_TASK = "ecosystem"
NEW_LABELS = ("golang", "haskell", "javascript", "perl", "python", "rust")
SEARCH_SECONDS = 60
TRAIN_ROWS = 2000
MIXED_ROWS = 200
BATCH = 16

console = Console(width=None if sys.stdout.isatty() else 100, highlight=False)
Rows = list[dict[str, str]]


def main() -> None:
    """Run the demonstration; exit 1 if the live task is not served well."""
    start = time.monotonic()
    zoo.quiet()
    with tempfile.TemporaryDirectory(prefix="nps-demo-") as folder:
        store = Path(folder) / "demo.nps"
        shutil.copyfile(SHIPPED, store)
        with serve(store, minilm.base_dir()) as client:
            console.rule("8 fine-tunes of one base, one file, one server")
            ask_all(client, store)
            console.rule("one more task, live")
            kept = whole_job(client, store, Path(folder))
        console.rule(f"done in {time.monotonic() - start:.0f} s")
    if kept < 0.9:
        console.print(f"the stored task keeps only {kept:.3f} of the dense accuracy")
        sys.exit(1)


def ask_all(client: Client, store: Path) -> None:
    """Mixed requests of all tasks; a table of what came back."""
    rows = {task: sample(debian.rows(task, "test"), MIXED_ROWS) for task in debian.TASKS}
    requests = [
        (task, rows[task][start : start + BATCH])
        for task in debian.TASKS
        for start in range(0, len(rows[task]), BATCH)
    ]
    random.Random(0).shuffle(requests)  # noqa: S311 (an order, not a secret)
    begin = time.perf_counter()
    right = dict.fromkeys(debian.TASKS, 0)
    with ThreadPoolExecutor(8) as clients:
        for task, correct in clients.map(lambda request: n_correct(client, *request), requests):
            right[task] += correct
    elapsed = time.perf_counter() - begin
    measured = {row["task"]: row for row in json.loads(DENSE_FIGURES.read_text())["tasks"]}
    stored = {task["name"]: task for task in nps("ls", str(store))["tasks"]}
    table = result_table(f"asked now ({MIXED_ROWS} texts)")
    for task in debian.TASKS:
        figures = measured[task]
        table.add_row(
            task,
            size(stored[task]["dense_nbytes"]),
            size(stored[task]["nbytes"]),
            f"{figures['dense']:.3f}",
            f"{figures['stored']:.3f}",
            f"{right[task] / len(rows[task]):.3f}",
        )
    console.print(table)
    n_texts = sum(len(batch) for _, batch in requests)
    n_switches, mean_s = client.switches()
    console.print(
        f"{n_texts} texts in {len(requests)} mixed requests: {n_texts / elapsed:.0f} texts/s, "
        f"{n_switches} switches of {1000 * mean_s:.1f} ms on average; "
        f"store {size(store.stat().st_size)}, base apart"
    )


def whole_job(client: Client, store: Path, folder: Path) -> float:
    """Fine-tune, compress, add, ask; the share of the dense accuracy that the served task keeps."""
    base = minilm.base_dir()
    train, calibration, test = (new_rows(split) for split in debian.SPLITS)
    console.print(f"fine-tuning all weights on {TRAIN_ROWS} texts: {', '.join(NEW_LABELS)}?")
    with zoo.progress_bar() as progress:
        model = zoo.fine_tune(
            base, folder / NEW_TASK, sample(train, TRAIN_ROWS),
            recipe=zoo.Recipe(epochs=1, learning_rate=3e-4), progress=progress, name=NEW_TASK,
        )  # fmt: skip
    dense = zoo.accuracy(model, zoo.tokenizer(base), test, max_length=512)
    data = folder / "calibration.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in calibration))
    console.print(f"compressing it, searching {SEARCH_SECONDS} s at most, into the served store")
    added = nps(
        "add", str(store), "--base", str(base), "--task", f"{NEW_TASK}={folder / NEW_TASK}",
        "--calib", f"{NEW_TASK}={data}", "--search-seconds", str(SEARCH_SECONDS),
    )["tasks"][0]  # fmt: skip
    client.wait_for(NEW_TASK)
    batches = [test[start : start + BATCH] for start in range(0, len(test), BATCH)]
    served = sum(n_correct(client, NEW_TASK, batch)[1] for batch in batches) / len(test)
    table = result_table(f"served ({len(test)} texts)")
    table.add_row(
        NEW_TASK, size(added["dense_nbytes"]), size(added["nbytes"]), f"{dense:.3f}", "-",
        f"{served:.3f}",
    )  # fmt: skip
    console.print(table)
    quality = added["quality"]
    console.print(
        f"target {added['target']}: {quality['value']:.3f} of the gain kept on unseen calibration "
        f"texts (95 %: {quality['low']:.3f} .. {quality['high']:.3f})"
    )
    text = test[0]["text"]
    console.print(f"{text!r} -> {client.classify(NEW_TASK, [text])[0]}")
    return served / dense


def n_correct(client: Client, task: str, rows: Rows) -> tuple[str, int]:
    """Ask a task about some rows; how many answers are their labels."""
    labels = client.classify(task, [row["text"] for row in rows])
    return task, sum(label == row["label"] for label, row in zip(labels, rows, strict=True))


def new_rows(split: str) -> Rows:
    """A task that the store lacks: which language's ecosystem a package belongs to."""
    return [row for row in debian.rows("section", split) if row["label"] in NEW_LABELS]


def sample(rows: Rows, count: int) -> Rows:
    """The same random rows at every run."""
    return random.Random(1).sample(rows, min(count, len(rows)))  # noqa: S311


def nps(*arguments: str) -> dict[str, list[dict[str, object]]] | dict[str, object]:
    """Run a verb and return its JSON document."""
    command = [str(Path(sys.executable).parent / "nps"), *arguments, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def result_table(last: str) -> Table:
    """Columns of both tables."""
    table = Table("task")
    for column in ("dense bytes", "stored bytes", "dense acc.", "stored acc.", last):
        table.add_column(column, justify="right")
    return table


if __name__ == "__main__":
    main()
