"""Rows of the lists that users label, search and share, without files."""

from collections.abc import Callable
from typing import Any

from app.core import db
from app.core.model_base import new_id
from app.core.models import Checkpoint, Corpus, ImportedModel, Job, Tokenizer
from trainer.spec import resolve


def job(owner_id: str | None, name: str, **values: Any) -> Job:
    """A queued job."""
    spec = resolve({"corpora": ["text"], "name": name})
    known = {"recipe": spec.recipe, "spec": spec, "spec_sha256": spec.sha256(), "body_sha256": ""}
    return Job(id=new_id(), owner_id=owner_id, name=name, max_steps=spec.max_steps, **known, **values)


def checkpoint(owner_id: str | None, job_id: str, step: int, **values: Any) -> Checkpoint:
    """A checkpoint of a job."""
    known = {"step": step, "fence": 1, "manifest": {"files": []}, "path": f"runs/{job_id}/checkpoints/step-{step}-1"}
    return Checkpoint(owner_id=owner_id, job_id=job_id, **known, **values)


def corpus(owner_id: str | None, name: str, **values: Any) -> Corpus:
    """A corpus that is read."""
    known = {"filename": "a.txt", "format": "txt", "num_bytes": 1, "sha256": "0" * 64, "state": "ready"}
    return Corpus(owner_id=owner_id, name=name, **known, **values)


def model(owner_id: str | None, name: str, **values: Any) -> ImportedModel:
    """A base model."""
    return ImportedModel(owner_id=owner_id, name=name, source="upload", state="ready", num_bytes=1, **values)


def tokenizer(owner_id: str | None, name: str, **values: Any) -> Tokenizer:
    """A tokenizer."""
    known = {"source": "import", "state": "ready", "corpora": [], "vocab_size": 1, "sha256": new_id().ljust(64, "0")}
    return Tokenizer(owner_id=owner_id, name=name, **known, **values)


ROWS: dict[type[Any], Callable[..., Any]] = {
    Corpus: corpus,
    ImportedModel: model,
    Job: job,
    Tokenizer: tokenizer,
}


def add(table: type[Any], owner_id: str | None, name: str, **values: Any) -> str:
    """Insert a row of a list, of checkpoints with a job that has the same name; returns its ID."""
    with db.transaction() as session:
        if table is Checkpoint:
            of = job(owner_id, name)
            session.add(of)
            session.flush()
            row: Any = checkpoint(owner_id, of.id, 4, name=name, num_bytes=1, metrics={}, **values)
        else:
            row = ROWS[table](owner_id, name, **values)
        session.add(row)
        session.flush()
        return str(row.id)
