"""Probes: alive is not ready, and a broker that is away degrades without stopping."""

import pytest
from starlette.testclient import TestClient

from app.core import migrations
from app.core.settings import settings
from app.core.version import VERSION
from app.web import probes
from tests import servers
from tests.servers import Servers


def test_probes_and_version_need_no_login(visitor: TestClient) -> None:
    assert visitor.get("/livez").json() == {"status": "ok"}
    assert visitor.get("/version").json() == {"version": VERSION}
    answer = visitor.get("/readyz")
    assert (answer.status_code, answer.json()) == (
        200,
        {
            "database": "ok",
            "migrations": "ok",
            "broker": "ok",
            "disk": "ok",
        },
    )


def test_without_the_broker_it_stays_ready(visitor: TestClient, running_servers: Servers) -> None:
    running_servers.valkey.stop()
    try:
        answer = visitor.get("/readyz")
        assert (answer.status_code, answer.json()["broker"]) == (200, "degraded")
    finally:
        running_servers.valkey.start()
    assert visitor.get("/readyz").json()["broker"] == "ok"


def test_with_an_older_database_it_is_not_ready(visitor: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes.schema, "newest", lambda: "9999")
    answer = visitor.get("/readyz")
    assert (answer.status_code, answer.json()["migrations"]) == (503, "pending")


def test_without_the_database_it_is_live_but_not_ready_and_pages_say_so(visitor: TestClient, alice: TestClient) -> None:
    there = settings().database_url
    servers.point_to("postgresql://nobody@127.0.0.1:1/nothing")
    try:
        assert visitor.get("/livez").status_code == 200
        answer = visitor.get("/readyz")
        assert (answer.status_code, answer.json()["database"]) == (503, "away")
        api = alice.get("/api/v1/me")
        assert (api.status_code, api.json()["code"]) == (503, "database_away")
        assert api.headers["Retry-After"]
        page = alice.get("/jobs")
        assert page.status_code == 503
        assert "The database cannot be reached" in page.text
    finally:
        servers.point_to(there)
    assert migrations.present() == migrations.newest()
    assert alice.get("/api/v1/me").status_code == 200
