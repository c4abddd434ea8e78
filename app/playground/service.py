"""Text generation with a checkpoint: checks a request, enqueues it and streams what a node generates.

It has no table: requests live in Valkey only (app/playground/generation_queue.py).
"""

import logging
import math
import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

from anyio import to_thread
from redis import RedisError
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.base_models import service as base_models
from app.base_models.limits import traits_of_checkpoints
from app.checkpoints import service as checkpoints
from app.checkpoints.conditions import usable_of
from app.core import db, storage
from app.core.deployment_models import Deployment
from app.core.errors import bad_field
from app.core.i18n import _, ngettext
from app.core.labels import checkpoint_title
from app.core.model_base import new_id
from app.core.models import Checkpoint, ImportedModel, Job
from app.core.principal import Principal, in_trash, is_in_trash, not_found, visible, visible_to
from app.playground import failures, generation_queue
from app.playground.deployments import calls
from app.playground.deployments.calls import Call
from app.playground.deployments.replicas import live_nodes
from app.playground.schemas import MAX_PROMPT_CHARACTERS, GenerateRequest, GenerationTask
from trainer.families import DECODERS, ENCODER_DECODERS
from trainer.limits import Traits, limit

log = logging.getLogger(__name__)

LOOK_SECONDS = 2.0  # between checks of a request that waits whether there is a node at all
WAIT_SECONDS = 300.0
CHAT_TEMPLATE = "chat_template.jinja"  # the file in which transformers saves it
MAX_OFFERED = 200  # checkpoints, and imported models, that the page offers


@dataclass(frozen=True)
class GenerationEvent:
    """A server-sent event of a generation: `name` is waiting, start, loading, piece, done or failure."""

    name: str
    data: dict[str, Any]


def begin(session: Session, *, principal: Principal, request: GenerateRequest) -> GenerationTask:
    """Check a request against the models that its sender may use. Raises PanelError."""
    if request.messages and request.prompt:
        raise bad_field("messages", "prompt_and_messages", _("Send either prompt or messages, not both."))
    fields = request.model_dump(exclude={"checkpoint"})
    (task,) = prepare(session, principal=principal, model_id=request.checkpoint, prompts=[fields])
    return task


def prepare(
    session: Session, *, principal: Principal, model_id: str, prompts: Sequence[dict[str, Any]]
) -> list[GenerationTask]:
    """The tasks of a request, by their fields, which are valid, with a model that its sender may use. Raises
    PanelError.
    """
    tasks = [_task(prompt_number=number, **fields) for number, fields in enumerate(prompts)]
    place(session, principal, tasks, model_id, "messages" if tasks[0].messages else "generate")
    return tasks


def _task(*, seed: int | None = None, **fields: Any) -> GenerationTask:
    task = GenerationTask(id=new_id(), path="", seed=secrets.randbits(31) if seed is None else seed, **fields)
    messages = task.messages or []
    num_characters = len(task.prompt) + len(task.prefill) + sum(len(message.content or "") for message in messages)
    if num_characters > MAX_PROMPT_CHARACTERS:
        text = _(
            "The prompt has {n} characters; the limit is {limit}. Shorten it.",
            n=num_characters,
            limit=MAX_PROMPT_CHARACTERS,
        )
        raise bad_field("messages" if messages else "prompt", "prompt_too_large", text, status=413)
    return task


def place(session: Session, principal: Principal, tasks: Sequence[GenerationTask], model_id: str, use: str) -> None:
    """Give the tasks of a request their model: a deployment, which counts it as one call, or one that its sender may
    use so. Raises PanelError.
    """
    deployment = calls.find(session, principal=principal, name=model_id)
    if deployment is None:
        path, node = model_path(session, principal, model_id, use), None
    else:
        refuse_use(deployed_traits(session, deployment), use)
        path, node = calls.place(session, deployment, principal)
    for task in tasks:
        task.path, task.node, task.user_id = path, node, principal.user_id
        task.deployment_id = None if deployment is None else deployment.id


def model_path(session: Session, principal: Principal, model_id: str, use: str) -> str:
    """The directory of a checkpoint or an imported model, relative to the data directory. Raises PanelError where it
    cannot be used so, or is gone.
    """
    model = _model(session, principal, model_id)
    if isinstance(model, Checkpoint) and model.state == "corrupt":
        raise failures.error("checkpoint_corrupt", {})
    refuse_use(_traits(session, model), use)
    path = (
        model.path if isinstance(model, Checkpoint) else str(storage.base_model(model.id).relative_to(storage.data()))
    )
    if not storage.checkpoint(path).is_dir():
        raise failures.error("checkpoint_gone", {})
    return path


def refuse_use(traits: Traits, use: str) -> None:
    """Raise PanelError if a model cannot be used so."""
    reason = limit(traits, use)
    if reason is not None:
        raise failures.error(reason.code, reason.values)


def deployed_traits(session: Session, deployment: Deployment) -> Traits:
    """What decides about the uses of a deployment: those of its model. Raises 404 if that is gone."""
    model = session.get(ImportedModel, deployment.model_id) or session.get(Checkpoint, deployment.model_id)
    if model is None:
        raise not_found()
    return _traits(session, model)


def _model(session: Session, principal: Principal, model_id: str) -> Checkpoint | ImportedModel:
    """A checkpoint or a model that has been imported. Raises 404."""
    model = base_models.find(session, principal=principal, model_id=model_id)
    if model is not None and model.state == "ready":
        return model
    if is_in_trash(session, ImportedModel, model_id, principal=principal):
        raise in_trash()
    return checkpoints.get(session, principal=principal, checkpoint_id=model_id)


def _traits(session: Session, model: Checkpoint | ImportedModel) -> Traits:
    if isinstance(model, ImportedModel):
        return model.facts
    return traits_of_checkpoints(session, session.get_one(Job, model.job_id).spec)


def enqueue(*tasks: GenerationTask) -> None:
    """Enqueue the checked tasks of a request, all or none. Raises PanelError."""
    try:
        code = None if generation_queue.enqueue(*tasks) else "line_full"
    except RedisError as error:
        log.warning("generation %s: broker not reachable: %s", tasks[0].id, error)
        code = "broker_away"
    if code is not None:
        Call(tasks[0], failure=code).store()
        raise failures.error(code, {})


async def follow(task: GenerationTask, request_call: Call | None = None) -> AsyncGenerator[GenerationEvent, None]:
    """The events of a generation as they happen, until `done` or `failure`. Closing it early stops the generation.

    What is to be recorded is added to the call of a request of several tasks, or else recorded as a call.
    """
    wait, call = _Wait(), request_call or Call(task)
    recording = call.recorded() if request_call is None else nullcontext()
    async with recording, aclosing(generation_queue.read(task)) as lines:
        async for entry in lines:
            name = entry.event
            call.note(task, entry)
            if name == "waiting":
                position = entry.position
                if position is not None and wait.changed(position):
                    yield GenerationEvent("waiting", {"position": position, "message": _position_message(position)})
                if (code := await wait.failure(task.node)) is not None:
                    call.failure = code
                    yield _failure(code, {})
                    return
            elif name == "failure":
                yield _failure(entry.code, entry.values)
            elif name != "beat":
                data = entry.model_dump(exclude_unset=True, exclude={"event"})
                if name in ("start", "done"):
                    data["seed"] = task.seed
                yield GenerationEvent(name, data)


@dataclass
class _Wait:
    """The time that a request has spent in the queue. Times are those of time.monotonic()."""

    started_at: float = field(default_factory=time.monotonic)
    checked_at: float = field(default_factory=time.monotonic)
    position: int | None = None

    def changed(self, position: int) -> bool:
        """Whether the position differs from that of the last call."""
        has_changed = position != self.position
        self.position = position
        return has_changed

    async def failure(self, node: str | None) -> str | None:
        """The code of the failure that ends the wait for a node, or for any; or None."""
        now = time.monotonic()
        if now - self.started_at > WAIT_SECONDS:
            return "line_slow"
        if now - self.checked_at < LOOK_SECONDS:
            return None
        self.checked_at = now
        live = await to_thread.run_sync(_live_nodes)
        if live == []:
            return "no_worker"
        return "nodes_away" if node and live and node not in live else None


def _live_nodes() -> list[str] | None:
    try:
        with db.transaction() as session:
            return live_nodes(session)
    except SQLAlchemyError:
        return None  # unknown while the database is down: no reason to give up


def _position_message(position: int) -> str:
    if position == 0:
        return _("You are next.")
    return ngettext("{n} request is ahead of yours.", "{n} requests are ahead of yours.", position)


def _failure(code: str, values: dict[str, Any]) -> GenerationEvent:
    return GenerationEvent("failure", {"code": code, "message": failures.sentence(code, values), "values": values})


async def collect(task: GenerationTask, request_call: Call | None = None) -> dict[str, Any]:
    """The complete text of a generation and its `done` event. Raises PanelError for a failure."""
    text, tokens = "", list[dict[str, Any]]()
    async with aclosing(follow(task, request_call)) as events:
        async for event in events:
            if event.name == "piece":
                text += event.data["text"]
                tokens += event.data.get("tokens", [])
            elif event.name == "done":
                return {"text": text, "tokens": tokens if task.top_logprobs is not None else None, **event.data}
            elif event.name == "failure":
                raise failures.error(event.data["code"], event.data["values"])
    raise failures.error("request_lost", {})


@dataclass(frozen=True)
class ModelChoice:
    """A model that the page offers: a checkpoint, or an imported model."""

    id: str
    label: str
    loss: float | None = None  # its validation loss
    can_chat: bool = False  # it has a chat template, as far as its files say
    turns_text: bool = False  # it is an encoder-decoder, which turns one text into another
    base_id: str | None = None  # of the model that its training started from


@dataclass(frozen=True)
class ModelGroup:
    """The checkpoints of a job, newest first; or the imported models, without a name."""

    name: str | None
    choices: list[ModelChoice]
    is_complete: bool = True  # its job has neither failed nor been cancelled


def most_useful(groups: Sequence[ModelGroup]) -> ModelChoice | None:
    """The model to begin with: the best of the newest complete job, otherwise of the newest; None without any."""
    group = next((group for group in groups if group.is_complete), next(iter(groups), None))
    if group is None:
        return None
    return min(group.choices, key=lambda choice: math.inf if choice.loss is None else choice.loss)


def list_models(session: Session, *, principal: Principal) -> list[ModelGroup]:
    """The models that a user may generate with, newest first; no damaged ones, no encoders, no deployments."""
    rows = session.execute(
        select(Checkpoint, Job)
        .join(Job, Job.id == Checkpoint.job_id)
        .where(
            visible_to(Checkpoint.owner_id, principal),
            Checkpoint.state == "ready",
            Job.spec["model_type"].as_string().in_((*DECODERS, *ENCODER_DECODERS)),
            Job.spec["objective"].as_string().is_distinct_from("classification"),
        )
        .order_by(Checkpoint.id.desc())
        .limit(MAX_OFFERED)
    ).all()
    jobs: dict[str, ModelGroup] = {}
    for checkpoint, job in rows:
        jobs.setdefault(job.id, ModelGroup(job.name, [], job.state not in ("failed", "cancelled"))).choices.append(
            _checkpoint_choice(checkpoint, job)
        )
    imported, _more = base_models.list_models(session, principal=principal, limit=MAX_OFFERED, state="ready")
    choices = [_imported_choice(model) for model in imported if limit(model.facts, "generate") is None]
    return [*jobs.values(), *([ModelGroup(None, choices)] if choices else [])]


def get_model(session: Session, *, principal: Principal, model_id: str) -> ModelGroup | None:
    """A model that is not in the list, as it is too old, damaged, or a deployment; None if it writes no text at all.
    Raises 404 for another user's.
    """
    deployment = calls.find(session, principal=principal, name=model_id)
    if deployment is not None:
        deployed = session.get(ImportedModel, deployment.model_id) or session.get(Checkpoint, deployment.model_id)
        if deployed is not None and limit(_traits(session, deployed), "generate") is not None:
            return None
        choice = ModelChoice("", "") if deployed is None else _group(session, deployed).choices[0]
        own = replace(choice, id=deployment.id, label=deployment.name, loss=None, base_id=None)
        return ModelGroup(_("Deployments"), [own])
    model = _model(session, principal, model_id)
    return _group(session, model) if limit(_traits(session, model), "generate") is None else None


def _group(session: Session, model: Checkpoint | ImportedModel) -> ModelGroup:
    """A model alone."""
    if isinstance(model, ImportedModel):
        return ModelGroup(None, [_imported_choice(model)])
    job = session.get_one(Job, model.job_id)
    return ModelGroup(job.name, [_checkpoint_choice(model, job)])


def _imported_choice(model: ImportedModel) -> ModelChoice:
    can_chat = limit(model.facts, "messages") is None
    return ModelChoice(model.id, model.name, can_chat=can_chat, turns_text=model.facts.turns_text)


def _checkpoint_choice(checkpoint: Checkpoint, job: Job) -> ModelChoice:
    loss = checkpoint.metrics.get("eval_loss")
    return ModelChoice(
        checkpoint.id,
        checkpoint_title(job.name, checkpoint.step, checkpoint.name),
        loss if isinstance(loss, float) else None,
        any(file.name == CHAT_TEMPLATE for file in checkpoint.manifest.files),
        job.spec.model_type in ENCODER_DECODERS,
        job.spec.base_model or job.spec.resume_from_checkpoint,
    )


def checkpoints_of_job(session: Session, *, principal: Principal, job_id: str) -> tuple[Job, list[Checkpoint]]:
    """A job and its intact checkpoints, the first step first; also of a job that runs. Raises 404."""
    job = visible(session, Job, job_id, principal=principal)
    own = select(Checkpoint).where(usable_of([job_id]))
    newest = {row.step: row for row in session.scalars(own.order_by(Checkpoint.step, Checkpoint.fence))}
    return job, list(newest.values())
