"""The ballast, what counts as a full disk, and what is refused while it is."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from app.core import db, disk, storage
from app.core.settings import settings
from app.jobs.scheduling import dispatch
from tests.app.jobs import factories
from tests.users import Person

MIB = 2**20
RESERVE = 64 * MIB
BALLAST = RESERVE // disk.BALLAST_PART

Leave = Callable[[int], None]


@pytest.fixture
def leave(database: str, monkeypatch: pytest.MonkeyPatch) -> Leave:
    """Let the disk have so many bytes free besides the ballast, whose blocks are really allocated."""
    monkeypatch.setenv("ATHANOR_DISK_RESERVE_BYTES", str(RESERVE))
    settings.cache_clear()
    real = shutil.disk_usage

    def change(free: int) -> None:
        def usage(path: Path) -> object:
            ballast = storage.ballast()
            taken = ballast.stat().st_blocks * 512 if ballast.exists() else 0
            return real(path)._replace(free=free - taken)

        monkeypatch.setattr(disk.shutil, "disk_usage", usage)

    yield change
    storage.ballast().unlink(missing_ok=True)
    monkeypatch.undo()
    settings.cache_clear()


def test_the_ballast_is_allocated_where_there_is_room_and_counts_as_reserve(leave: Leave) -> None:
    leave(RESERVE)
    disk.keep_ballast()
    assert not storage.ballast().exists()
    leave(RESERVE + MIB)
    assert disk.room() == MIB
    disk.keep_ballast()
    assert storage.ballast().stat().st_blocks * 512 >= BALLAST
    assert storage.ballast().stat().st_size == BALLAST
    assert disk.room() == MIB


def test_the_ballast_is_given_up_in_an_emergency_and_allocated_again_later(leave: Leave) -> None:
    leave(2 * RESERVE)
    disk.keep_ballast()
    leave(BALLAST + RESERVE // disk.EMERGENCY_PART)
    disk.keep_ballast()
    assert (storage.ballast().exists(), disk.is_full()) == (True, True)
    leave(BALLAST + RESERVE // disk.EMERGENCY_PART - 4096)
    disk.keep_ballast()
    assert (storage.ballast().exists(), disk.is_full()) == (False, True)
    assert disk.free_bytes() == BALLAST + RESERVE // disk.EMERGENCY_PART - 4096
    leave(RESERVE)
    disk.keep_ballast()
    assert (storage.ballast().exists(), disk.is_full()) == (False, True)
    leave(RESERVE + MIB)
    disk.keep_ballast()
    assert (storage.ballast().exists(), disk.is_full()) == (True, False)


def test_a_ballast_that_a_killed_process_left_half_is_completed(leave: Leave) -> None:
    leave(2 * RESERVE)
    storage.ballast().write_bytes(b"half")
    disk.keep_ballast()
    assert storage.ballast().stat().st_size == BALLAST


def test_a_disk_that_cannot_hold_the_ballast_keeps_no_part_of_it(
    leave: Leave, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_space(_descriptor: int, _offset: int, _length: int) -> None:
        raise OSError(28, "No space left on device")

    leave(2 * RESERVE)
    monkeypatch.setattr(disk.os, "posix_fallocate", no_space)
    disk.keep_ballast()
    assert not storage.ballast().exists()
    assert "No space left on device" in caplog.text


def test_without_a_reserve_there_is_no_ballast(leave: Leave, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATHANOR_DISK_RESERVE_BYTES", "0")
    settings.cache_clear()
    leave(1)
    disk.keep_ballast()
    assert (storage.ballast().exists(), disk.room()) == (False, 1)


def test_a_full_disk_refuses_what_would_write_and_says_what_to_do(
    leave: Leave, alice_api: TestClient, alice_user: Person
) -> None:
    leave(2 * RESERVE + 2**40)
    factories.node()
    corpus, unused = factories.corpus(alice_user), factories.corpus(alice_user)
    queued = alice_api.post("/api/v1/jobs", json={"corpora": [corpus]}).json()["id"]
    paused = alice_api.post("/api/v1/jobs", json={"corpora": [corpus]}).json()["id"]
    alice_api.post(f"/api/v1/jobs/{paused}/pause")
    model = alice_api.post("/api/v1/models", json={"name": "later"}).json()["id"]
    alice_api.put(f"/api/v1/models/{model}/files/config.json", content=b"{}")

    leave(RESERVE)
    requests = (
        ("POST", "/api/v1/corpora?filename=a.txt", None),
        ("PUT", f"/api/v1/models/{model}/files/tokenizer.json", None),
        ("POST", f"/api/v1/models/{model}/import", None),
        ("POST", f"/api/v1/corpora/{unused}/parse", {"encoding": "utf-8"}),
        ("POST", "/api/v1/jobs", {"corpora": [corpus]}),
        ("POST", f"/api/v1/jobs/{paused}/resume", None),
        ("POST", "/corpora", None),
    )
    for method, path, body in requests:
        answer = alice_api.request(method, path, json=body, **({} if body else {"content": b"a"}))
        assert answer.status_code == 507, (path, answer.text)
        assert "free" in answer.text
    with db.transaction() as session:
        dispatch.place(session)
    job = alice_api.get(f"/api/v1/jobs/{queued}").json()
    assert (job["state"], json.loads(factories.row(queued).wait_reason)[0]) == ("queued", "disk_full")
    readiness = alice_api.get("/readyz")
    assert (readiness.status_code, readiness.json()["disk"]) == (200, "full")
    page = alice_api.get("/health").text
    assert "Uploads, imports, exports and new jobs are refused." in page
    assert "64.0 MiB must be free." in page

    leave(RESERVE + 2**40)
    with db.transaction() as session:
        dispatch.place(session)
    assert factories.row(queued).node is not None
    assert alice_api.get("/readyz").json()["disk"] == "ok"
    assert alice_api.post(f"/api/v1/jobs/{paused}/resume").status_code == 202
