"""The page of health: what it says of each part, and what to do where one fails."""

import html
import shutil
from datetime import UTC, datetime, timedelta

import pytest
from starlette.testclient import TestClient

from app.core import db, disk
from app.core.installation_models import Heartbeat
from app.core.settings import settings
from app.overview import health
from tests.app.jobs import factories

DISK = shutil.disk_usage("/")._replace(free=2**50)


def beat(age_seconds: float) -> None:
    """The scheduler's last heartbeat was so long ago."""
    with db.transaction() as session:
        session.merge(Heartbeat(name="scheduler", at=datetime.now(UTC) - timedelta(seconds=age_seconds)))


def test_each_stopped_part_says_what_to_do(alice: TestClient) -> None:
    factories.forget_nodes()
    text = alice.get("/health").text
    assert "It has never reported." in text
    assert "No worker reports: no job can run." in text
    assert "Start athanor scheduler" in text
    assert "Not healthy: Scheduler, Nodes." in text


def test_all_running_parts_are_healthy(alice: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _path: DISK)
    factories.node()
    beat(1)
    assert "All parts are healthy." in alice.get("/health").text
    beat(3600)
    text = alice.get("/health").text
    assert "It stopped reporting: no job is started or recovered." in text
    assert "Not healthy: Scheduler." in text


def test_degraded_parts_are_reported_too(alice: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health.live, "is_reachable", lambda: False)
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _path: DISK._replace(free=1))
    text = alice.get("/health").text
    assert "Valkey does not respond" in text
    assert "Free some space: delete corpora" in text


def test_rest_says_what_the_page_says(alice: TestClient, alice_api: TestClient) -> None:
    factories.node()
    parts = alice_api.get("/api/v1/health", headers={"Accept-Language": "zh-CN"}).json()["parts"]
    assert [part["kind"] for part in parts] == ["database", "broker", "scheduler", "node", "disk", "cache"]
    text = html.unescape(alice.get("/health", headers={"Accept-Language": "zh-CN"}).text)
    assert [part["description"] for part in parts if part["description"] not in text] == []
    assert [part["remedy"] for part in parts if part["remedy"] and part["remedy"] not in text] == []


def test_every_setting_is_shown_with_its_value(alice: TestClient) -> None:
    text = alice.get("/health", headers={"Accept-Language": "zh-CN"}).text
    for name in health.DISPLAYED_SETTINGS:
        assert f"ATHANOR_{name.upper()}" in text
    assert f"{settings().lease_seconds:g} s" in text
    assert "失去响应的尝试可保留任务的时长" in text


def test_a_visitor_sees_no_health(visitor: TestClient) -> None:
    assert visitor.get("/health").headers["location"].startswith("/login")
