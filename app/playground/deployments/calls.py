"""Calls of deployments: who may make one, how many in a minute, where it goes, and what it took."""

import logging
import random
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import anyio
from anyio import to_thread
from redis import RedisError
from sqlalchemy import ColumnElement, and_, any_, delete, func, literal, or_, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.core import db
from app.core.deployment_models import Deployment, DeploymentCall, Replica
from app.core.errors import PanelError
from app.core.i18n import ngettext
from app.core.live import valkey
from app.core.names import comparison_key
from app.core.principal import Principal
from app.playground import failures
from app.playground.deployments import replicas
from app.playground.deployments.schemas import HourAnswer, UsageAnswer
from app.playground.schemas import GenerationMessage, GenerationTask

log = logging.getLogger(__name__)

MINUTE = 60
RECORD_SECONDS = 5
KEPT = timedelta(days=90)  # of calls


@dataclass
class CallRefused(PanelError):
    """A call that its deployment refuses."""

    deployment_id: str = ""
    user_id: str = ""


@contextmanager
def placing() -> Iterator[Session]:
    """A transaction in which calls are placed. One that is refused is counted after it. Raises PanelError."""
    try:
        with db.transaction() as session:
            yield session
    except CallRefused as refusal:
        _store_refusal(refusal)
        raise


def place(session: Session, deployment: Deployment, principal: Principal) -> tuple[str, str | None]:
    """Count a call against its limit, and choose the model's directory and the node for it. Raises CallRefused."""
    try:
        count(deployment, principal)
        return route(session, deployment)
    except PanelError as error:
        raise CallRefused(**vars(error), deployment_id=deployment.id, user_id=principal.user_id) from None


def callable_by(principal: Principal) -> ColumnElement[bool]:
    """A condition for the deployments that a user may call."""
    is_listed = and_(Deployment.access == "users", literal(principal.user_id) == any_(Deployment.user_ids))
    return or_(Deployment.owner_id == principal.user_id, Deployment.access == "everyone", is_listed)


def find(session: Session, *, principal: Principal, name: str) -> Deployment | None:
    """The deployment with this ID or name, if the user may call it."""
    is_meant = or_(Deployment.id == name, Deployment.name_key == comparison_key(name))
    return session.scalar(select(Deployment).where(is_meant, callable_by(principal)))


def route(session: Session, deployment: Deployment) -> tuple[str, str | None]:
    """The model's directory and the node for a call: a live replica of the newest model, else of the one before.

    Without a replica any node may load the model; with chosen nodes, one of them. Raises PanelError (503) while none
    of those is online.
    """
    live = replicas.live_nodes(session)
    allowed = replicas.allowed_nodes(deployment.nodes, live)
    if not allowed and deployment.nodes:
        raise failures.error("nodes_away", {})
    ready = select(Replica).where(
        Replica.deployment_id == deployment.id, Replica.state == "ready", Replica.node.in_(allowed)
    )
    rows = session.scalars(ready).all()
    current = [row for row in rows if row.path == deployment.path]
    if current or rows:
        chosen = random.choice(current or rows)  # noqa: S311 - any of them will do
        return chosen.path, chosen.node
    loading = replicas.hosts(deployment.id, deployment.nodes, live, deployment.num_replicas)
    return deployment.path, random.choice(loading) if deployment.nodes else None  # noqa: S311


def count(deployment: Deployment, principal: Principal) -> None:
    """Count a call against the limit of its token or session. Raises PanelError (429). Not counted without Valkey."""
    if deployment.requests_per_minute is None:
        return
    now = time.time()
    key = f"athanor:deployment:{deployment.id}:{principal.credential_id}:{int(now // MINUTE)}"
    try:
        with valkey().pipeline() as pipe:
            pipe.incr(key)
            pipe.expire(key, 2 * MINUTE)
            number = int(pipe.execute()[0])
    except RedisError as error:
        log.warning("a call was not counted: %s", error)
        return
    if number > deployment.requests_per_minute:
        message = ngettext(
            "“{name}” takes {n} request per minute from each token. Try again in a moment.",
            "“{name}” takes {n} requests per minute from each token. Try again in a moment.",
            deployment.requests_per_minute,
            name=deployment.name,
        )
        raise PanelError(429, "deployment_limit", message, headers={"Retry-After": str(MINUTE - int(now % MINUTE))})


@dataclass
class Call:
    """What is recorded of a request, of one task or several, if it is to a deployment."""

    task: GenerationTask  # the first one
    began: float = field(default_factory=time.monotonic)
    first: float | None = None
    failure: str | None = None
    _of_prompts: dict[int, int] = field(default_factory=dict)  # tokens, by the number of the prompt
    _of_texts: dict[str, int] = field(default_factory=dict)  # tokens so far, by the ID of the task

    @property
    def num_prompt_tokens(self) -> int:
        """The tokens of all prompts, each counted once, however many texts follow it."""
        return sum(self._of_prompts.values())

    def note(self, task: GenerationTask, message: GenerationMessage) -> None:
        """Take from a message of one of the tasks what is recorded."""
        if message.event == "piece" and self.first is None:
            self.first = time.monotonic()
        if message.num_tokens:
            self._of_texts[task.id] = message.num_tokens
        if message.num_prompt_tokens:
            self._of_prompts[task.prompt_number] = message.num_prompt_tokens
        self.failure = message.code or self.failure

    @asynccontextmanager
    async def recorded(self) -> AsyncIterator[None]:
        """Store the call at the end of the block, also of one whose client has left."""
        try:
            yield
        finally:
            if self.task.deployment_id is not None:
                with anyio.move_on_after(RECORD_SECONDS, shield=True):
                    await to_thread.run_sync(self.store)

    def store(self) -> None:
        """Store the call as it is now, if it is to a deployment."""
        if self.task.deployment_id is None:
            return
        values = {
            "user_id": self.task.user_id,
            "milliseconds": round((time.monotonic() - self.began) * 1000),
            "first_milliseconds": None if self.first is None else round((self.first - self.began) * 1000),
            "num_prompt_tokens": self.num_prompt_tokens,
            "num_tokens": sum(self._of_texts.values()),
            "failure": self.failure,
        }
        with _recording(self.task.deployment_id) as session:
            _add(session, self.task.deployment_id, values)


def _store_refusal(refusal: CallRefused) -> None:
    """Count a refused call in the row of this minute."""
    alike = (
        DeploymentCall.deployment_id == refusal.deployment_id,
        DeploymentCall.user_id == refusal.user_id,
        DeploymentCall.failure == refusal.code,
        DeploymentCall.created_at >= func.date_trunc("minute", func.now()),
    )
    row = select(DeploymentCall.id).where(*alike).limit(1).scalar_subquery()
    more = update(DeploymentCall).where(DeploymentCall.id == row)
    with _recording(refusal.deployment_id) as session:
        counted = session.execute(
            more.values(num_requests=DeploymentCall.num_requests + 1).returning(DeploymentCall.id)
        )
        if counted.first() is None:
            values = {"user_id": refusal.user_id, "milliseconds": 0, "failure": refusal.code}
            _add(session, refusal.deployment_id, values)


def _add(session: Session, deployment_id: str, values: dict[str, Any]) -> None:
    """Add a row, unless the deployment has been removed."""
    if session.get(Deployment, deployment_id) is not None:
        session.add(DeploymentCall(deployment_id=deployment_id, **values))
        is_old = DeploymentCall.created_at < func.now() - KEPT
        session.execute(delete(DeploymentCall).where(DeploymentCall.deployment_id == deployment_id, is_old))


@contextmanager
def _recording(deployment_id: str) -> Iterator[Session]:
    """A transaction whose failure nobody is told of: the answer to the call does not depend on it."""
    try:
        with db.transaction() as session:
            yield session
    except SQLAlchemyError as error:
        log.warning("a call of deployment %s was not recorded: %s", deployment_id, error)


# ---- counts ---------------------------------------------------------------------------------------------------------


def _milliseconds(fraction: float) -> ColumnElement[float]:
    """A percentile of how long answers took; errors are none."""
    percentile = func.percentile_cont(fraction).within_group(DeploymentCall.milliseconds)
    return percentile.filter(DeploymentCall.failure.is_(None))


_COUNTS = (
    func.coalesce(func.sum(DeploymentCall.num_requests), 0).label("requests"),
    func.coalesce(func.sum(DeploymentCall.num_requests).filter(DeploymentCall.failure.is_not(None)), 0).label("errors"),
    func.coalesce(func.sum(DeploymentCall.num_prompt_tokens), 0).label("prompt_tokens"),
    func.coalesce(func.sum(DeploymentCall.num_tokens), 0).label("tokens"),
    func.percentile_cont(0.5).within_group(DeploymentCall.first_milliseconds).label("first_token_p50_ms"),
    _milliseconds(0.5).label("p50_ms"),
    _milliseconds(0.95).label("p95_ms"),
)


def usages(session: Session, deployment_ids: Sequence[str], since: datetime) -> dict[str, UsageAnswer]:
    """The calls of each of these deployments since then, by its ID."""
    of_each = select(DeploymentCall.deployment_id, *_COUNTS).group_by(DeploymentCall.deployment_id)
    rows = session.execute(of_each.where(*_calls(deployment_ids, since)))
    counted = {row.deployment_id: UsageAnswer.model_validate(row, from_attributes=True) for row in rows}
    return {deployment_id: counted.get(deployment_id, UsageAnswer()) for deployment_id in deployment_ids}


def usage_by_hour(session: Session, deployment_id: str, since: datetime) -> list[HourAnswer]:
    """The same for each hour that had calls, oldest first."""
    hour = func.date_trunc("hour", DeploymentCall.created_at).label("hour")
    query = select(hour, *_COUNTS).where(*_calls([deployment_id], since)).group_by(hour).order_by(hour)
    return [HourAnswer.model_validate(row, from_attributes=True) for row in session.execute(query)]


def _calls(deployment_ids: Sequence[str], since: datetime) -> tuple[ColumnElement[bool], ...]:
    return DeploymentCall.deployment_id.in_(deployment_ids), DeploymentCall.created_at >= since
