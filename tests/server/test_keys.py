from __future__ import annotations

import pytest

from tests.server.conftest import assert_error, serving

CLIENT_ROUTES = [
    ("POST", "/classify"),
    ("POST", "/v1/embeddings"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/role"),
    ("GET", "/metrics"),
    ("GET", "/version"),
]
ADMIN_ROUTES = [
    ("GET", "/admin/tasks"),
    ("POST", "/admin/tasks/role/pin"),
    ("POST", "/admin/tasks/role/unpin"),
    ("POST", "/admin/tasks/role/evict"),
    ("POST", "/admin/tasks/role/reload"),
    ("POST", "/admin/refresh"),
]


def bearer(key: str) -> dict[str, bytes]:
    return {"authorization": f"Bearer {key}".encode()}


def test_every_route_is_guarded_but_the_probes(toy):
    with serving(toy, api_key="client", admin_key="admin") as client:
        paths = client.get("/openapi.json").json()["paths"]
        known = {"/health", "/ready"} | {
            path.replace("role", "{model}") for _, path in CLIENT_ROUTES
        }
        known |= {path.replace("role", "{task}") for _, path in ADMIN_ROUTES}
        assert set(paths) == known  # a new route must be added to one of the lists above
        for method, path in CLIENT_ROUTES + ADMIN_ROUTES:
            for headers in ({}, bearer("wrong"), {"authorization": "Basic client"}, bearer("é")):
                response = client.request(method, path, json={}, headers=headers)
                assert_error(response, 401, "invalid_api_key")
                assert response.headers["www-authenticate"] == "Bearer"
        assert client.get("/health").status_code == client.get("/ready").status_code == 200


def test_keys_open_their_own_routes_only(toy):
    with serving(toy, api_key="client", admin_key="admin") as client:
        assert client.get("/v1/models", headers=bearer("client")).status_code == 200
        assert client.get("/admin/tasks", headers=bearer("admin")).status_code == 200
        assert client.get("/admin/tasks", headers=bearer("client")).status_code == 401
        assert client.get("/v1/models", headers=bearer("admin")).status_code == 401


@pytest.mark.parametrize(("method", "path"), ADMIN_ROUTES)
def test_admin_routes_are_off_without_a_key(toy, method, path):
    with serving(toy) as client:
        response = client.request(method, path, headers=bearer(""))
        assert "NPS_ADMIN_KEY" in assert_error(response, 403, "admin_forbidden")


def test_admin_verbs(toy):
    with serving(toy, admin_key="admin") as client:

        def post(path: str) -> dict:
            response = client.post(f"/admin/{path}", headers=bearer("admin"))
            assert response.status_code == 200, response.text
            return response.json()

        pinned = post("tasks/role/pin")
        assert (pinned["state"], pinned["pinned"], pinned["form"]) == ("ready", True, "patch")
        refused = client.post("/admin/tasks/role/evict", headers=bearer("admin"))
        assert_error(refused, 409, "server.residency_conflict", param="model")
        assert post("tasks/role/unpin")["pinned"] is False
        assert post("tasks/role/evict")["state"] == "absent"
        assert post("tasks/role/reload")["state"] == "ready"
        listing = client.get("/admin/tasks", headers=bearer("admin")).json()
        assert [row["task"] for row in listing["data"]] == ["toy-base", "plain", "role", "section"]
        assert listing["memory_used"] == 100
        unknown = client.post("/admin/tasks/nope/pin", headers=bearer("admin"))
        assert_error(unknown, 404, "model_not_found", param="model")


def test_an_operator_need_not_wait_for_the_poll(toy):
    with serving(toy, admin_key="admin", refresh_s=1000) as client:
        toy.remove("role")
        body = {"model": "role", "input": "a"}
        assert client.post("/admin/refresh", headers=bearer("admin")).json() == {
            "changed": True,
            "generation": 2,
        }
        assert client.post("/classify", json=body).status_code == 404
