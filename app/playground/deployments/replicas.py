"""Which nodes keep which models in memory for deployments.

Nothing is stored about who should keep what: it follows from the deployments and the live nodes (rendezvous hashing,
https://en.wikipedia.org/wiki/Rendezvous_hashing), so a node that dies is replaced as soon as its lease has expired.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from redis import RedisError
from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.core.deployment_models import Deployment, Replica
from app.core.live import valkey
from app.core.models import Node
from app.core.settings import settings

PERCENT_SECONDS = 30


@dataclass(frozen=True)
class Duty:
    """A deployment that a node has to serve. `paths` are the directories to keep in memory, the newest first."""

    deployment_id: str
    paths: tuple[str, ...]


@dataclass(frozen=True)
class LoadedState:
    """How far a model is in the memory of a node."""

    state: str  # one of REPLICA_STATES
    failure: str | None = None
    percent: int | None = None  # that is loaded, of one that is loading


def allowed_nodes(chosen: Sequence[str], live: Sequence[str]) -> list[str]:
    """The live nodes that may keep a deployment; any of them if none was chosen."""
    return [node for node in live if not chosen or node in chosen]


def hosts(deployment_id: str, allowed: Sequence[str], live: Sequence[str], number: int) -> list[str]:
    """The nodes that keep a deployment."""
    nodes = allowed_nodes(allowed, live)
    return sorted(nodes, key=lambda node: hashlib.sha256(f"{deployment_id}/{node}".encode()).digest())[:number]


def live_nodes(session: Session) -> list[str]:
    """The names of the nodes that have reported within a lease."""
    fresh = func.now() - timedelta(seconds=settings().lease_seconds)
    return list(session.scalars(select(Node.name).where(Node.last_seen_at > fresh).order_by(Node.name)))


def duties(session: Session, node: str) -> list[Duty]:
    """What a node has to keep in memory. Until a new model is ready, it keeps the one that it has as well."""
    live = sorted({*live_nodes(session), node})
    own = {row.deployment_id: row for row in session.scalars(select(Replica).where(Replica.node == node))}
    result = []
    for row in session.scalars(select(Deployment).order_by(Deployment.id)):
        if node in hosts(row.id, row.nodes, live, row.num_replicas):
            replica = own.get(row.id)
            old = [replica.path] if replica is not None and replica.state == "ready" else []
            result.append(Duty(row.id, tuple(dict.fromkeys([row.path, *old]))))
    return result


def tell_percents(node: str, states: Mapping[str, LoadedState]) -> None:
    """Tell how many percent of each model a node has loaded, by path. It is forgotten after PERCENT_SECONDS."""
    percents = {path: state.percent for path, state in states.items() if state.percent is not None}
    if percents:
        with suppress(RedisError):
            valkey().set(_percents_key(node), json.dumps(percents), ex=PERCENT_SECONDS)


def percents(nodes: Sequence[str]) -> dict[str, dict[str, int]]:
    """What these nodes last told so; nothing of those that load no model."""
    try:
        texts: Any = valkey().mget([_percents_key(node) for node in nodes]) if nodes else []
    except RedisError:
        return {}
    return {node: json.loads(text) for node, text in zip(nodes, texts, strict=True) if text}


def _percents_key(node: str) -> str:
    return f"athanor:loading:{node}"


def record(session: Session, node: str, node_duties: Sequence[Duty], states: Mapping[str, LoadedState]) -> None:
    """Store what a node keeps, by path; a model that is replaced counts until the new one is ready."""
    ids = [duty.deployment_id for duty in node_duties]
    session.execute(delete(Replica).where(Replica.node == node, Replica.deployment_id.not_in(ids)))
    existing = set(session.scalars(select(Deployment.id).where(Deployment.id.in_(ids))))
    for duty in node_duties:
        if duty.deployment_id in existing:
            _record_one(session, node, duty, states)


def _record_one(session: Session, node: str, duty: Duty, states: Mapping[str, LoadedState]) -> None:
    newest = duty.paths[0]
    path = next((path for path in duty.paths if states[path].state == "ready"), newest)
    values: dict[str, Any] = {
        "path": path,
        "state": states[path].state,
        "failure": states[newest].failure,
        "seen_at": func.now(),
    }
    new = insert(Replica).values(deployment_id=duty.deployment_id, node=node, **values)
    session.execute(new.on_conflict_do_update(index_elements=["deployment_id", "node"], set_=values))
