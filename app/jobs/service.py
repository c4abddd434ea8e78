"""What users do with jobs: plan, submit, list, pause, resume and cancel them. Instants are the database's.

What an attempt does to its job is in attempts/attempts.py, what the scheduler does in scheduling/dispatch.py.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field
from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.background_tasks import service as background_tasks
from app.core import disk, idempotency, labels, sharing
from app.core.account_models import User
from app.core.errors import PanelError, bad_field
from app.core.i18n import _, ngettext
from app.core.labels import LabelChanges
from app.core.model_base import new_id
from app.core.models import TERMINAL, Attempt, Checkpoint, Corpus, Job, JobEvent, Tokenizer
from app.core.names import checked_name
from app.core.openai_models import Submission
from app.core.principal import Principal, own, visible
from app.core.settings import settings
from app.corpora import service as corpora_service
from app.corpora import tokenizers as stored_tokenizers
from app.jobs.attempts.effective_spec import effective_spec
from app.jobs.cluster import nodes
from app.jobs.lifecycle import retention
from app.jobs.lifecycle.state import add_history, finish, set_state
from app.jobs.planning import accuracy, base_model, text_limits, training_data, validation
from app.jobs.planning.answers import localize
from app.jobs.planning.base_model import StartingPoint
from trainer.formats.messages import Message, message
from trainer.planning import hardware, proposals
from trainer.planning.config_search import choose_auto_fields, split_auto_fields
from trainer.planning.plan import MESSAGES, Plan, plan
from trainer.planning.proposals import Proposal
from trainer.planning.training_data import TrainingData
from trainer.spec import TrainSpec, replace_fields, resolve

MAX_NAME_LENGTH = labels.MAX_NAME_LENGTHS[Job]
PRIORITIES = {"low": -1, "normal": 0, "high": 1}
JobOrder = Literal["newest", "oldest", "name", "eval_loss"]
_ORDERS: dict[str, Any] = {"oldest": Job.id, "name": func.lower(Job.name), "eval_loss": Job.eval_loss}


# ---- submitting -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ResolvedRequest:
    """A partial spec, resolved and planned, with the rows that it names.

    `origin` is the checkpoint it resumes from, `parent` that checkpoint's job, `base` the model it starts from, and
    `node` the machine it is planned for. `auto_fields` are the fields that were given as auto, `changes` what
    its notes advise.
    """

    spec: TrainSpec
    corpora: list[Corpus]
    tokenizer: Tokenizer | None
    origin: Checkpoint | None
    parent: Job | None
    base: StartingPoint | None
    auto_fields: Sequence[str]
    node: hardware.NodeHardware | None
    vocab_size: int
    plan: Plan
    changes: dict[str, Any]


def resolve_request(session: Session, *, principal: Principal, request: dict[str, Any]) -> ResolvedRequest:
    """Resolve a partial spec and plan it. To resume from a checkpoint, the spec of its job takes the recipe's place.

    Raises SpecError or PanelError, which name the fields that are wrong.
    """
    completed = complete_spec(session, principal=principal, request=request)
    spec, auto_fields = completed.spec, completed.auto_fields
    origin, parent, base = completed.origin, completed.parent, completed.base
    corpora = _corpora(session, principal, spec)
    tokenizer = None
    if spec.tokenizer is not None:
        tokenizer = stored_tokenizers.usable_tokenizer(session, principal=principal, tokenizer_id=spec.tokenizer)
    text_limits.check_size(spec, corpora)
    if origin is not None and parent is not None:
        spec = validation.with_steps_of(spec, parent)
        validation.check_origin(spec, parent.spec, parent.tokenizer_id, origin)
    node = nodes.for_a_plan(session, spec.num_processes)
    data = training_data.of_corpora(session, principal, spec, corpora)
    limits = text_limits.estimate(session, principal, spec, corpora, tokenizer, data)
    vocab_size = limits.vocab_size + len(spec.new_tokens)
    if auto_fields and node is not None:
        spec = _with_chosen_fields(spec, vocab_size, node, auto_fields, data)
    job_plan = _plan(spec, vocab_size, node, data, base, origin.step if origin is not None else 0)
    validation.check_steps(spec, job_plan)
    job_plan.notes.extend([*_rare_labels(spec, corpora), *limits.notes])
    return ResolvedRequest(
        spec, corpora, tokenizer, origin, parent, base, auto_fields, node, vocab_size, job_plan, limits.changes
    )


@dataclass(frozen=True)
class CompletedSpec:
    """A partial spec, completed, with what it starts from. Its corpora need not be read yet."""

    spec: TrainSpec
    origin: Checkpoint | None
    parent: Job | None
    base: StartingPoint | None
    auto_fields: Sequence[str]


def complete_spec(session: Session, *, principal: Principal, request: dict[str, Any]) -> CompletedSpec:
    """Complete a partial spec without looking at its corpora.

    Raises SpecError or PanelError, which name the fields that are wrong.
    """
    validation.check_text(request)
    if isinstance(request.get("name"), str) and request["name"].strip():  # resolve() refuses an empty one
        request = {**request, "name": checked_name(request["name"], max_length=MAX_NAME_LENGTH)}
    origin, parent = _origin(session, principal, request.get("resume_from_checkpoint"))
    if origin is not None and parent is not None:
        validation.check_resumable(origin)
        before = effective_spec(parent)
        tokenizer_id = parent.tokenizer_id or before.tokenizer if before.base_model is None else None
        earlier = {**before.model_dump(), "tokenizer": tokenizer_id, "evaluation_corpora": []}
        if before.max_steps is not None:  # an empty warm-up is a share of all steps: more must not lead back into it
            earlier["warmup_steps"] = before.num_warmup_steps
        request = replace_fields(earlier, request)
    base = base_model.find(session, principal, request.get("base_model"))
    if base is not None:
        request = base_model.with_base_defaults(request, base)
    request, auto_fields = split_auto_fields(request)
    return CompletedSpec(resolve(request), origin, parent, base, auto_fields)


def _origin(session: Session, principal: Principal, checkpoint_id: Any) -> tuple[Checkpoint | None, Job | None]:
    """The checkpoint that a new job resumes from, and the job that wrote it."""
    if not isinstance(checkpoint_id, str):  # resolve() refuses what is not a string
        return None, None
    message = _("There is no checkpoint {id}.", id=checkpoint_id)
    unknown = bad_field("resume_from_checkpoint", "checkpoint_unknown", message)
    return base_model.checkpoint_in_use(session, principal, checkpoint_id, unknown)


def _corpora(session: Session, principal: Principal, spec: TrainSpec) -> list[Corpus]:
    """The corpora to train on. Raises at the field that names one that cannot be used, to train on or to validate."""
    corpora = corpora_service.require_ready_corpora(session, principal=principal, ids=spec.corpora)
    validation.check_kinds(spec, corpora)
    held_out = corpora_service.require_ready_corpora(
        session, principal=principal, ids=spec.validation_corpora, field="validation_corpora"
    )
    validation.check_kinds(spec, held_out, "validation_corpora")
    validation.check_labels(spec, corpora, held_out)
    validation.check_split(spec, corpora)
    background_tasks.check_corpora(
        session, principal=principal, ids=spec.evaluation_corpora, field="evaluation_corpora"
    )
    return corpora


def _with_chosen_fields(
    spec: TrainSpec, vocab_size: int, node: hardware.NodeHardware, auto_fields: Sequence[str], data: TrainingData
) -> TrainSpec:
    """The spec with its auto fields chosen for the machine: the fastest that fits. Raises if none does."""
    chosen = choose_auto_fields(spec, vocab_size, node, auto_fields)
    if chosen is None:
        raise bad_field(auto_fields[0], "memory_short", localize(plan(spec, vocab_size, node, data).verdict))
    return chosen


def _plan(
    spec: TrainSpec,
    vocab_size: int,
    node: hardware.NodeHardware | None,
    data: TrainingData,
    base: StartingPoint | None,
    first_step: int,
) -> Plan:
    """The plan of a job on corpora of this size, for its steps after the first one."""
    job_plan = plan(spec, vocab_size, node, data, first_step)
    num_parameters = base.facts.num_parameters if base is not None else None
    if num_parameters is None or spec.objective == "classification":  # which replaces the head
        return job_plan
    return job_plan.model_copy(update={"num_parameters": num_parameters})


def _rare_labels(spec: TrainSpec, corpora: Sequence[Corpus]) -> list[Message]:
    """A note on each label of a classifier that only one record has, of the labels that the corpora's rows have."""
    if spec.objective != "classification":
        return []
    counts = sum((Counter(corpus.progress.labels) for corpus in corpora), Counter())
    return [message(MESSAGES, "label_rare", label=label) for label, count in counts.items() if count == 1]


def propose(session: Session, *, principal: Principal, corpora: Sequence[str], seconds: float) -> Proposal:
    """A model for these corpora and this time, on the largest machine there is. Raises as `propose_each`."""
    with _proposable(session, principal, corpora) as (text, node):
        return proposals.propose(text, node, seconds)


def propose_each(
    session: Session, *, principal: Principal, corpora: Sequence[str], budgets: Sequence[float]
) -> list[Proposal]:
    """A model for these corpora and each of several times in seconds, on the largest machine there is.

    Raises PanelError (409) without a machine, and at `corpora` if the text or the memory is too small.
    """
    with _proposable(session, principal, corpora) as (text, node):
        return proposals.propose_each(text, node, budgets)


@contextmanager
def _proposable(
    session: Session, principal: Principal, ids: Sequence[str]
) -> Iterator[tuple[proposals.TextData, hardware.NodeHardware]]:
    """The text of corpora and the machine to propose for; turns what makes that impossible into a PanelError."""
    corpora = corpora_service.require_ready_corpora(session, principal=principal, ids=ids)
    node = nodes.for_a_plan(session, 1)
    if node is None:
        raise PanelError(409, "no_node", _("No node is registered yet. Start a worker, then try again."))
    try:
        yield training_data.text_data(session, principal, corpora), node
    except ValueError as error:
        message = _("The text is too short or the memory of the machine too small for even the smallest model.")
        raise bad_field("corpora", "too_little", message) from error


def submit(
    session: Session,
    *,
    principal: Principal,
    request: dict[str, Any],
    idempotency_key: str | None = None,
    submission_id: str | None = None,
) -> tuple[Job, bool]:
    """Queue a job; returns it and whether it is new. The same key and body return the same job again.

    The job of a submission (submissions.py), which counts toward the quota already, has its ID. Raises SpecError or
    PanelError: for wrong fields, for a key used with another body (409), above the user's quota (429), and for a job
    that no machine or disk here can hold.
    """
    validation.check_text(request)
    body_sha256 = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
    repeated = _submitted_before(session, principal, idempotency_key, body_sha256)
    if repeated is not None:
        return repeated, False
    if submission_id is None:
        check_quota(session, principal)
    resolved = resolve_request(session, principal=principal, request=request)
    validation.check_memory(resolved.plan)
    validation.check_disk(session, principal, resolved.plan)
    values = _new_row(resolved) | {
        "id": submission_id or new_id(),
        "owner_id": principal.user_id,
        "idempotency_key": idempotency_key,
        "body_sha256": body_sha256,
    }
    job = session.scalar(insert(Job).values(**values).on_conflict_do_nothing().returning(Job))
    if job is None:  # another request with the key was faster
        repeated = _submitted_before(session, principal, idempotency_key, body_sha256)
        assert repeated is not None
        return repeated, False
    reason = "submitted" if resolved.origin is None else "continued"
    add_history(session, job, None, "user", reason, step=job.step)
    return job, True


def _new_row(resolved: ResolvedRequest) -> dict[str, Any]:
    spec = resolved.spec
    origin = resolved.origin
    return {
        "name": spec.name,
        "recipe": spec.recipe,
        "spec": spec,
        "spec_sha256": spec.sha256(),
        "max_steps": spec.max_steps,
        "facts": accuracy.planned(resolved.plan, resolved.node),
        "tokenizer_id": resolved.tokenizer.id if resolved.tokenizer is not None else None,
        "priority": PRIORITIES[spec.priority],
        "evaluation_corpora": spec.evaluation_corpora,
        "parent_id": resolved.parent.id if resolved.parent is not None else None,
        "resume_from_id": origin.id if origin is not None else None,
        "step": origin.step if origin is not None else 0,
    }


def lock_user(session: Session, principal: Principal) -> None:
    """Make parallel requests of the user that submit jobs wait in turn."""
    session.execute(select(User.id).where(User.id == principal.user_id).with_for_update(key_share=True))


def check_quota(session: Session, principal: Principal) -> None:
    """Raise PanelError (429) above the user's quota."""
    lock_user(session, principal)
    unfinished = (Job.owner_id == principal.user_id, Job.state.not_in(TERMINAL))
    waiting = (Submission.owner_id == principal.user_id, Submission.state == "waiting")
    counts = [select(func.count()).select_from(Job).where(*unfinished)]
    counts.append(select(func.count()).select_from(Submission).where(*waiting))
    num_open = sum(session.scalar(count) or 0 for count in counts)
    limit = settings().max_open_jobs_per_user
    if num_open >= limit:
        message = ngettext(
            "You have {n} unfinished job, the limit is {limit}. Cancel it or wait until it ends.",
            "You have {n} unfinished jobs, the limit is {limit}. Cancel one or wait until one ends.",
            num_open,
            limit=limit,
        )
        raise PanelError(429, "quota", message)


def _submitted_before(session: Session, principal: Principal, key: str | None, body_sha256: str) -> Job | None:
    if key is None:
        return None
    idempotency.check_key(key)
    job = session.scalar(select(Job).where(Job.owner_id == principal.user_id, Job.idempotency_key == key))
    if job is not None and job.body_sha256 != body_sha256:
        raise idempotency.conflict()
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
    search: str = "",
    tag: str | None = None,
    owner: str | None = None,
    order: JobOrder = "newest",
) -> tuple[list[Job], str | None]:
    """The jobs the user may see in these states (None: in all), and the cursor of the next page.

    `search` is a part of their name, tags, notes or recipe, whatever its case.
    """
    query = select(Job)
    if states is not None:
        query = query.where(Job.state.in_(states))
    if tag is not None:
        query = query.where(labels.has_tag(Job, tag))
    if search:
        query = query.where(labels.matches(Job, search))
    return sharing.listed(session, principal, query, Job, _ORDERS.get(order), limit, after, owner)


class JobChanges(LabelChanges):
    """What can be changed of a job at any time; fields that are left out stay."""

    is_notified: bool | None = Field(None, description="Whether you are notified when it ends or makes no progress.")
    evaluation_corpora: list[str] | None = Field(
        None, max_length=16, description="Corpora on which its best checkpoint is evaluated when it has succeeded."
    )


def change(session: Session, *, principal: Principal, job_id: str, changes: JobChanges) -> Job:
    """Rename, tag, describe or mute a job. Raises PanelError: 404, or 422 at the field that is wrong."""
    job = own(session, Job, job_id, principal=principal)
    labels.change(session, principal, job, changes)
    if changes.is_notified is not None:
        job.is_notified = changes.is_notified
    if changes.evaluation_corpora is not None:
        ids = changes.evaluation_corpora
        background_tasks.check_corpora(session, principal=principal, ids=ids, field="evaluation_corpora")
        job.evaluation_corpora = ids
    return job


def history(session: Session, *, job_id: str, after: int = 0, until: int | None = None) -> list[JobEvent]:
    """What happened to a job, oldest first."""
    query = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.seq > after)
    if until is not None:
        query = query.where(JobEvent.seq <= until)
    return list(session.scalars(query.order_by(JobEvent.seq)))


def cancel(session: Session, *, principal: Principal, job_id: str) -> Job:
    """Request cancellation. A job that does not run ends at once, a running one when its supervisor stops it.

    Raises PanelError: 404, or 409 for a job that succeeded or failed.
    """
    job = own(session, Job, job_id, principal=principal)
    request_cancellation(session, job)
    return job


def request_cancellation(session: Session, job: Job) -> None:
    """Cancel a job, whose row is locked. Raises PanelError (409) for one that succeeded or failed."""
    if job.state in ("succeeded", "failed"):
        raise PanelError(409, "job_ended", _("This job has ended; there is nothing left to cancel."))
    job.desired = "cancel"
    if job.state in ("queued", "paused", "recovering"):
        retention.record_unrecorded(session, job)  # nothing looks for them later
        finish(session, job, "cancelled", "user", "wish_cancel")


def pause(session: Session, *, principal: Principal, job_id: str) -> Job:
    """Request a pause. A queued job pauses at once, a running one after it has saved a checkpoint.

    Raises PanelError: 404, or 409 for a job that has ended or is being cancelled.
    """
    job = _open_job(session, principal, job_id)
    job.desired = "pause"
    if job.state == "queued":
        job.node = job.wait_reason = None
        job.gpus = []
        set_state(session, job, "paused", "user", "wish_pause")
    return job


def resume(session: Session, *, principal: Principal, job_id: str) -> Job:
    """Request that a paused job resumes from its newest checkpoint.

    Raises PanelError: 404, 409 for a job that has ended or is being cancelled, or 507 if the disk is full.
    """
    job = _open_job(session, principal, job_id)
    disk.require_room()
    job.desired = "run"
    if job.state == "paused":
        job.notice = None
        job.no_progress = 0
        job.queued_at, job.queue_number = func.now(), None
        set_state(session, job, "queued", "user", "wish_run")
    return job


def _open_job(session: Session, principal: Principal, job_id: str) -> Job:
    """A job that may be paused or resumed, locked for update."""
    job = own(session, Job, job_id, principal=principal)
    if job.finished_at is not None:
        message = _("This job has ended. Train further from one of its checkpoints instead.")
        raise PanelError(409, "job_ended", message)
    if job.desired == "cancel":
        raise PanelError(409, "job_cancelling", _("This job is being cancelled."))
    return job


def list_attempts(session: Session, *, job_id: str) -> list[Attempt]:
    """The attempts at a job, oldest first."""
    return list(session.scalars(select(Attempt).where(Attempt.job_id == job_id).order_by(Attempt.fence)))
