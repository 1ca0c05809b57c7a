"""What is reported is what the server did, and a slow server does not slow its load down."""

from __future__ import annotations

import json
import time

import pytest

from benchmarks.distribution import PERCENTILES, distribution
from benchmarks.load.measure import Load, measure
from benchmarks.machine import PACKAGES
from nps_store.cli import run
from nps_store.errors import BadOptionError, InputOutputError
from tests.benchmarks.load.server import SLOW_S, running

SECONDS = 1.0


@pytest.fixture(scope="module")
def server():
    with running() as started:
        yield started


def load(*models, route="/classify", rate=60.0, mix="uniform", **more):
    return Load(route, (mix,), models, rate, SECONDS, **more)


def one(server, *models, **more):
    (run,) = measure(server.url, load(*models, **more))["runs"]
    return run


def test_outcomes_are_counted_by_kind(server):
    run = one(server, "quick", "busy", "gone")
    assert set(run["outcomes"]) == {"200", "429", "RemoteProtocolError"}
    assert sum(run["outcomes"].values()) == run["n_requests"]
    assert run["n_errors"] == run["n_requests"] - run["outcomes"]["200"]
    assert run["milliseconds"]["n"] == run["outcomes"]["200"]
    assert set(run["milliseconds_by_task"]) == {"quick", "busy", "gone"}
    assert run["milliseconds_by_task"]["busy"] == {"n": 0}


def test_the_load_is_open(server):
    """60 a second of .3 s each: a closed loop of any one client would take 18 times as long."""
    begun = time.perf_counter()
    run = one(server, "slow")
    assert time.perf_counter() - begun < SECONDS + 10 * SLOW_S
    assert run["outcomes"] == {"200": run["n_requests"]}
    assert run["milliseconds"]["min"] >= 1e3 * SLOW_S


def test_a_request_that_takes_too_long_is_a_timeout(server):
    run = one(server, "slow", rate=10.0, timeout_s=SLOW_S / 3)
    assert run["outcomes"] == {"timeout": run["n_requests"]}


def test_streams_tell_their_first_token_and_their_tokens(server):
    run = one(server, "words", route="/v1/completions", rate=10.0, max_tokens=7)
    first, whole = run["first_token_milliseconds"], run["milliseconds"]
    assert first["n"] == whole["n"] == run["n_requests"]
    assert first["p50"] < whole["p50"] - 1e3 * SLOW_S / 3
    assert run["tokens_per_s"] == pytest.approx(7 * run["n_requests"] / run["seconds"])


def test_tasks_are_those_that_the_server_lists(server):
    server.asked.clear()
    one(server, mix="one", rate=10.0)
    assert {body["model"] for body in server.asked[2:]} == {"quick"}
    assert [body["model"] for body in server.asked[:2]] == ["quick", "busy"]  # warming up


def test_no_server_is_an_error_that_names_it():
    with pytest.raises(InputOutputError, match=r"127\.0\.0\.1:9/v1/models"):
        measure("http://127.0.0.1:9", load())


@pytest.mark.parametrize("wrong", [{"route": "/nope"}, {"mix": "nope"}, {"rate": 0.0}])
def test_wrong_options_are_refused(wrong):
    with pytest.raises(BadOptionError):
        load("quick", **wrong)


def test_the_verb_writes_one_result_with_all_that_a_reader_needs(server, tmp_path, capsys):
    out = tmp_path / "serve.json"
    words = ["bench", "serve", server.url, "--rate=20", "--seconds=0.5", "--model=quick", "--json"]
    assert run([*words, f"--out={out}"]) == 0
    result = json.loads(out.read_text())
    assert json.loads(capsys.readouterr().out) == result
    assert result["schema"] == "nps.bench-serve/1"
    assert {"commit", "processor", "cores", "seed", "date"} <= set(result)
    assert set(result["packages"]) == set(PACKAGES)
    assert [run["mix"] for run in result["runs"]] == ["zipf", "uniform"]
    names = {f"p{percent:g}" for percent in PERCENTILES}
    assert names <= set(result["runs"][0]["milliseconds"])


def test_distribution_of_known_numbers():
    found = distribution(range(1001))
    assert (found["min"], found["p50"], found["max"], found["n"]) == (0, 500, 1000, 1001)
    assert found["p0.1"] == pytest.approx(1)
    assert found["p99.9"] == pytest.approx(999)
    assert distribution([]) == {"n": 0}
