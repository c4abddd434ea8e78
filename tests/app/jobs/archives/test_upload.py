"""The upload of an archive of a run: what the disk, the quota and a batch of curves have no room for."""

from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update

from app.core import db, quotas, storage
from app.core.account_models import User
from app.core.errors import PanelError
from app.jobs.archives import imports
from tests.background import forget_waiting
from tests.users import Person

ARCHIVE = b"Hello" * 1000  # nothing here reads it


def test_an_archive_that_the_disk_or_the_quota_has_no_room_for_is_not_stored(
    bob_api: TestClient, bob_user: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    def store(*_arguments: object) -> None:
        raise AssertionError

    monkeypatch.setattr(imports.uploads, "StreamedUpload", store)
    answer = bob_api.post("/api/v1/jobs/import", content=ARCHIVE, headers={"Content-Length": str(1 << 60)})
    assert (answer.status_code, answer.json()["code"]) == (507, "disk_full")
    with db.transaction() as session:
        session.execute(update(User).where(User.id == bob_user.id).values(quota_bytes=1000))
    answer = bob_api.post("/api/v1/jobs/import", content=ARCHIVE)
    assert (answer.status_code, answer.json()["code"]) == (403, "quota_exceeded")
    with db.transaction() as session:
        session.execute(update(User).where(User.id == bob_user.id).values(quota_bytes=None))
    assert not list((storage.data() / "works").glob("*/*"))


@pytest.mark.parametrize(
    ("code", "room", "quota"), [("disk_full", 3 << 20, None), ("quota_exceeded", 1 << 40, 3 << 20)]
)
def test_an_archive_of_unknown_length_is_refused_while_it_arrives(
    bob_user: Person, monkeypatch: pytest.MonkeyPatch, code: str, room: int, quota: int | None
) -> None:
    forget_waiting()
    num_sent = 0

    async def stream() -> AsyncIterator[bytes]:
        nonlocal num_sent
        while num_sent < 10:
            num_sent += 1
            yield bytes(1 << 20)

    monkeypatch.setattr(imports, "CHECK_BYTES", 1 << 20)
    monkeypatch.setattr(imports.disk, "room", lambda: room)
    with db.transaction() as session:
        used = quotas.used_bytes(session, bob_user.id)
        limit = None if quota is None else used + quota
        session.execute(update(User).where(User.id == bob_user.id).values(quota_bytes=limit))
    try:
        with pytest.raises(PanelError) as error:
            anyio.run(imports.receive, bob_user.principal, "a.tar", None, stream())
    finally:
        with db.transaction() as session:
            session.execute(update(User).where(User.id == bob_user.id).values(quota_bytes=None))
    assert (error.value.code, num_sent) == (code, 5)  # the fourth is refused while the fifth arrives
    assert not list((storage.data() / "works").glob("*/*"))


def test_an_archive_counts_toward_the_quota_until_its_import_has_ended(bob_api: TestClient, bob_user: Person) -> None:
    def used() -> int:
        with db.transaction() as session:
            return quotas.used_bytes(session, bob_user.id)

    forget_waiting()
    before = used()
    task = bob_api.post("/api/v1/jobs/import", content=ARCHIVE).json()
    assert used() - before == len(ARCHIVE)
    bob_api.post(f"/api/v1/tasks/{task['id']}/cancel")
    assert used() == before
    imports.remove_directory(storage.background_task(task["id"]))


def test_curves_are_inserted_in_batches_of_bounded_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"loss/{number}" for number in range(50)]
    rows = [",".join(["step,time", *names]), *(f"{step}," + ",1.5" * 50 for step in range(100))]
    (tmp_path / "metrics.csv").write_text("\n".join(rows))
    sizes: list[int] = []

    def append(*_arguments: object, points: Any, **_more: object) -> None:
        sizes.append(sum(len(point.values) for point in points))

    monkeypatch.setattr(imports.metrics, "append", append)
    job, ids = SimpleNamespace(id="a", fence=1), SimpleNamespace(series=str)
    assert imports._append_curves(None, job, tmp_path, ids, lambda: None) == dict.fromkeys(names, 1.5)  # type: ignore[arg-type]
    assert (sum(sizes), max(sizes)) == (5000, 2000)


def test_an_empty_file_is_refused(alice_api: TestClient) -> None:
    answer = alice_api.post("/api/v1/jobs/import", content=b"")
    assert (answer.status_code, answer.json()["code"]) == (422, "file_empty")
