"""Every refusal has the one shape, whichever layer it comes from."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from formats.errors import ChecksumMismatchError, NpsError
from nps_store.errors import ModelLoadError, UnsupportedTaskError
from server import errors
from server.app import create_app
from server.http.errors import APPEARANCES, appearance
from server.settings import Settings
from tests.server.conftest import assert_error, serving, wait_until
from tests.server.toy import ToyTask


def own_classes() -> list[type[errors.ServerError]]:
    found = [value for value in vars(errors).values() if isinstance(value, type)]
    return [cls for cls in found if issubclass(cls, errors.ServerError)]


def test_ids_and_exit_codes_are_unique_and_in_the_servers_range():
    classes = own_classes()
    assert len({cls.id for cls in classes}) == len(classes) == 12
    assert {cls.exit_code for cls in classes} == {*range(50, 60), 61, 62}
    assert all(cls.id.startswith("server.") for cls in classes)


@pytest.mark.parametrize("cls", own_classes())
def test_every_class_says_its_message_as_it_is(cls):
    more = {"retry_after_s": 1.0} if cls is errors.OverloadedError else {}
    assert str(cls("one sentence", **more)) == "one sentence"


def test_every_error_a_request_can_meet_is_in_the_table():
    only_at_start = {
        errors.ServerError,
        errors.ListenError,
        errors.VllmVersionError,
        errors.UnsafeLayoutError,
    }
    assert set(own_classes()) - only_at_start <= set(APPEARANCES)
    assert appearance(ChecksumMismatchError("x")).status == 500
    assert appearance(NpsError("x")).status == 500


def test_unknown_routes_and_methods(toy):
    with serving(toy) as client:
        assert "/nope" in assert_error(client.get("/nope"), 404, "http_404")
        assert "GET" in assert_error(client.get("/classify"), 405, "http_405")


@pytest.mark.parametrize("route", ["/classify", "/v1/embeddings"])
@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"model": "section"}, "input"),
        ({"model": "section", "input": []}, "input"),
        ({"model": "section", "input": [""], "priority": 3}, "priority"),
        ({"model": "section", "input": ["a", 1]}, "input"),
        ({"model": "section", "input": [1.5]}, "input"),
        ({"model": "section", "input": [True]}, "input"),
        ({"model": "section", "input": [[]]}, "input"),
        ({"model": "section", "input": {"text": "a"}}, "input"),
        ({"model": 3, "input": "a"}, "model"),
        (
            {"model": "section", "input": "a", "truncate_prompt_tokens": -2},
            "truncate_prompt_tokens",
        ),
        ({"model": "section", "input": "a", "use_activation": False}, "use_activation"),
        ({"model": "section", "input": "a", "add_special_tokens": False}, "add_special_tokens"),
    ],
)
def test_wrong_fields_are_named(toy, route, body, param):
    with serving(toy) as client:
        message = assert_error(client.post(route, json=body), 422, "invalid_body", param=param)
        assert message.startswith(f"{param}: ")


def test_bodies_that_are_no_json_objects(toy):
    with serving(toy) as client:
        json = {"content-type": "application/json"}
        broken = client.post("/classify", content=b'{"model": ', headers=json)
        assert_error(broken, 400, "invalid_json")
        for content in (b"[1]", b'"text"', b"3"):
            response = client.post("/classify", content=content, headers=json)
            assert "JSON object" in assert_error(response, 422, "invalid_body")
        plain = client.post("/classify", content=b'{"model": "role", "input": "a"}')
        assert "application/json" in assert_error(plain, 422, "invalid_body")


def test_unknown_models(toy):
    with serving(toy) as client:
        for route in ("/classify", "/v1/embeddings"):
            response = client.post(route, json={"model": "nope", "input": "a"})
            assert "'nope'" in assert_error(response, 404, "model_not_found", param="model")
        assert_error(client.get("/v1/models/nope"), 404, "model_not_found", param="model")


def test_a_kind_on_the_wrong_route_is_sent_to_the_right_one(toy):
    with serving(toy) as client:
        response = client.post("/v1/embeddings", json={"model": "section", "input": "a"})
        message = assert_error(response, 400, "server.wrong_route", param="model")
        assert message.endswith("use /classify")
        response = client.post("/classify", json={"model": "plain", "input": "a"})
        message = assert_error(response, 400, "server.wrong_route", param="model")
        assert message.endswith("use /v1/embeddings")


def test_too_many_inputs_and_bad_token_ids(toy):
    with serving(toy, max_inputs=3) as client:
        response = client.post("/classify", json={"model": "role", "input": ["a"] * 4})
        message = assert_error(response, 400, "server.bad_request", param="input")
        assert "3 inputs, got 4" in message
        response = client.post("/classify", json={"model": "role", "input": [[1, 2], [99]]})
        assert_error(response, 400, "server.bad_request", param="input")


def test_large_bodies_are_refused_declared_or_not(toy):
    with serving(toy, max_body_nbytes=1000) as client:
        body = {"model": "role", "input": "a" * 2000}
        assert "1000" in assert_error(client.post("/classify", json=body), 413, "body_too_large")

        def chunks():
            yield b'{"model": "role", "input": "'
            for _ in range(20):
                yield b"a" * 100
            yield b'"}'

        headers = {"content-type": "application/json"}
        response = client.post("/classify", content=chunks(), headers=headers)
        assert_error(response, 413, "body_too_large")
        body["input"] = "a" * 100
        assert client.post("/classify", json=body).status_code == 200


def test_not_ready_until_the_base_is_loaded(toy):
    toy.load_gate.clear()
    with TestClient(create_app(Settings(admin_key="k"), toy)) as client:
        assert client.get("/health").status_code == 200
        ready = client.get("/ready")
        assert "being loaded" in assert_error(ready, 503, "server.not_ready")
        assert ready.json()["ready"] is False
        assert len(ready.json()["reasons"]) == 1
        for response in (
            ready,
            client.post("/classify", json={"model": "role", "input": "a"}),
            client.get("/v1/models"),
            client.get("/admin/tasks", headers={"authorization": "Bearer k"}),
        ):
            assert_error(response, 503, "server.not_ready")
            assert int(response.headers["retry-after"]) >= 1
        toy.load_gate.set()
        wait_until(lambda: client.get("/ready").status_code == 200)
        assert client.get("/ready").json() == {"ready": True}


def test_a_base_that_cannot_be_loaded_is_a_reason(toy):
    toy.open_error = UnsupportedTaskError("the base is another one")
    with TestClient(create_app(Settings(), toy)) as client:
        wait_until(lambda: "another one" in client.get("/ready").text)
        assert_error(client.get("/ready"), 503, "server.not_ready")


def test_a_base_whose_files_make_no_model_keeps_its_own_error(toy):
    toy.prepare_errors[None] = ModelLoadError("its files make no tokenizer")
    with TestClient(create_app(Settings(), toy)) as client:
        wait_until(lambda: "no tokenizer" in client.get("/ready").text)
        assert isinstance(client.app.state.service.failure, ModelLoadError)


def test_a_base_that_is_no_model_of_its_own_still_carries_tasks(toy):
    toy.prepare_errors[None] = UnsupportedTaskError("BertForMaskedLM cannot be run here")
    with serving(toy) as client:
        assert client.post("/classify", json={"model": "role", "input": "a"}).status_code == 200
        response = client.post("/v1/embeddings", json={"input": "a"})
        assert_error(response, 409, "task.unsupported")


def test_quarantined_and_unsupported_tasks(toy):
    toy.prepare_errors["role"] = ChecksumMismatchError("damaged")
    toy.prepare_errors["plain"] = UnsupportedTaskError("unties a tied base")
    with serving(toy) as client:
        response = client.post("/classify", json={"model": "role", "input": "a"})
        assert_error(response, 500, "server.task_quarantined", param="model")
        response = client.post("/v1/embeddings", json={"model": "plain", "input": "a"})
        assert_error(response, 409, "task.unsupported")
        body = {"model": "section", "input": "a"}
        assert client.post("/classify", json=body).status_code == 200


def test_unexpected_errors_are_answered_and_not_told(toy, monkeypatch):
    def explode(*_args, **_more):
        raise ZeroDivisionError("a secret of the inside")

    with serving(toy) as client:
        monkeypatch.setattr("server.routes.models._cards", explode)
        response = client.get("/v1/models")
        message = assert_error(response, 500, "internal_error")
        assert "secret" not in message
        assert response.headers["x-request-id"]


def test_dimensions_are_only_the_models_own(toy):
    with serving(toy) as client:
        body = {"model": "plain", "input": "a", "dimensions": 4}
        assert client.post("/v1/embeddings", json=body).status_code == 200
        response = client.post("/v1/embeddings", json={**body, "dimensions": 2})
        assert_error(response, 400, "server.bad_request", param="dimensions")


def test_a_task_with_an_awkward_name_is_reachable(toy):
    toy.put(ToyTask("org/task é", "x@1", 4.0, ("x", "y")))
    with serving(toy, admin_key="k") as client:
        assert client.get("/v1/models/org/task é").json()["id"] == "org/task é"
        body = {"model": "org/task é", "input": "a"}
        assert client.post("/classify", json=body).status_code == 200
        headers = {"authorization": "Bearer k"}
        response = client.post("/admin/tasks/org/task é/pin", headers=headers)
        assert response.json()["pinned"] is True
