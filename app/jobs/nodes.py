"""Machines that run workers: what they say of themselves, whether they live, what room they have left."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.jobs.placement import Room
from app.jobs.transitions import HELD
from app.models import Job, Node
from app.settings import settings

KNOWN_SECONDS = 3600  # a node that fell silent is expected back for so long


def heartbeat(session: Session, *, name: str, **description: Any) -> None:
    """A node says that it is there, and what it has (see app.models.Node)."""
    seen = {**description, "last_seen_at": func.now()}
    new = insert(Node).values(name=name, **seen)
    session.execute(new.on_conflict_do_update(index_elements=["name"], set_=seen))


def is_live(node: Node, now: datetime) -> bool:
    """Whether a node was heard of within a lease."""
    return node.last_seen_at > now - timedelta(seconds=settings().lease_seconds)


def is_known(node: Node, now: datetime) -> bool:
    """Whether a node lives, or may well come back: what it has decides whether a job is for GPUs."""
    return node.last_seen_at > now - timedelta(seconds=KNOWN_SECONDS)


def rooms(session: Session, nodes: Sequence[Node], now: datetime) -> tuple[list[Room], Counter[str]]:
    """What each of these nodes has left beside the jobs that have a place, and how many places each owner has."""
    taken = select(Job.node, Job.gpus, Job.owner_id).where(Job.node.is_not(None), Job.state.in_(("queued", *HELD)))
    session.flush()
    holders = session.execute(taken).all()
    found = []
    for node in nodes:
        gpus = tuple(gpu["uuid"] for gpu in node.gpus)
        here = [held for name, held, _owner in holders if name == node.name]
        busy = {uuid for held in here for uuid in held}
        free = [uuid for uuid in gpus if uuid not in busy]
        found.append(Room(node.name, gpus, node.slots, free, node.slots - len(here), is_live(node, now)))
    return found, Counter(owner_id for _name, _held, owner_id in holders)


def running_on(session: Session, *, owner_id: str) -> dict[str, list[str]]:
    """The jobs of a user that hold a place on a node, by its name."""
    held = select(Job.node, Job.id).where(Job.owner_id == owner_id, Job.node.is_not(None), Job.state.in_(HELD))
    found: dict[str, list[str]] = {}
    for name, job_id in session.execute(held.order_by(Job.id)):
        found.setdefault(str(name), []).append(job_id)
    return found


def memory_of_a_process(session: Session, num_processes: int) -> tuple[Literal["cpu", "cuda"], int | None]:
    """The device a job of so many processes would run on, cpu or cuda, and what memory each would have there."""
    heard_of = Node.last_seen_at > func.now() - timedelta(seconds=KNOWN_SECONDS)
    nodes = list(session.scalars(select(Node).where(heard_of)))
    with_gpus = [sorted((gpu["memory_bytes"] for gpu in node.gpus), reverse=True) for node in nodes]
    fitting = [sizes[num_processes - 1] for sizes in with_gpus if len(sizes) >= num_processes]
    if fitting:
        return "cuda", max(fitting)
    without = [node.memory_bytes // num_processes for node in nodes if not node.gpus]
    return ("cpu", max(without)) if without else ("cuda" if num_processes > 2 else "cpu", None)
