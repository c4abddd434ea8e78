"""Corpora, nodes and jobs for the tests of jobs: rows as the other parts would have written them."""

import itertools
import struct
from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, select, update

from app.core import db, storage
from app.core.json_shapes import Telemetry
from app.core.model_base import new_id
from app.core.models import Corpus, Job, Node
from app.jobs import service
from app.jobs.attempts import attempts
from app.jobs.cluster import nodes
from tests.users import Person
from trainer import events

TEXT = "In the beginning God created the heaven and the earth. And the earth was without form, and void. " * 200


def corpus(owner: Person, *, text: str = TEXT, name: str = "Genesis", state: str = "ready") -> str:
    """Create a parsed corpus of one document; returns its ID."""
    corpus_id = new_id()
    data = text.encode()
    directory = storage.corpus(corpus_id)
    directory.mkdir(parents=True)
    (directory / "text.bin").write_bytes(data)
    (directory / "index.bin").write_bytes(struct.pack("<Q", len(data)))
    with db.transaction() as session:
        session.add(
            Corpus(
                id=corpus_id,
                owner_id=owner.id,
                name=name,
                filename="genesis.txt",
                format="txt",
                encoding="utf-8",
                state=state,
                num_bytes=len(data),
                sha256="0" * 64,
                num_documents=1,
                num_characters=len(text),
                num_text_bytes=len(data),
                text_sha256=f"{hash(text) & 2**64 - 1:064x}",
            )
        )
    return corpus_id


def node(name: str = "ada", *, gpus: int = 0, slots: int = 1, telemetry: Telemetry | None = None) -> str:
    """A live node."""
    described = [{"index": n, "uuid": f"{name}-{n}", "name": "GPU", "memory_bytes": 80 * 2**30} for n in range(gpus)]
    with db.transaction() as session:
        nodes.heartbeat(
            session,
            name=name,
            started_at=func.now(),
            num_cpus=2,
            memory_bytes=8 * 2**30,
            gpus=described,
            slots=slots,
            telemetry=telemetry or Telemetry(),
        )
    return name


def submitted(owner: Person, corpus_id: str, **given: Any) -> str:
    """Create a queued job; returns its ID."""
    with db.transaction() as session:
        job, _is_new = service.submit(session, principal=owner.principal, request={"corpora": [corpus_id], **given})
        return job.id


def started(owner: Person, corpus_id: str, *, on: str = "ada", **given: Any) -> tuple[str, int]:
    """Create a job that a worker has claimed; returns its ID and fence."""
    job_id = submitted(owner, corpus_id, **given)
    give_to(job_id, on)
    with db.transaction() as session:
        fence = attempts.claim(session, job_id=job_id, node=on)
    assert fence is not None
    return job_id, fence


def saved(job_id: str, fence: int, step: int) -> str:
    """Create a checkpoint that a job can resume from; returns its ID."""
    with db.transaction() as session:
        row = attempts.record_checkpoint(
            session,
            job_id=job_id,
            fence=fence,
            step=step,
            path=f"runs/{job_id}/checkpoints/step-{step}-{fence}",
            manifest={"files": [{"name": "resume/rank-0.safetensors", "size": 7, "sha256": "0" * 64}]},
            metrics={"eval_loss": 3.5},
        )
        return row.id


def finished(owner: Person, corpus_id: str, **given: Any) -> tuple[str, str]:
    """Create a job that has trained all its steps; returns its ID and that of its last checkpoint."""
    job_id, fence = started(owner, corpus_id, **given)
    record(job_id, fence, losses([4 - n / 50 for n in range(row(job_id).max_steps or 0)]))
    checkpoint_id = saved(job_id, fence, row(job_id).max_steps or 0)
    with db.transaction() as session:
        attempts.finish(session, job_id=job_id, fence=fence)
    return job_id, checkpoint_id


def end(job_id: str, loss: float | None, state: str | None = None) -> None:
    """A job ends in a state, with this validation loss; by default it succeeds, or fails without a loss."""
    give_to(job_id, "ada")
    with db.transaction() as session:
        fence = attempts.claim(session, job_id=job_id, node="ada")
    assert fence is not None
    values = {"loss": 1.0} if loss is None else {"loss": 1.0, "eval_loss": loss}
    record(job_id, fence, [events.PointsEvent(seq=1, at=1000.0, step=8, values=values)])  # type: ignore[arg-type]
    state = state or ("succeeded" if loss is not None else "failed")
    with db.transaction() as session:
        if state == "succeeded":
            attempts.finish(session, job_id=job_id, fence=fence)
        else:
            for passed in ("cancelling", "cancelled") if state == "cancelled" else (state,):
                session.execute(update(Job).where(Job.id == job_id).values(state=passed))


def give_to(job_id: str, node_name: str) -> None:
    """Place a job by hand."""
    with db.transaction() as session:
        session.execute(update(Job).where(Job.id == job_id).values(node=node_name, placed_at=func.now()))


def row(job_id: str) -> Job:
    """The job as it is stored now."""
    with db.transaction() as session:
        return session.execute(select(Job).where(Job.id == job_id)).scalar_one()


def reasons(job_id: str) -> list[tuple[str, str | None]]:
    """The states a job went through, each with its reason."""
    with db.transaction() as session:
        return [(event.to_state, event.reason) for event in service.history(session, job_id=job_id)]


def record(job_id: str, fence: int, batch: Sequence[events.Event]) -> str:
    """What a supervisor does with a batch."""
    with db.transaction() as session:
        return attempts.record(session, job_id=job_id, fence=fence, batch=batch)


def losses(values: Sequence[float | str], *, first_step: int = 1, first_seq: int = 1) -> list[events.Event]:
    """Journal lines with one loss a step."""
    numbers = itertools.count()
    return [
        events.PointsEvent(seq=first_seq + n, at=1000.0 + n, step=first_step + n, values={"loss": value})  # type: ignore[dict-item]
        for n, value in zip(numbers, values, strict=False)
    ]


def forget_nodes() -> None:
    """No machine was ever there."""
    with db.transaction() as session:
        for found in session.scalars(select(Node)):
            session.delete(found)
