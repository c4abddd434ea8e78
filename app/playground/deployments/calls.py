"""Calls of deployments: who may make one, how many in a minute, where it goes, and what it took."""

import logging
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import anyio
from anyio import to_thread
from redis import RedisError
from sqlalchemy import ColumnElement, and_, any_, delete, func, literal, or_, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.core import db
from app.core.deployment_models import Deployment, DeploymentCall, Replica
from app.core.errors import PanelError
from app.core.i18n import ngettext
from app.core.live import valkey
from app.core.names import comparison_key
from app.core.principal import Principal
from app.playground.deployments import replicas
from app.playground.deployments.schemas import HourAnswer, UsageAnswer
from app.playground.schemas import GenerationMessage, GenerationTask

log = logging.getLogger(__name__)

MINUTE = 60
RECORD_SECONDS = 5
KEPT = timedelta(days=90)  # of calls


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

    Without a replica any node may load the model.
    """
    ready = select(Replica).where(
        Replica.deployment_id == deployment.id,
        Replica.state == "ready",
        Replica.node.in_(replicas.live_nodes(session)),
    )
    rows = session.scalars(ready).all()
    current = [row for row in rows if row.path == deployment.path]
    chosen = random.choice(current or rows) if rows else None  # noqa: S311 - any of them will do
    return (deployment.path, None) if chosen is None else (chosen.path, chosen.node)


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
    """What is recorded of a generation if it is by a deployment."""

    task: GenerationTask
    began: float = field(default_factory=time.monotonic)
    first: float | None = None
    num_prompt_tokens: int = 0
    num_tokens: int = 0
    failure: str | None = None

    def note(self, message: GenerationMessage) -> None:
        """Take from a message what is recorded."""
        if message.event == "piece" and self.first is None:
            self.first = time.monotonic()
        self.num_tokens = message.num_tokens or self.num_tokens
        self.num_prompt_tokens = message.num_prompt_tokens or self.num_prompt_tokens
        self.failure = message.code or self.failure

    @asynccontextmanager
    async def recorded(self) -> AsyncIterator[None]:
        """Store the call at the end of the block, also of one whose client has left."""
        try:
            yield
        finally:
            if self.task.deployment_id is not None:
                with anyio.move_on_after(RECORD_SECONDS, shield=True):
                    await to_thread.run_sync(self._store, self.task.deployment_id)

    def _store(self, deployment_id: str) -> None:
        values = {
            "user_id": self.task.user_id,
            "milliseconds": round((time.monotonic() - self.began) * 1000),
            "first_milliseconds": None if self.first is None else round((self.first - self.began) * 1000),
            "num_prompt_tokens": self.num_prompt_tokens,
            "num_tokens": self.num_tokens,
            "failure": self.failure,
        }
        try:
            with db.transaction() as session:
                if session.get(Deployment, deployment_id) is not None:
                    session.add(DeploymentCall(deployment_id=deployment_id, **values))
                    is_old = DeploymentCall.created_at < func.now() - KEPT
                    session.execute(delete(DeploymentCall).where(DeploymentCall.deployment_id == deployment_id, is_old))
        except SQLAlchemyError as error:  # what was generated has been sent already
            log.warning("a call of deployment %s was not recorded: %s", deployment_id, error)


# ---- counts ---------------------------------------------------------------------------------------------------------

_COUNTS = (
    func.count().label("requests"),
    func.count(DeploymentCall.failure).label("errors"),
    func.coalesce(func.sum(DeploymentCall.num_prompt_tokens), 0).label("prompt_tokens"),
    func.coalesce(func.sum(DeploymentCall.num_tokens), 0).label("tokens"),
    func.percentile_cont(0.5).within_group(DeploymentCall.first_milliseconds).label("first_token_p50_ms"),
    func.percentile_cont(0.5).within_group(DeploymentCall.milliseconds).label("p50_ms"),
    func.percentile_cont(0.95).within_group(DeploymentCall.milliseconds).label("p95_ms"),
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
