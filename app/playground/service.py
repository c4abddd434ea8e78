"""Text from a checkpoint: checks a request, puts it into the line, follows what a node writes. It has no table."""

import logging
import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from anyio import to_thread
from kombu.exceptions import OperationalError
from redis import RedisError
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.base_models import service as base_models
from app.checkpoints import service as checkpoints
from app.core import db, queue, storage
from app.core.errors import bad_field
from app.core.i18n import _
from app.core.models import Checkpoint, ImportedModel, Job, Node, new_id
from app.core.principal import Principal, visible_to
from app.core.settings import settings
from app.playground import failures, generation_queue
from app.playground.schemas import MAX_PROMPT_CHARACTERS, GenerateRequest, GenerationTask
from trainer.spec import DECODERS

log = logging.getLogger(__name__)

RING_SECONDS = 2.0  # how often the head of the line rings again: a node may have missed the first time
WAIT_SECONDS = 300.0
MAX_CHOICES = 200


@dataclass(frozen=True)
class GenerationEvent:
    """What the reader of a generation is told: waiting, start, piece, done or failure."""

    name: str
    data: dict[str, Any]


def begin(session: Session, *, principal: Principal, request: GenerateRequest) -> GenerationTask:
    """Check a request against what its sender may use. Raises PanelError."""
    if len(request.prompt) > MAX_PROMPT_CHARACTERS:
        message = _(
            "The prompt has {n} characters; the limit is {limit}. Shorten it.",
            n=len(request.prompt),
            limit=MAX_PROMPT_CHARACTERS,
        )
        raise bad_field("prompt", "prompt_too_large", message, status=413)
    path = _writer(session, principal, request.checkpoint)
    if not storage.checkpoint(path).is_dir():
        raise failures.error("checkpoint_gone", {})
    return GenerationTask(
        id=new_id(),
        path=path,
        seed=secrets.randbits(31) if request.seed is None else request.seed,
        **request.model_dump(exclude={"checkpoint", "stream", "seed"}),
    )


def _writer(session: Session, principal: Principal, writer_id: str) -> str:
    """Where the checkpoint or the imported model lies that is to write. Raises PanelError."""
    model = base_models.find(session, principal=principal, model_id=writer_id)
    if model is not None and model.state == "ready":
        _require_decoder(str(model.facts.model_type))
        return str(storage.base_model(model.id).relative_to(storage.data()))
    checkpoint = checkpoints.get(session, principal=principal, checkpoint_id=writer_id)
    if checkpoint.state == "corrupt":
        raise failures.error("checkpoint_corrupt", {})
    spec = session.get_one(Job, checkpoint.job_id).spec
    is_classifier = spec.objective == "classification"
    _require_decoder(f"{spec.model_type} classifier" if is_classifier else spec.model_type)
    return checkpoint.path


def _require_decoder(model_type: str) -> None:
    if model_type not in DECODERS:
        raise failures.error("checkpoint_mute", {"model_type": model_type})


def enter(order: GenerationTask) -> None:
    """Put a checked request into the line and ring for a node. Raises PanelError."""
    try:
        if not generation_queue.enqueue(order):
            raise failures.error("line_full", {})
    except RedisError as error:
        log.warning("generation %s: broker not reachable: %s", order.id, error)
        raise failures.error("broker_away", {}) from None
    ring()


def ring() -> None:
    """Notify the nodes of a waiting request. Best effort: the first in the queue repeats it."""
    try:
        queue.send(queue.GENERATE, queue=queue.GENERATE_QUEUE)
    except (OperationalError, RedisError) as error:
        log.warning("no node was notified of a generation: %s", error)


async def follow(order: GenerationTask) -> AsyncGenerator[GenerationEvent, None]:
    """All that happens to a generation, until `done` or `failure`. Closing it early ends the writing."""
    wait = _Wait()
    async with aclosing(generation_queue.read(order.id)) as lines:
        async for entry in lines:
            name = entry.event
            if name == "waiting":
                position = entry.position
                if position is not None and wait.changed(position):
                    yield GenerationEvent("waiting", {"position": position, "message": _place(position)})
                if (code := await wait.over(position)) is not None:
                    yield _failure(code, {})
                    return
            elif name == "failure":
                yield _failure(entry.code, entry.values)
            elif name != "beat":
                data = entry.model_dump(exclude_unset=True, exclude={"event"})
                yield GenerationEvent(name, {**data, "seed": order.seed} if name in ("start", "done") else data)


@dataclass
class _Wait:
    """How long somebody has waited, and what was done about it."""

    since: float = field(default_factory=time.monotonic)
    looked: float = field(default_factory=time.monotonic)
    position: int | None = None

    def changed(self, position: int) -> bool:
        changed, self.position = position != self.position, position
        return changed

    async def over(self, position: int | None) -> str | None:
        """The code of the failure that ends the waiting, if something does. Rings again for the head of the line."""
        now = time.monotonic()
        if now - self.since > WAIT_SECONDS:
            return "line_slow"
        if now - self.looked < RING_SECONDS:
            return None
        self.looked = now
        if position == 0:
            await to_thread.run_sync(ring)
        return None if await to_thread.run_sync(_has_live_worker) else "no_worker"


def _has_live_worker() -> bool:
    fresh = func.now() - timedelta(seconds=settings().lease_seconds)
    try:
        with db.transaction() as session:
            return session.scalar(select(Node.name).where(Node.last_seen_at > fresh).limit(1)) is not None
    except SQLAlchemyError:
        return True  # not known: no reason to give up


def _place(position: int) -> str:
    if position == 0:
        return _("You are next.")
    if position == 1:
        return _("One request is ahead of yours.")
    return _("{n} requests are ahead of yours.", n=position)


def _failure(code: str, values: dict[str, Any]) -> GenerationEvent:
    return GenerationEvent("failure", {"code": code, "message": failures.sentence(code, values), "values": values})


async def collect(order: GenerationTask) -> dict[str, Any]:
    """The whole text of a generation and how it ended. Raises PanelError for a failure."""
    text = ""
    async with aclosing(follow(order)) as events:
        async for event in events:
            if event.name == "piece":
                text += event.data["text"]
            elif event.name == "done":
                return {"text": text, **event.data}
            elif event.name == "failure":
                raise failures.error(event.data["code"], event.data["values"])
    raise failures.error("request_lost", {})


@dataclass(frozen=True)
class Choice:
    """A job's checkpoints, newest first, for the chooser."""

    job_id: str
    job_name: str
    checkpoints: list[Checkpoint]


def list_choices(session: Session, *, principal: Principal) -> list[Choice]:
    """The checkpoints somebody may try, newest first, job by job; damaged ones and encoders are left out."""
    rows = session.execute(
        select(Checkpoint, Job.name)
        .join(Job, Job.id == Checkpoint.job_id)
        .where(
            visible_to(Checkpoint.owner_id, principal),
            Checkpoint.state == "ready",
            Job.spec["model_type"].as_string().in_(DECODERS),
            Job.spec["objective"].as_string().is_distinct_from("classification"),
        )
        .order_by(Checkpoint.id.desc())
        .limit(MAX_CHOICES)
    ).all()
    choices: dict[str, Choice] = {}
    for checkpoint, job_name in rows:
        choices.setdefault(checkpoint.job_id, Choice(checkpoint.job_id, job_name, [])).checkpoints.append(checkpoint)
    return list(choices.values())


def list_models(session: Session, *, principal: Principal) -> list[ImportedModel]:
    """The imported models somebody may try, newest first."""
    models, _more = base_models.list_models(session, principal=principal, limit=MAX_CHOICES, state="ready")
    return [model for model in models if model.facts.model_type in DECODERS]
