"""Jobs that are requested before their corpora are read: the only writer of their table.

A submission is answered at once. The scheduler submits it when its corpora are read, and it becomes the job with its
ID; or it fails, and says what is wrong. What users do with a submission they do with its job from then on.
"""

import hashlib
import json
import logging
from typing import Any

from sqlalchemy import exists, func, or_, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from app.core import db, idempotency
from app.core.account_models import User
from app.core.errors import PanelError, bad_field
from app.core.i18n import _
from app.core.models import Corpus, Job
from app.core.openai_models import Submission
from app.core.principal import Principal, background_principal, not_found, visible_to
from app.core.roles import refusal
from app.corpora import problems
from app.jobs import service
from app.jobs.lifecycle import job_webhooks
from app.jobs.service import ResolvedRequest
from trainer.families import TEXT_OBJECTIVES
from trainer.formats.corpus_kinds import CORPUS_KINDS_BY_OBJECTIVE
from trainer.spec_errors import SpecError

log = logging.getLogger(__name__)

CORPUS_FIELDS = ("corpora", "validation_corpora")
HAS_NO_DELETED_JOB = ~exists().where(Job.id == Submission.job_id, Job.deleted_at.is_not(None))
BATCH = 20  # submissions that are looked at in one round of the scheduler
# What is learned from each kind of records, where the request does not say it. For text the model decides.
OBJECTIVES = {
    kind: objective
    for objective, kinds in CORPUS_KINDS_BY_OBJECTIVE.items()
    for kind in kinds
    if objective not in (*TEXT_OBJECTIVES, "dpo")
}


# ---- for people -----------------------------------------------------------------------------------------------------


def create(
    session: Session,
    *,
    principal: Principal,
    request: dict[str, Any],
    details: dict[str, Any],
    idempotency_key: str | None = None,
    is_repeated: bool = False,
) -> Submission:
    """Accept a request for a job whose corpora may still be read; `details` are kept with it.

    The same key gets the same submission again, and so does a request that `is_repeated` by a client which has no
    answer to it. Raises SpecError or PanelError for what is wrong whatever the corpora hold, and above the quota.
    """
    text = json.dumps([request, details], sort_keys=True)
    body_sha256 = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
    service.lock_user(session, principal)  # requests that are sent twice wait for each other
    earlier = _submitted_before(session, principal, idempotency_key, body_sha256, is_repeated)
    if earlier is not None:
        return earlier
    service.check_quota(session, principal)
    completed = service.complete_spec(session, principal=principal, request=request)
    submission = Submission(
        owner_id=principal.user_id,
        request=request,
        details={**details, "seed": completed.spec.seed},
        body_sha256=body_sha256,
        idempotency_key=idempotency_key,
    )
    session.add(submission)
    session.flush()
    return submission


def plan(session: Session, *, principal: Principal, request: dict[str, Any]) -> ResolvedRequest:
    """The job that a request would become, without creating it. Its corpora must have been read.

    Raises SpecError or PanelError.
    """
    corpora = _corpora(session, principal, request)
    _check_read(request, corpora)
    return service.resolve_request(session, principal=principal, request=_with_objective(request, corpora))


def _submitted_before(
    session: Session, principal: Principal, key: str | None, body_sha256: str, is_repeated: bool
) -> Submission | None:
    own = select(Submission).where(Submission.owner_id == principal.user_id, HAS_NO_DELETED_JOB)
    if key is not None:
        idempotency.check_key(key)
        submission = session.scalar(own.where(Submission.idempotency_key == key))
        if submission is not None and submission.body_sha256 != body_sha256:
            raise idempotency.conflict()
        return submission
    if not is_repeated:
        return None
    same = (Submission.body_sha256 == body_sha256, Submission.created_at > func.now() - idempotency.RETRY_MEMORY)
    return session.scalar(own.where(*same).order_by(Submission.id.desc()).limit(1))


def find(session: Session, *, principal: Principal, submission_id: str, for_update: bool = False) -> Submission | None:
    """A submission of the user; None if there is none with this ID."""
    own = (Submission.id == submission_id, visible_to(Submission.owner_id, principal), HAS_NO_DELETED_JOB)
    query = select(Submission).where(*own)
    return session.scalar(query.with_for_update() if for_update else query)


def cancel(session: Session, *, principal: Principal, submission_id: str) -> None:
    """Cancel a submission, or request the cancellation of its job. Raises PanelError as `service.cancel` does."""
    submission = _waiting(session, principal, submission_id)
    if submission is None:
        service.cancel(session, principal=principal, job_id=submission_id)
    elif submission.state == "failed":
        raise PanelError(409, "job_ended", _("This job has ended; there is nothing left to cancel."))
    elif submission.state == "waiting":
        _end(session, submission, "cancelled")


def pause(session: Session, *, principal: Principal, submission_id: str) -> None:
    """Pause a submission or its job. Raises PanelError as `service.pause` does."""
    _request(session, principal, submission_id, "pause")


def resume(session: Session, *, principal: Principal, submission_id: str) -> None:
    """Resume a submission or its job. Raises PanelError as `service.resume` does."""
    _request(session, principal, submission_id, "run")


def _request(session: Session, principal: Principal, submission_id: str, desired: str) -> None:
    submission = _waiting(session, principal, submission_id)
    if submission is None:
        verb = service.pause if desired == "pause" else service.resume
        verb(session, principal=principal, job_id=submission_id)
    elif submission.state == "waiting":
        submission.desired = desired
    else:
        message = _("This job has ended. Train further from one of its checkpoints instead.")
        raise PanelError(409, "job_ended", message)


def _waiting(session: Session, principal: Principal, submission_id: str) -> Submission | None:
    """A submission that has not become a job, locked; None if it has, or if the job never was one."""
    submission = find(session, principal=principal, submission_id=submission_id, for_update=True)
    return None if submission is None or submission.state == "submitted" else submission


# ---- for the scheduler ----------------------------------------------------------------------------------------------


def submit_ready(session: Session) -> list[str]:
    """Submit the jobs whose corpora are read; returns the IDs of those that have changed."""
    named = [Submission.request[field].bool_op("@>")(func.jsonb_build_array(Corpus.id)) for field in CORPUS_FIELDS]
    unread = exists().where(Corpus.state == "parsing", or_(*named))
    waiting = select(Submission.id).where(Submission.state == "waiting", Submission.desired == "run", ~unread)
    ids = session.scalars(waiting.order_by(Submission.id).limit(BATCH)).all()
    return [submission_id for submission_id in ids if _submit(session, submission_id)]


def _submit(session: Session, submission_id: str) -> bool:
    """Submit one, if its corpora are read. It fails if its owner is a viewer by now.

    Whatever a check has locked or written is undone when it is refused.
    """
    query = select(Submission).where(Submission.id == submission_id, Submission.state == "waiting")
    submission = session.scalar(query.with_for_update(skip_locked=True))
    owner = session.get(User, submission.owner_id) if submission is not None else None
    if submission is None or owner is None:
        return False
    principal = background_principal(owner)
    corpora = _corpora(session, principal, submission.request)
    if any(corpus.state == "parsing" for corpus in corpora):
        return False
    try:
        with session.begin_nested():
            if not principal.is_at_least("member"):
                raise refusal(principal.role, "member")
            _check_read(submission.request, corpora)
            request = _with_objective(submission.request, corpora)
            job, _is_new = service.submit(session, principal=principal, request=request, submission_id=submission.id)
    except PanelError as error:
        if error.status >= 500:  # the disk is full: it may have room later
            return False
        field = error.fields[0].field if error.fields else None
        _end(session, submission, "failed", code=error.code, message=error.message, field=field)
        return True
    except SpecError as error:
        problem = error.problems[0]
        message = f"{problem.field} {_(problem.message.template, **problem.message.values)}"
        _end(session, submission, "failed", code="spec_invalid", message=message, field=problem.field)
        return True
    except DBAPIError as error:  # it must not keep those behind it waiting
        if db.is_outage(error):
            raise
        log.exception("submission %s failed", submission.id)
        _end(session, submission, "failed", code="internal", message=_("Internal server error."), field=None)
        return True
    submission.state, submission.job_id = "submitted", job.id
    return True


def _corpora(session: Session, principal: Principal, request: dict[str, Any]) -> list[Corpus]:
    ids = [corpus_id for field in CORPUS_FIELDS for corpus_id in _ids(request, field)]
    rows = session.scalars(select(Corpus).where(Corpus.id.in_(ids), visible_to(Corpus.owner_id, principal)))
    return sorted(rows, key=lambda corpus: ids.index(corpus.id))


def _ids(request: dict[str, Any], field: str) -> list[str]:
    return list(request.get(field, ()))


def _check_read(request: dict[str, Any], corpora: list[Corpus]) -> None:
    """Raise PanelError for the first corpus that could not be read, with its first bad line."""
    for corpus in corpora:
        if corpus.state == "failed":
            is_training = corpus.id in _ids(request, "corpora")
            field = "corpora" if is_training else "validation_corpora"
            why = problems.first_sentence(corpus.problems) or ""
            message = _("The file “{name}” cannot be used. {why}", name=corpus.filename, why=why)
            raise bad_field(field, "corpus_failed", message)


def _with_objective(request: dict[str, Any], corpora: list[Corpus]) -> dict[str, Any]:
    """The request with what is learned from records of this kind, unless it or its recipe says so."""
    kinds = [corpus.kind for corpus in corpora]
    if "objective" in request or "recipe" in request or not kinds or kinds[0] not in OBJECTIVES:
        return request
    return {**request, "objective": OBJECTIVES[kinds[0]]}


def _end(session: Session, submission: Submission, state: str, **failure: Any) -> None:
    submission.state, submission.failure, submission.finished_at = state, failure, func.now()
    session.flush()
    job_webhooks.enqueue(session, owner_id=submission.owner_id, job_id=submission.id, state=state)


# ---- both together --------------------------------------------------------------------------------------------------


def get(session: Session, *, principal: Principal, job_id: str) -> tuple[Submission | None, Job | None]:
    """The submission with this ID, the job that it became, or both. Raises 404."""
    submission = find(session, principal=principal, submission_id=job_id)
    own = select(Job).where(Job.id == job_id, visible_to(Job.owner_id, principal))
    job = session.scalar(own)
    if submission is None and job is None:
        raise not_found()
    return submission, job
