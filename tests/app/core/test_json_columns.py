"""JSON columns hold validated values; rows of other versions load."""

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError
from sqlalchemy import text, update
from sqlalchemy.exc import StatementError
from sqlalchemy.orm import Session

from app.core import db
from app.core.json_shapes import Adjustments, JobProgress, Notice, PhaseTotals, Replay
from app.core.models import Job
from tests.app.jobs import factories
from tests.users import Person


@pytest.fixture
def job_id(alice_user: Person) -> str:
    return factories.submitted(alice_user, factories.corpus(alice_user))


@pytest.fixture
def session(database: str) -> Iterator[Session]:
    with db.transaction() as session:
        yield session


def stored(session: Session, job_id: str, column: str) -> Any:
    session.flush()
    return session.execute(text(f"SELECT {column} FROM job WHERE id = :id"), {"id": job_id}).scalar_one()


def store(session: Session, job_id: str, change: str) -> None:
    session.execute(text(f"UPDATE job SET {change} WHERE id = :id"), {"id": job_id})


def test_a_value_is_stored_with_the_fields_that_were_set(session: Session, job_id: str) -> None:
    job = session.get_one(Job, job_id)
    job.progress = JobProgress(phase="train", phases={"train": PhaseTotals(done=2, total=9)}, recent=[(2, 7.5)])
    expected = {"phase": "train", "phases": {"train": {"done": 2, "total": 9}}, "recent": [[2, 7.5]]}
    assert stored(session, job_id, "progress") == expected
    session.refresh(job)
    assert job.progress.recent == [(2, 7.5)]
    assert job.progress.done == 0


def test_a_spec_is_stored_with_all_its_fields(session: Session, job_id: str) -> None:
    spec = session.get_one(Job, job_id).spec
    assert stored(session, job_id, "spec") == spec.model_dump(mode="json")


def test_none_is_stored_as_an_empty_object(session: Session, job_id: str) -> None:
    job = session.get_one(Job, job_id)
    assert job.notice is None
    job.notice = Notice(code="save_failed", values={"step": 3}, count=2)
    assert stored(session, job_id, "notice") == {"code": "save_failed", "values": {"step": 3}, "count": 2}
    job.notice = None
    assert stored(session, job_id, "notice") == {}


def test_a_spec_of_another_version_loads(session: Session, job_id: str) -> None:
    store(session, job_id, "spec = spec - 'keep_every' - 'priority' || '{\"field_of_tomorrow\": 7}'")
    spec = session.get_one(Job, job_id).spec
    assert (spec.keep_every, spec.priority) == (10, "normal")


def test_unknown_keys_of_other_values_are_ignored(session: Session, job_id: str) -> None:
    store(session, job_id, """progress = '{"phase": "load", "new": 1}', adjustments = '{"later": [2]}'""")
    job = session.get_one(Job, job_id)
    assert (job.progress, job.adjustments) == (JobProgress(phase="load"), Adjustments())


def test_a_value_of_another_shape_is_rejected_on_write_and_read(session: Session, job_id: str) -> None:
    with pytest.raises(StatementError, match="valid integer"):
        session.execute(update(Job).values(progress={"done": "much"}))
    store(session, job_id, """adjustments = '{"skipped_steps": "all"}'""")
    with pytest.raises(ValidationError):
        session.get(Job, job_id)


def test_a_value_cannot_be_changed_in_place() -> None:
    with pytest.raises(ValidationError):
        Replay(until=3).steps = 2


def test_rows_can_be_filtered_by_the_content_of_a_column(session: Session, job_id: str) -> None:
    unadjusted = session.query(Job.id).where(Job.id == job_id, Job.adjustments == Adjustments())
    smaller = session.query(Job.id).where(Job.id == job_id, Job.adjustments == Adjustments(per_device_batch_size=2))
    of_recipe = session.query(Job.id).where(Job.id == job_id, Job.spec["recipe"].as_string() == "tiny")
    assert (unadjusted.count(), smaller.count(), of_recipe.count()) == (1, 0, 1)
