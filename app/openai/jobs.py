"""Fine-tuning jobs under /v1: the jobs of the pages and of /api/v1, and those whose files are still being read."""

import re
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from sqlalchemy import select, union
from sqlalchemy.orm import Session

from app.checkpoints import service as checkpoints
from app.core import db, idempotency
from app.core.errors import bad_field
from app.core.i18n import _
from app.core.models import Job
from app.core.openai_models import Submission
from app.core.principal import Principal
from app.jobs import submissions
from app.jobs.lifecycle.job_webhooks import JOB_PREFIX
from app.jobs.lifecycle.notifications import notify_job_changed, notify_scheduler
from app.openai import estimates, events, job_objects, job_requests, objects
from app.openai.job_requests import JobRequest
from app.openai.objects import After, RetryCount
from app.web.auth import Reader, Submitter
from app.web.json_body import StrictRoute

router = APIRouter(route_class=StrictRoute, prefix="/fine_tuning/jobs")

_METADATA = re.compile(r"metadata\[(.*)\]", re.DOTALL)
Limit = Annotated[int, Query(ge=1, le=100)]


@router.post("")
def create(
    principal: Submitter,
    body: JobRequest,
    retry_count: RetryCount = 0,
    idempotency_key: Annotated[str | None, Header(max_length=idempotency.MAX_KEY_LENGTH)] = None,
) -> dict[str, Any]:
    """Create a job, whose files are looked at in the background; with `dry_run` only plan it."""
    if body.is_dry_run:
        with db.transaction() as session:
            return estimates.dry_run(session, principal=principal, body=body)
    with db.transaction() as session, job_requests.wire_errors(body):
        submission = submissions.create(
            session,
            principal=principal,
            request=job_requests.spec_of(session, principal=principal, request=body),
            details=job_requests.details(body),
            idempotency_key=idempotency_key,
            is_repeated=retry_count > 0,
        )
        answer = _answer(session, principal, submission.id)
    notify_scheduler()
    return answer


def _answer(session: Session, principal: Principal, job_id: str) -> dict[str, Any]:
    submission, job = submissions.get(session, principal=principal, job_id=job_id)
    return job_objects.job_answer(session, submission, job)


@router.get("")
def list_jobs(request: Request, principal: Reader, after: After = None, limit: Limit = 20) -> dict[str, Any]:
    """List jobs, newest first. With metadata[key]=value only those with it, with metadata=null those without any."""
    wanted = {match[1]: value for name, value in request.query_params.items() if (match := _METADATA.fullmatch(name))}
    place = None if after is None else objects.row_id(JOB_PREFIX, after)
    with db.transaction() as session:
        query = _ids(principal, wanted, is_null=request.query_params.get("metadata") == "null")
        ids = query.subquery().c.id
        page = select(ids).where(ids < place) if place is not None else select(ids)
        rows = list(session.scalars(page.order_by(ids.desc()).limit(limit + 1)))
        data = [_answer(session, principal, job_id) for job_id in rows[:limit]]
    return objects.page(data, len(rows) > limit)


def _ids(principal: Principal, wanted: dict[str, str], is_null: bool) -> Any:
    """The IDs of the user's submissions and jobs, perhaps only of those with metadata, or without any."""
    if any("\0" in text for pair in wanted.items() for text in pair):
        raise bad_field("metadata", "character_invalid", _("The request contains a character that cannot be stored."))
    own = select(Submission.id.label("id")).where(
        Submission.owner_id == principal.user_id, submissions.HAS_NO_DELETED_JOB
    )
    jobs = select(Job.id.label("id")).where(Job.owner_id == principal.user_id, Job.deleted_at.is_(None))
    metadata = Submission.details["metadata"]
    if wanted:
        return own.where(metadata.bool_op("@>")(job_objects.jsonb(wanted)))
    if not is_null:
        return union(own, jobs)
    has_some = own.where(metadata.bool_op("@>")(job_objects.jsonb({})), metadata != job_objects.jsonb({}))
    return union(own.where(Submission.id.not_in(has_some)), jobs.where(Job.id.not_in(has_some)))


@router.get("/{job_id}")
def retrieve(principal: Reader, job_id: str) -> dict[str, Any]:
    """Get a job."""
    with db.transaction() as session:
        return _answer(session, principal, objects.row_id(JOB_PREFIX, job_id))


@router.post("/{job_id}/cancel")
def cancel(principal: Submitter, job_id: str) -> dict[str, Any]:
    """Cancel a job. Its checkpoints are kept."""
    return _change(submissions.cancel, principal, job_id)


@router.post("/{job_id}/pause")
def pause(principal: Submitter, job_id: str) -> dict[str, Any]:
    """Pause a job. It saves a checkpoint and frees its node."""
    return _change(submissions.pause, principal, job_id)


@router.post("/{job_id}/resume")
def resume(principal: Submitter, job_id: str) -> dict[str, Any]:
    """Resume a paused job from its newest checkpoint."""
    return _change(submissions.resume, principal, job_id)


def _change(verb: Callable[..., None], principal: Principal, job_id: str) -> dict[str, Any]:
    row_id = objects.row_id(JOB_PREFIX, job_id)
    with db.transaction() as session:
        verb(session, principal=principal, submission_id=row_id)
        session.flush()
        answer = _answer(session, principal, row_id)
    notify_job_changed(row_id)
    return answer


@router.get("/{job_id}/events")
def list_events(principal: Reader, job_id: str, after: After = None, limit: Limit = 20) -> dict[str, Any]:
    """What happened to a job and what it measured, newest first."""
    row_id = objects.row_id(JOB_PREFIX, job_id)
    with db.transaction() as session:
        submission, job = submissions.get(session, principal=principal, job_id=row_id)
        data = events.page(session, row_id, submission, job, after, limit + 1)
    return objects.page(data[:limit], len(data) > limit)


@router.get("/{job_id}/checkpoints")
def list_checkpoints(principal: Reader, job_id: str, after: After = None, limit: Limit = 10) -> dict[str, Any]:
    """The checkpoints of a job, newest first. Each can be used as a model."""
    row_id = objects.row_id(JOB_PREFIX, job_id)
    place = None if after is None else objects.row_id(job_objects.CHECKPOINT_PREFIX, after)
    with db.transaction() as session:
        _submission, job = submissions.get(session, principal=principal, job_id=row_id)
        rows, cursor = checkpoints.list_checkpoints(
            session, principal=principal, job_id=row_id, limit=limit, after=place
        )
        data = [] if job is None else job_objects.checkpoint_answers(session, job, rows)
    return objects.page(data, cursor is not None)
