"""Nodes, which run workers: their reported hardware, whether they are live, their free resources."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.core import audit_log, db
from app.core.errors import PanelError
from app.core.i18n import _
from app.core.models import HELD, BackgroundTask, Job, Node
from app.core.principal import Principal, not_found
from app.core.settings import settings
from app.jobs.cluster.placement import NodeCapacity
from app.jobs.planning import accuracy
from trainer.planning import hardware

KNOWN_SECONDS = 3600  # a node that fell silent is expected back for so long


def heartbeat(session: Session, *, name: str, **description: Any) -> None:
    """Record that a node is alive, and its hardware (see app.core.models.Node). One that was removed is back."""
    values = {**description, "last_seen_at": func.now(), "removed_at": None}
    new = insert(Node).values(name=name, **values)
    session.execute(new.on_conflict_do_update(index_elements=["name"], set_=values))


def is_live(node: Node, now: datetime) -> bool:
    """Whether a node has reported within a lease."""
    return node.last_seen_at > now - timedelta(seconds=settings().lease_seconds)


def is_known(node: Node, now: datetime) -> bool:
    """Whether a node is live or likely to return. Its hardware decides whether a job is for GPUs."""
    return node.last_seen_at > now - timedelta(seconds=KNOWN_SECONDS)


def capacities(session: Session, nodes: Sequence[Node], now: datetime) -> tuple[list[NodeCapacity], Counter[str]]:
    """The free capacity of each of these nodes, and how many placed jobs each owner has."""
    placed = select(Job.node, Job.gpus, Job.owner_id).where(Job.node.is_not(None), Job.state.in_(("queued", *HELD)))
    session.flush()
    holders = session.execute(placed).all()
    node_capacities = []
    for node in nodes:
        gpus = tuple(gpu.uuid for gpu in node.gpus)
        node_jobs = [gpus_in_use for name, gpus_in_use, _owner in holders if name == node.name]
        busy = {uuid for gpus_in_use in node_jobs for uuid in gpus_in_use}
        free = [uuid for uuid in gpus if uuid not in busy]
        free_slots = node.slots - len(node_jobs)
        state = (is_live(node, now), node.is_draining)
        node_capacities.append(NodeCapacity(node.name, gpus, node.slots, free, free_slots, *state))
    return node_capacities, Counter(owner_id for _name, _gpus, owner_id in holders)


def running_on(session: Session, *, owner_id: str) -> dict[str, list[str]]:
    """The jobs of a user that hold a place on a node, by its name."""
    running = select(Job.node, Job.id).where(Job.owner_id == owner_id, Job.node.is_not(None), Job.state.in_(HELD))
    job_ids: dict[str, list[str]] = {}
    for name, job_id in session.execute(running.order_by(Job.id)):
        job_ids.setdefault(str(name), []).append(job_id)
    return job_ids


def for_a_plan(session: Session, num_processes: int) -> hardware.NodeHardware | None:
    """The machine that a job of so many processes would best run on, as a plan sees it; None where none is known."""
    machines = [node for node in list_nodes(session) if is_known(node, db.now())]
    with_gpus = [node for node in machines if node.gpus]
    enough = [node for node in with_gpus if len(node.gpus) >= num_processes]
    if enough:
        best = max(enough, key=lambda node: _memory_of_gpu(node, num_processes))
        return _with_gpus(best, num_processes, _prices_and_corrections(session, best.name))
    without = [node for node in machines if not node.gpus]
    if not without:
        return None
    best = max(without, key=lambda node: node.memory_bytes)
    corrections = _prices_and_corrections(session, best.name)
    return hardware.NodeHardware(kind="cpu", memory_bytes=best.memory_bytes, num_cpus=best.num_cpus, **corrections)


def _prices_and_corrections(session: Session, name: str) -> dict[str, Any]:
    """Settings and measurements for a node: prices, power, and corrections of estimates by earlier jobs."""
    prices = {field: getattr(settings(), field) or None for field in ("price_per_hour", "price_per_kwh", "watts")}
    return {**prices, **accuracy.corrections(session, name)}


def _with_gpus(node: Node, num_processes: int, corrections: dict[str, Any]) -> hardware.NodeHardware:
    return hardware.NodeHardware(
        kind="cuda",
        name=node.gpus[0].name,
        count=len(node.gpus),
        memory_bytes=_memory_of_gpu(node, num_processes),
        num_cpus=node.num_cpus,
        host_memory_bytes=node.memory_bytes,
        **corrections,
    )


def _memory_of_gpu(node: Node, num_processes: int) -> int:
    """Of the smallest among its so many largest GPUs."""
    sizes = sorted((gpu.memory_bytes for gpu in node.gpus), reverse=True)
    return sizes[num_processes - 1]


def list_nodes(session: Session) -> list[Node]:
    """Every machine that ever ran a worker and was not removed, by name."""
    return list(session.scalars(select(Node).where(Node.removed_at.is_(None)).order_by(Node.name)))


def remove(session: Session, *, principal: Principal, name: str) -> None:
    """Remove a node from the list until its worker reports again. Raises PanelError if it is live or has work."""
    node = _listed(session, name)
    if is_live(node, db.now()):
        message = _("{name} is online. Stop its worker first, and try again when the node is offline.", name=name)
        raise PanelError(409, "node_online", message)
    placed = select(Job.id).where(Job.node == name, Job.state.in_(("queued", *HELD)))
    running = select(BackgroundTask.id).where(BackgroundTask.node == name, BackgroundTask.state == "running")
    if session.scalar(select(placed.exists() | running.exists())):
        message = _(
            "Jobs or background tasks run on {name} or are about to start there. Cancel them, or try again when they "
            "have ended or moved to another node.",
            name=name,
        )
        raise PanelError(409, "node_busy", message)
    node.removed_at, node.is_draining = func.now(), False
    audit_log.record(session, "node_removed", principal, subject=name)


def set_draining(session: Session, *, principal: Principal, name: str, is_draining: bool) -> None:
    """Drain a node, or let it take jobs again: while it is drained its jobs go on to their end, and no other is placed
    there. Raises PanelError (404).
    """
    node = _listed(session, name)
    if node.is_draining != is_draining:
        node.is_draining = is_draining
        audit_log.record(session, "node_drained" if is_draining else "node_resumed", principal, subject=name)


def _listed(session: Session, name: str) -> Node:
    node = session.scalar(select(Node).where(Node.name == name, Node.removed_at.is_(None)).with_for_update())
    if node is None:
        raise not_found()
    return node
