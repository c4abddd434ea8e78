"""Which checkpoints stay, and which without a row come back: against a real database and real directories."""

import json
import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, text, update
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from app.checkpoints import service as checkpoints
from app.checkpoints import signature
from app.core import db, storage
from app.core.errors import PanelError
from app.core.model_base import new_id
from app.core.models import Checkpoint, Job
from app.jobs import service
from app.jobs.attempts import attempts
from app.jobs.lifecycle import retention
from app.jobs.scheduling import dispatch
from tests.app.jobs import factories, saved_checkpoints
from tests.users import Person
from tests.waiting import until

KNOWN_STEP = 100


@pytest.fixture(scope="module")
def corpus(alice_user: Person) -> str:
    factories.node(slots=50)
    return factories.corpus(alice_user)


@pytest.fixture
def start(alice_user: Person, corpus: str) -> Callable[..., tuple[str, int]]:
    """A job of Alice's that saves every ten steps and keeps few."""

    def begin(**given: Any) -> tuple[str, int]:
        given = {"save_steps": 10, "save_total_limit": 2, "keep_every": 1_000, **given}
        return factories.started(alice_user, corpus, **given)

    return begin


def live(job_id: str) -> list[int]:
    """The steps whose checkpoints are there for everybody, oldest first."""
    return [row.step for row in rows(job_id) if row.state in checkpoints.LIVE]


def rows(job_id: str) -> list[Checkpoint]:
    with db.transaction() as session:
        query = select(Checkpoint).where(Checkpoint.job_id == job_id).order_by(Checkpoint.step, Checkpoint.fence)
        return list(session.scalars(query))


def change(row: Checkpoint, **values: Any) -> None:
    with db.transaction() as session:
        session.execute(update(Checkpoint).where(Checkpoint.id == row.id).values(**values))


def test_the_newest_and_the_best_checkpoint_are_kept(start: Callable[..., tuple[str, int]]) -> None:
    job_id, fence = start()
    for step, loss in ((10, 3.0), (20, 1.0), (30, 2.0), (40, 2.0), (50, 2.0)):
        saved_checkpoints.recorded(job_id, step, fence, loss=loss)
    assert live(job_id) == [20, 40, 50]
    assert {row.state for row in rows(job_id)} == {"ready", "deleting"}


def test_every_nth_checkpoint_is_kept(start: Callable[..., tuple[str, int]]) -> None:
    job_id, fence = start(keep_every=3)
    for step in range(10, 100, 10):
        saved_checkpoints.recorded(job_id, step, fence, loss=100.0 - step)
    assert live(job_id) == [30, 60, 80, 90]


def test_without_a_limit_all_are_kept_including_those_of_old_specs(start: Callable[..., tuple[str, int]]) -> None:
    job_id, fence = start(save_total_limit=None)
    with db.transaction() as session:
        for name in ("save_total_limit", "keep_every", "priority"):
            without = text("UPDATE job SET spec = spec - :name WHERE id = :id")
            session.execute(without, {"name": name, "id": job_id})
    for step in range(10, 70, 10):
        saved_checkpoints.recorded(job_id, step, fence)
    assert live(job_id) == [10, 20, 30, 40, 50, 60]


def test_a_pinned_checkpoint_is_kept_until_the_save_after_unpinning(
    start: Callable[..., tuple[str, int]], alice_api: TestClient
) -> None:
    job_id, fence = start()
    first = saved_checkpoints.recorded(job_id, 10, fence, loss=9.0)
    answer = alice_api.post(f"/api/v1/checkpoints/{first.id}/pin").json()
    assert (answer["pinned"], answer["kept"]) == (True, ["newest", "best", "pinned"])
    for step in (20, 30, 40):
        saved_checkpoints.recorded(job_id, step, fence)
    assert 10 in live(job_id)
    answer = alice_api.post(f"/api/v1/checkpoints/{first.id}/unpin").json()
    assert (answer["pinned"], answer["kept"]) == (False, [])
    assert 10 in live(job_id)
    saved_checkpoints.recorded(job_id, 50, fence)
    assert 10 not in live(job_id)


def test_the_origin_of_an_open_job_is_kept_until_the_job_ends(
    start: Callable[..., tuple[str, int]], alice_user: Person, corpus: str
) -> None:
    job_id, fence = start(max_steps=400)
    origin = saved_checkpoints.recorded(job_id, 10, fence, loss=9.0)
    child = factories.submitted(alice_user, corpus)
    with db.transaction() as session:
        session.execute(update(Job).where(Job.id == child).values(resume_from_id=origin.id))
    for step in (20, 30, 40):
        saved_checkpoints.recorded(job_id, step, fence)
    assert 10 in live(job_id)
    with db.transaction() as session:
        session.execute(update(Job).where(Job.id == child).values(state="cancelled"))
    saved_checkpoints.recorded(job_id, 50, fence)
    assert 10 not in live(job_id)


def test_damaged_checkpoints_do_not_count_towards_the_limit(start: Callable[..., tuple[str, int]]) -> None:
    job_id, fence = start()
    saved_checkpoints.recorded(job_id, 10, fence)
    for step in (20, 30, 40):
        change(saved_checkpoints.recorded(job_id, step, fence, loss=0.5), state="corrupt")
    assert [(row.step, row.state) for row in rows(job_id)] == [
        (10, "ready"),
        (20, "corrupt"),
        (30, "corrupt"),
        (40, "corrupt"),
    ]
    saved_checkpoints.recorded(job_id, 50, fence)
    assert live(job_id) == [10, 20, 30, 40, 50]


def test_a_released_checkpoint_gives_410(
    start: Callable[..., tuple[str, int]], alice: TestClient, alice_api: TestClient
) -> None:
    job_id, fence = start()
    first = saved_checkpoints.recorded(job_id, 10, fence, loss=9.0)
    for step in (20, 30, 40):
        saved_checkpoints.recorded(job_id, step, fence)
    for state in ("deleting", "deleted"):
        change(first, state=state)
        for route in ("", "/download"):
            answer = alice_api.get(f"/api/v1/checkpoints/{first.id}{route}")
            assert (answer.status_code, answer.json()["code"]) == (410, "checkpoint_deleted")
        assert alice_api.post(f"/api/v1/checkpoints/{first.id}/pin").status_code == 410
        body = {"checkpoint": first.id, "prompt": "a"}
        assert alice_api.post("/api/v1/generate", json=body).status_code == 410
        again = {"resume_from_checkpoint": first.id, "max_steps": 500}
        assert alice_api.post("/api/v1/jobs", json=again).json()["code"] == "checkpoint_missing"
        assert alice.get(f"/checkpoints/{first.id}").status_code == 410
        assert first.id not in alice.get("/checkpoints").text
        assert first.id not in alice.get(f"/jobs/{job_id}").text
        assert first.id not in alice.get("/playground").text
    listed = [row["id"] for row in alice_api.get(f"/api/v1/checkpoints?job={job_id}").json()["data"]]
    assert first.id not in listed
    assert len(listed) == 2


def test_a_job_resumed_from_a_released_checkpoint_keeps_its_page_and_form(
    start: Callable[..., tuple[str, int]], alice: TestClient, alice_api: TestClient
) -> None:
    job_id, fence = start(name="Parent", max_steps=400)
    origin = saved_checkpoints.recorded(job_id, 10, fence, loss=9.0)
    given = {"resume_from_checkpoint": origin.id, "max_steps": 500, "learning_rate": 0.005}
    child = alice_api.post("/api/v1/jobs", json=given).json()["id"]
    assert f'href="/checkpoints/{origin.id}"' in alice.get(f"/jobs/new?like={child}").text
    assert alice_api.post(f"/api/v1/jobs/{child}/cancel").status_code == 202
    for step in (20, 30, 40):
        saved_checkpoints.recorded(job_id, step, fence)
    assert 10 not in live(job_id)
    page = alice.get(f"/jobs/{child}")
    assert page.status_code == 200
    assert f'href="/jobs/{job_id}"' in page.text
    gone = "The files of this checkpoint are missing or damaged. Choose another one."
    for address in (f"/jobs/new?like={child}", f"/jobs/new?from={origin.id}"):
        form = alice.get(address)
        assert (form.status_code, gone in form.text) == (200, True), address
        assert f'href="/checkpoints/{origin.id}"' not in form.text
    sent = alice.post("/jobs", data={"resume_from_checkpoint": origin.id, "max_steps": "500", "name": "kept name"})
    assert (sent.status_code, gone in sent.text, 'value="kept name"' in sent.text) == (422, True, True)


def test_a_form_with_an_unknown_checkpoint_keeps_its_input(alice: TestClient) -> None:
    sent = alice.post("/jobs", data={"resume_from_checkpoint": "nowhere", "name": "kept name"})
    assert (sent.status_code, 'value="kept name"' in sent.text) == (422, True)
    assert "There is no checkpoint nowhere." in sent.text


def test_only_the_owner_can_pin_and_returns_to_the_page(
    start: Callable[..., tuple[str, int]], alice: TestClient, bob: TestClient
) -> None:
    row = saved_checkpoints.recorded(*(start()[0], 10, 1))
    assert bob.post(f"/checkpoints/{row.id}/pin").status_code == 404
    answer = alice.post(f"/checkpoints/{row.id}/pin", headers={"Origin": "http://localhost"})
    assert (answer.status_code, answer.headers["location"]) == (303, f"/checkpoints/{row.id}")
    page = alice.get(f"/checkpoints/{row.id}").text
    assert "recent, best, pinned" in page
    assert f'action="/checkpoints/{row.id}/unpin"' in page
    assert '<span class="badge">pinned</span>' in alice.get("/checkpoints").text
    answer = alice.post(f"/checkpoints/{row.id}/unpin?back_to=job", headers={"Origin": "http://localhost"})
    assert answer.headers["location"] == f"/jobs/{row.job_id}#checkpoint-{row.id}"
    assert f'action="/checkpoints/{row.id}/pin?back_to=job"' in alice.get(f"/jobs/{row.job_id}").text


# ---- without a row --------------------------------------------------------------------------------------------------


def lose(job_id: str, fence: int) -> None:
    with db.transaction() as session:
        session.get_one(Job, job_id).step = KNOWN_STEP  # its points are recorded up to here
    with db.transaction() as session:
        attempts.release(session, job_id=job_id, fence=fence, reason="shutdown")


def settle() -> None:
    with db.transaction() as session:
        dispatch.requeue_or_fail(session)


def test_an_unrecorded_checkpoint_gets_its_row_before_the_next_attempt(
    start: Callable[..., tuple[str, int]],
) -> None:
    job_id, fence = start()
    saved_checkpoints.recorded(job_id, 10, fence)
    saved_checkpoints.on_disk(job_id, 20, fence, loss=1.25)
    lose(job_id, fence)
    with db.transaction() as session:
        session.get_one(Job, job_id).no_progress = 2
    settle()
    assert [row.step for row in rows(job_id)] == [10, 20]
    newest = rows(job_id)[-1]
    assert (newest.metrics["eval_loss"], newest.num_bytes > 0, newest.state) == (1.25, True, "ready")
    job = factories.row(job_id)
    assert (job.state, job.no_progress) == ("queued", 0)
    with db.transaction() as session:
        assert not retention.record_unrecorded(session, session.get_one(Job, job_id))


@pytest.mark.parametrize("state", ["recovering", "paused"])
def test_an_unrecorded_checkpoint_gets_its_row_when_its_job_is_cancelled(
    start: Callable[..., tuple[str, int]], alice_user: Person, state: str
) -> None:
    job_id, fence = start()
    saved_checkpoints.recorded(job_id, 10, fence)
    lose(job_id, fence)
    if state == "paused":
        with db.transaction() as session:
            service.pause(session, principal=alice_user.principal, job_id=job_id)
        settle()
    assert factories.row(job_id).state == state
    saved_checkpoints.on_disk(job_id, 20, fence)
    with db.transaction() as session:
        service.cancel(session, principal=alice_user.principal, job_id=job_id)
    assert (factories.row(job_id).state, live(job_id)) == ("cancelled", [10, 20])


def test_a_checkpoint_after_the_last_recorded_point_gets_no_row(start: Callable[..., tuple[str, int]]) -> None:
    job_id, fence = start()
    saved_checkpoints.on_disk(job_id, 20, fence)
    saved_checkpoints.on_disk(job_id, KNOWN_STEP + 10, fence)
    lose(job_id, fence)
    settle()
    assert live(job_id) == [20]


def test_a_late_row_releases_other_checkpoints_as_a_save_does(start: Callable[..., tuple[str, int]]) -> None:
    job_id, fence = start()
    for step in (10, 20):
        saved_checkpoints.recorded(job_id, step, fence, loss=9.0 - step / 10)
    saved_checkpoints.on_disk(job_id, 30, fence, loss=1.0)
    lose(job_id, fence)
    settle()
    assert live(job_id) == [20, 30]


@pytest.mark.parametrize("wrong", ["fence", "job", "name", "unsigned", "manifest"])
def test_a_checkpoint_of_an_earlier_attempt_gets_no_row(start: Callable[..., tuple[str, int]], wrong: str) -> None:
    job_id, fence = start()
    if wrong == "fence":
        saved_checkpoints.on_disk(job_id, 20, fence + 1)
    if wrong == "job":
        directory = saved_checkpoints.on_disk(job_id, 20, fence)
        other = start()[0]
        target = storage.run(other) / "checkpoints" / directory.name
        target.parent.mkdir(parents=True)
        directory.rename(target)
        job_id = other
    if wrong == "name":
        directory = saved_checkpoints.on_disk(job_id, 20, fence)
        directory.rename(directory.with_name(f"step-30-{fence}"))
    if wrong == "unsigned":
        saved_checkpoints.unsigned(storage.run(job_id) / "checkpoints" / f"step-20-{fence}", 20)
    if wrong == "manifest":
        (saved_checkpoints.on_disk(job_id, 20, fence) / "MANIFEST.json").write_text("{}")
    with db.transaction() as session:
        assert not retention.record_unrecorded(session, session.get_one(Job, job_id))
    assert rows(job_id) == []


# ---- damaged files (F50) --------------------------------------------------------------------------------------------


def flip(directory: Path) -> str:
    whole = bytearray((directory / "model.safetensors").read_bytes())
    whole[20] ^= 1
    (directory / "model.safetensors").write_bytes(whole)
    return "model.safetensors differs from MANIFEST.json"


def truncate(directory: Path) -> str:
    os.truncate(directory / "resume" / "optimizer-0.safetensors", 3)
    return "resume/optimizer-0.safetensors differs from MANIFEST.json"


def lack(directory: Path) -> str:
    (directory / "trainer_state.json").unlink()
    return "trainer_state.json differs from MANIFEST.json"


def empty(directory: Path) -> str:
    (directory / "MANIFEST.json").write_bytes(b"")
    return "SIGNATURE does not fit MANIFEST.json"


def forge(directory: Path) -> str:
    fields = json.loads((directory / "SIGNATURE").read_text())
    (directory / "SIGNATURE").write_text(json.dumps({**fields, "hmac_sha256": "0" * 64}))
    return "SIGNATURE does not fit MANIFEST.json"


@pytest.mark.parametrize("damage", [flip, truncate, lack, empty, forge])
def test_a_damaged_newest_checkpoint_is_marked_and_nothing_is_deleted(
    start: Callable[..., tuple[str, int]], damage: Callable[[Path], str]
) -> None:
    job_id, fence = start()
    good, bad = saved_checkpoints.recorded(job_id, 10, fence, loss=9.0), saved_checkpoints.recorded(job_id, 20, fence)
    why = damage(storage.checkpoint(bad.path))
    with pytest.raises(ValueError, match=re.escape(why)):
        signature.verify(storage.checkpoint(bad.path))
    signature.verify(storage.checkpoint(good.path))
    with db.transaction() as session:
        chosen = attempts.Saved(good.id, good.step, good.path)
        attempts.resume_at(session, job_id=job_id, fence=fence, step=10, saved=chosen, damaged=[(bad.id, why)])
    saved_checkpoints.recorded(job_id, 30, fence, loss=9.0)
    assert [(row.step, row.state) for row in rows(job_id)] == [(10, "ready"), (20, "corrupt"), (30, "ready")]
    assert ("starting", "checkpoint_corrupt") in factories.reasons(job_id)


def test_if_all_are_damaged_nothing_is_deleted(start: Callable[..., tuple[str, int]]) -> None:
    job_id, fence = start()
    made = [saved_checkpoints.recorded(job_id, step, fence) for step in (10, 20)]
    damaged = [(row.id, flip(storage.checkpoint(row.path))) for row in made]
    with db.transaction() as session:
        attempts.resume_at(session, job_id=job_id, fence=fence, step=0, saved=None, damaged=damaged)
        retention.choose(session, session.get_one(Job, job_id))
    assert [row.state for row in rows(job_id)] == ["corrupt", "corrupt"]
    assert all(storage.checkpoint(row.path).is_dir() for row in made)


# ---- at the same moment ---------------------------------------------------------------------------------------------


def somebody_waits_for_a_lock() -> bool:
    with db.transaction() as session:
        return bool(session.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted")))


def test_a_job_submitted_during_the_release_of_its_origin_keeps_it(
    start: Callable[..., tuple[str, int]], alice_user: Person
) -> None:
    job_id, fence = start()
    origin = saved_checkpoints.recorded(job_id, 10, fence, loss=9.0)
    saved_checkpoints.recorded(job_id, 20, fence, loss=1.0)
    with ThreadPoolExecutor(1) as other:
        with db.transaction() as session:
            given = {"resume_from_checkpoint": origin.id, "max_steps": 500}
            child, _new = service.submit(session, principal=alice_user.principal, request=given)
            save = other.submit(saved_checkpoints.recorded, job_id, 30, fence)
            until(somebody_waits_for_a_lock, 10, "the save to wait for the submit")
        save.result()
    assert live(job_id) == [10, 20, 30]
    assert factories.row(child.id).resume_from_id == origin.id


def test_a_job_submitted_after_the_release_of_its_origin_is_rejected(
    start: Callable[..., tuple[str, int]], alice_user: Person
) -> None:
    job_id, fence = start()
    origin = saved_checkpoints.recorded(job_id, 10, fence, loss=9.0)
    saved_checkpoints.recorded(job_id, 20, fence, loss=1.0)

    def submit() -> str:
        with db.transaction() as session:
            given = {"resume_from_checkpoint": origin.id, "max_steps": 500}
            with pytest.raises(PanelError) as refused:
                service.submit(session, principal=alice_user.principal, request=given)
            return refused.value.code

    with ThreadPoolExecutor(1) as other:
        with db.transaction() as session:
            job = session.scalar(select(Job).where(Job.id == job_id).with_for_update())
            assert job is not None
            session.execute(insert(Checkpoint).values(**row_like(session, origin.id, step=30)))
            retention.choose(session, job)
            refused = other.submit(submit)
            until(somebody_waits_for_a_lock, 10, "the submit to wait for the save")
        assert refused.result() == "checkpoint_missing"
    assert live(job_id) == [20, 30]


def row_like(session: Session, checkpoint_id: str, *, step: int) -> dict[str, Any]:
    row = session.get_one(Checkpoint, checkpoint_id)
    names = ("owner_id", "job_id", "fence", "num_bytes", "manifest", "metrics")
    return {"id": new_id(), "step": step, "path": "elsewhere", **{name: getattr(row, name) for name in names}}


def test_a_checkpoint_pinned_during_its_release_is_kept(
    start: Callable[..., tuple[str, int]], alice_user: Person
) -> None:
    job_id, fence = start()
    first = saved_checkpoints.recorded(job_id, 10, fence, loss=9.0)
    saved_checkpoints.recorded(job_id, 20, fence, loss=1.0)
    with ThreadPoolExecutor(1) as other:
        with db.transaction() as session:
            checkpoints.pin(session, principal=alice_user.principal, checkpoint_id=first.id, pinned=True)
            save = other.submit(saved_checkpoints.recorded, job_id, 30, fence)
            until(somebody_waits_for_a_lock, 10, "the save to wait for the pin")
        save.result()
    assert live(job_id) == [10, 20, 30]
