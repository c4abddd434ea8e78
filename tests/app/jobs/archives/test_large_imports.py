"""An archive with more than a job can have is refused, and a long import can be cancelled at any time."""

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, select

from app.core import db, disk, storage
from app.core.models import BackgroundTask, MetricPoint, Sample
from app.jobs.archives import imports, reading
from app.jobs.attempts import metrics
from tests import statements
from tests.app.jobs.archives.test_export import contents
from tests.app.jobs.archives.test_import import imported, repacked
from worker.background import lease

SAMPLE = {"step": 1, "prompt": "", "text": ""}
HEADER = b"step,time,loss\n"
STEPS = b"".join(b"%d,,1\n" % step for step in range(9_000))


def lines(*samples: dict[str, Any]) -> bytes:
    return "".join(f"{json.dumps(sample)}\n" for sample in samples).encode()


LARGE: dict[str, tuple[str, Callable[[], bytes], str, str]] = {
    "many samples": (
        "samples.jsonl",
        lambda: lines(SAMPLE) * (reading.MAX_SAMPLES + 1),
        "run_samples_large",
        "more than 100000 samples",
    ),
    "large samples": (
        "samples.jsonl",
        lambda: lines({**SAMPLE, "text": "a" * 900_000}) * 5,
        "run_samples_large",
        "4194304 bytes",
    ),
    "long sample": (
        "samples.jsonl",
        lambda: lines(SAMPLE, {**SAMPLE, "text": "a" * (1 << 20)}),
        "run_file_invalid",
        "line 2: > 1048576 bytes",
    ),
    "deep sample": ("samples.jsonl", lambda: b"[" * 900_000, "run_file_invalid", "line 1"),
    "many values": ("metrics.csv", lambda: HEADER + STEPS, "run_curves_large", "more than 5000 values"),
    "late step": ("metrics.csv", lambda: HEADER + b"10000001,,1\n", "run_file_invalid", "line 2"),
}


@pytest.mark.parametrize(("file", "content", "code", "words"), LARGE.values(), ids=LARGE)
def test_more_than_a_job_can_have_is_refused_with_a_reason(
    alice_api: TestClient,
    archive: bytes,
    in_process: None,
    monkeypatch: pytest.MonkeyPatch,
    file: str,
    content: Callable[[], bytes],
    code: str,
    words: str,
) -> None:
    monkeypatch.setattr(reading, "MAX_VALUES", 5_000)
    monkeypatch.setattr(reading, "MAX_SAMPLES_BYTES", 4 << 20)
    task = imported(alice_api, repacked({**contents(archive), file: content()}))
    assert (task["state"], task["failure"]["code"]) == ("failed", code), task["failure"]
    assert words in task["failure"]["message"]
    assert alice_api.get(f"/api/v1/jobs/{task['id']}").status_code == 404


def test_many_samples_are_stored_in_batches(alice_api: TestClient, archive: bytes, in_process: None) -> None:
    many = [{**SAMPLE, "step": step, "prompt": "a" * 90} for step in range(3_000)]
    with statements.record() as sent:
        task = imported(alice_api, repacked({**contents(archive), "samples.jsonl": lines(*many)}))
    assert task["state"] == "succeeded", task
    with db.transaction() as session:
        assert session.scalar(select(func.count()).where(Sample.job_id == task["id"])) == 3_000
    assert sum("INSERT INTO sample" in statement for statement, _parameters in sent) < 10


def lease_end(task_id: str) -> datetime:
    with db.transaction() as session:
        ends = session.get_one(BackgroundTask, task_id).lease_until
        assert ends is not None
        return ends


def open_task() -> str:
    with db.transaction() as session:
        return session.scalars(select(BackgroundTask.id).where(BackgroundTask.state == "running")).one()


def test_the_lease_is_renewed_while_a_job_is_stored(
    alice_api: TestClient, archive: bytes, in_process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "KEEP_SECONDS", 0.0)
    monkeypatch.setattr(imports, "VALUES_PER_INSERT", 4_000)
    ends: list[datetime] = []
    append = metrics.append

    def look(*arguments: Any, **values: Any) -> None:
        ends.append(lease_end(open_task()))
        append(*arguments, **values)

    monkeypatch.setattr(metrics, "append", look)
    task = imported(alice_api, repacked({**contents(archive), "metrics.csv": HEADER + STEPS}))
    assert task["state"] == "succeeded", task
    assert len(ends) == 5
    assert ends == sorted(set(ends))
    with db.transaction() as session:
        assert session.scalar(select(func.count()).where(MetricPoint.job_id == task["id"])) == 9_000


def test_an_import_is_cancelled_while_its_job_is_stored(
    alice_api: TestClient, archive: bytes, in_process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "KEEP_SECONDS", 0.0)
    cancelled: list[str] = []
    append = metrics.append

    def cancel(*arguments: Any, **values: Any) -> None:
        append(*arguments, **values)
        if not cancelled:
            cancelled.append(open_task())
            answer = alice_api.post(f"/api/v1/tasks/{cancelled[0]}/cancel")
            assert answer.json()["state"] == "cancelled"

    monkeypatch.setattr(metrics, "append", cancel)
    task = imported(alice_api, repacked({**contents(archive), "metrics.csv": HEADER + STEPS[: STEPS.index(b"8000,")]}))
    assert (task["id"], task["state"]) == (cancelled[0], "cancelled")
    assert alice_api.get(f"/api/v1/jobs/{task['id']}").status_code == 404
    assert not storage.run(task["id"]).exists()


def test_an_import_ends_when_the_disk_becomes_full_while_its_job_is_stored(
    alice_api: TestClient, archive: bytes, in_process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "KEEP_SECONDS", 0.0)
    append = metrics.append

    def fill(*arguments: Any, **values: Any) -> None:
        append(*arguments, **values)
        monkeypatch.setattr(disk, "is_full", lambda: True)

    monkeypatch.setattr(metrics, "append", fill)
    task = imported(alice_api, repacked({**contents(archive), "metrics.csv": HEADER + STEPS[: STEPS.index(b"7000,")]}))
    assert (task["state"], task["failure"]["code"]) == ("failed", "disk_filled_up")
    assert alice_api.get(f"/api/v1/jobs/{task['id']}").status_code == 404
    assert not storage.run(task["id"]).exists()
