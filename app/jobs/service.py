"""The verbs people use on jobs, and the only code that moves a job (see transitions.py). Instants are the database's.

What an attempt does to its job is in attempts.py, what the scheduler does in dispatch.py; both move it through here.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.core import paging
from app.core.errors import PanelError, bad_field
from app.core.i18n import _
from app.core.models import TERMINAL, Attempt, Checkpoint, Corpus, Job, JobEvent, Tokenizer, User, new_id
from app.core.principal import Principal, visible, visible_to
from app.core.settings import settings
from app.corpora import service as corpora_service
from app.jobs.attempts.effective_spec import effective_spec
from app.jobs.cluster import nodes
from app.jobs.lifecycle import retention
from app.jobs.lifecycle.state import add_history, finish, set_state
from app.jobs.planning import accuracy, base_model, validation
from app.jobs.planning.answers import localize
from app.jobs.planning.base_model import StartingPoint
from trainer.planning import hardware, scaling_laws
from trainer.planning.config_search import choose_auto_fields, split_auto_fields
from trainer.planning.plan import Plan, plan
from trainer.planning.scaling_laws import Proposal, choose_vocab_size
from trainer.spec import TrainSpec, resolve

MAX_KEY_LENGTH = 200
PRIORITIES = {"low": -1, "normal": 0, "high": 1}


# ---- for people -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ResolvedRequest:
    """A resolved spec with what it names. `origin` is the checkpoint it goes on from, `parent` that one's job, `base`
    the model it starts from."""

    spec: TrainSpec
    corpora: list[Corpus]
    tokenizer: Tokenizer | None
    origin: Checkpoint | None
    parent: Job | None
    base: StartingPoint | None = None
    free: Sequence[str] = ()  # fields that were given as auto


def resolve_request(session: Session, *, principal: Principal, given: dict[str, Any]) -> ResolvedRequest:
    """Resolve a partial spec and say what is wrong with it. What goes on from a checkpoint has its job for a recipe."""
    validation.check_text(given)
    origin, parent = _origin(session, principal, given.get("resume_from_checkpoint"))
    if parent is not None:
        tokenizer_id = parent.tokenizer_id if parent.spec.base_model is None else None
        given = {**effective_spec(parent).model_dump(), "tokenizer": tokenizer_id, **given}
    base = base_model.find(session, principal, given.get("base_model"))
    if base is not None:
        given = base_model.with_base_defaults(given, base)
    given, free = split_auto_fields(given)
    spec = resolve(given)
    corpora = corpora_service.require_ready_corpora(session, principal=principal, ids=spec.corpora)
    validation.check_kinds(spec, corpora)
    held_out = corpora_service.require_ready_corpora(
        session, principal=principal, ids=spec.validation_corpora, field="validation_corpora"
    )
    validation.check_kinds(spec, held_out, "validation_corpora")
    tokenizer = None
    if spec.tokenizer is not None:
        tokenizer = corpora_service.usable_tokenizer(session, principal=principal, tokenizer_id=spec.tokenizer)
    validation.check_size(spec, corpora)
    if origin is not None and parent is not None:
        validation.check_origin(spec, parent.spec, parent.tokenizer_id, origin)
    found = ResolvedRequest(spec, corpora, tokenizer, origin, parent, base)
    return replace(found, spec=_chosen(session, found, free), free=free) if free else found


def _chosen(session: Session, checked: ResolvedRequest, free: Sequence[str]) -> TrainSpec:
    """The spec with what was left open chosen for the machine there is: the fastest that fits."""
    spec, node = checked.spec, nodes.for_a_plan(session, checked.spec.num_processes)
    if node is None:
        return spec
    vocab_size = _vocab_size(checked)
    chosen = choose_auto_fields(spec, vocab_size, node, free)
    if chosen is None:
        raise bad_field(free[0], "memory_short", localize(plan(spec, vocab_size, node).verdict))
    return chosen


def _vocab_size(checked: ResolvedRequest) -> int:
    num_bytes = sum(corpus.num_text_bytes or 0 for corpus in checked.corpora)
    given = checked.tokenizer.vocab_size if checked.tokenizer is not None else checked.spec.vocab_size
    return given or choose_vocab_size(num_bytes)


def estimate_cost(session: Session, checked: ResolvedRequest) -> tuple[int, Plan, hardware.Node | None]:
    """The size of the vocabulary that a job would have, what it would cost, and on which machine."""
    num_bytes = sum(corpus.num_text_bytes or 0 for corpus in checked.corpora)
    vocab_size = _vocab_size(checked)
    node = nodes.for_a_plan(session, checked.spec.num_processes)
    planned = plan(checked.spec, vocab_size, node, num_bytes)
    counted = checked.base.facts.num_parameters if checked.base is not None else None
    if counted is not None and checked.spec.objective != "classification":  # whose head is another
        planned = planned.model_copy(update={"num_parameters": counted})
    return vocab_size, planned, node


def propose(session: Session, *, principal: Principal, corpora: Sequence[str], seconds: float) -> Proposal:
    """A model for these corpora and this time, on the largest machine there is."""
    found = corpora_service.require_ready_corpora(session, principal=principal, ids=corpora)
    node = nodes.for_a_plan(session, 1)
    if node is None:
        raise PanelError(409, "no_node", _("No machine is known yet. Start a worker, then ask again."))
    try:
        return scaling_laws.propose(sum(corpus.num_text_bytes or 0 for corpus in found), node, seconds)
    except ValueError as error:
        message = _("The text or the memory of the machine is too little for even the smallest model.")
        raise bad_field("corpora", "too_little", message) from error


def _origin(session: Session, principal: Principal, given: Any) -> tuple[Checkpoint | None, Job | None]:
    """The checkpoint that a new job goes on from, and the job that wrote it."""
    if not isinstance(given, str):  # what is no text is the spec's to refuse
        return None, None
    message = _("There is no checkpoint {id}.", id=given)
    return base_model.checkpoint_in_use(
        session, principal, given, bad_field("resume_from_checkpoint", "checkpoint_unknown", message)
    )


def submit(
    session: Session, *, principal: Principal, given: dict[str, Any], idempotency_key: str | None = None
) -> tuple[Job, bool]:
    """Queue a job; says whether it is new. The same key and body give the same job again, another body a 409."""
    validation.check_text(given)
    body_sha256 = hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()
    repeated = _submitted_before(session, principal, idempotency_key, body_sha256)
    if repeated is not None:
        return repeated, False
    _check_quota(session, principal)
    checked = resolve_request(session, principal=principal, given=given)
    _vocab_size, planned, node = estimate_cost(session, checked)
    validation.check_memory(planned)
    validation.check_disk(planned)
    spec, origin = checked.spec, checked.origin
    values = {
        "id": new_id(),
        "owner_id": principal.user_id,
        "name": spec.name,
        "recipe": spec.recipe,
        "spec": spec,
        "spec_sha256": spec.sha256(),
        "idempotency_key": idempotency_key,
        "body_sha256": body_sha256,
        "max_steps": spec.max_steps,
        "facts": accuracy.planned(planned, node),
        "tokenizer_id": checked.tokenizer.id if checked.tokenizer is not None else None,
        "priority": PRIORITIES[spec.priority],
        "parent_id": checked.parent.id if checked.parent is not None else None,
        "resume_from_id": origin.id if origin is not None else None,
        "step": origin.step if origin is not None else 0,
    }
    job = session.scalar(insert(Job).values(**values).on_conflict_do_nothing().returning(Job))
    if job is None:  # another request with the key was faster
        repeated = _submitted_before(session, principal, idempotency_key, body_sha256)
        assert repeated is not None
        return repeated, False
    add_history(session, job, None, "user", "submitted" if origin is None else "continued", step=job.step)
    return job, True


def _check_quota(session: Session, principal: Principal) -> None:
    """Refuse a job too many. The user's row is locked, so that parallel requests cannot pass together."""
    session.execute(select(User.id).where(User.id == principal.user_id).with_for_update(key_share=True))
    mine = (Job.owner_id == principal.user_id, Job.state.not_in(TERMINAL))
    num_open = session.scalar(select(func.count()).select_from(Job).where(*mine)) or 0
    limit = settings().max_open_jobs_per_user
    if num_open >= limit:
        message = _(
            "You have {open} unfinished jobs; {limit} are allowed. Cancel one, or wait until one has ended.",
            open=num_open,
            limit=limit,
        )
        raise PanelError(429, "quota", message)


def _submitted_before(session: Session, principal: Principal, key: str | None, body_sha256: str) -> Job | None:
    if key is None:
        return None
    if not 0 < len(key) <= MAX_KEY_LENGTH:
        message = _("The Idempotency-Key must have 1 to {max} characters.", max=MAX_KEY_LENGTH)
        raise bad_field("Idempotency-Key", "key_invalid", message)
    job = session.scalar(select(Job).where(Job.owner_id == principal.user_id, Job.idempotency_key == key))
    if job is not None and job.body_sha256 != body_sha256:
        message = _("This Idempotency-Key was used for another job ({id}). Use a new key.", id=job.id)
        raise bad_field("Idempotency-Key", "key_reused", message, 409)
    return job


def get(session: Session, *, principal: Principal, job_id: str) -> Job:
    """A job the user may see. Raises 404."""
    return visible(session, Job, job_id, principal=principal)


def list_jobs(
    session: Session,
    *,
    principal: Principal,
    limit: int = 50,
    after: str | None = None,
    states: Sequence[str] | None = None,
) -> tuple[list[Job], str | None]:
    """The jobs the user may see, of these states or of all, newest first, and the cursor of the next page."""
    query = select(Job).where(visible_to(Job.owner_id, principal))
    if states is not None:
        query = query.where(Job.state.in_(states))
    return paging.newest(session, query, Job.id, limit, after)


def history(session: Session, *, job_id: str, after: int = 0, until: int | None = None) -> list[JobEvent]:
    """What happened to a job, oldest first."""
    query = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.seq > after)
    if until is not None:
        query = query.where(JobEvent.seq <= until)
    return list(session.scalars(query.order_by(JobEvent.seq)))


def cancel(session: Session, *, principal: Principal, job_id: str) -> Job:
    """Wish a job cancelled. What does not run ends at once, what runs as soon as its supervisor hears of it."""
    job = visible(session, Job, job_id, principal=principal, for_update=True)
    if job.state in ("succeeded", "failed"):
        raise PanelError(409, "job_ended", _("This job has ended; there is nothing left to cancel."))
    job.desired = "cancel"
    if job.state in ("queued", "paused", "recovering"):
        retention.record_unrecorded(session, job)  # nobody looks for unrecorded checkpoints of what has ended
        finish(session, job, "cancelled", "user", "wish_cancel")
    return job


def pause(session: Session, *, principal: Principal, job_id: str) -> Job:
    """Wish a job paused. What waits pauses at once, what runs as soon as it has saved a checkpoint and let go."""
    job = _wishable(session, principal, job_id)
    job.desired = "pause"
    if job.state == "queued":
        job.node, job.gpus, job.wait_reason = None, [], None
        set_state(session, job, "paused", "user", "wish_pause")
    return job


def resume(session: Session, *, principal: Principal, job_id: str) -> Job:
    """Wish a paused job to go on from its newest checkpoint."""
    job = _wishable(session, principal, job_id)
    job.desired = "run"
    if job.state == "paused":
        job.notice = None
        job.no_progress = 0
        job.queued_at = func.now()
        set_state(session, job, "queued", "user", "wish_run")
    return job


def _wishable(session: Session, principal: Principal, job_id: str) -> Job:
    """A job that may be paused or resumed, locked."""
    job = visible(session, Job, job_id, principal=principal, for_update=True)
    if job.finished_at is not None:
        message = _("This job has ended. Continue from one of its checkpoints instead.")
        raise PanelError(409, "job_ended", message)
    if job.desired == "cancel":
        raise PanelError(409, "job_cancelling", _("This job is being cancelled."))
    return job


def list_attempts(session: Session, *, job_id: str) -> list[Attempt]:
    """The attempts at a job, oldest first."""
    return list(session.scalars(select(Attempt).where(Attempt.job_id == job_id).order_by(Attempt.fence)))


# ---- moving ---------------------------------------------------------------------------------------------------------
