"""What an archive of a run says of its job, in run.json. Of corpora it has names and hashes, not their text."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, Literal

from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.core.archive_shapes import ArchivedBase, ArchivedCorpus
from app.core.json_shapes import JobFacts, MessageValues
from app.core.models import Attempt, Checkpoint, Corpus, ImportedModel, Job, JobEvent, Tokenizer
from app.core.principal import Principal, visible_to
from app.core.version import VERSION

FORMAT: Final = "athanor-run"
FORMAT_VERSION: Final = 1


class ArchivedJob(BaseModel):
    """A job that has ended, without its spec, which is in spec.json."""

    id: str
    name: str
    tags: list[str]
    notes: str
    state: Literal["succeeded", "failed", "cancelled"]
    failure_code: str | None
    failure: MessageValues
    step: int
    max_steps: int | None
    facts: JobFacts
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class ArchivedTokenizer(BaseModel):
    """The tokenizer of a job."""

    id: str
    name: str
    sha256: str | None
    vocab_size: int | None


class ArchivedAttempt(BaseModel):
    """An attempt, without the machine that it ran on."""

    fence: int
    started_at: datetime
    ended_at: datetime | None
    exit_kind: str | None
    resume_step: int | None
    reached_step: int


class ArchivedEvent(BaseModel):
    """A change of a job's state."""

    at: datetime
    actor: str
    from_state: str | None
    to_state: str
    reason: str | None


class ArchivedCheckpoint(BaseModel):
    """A checkpoint that is in the archive: its files lie in `directory`."""

    directory: str
    step: int
    metrics: dict[str, float]
    reasons: list[str]


class RunDescription(BaseModel):
    """The content of run.json, the first file of an archive."""

    format: Literal["athanor-run"] = FORMAT
    format_version: Literal[1] = FORMAT_VERSION
    athanor_version: str = VERSION
    exported_at: datetime
    job: ArchivedJob
    corpora: list[ArchivedCorpus]
    validation_corpora: list[ArchivedCorpus]
    tokenizer: ArchivedTokenizer | None
    base_model: ArchivedBase | None
    attempts: list[ArchivedAttempt]
    history: list[ArchivedEvent]
    checkpoints: list[ArchivedCheckpoint]


def describe(
    session: Session,
    job: Job,
    checkpoints: Sequence[ArchivedCheckpoint],
    *,
    principal: Principal,
    exported_at: datetime,
) -> RunDescription:
    """The description of a job that has ended, as its reader may see it."""
    origin = job.imported_from if job.owner_id == principal.user_id else None
    there = (origin.corpora, origin.validation_corpora) if origin is not None else ((), ())
    attempts = session.scalars(select(Attempt).where(Attempt.job_id == job.id).order_by(Attempt.fence))
    history = session.scalars(select(JobEvent).where(JobEvent.job_id == job.id).order_by(JobEvent.seq))
    return RunDescription(
        exported_at=exported_at,
        job=ArchivedJob.model_validate(job, from_attributes=True),
        corpora=_corpora(session, principal, job.spec.corpora, there[0]),
        validation_corpora=_corpora(session, principal, job.spec.validation_corpora, there[1]),
        tokenizer=_tokenizer(session, principal, job),
        base_model=_base(session, principal, job.spec.base_model),
        attempts=[ArchivedAttempt.model_validate(attempt, from_attributes=True) for attempt in attempts],
        history=[ArchivedEvent.model_validate(event, from_attributes=True) for event in history],
        checkpoints=list(checkpoints),
    )


def _corpora(
    session: Session, principal: Principal, ids: Sequence[str], there: Sequence[ArchivedCorpus]
) -> list[ArchivedCorpus]:
    """Corpora as their rows say; those that are not here as an imported job has them: `there`, in the same order."""
    readable = select(Corpus).where(Corpus.id.in_(ids), visible_to(Corpus.owner_id, principal))
    rows = {row.id: ArchivedCorpus.model_validate(row, from_attributes=True) for row in session.scalars(readable)}
    remembered = {
        corpus_id: corpus.model_copy(update={"id": corpus_id}) for corpus_id, corpus in zip(ids, there, strict=False)
    }
    return [rows.get(corpus_id) or remembered.get(corpus_id) or ArchivedCorpus(id=corpus_id) for corpus_id in ids]


def _tokenizer(session: Session, principal: Principal, job: Job) -> ArchivedTokenizer | None:
    readable = (Tokenizer.id == job.tokenizer_id, visible_to(Tokenizer.owner_id, principal))
    row = session.scalar(select(Tokenizer).where(*readable))
    return ArchivedTokenizer.model_validate(row, from_attributes=True) if row is not None else None


def _base(session: Session, principal: Principal, model_id: str | None) -> ArchivedBase | None:
    if model_id is None:
        return None
    readable = (ImportedModel.id == model_id, visible_to(ImportedModel.owner_id, principal))
    imported = session.scalar(select(ImportedModel).where(*readable))
    if imported is not None:
        return ArchivedBase.model_validate(imported, from_attributes=True)
    return ArchivedBase(id=model_id)


def archived_checkpoint(checkpoint: Checkpoint, directory: str, reasons: Sequence[str]) -> ArchivedCheckpoint:
    """A checkpoint as run.json has it."""
    return ArchivedCheckpoint(
        directory=directory, step=checkpoint.step, metrics=checkpoint.metrics, reasons=list(reasons)
    )
