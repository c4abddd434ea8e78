"""The rows that lineage is about: which row comes of which, and which rows may have come of some."""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import Session, defer

from app.core.deployment_models import Deployment
from app.core.models import BackgroundTask, Checkpoint, Corpus, ImportedModel, Job, Tokenizer
from app.core.principal import Principal, visible_to

Row = Corpus | Tokenizer | ImportedModel | Job | Checkpoint | BackgroundTask | Deployment
TABLES: tuple[type[Any], ...] = (Corpus, Tokenizer, ImportedModel, Job, Checkpoint, BackgroundTask, Deployment)
TASK_KINDS = ("evaluation", "export")
CORPUS_FIELDS = ("corpora", "validation_corpora")
MAX_ROWS = 500  # of a table that may have come of others


def find(session: Session, principal: Principal, ids: Iterable[str]) -> list[Row]:
    """The rows with these IDs that the user may see."""
    id_list = list(ids)
    return [row for table in TABLES for row in _rows(session, principal, table, table.id.in_(id_list))]


def _rows(session: Session, principal: Principal, table: type[Any], condition: ColumnElement[bool]) -> list[Row]:
    """The newest rows of a table that the user may see, under a condition."""
    query = select(table).where(visible_to(table.owner_id, principal), condition)
    if table is Checkpoint:
        query = query.options(defer(Checkpoint.manifest))  # it may be long
    if table is BackgroundTask:
        query = query.where(BackgroundTask.kind.in_(TASK_KINDS))
    return list(session.scalars(query.order_by(table.id.desc()).limit(MAX_ROWS)))


def sources(session: Session, rows: Sequence[Row]) -> dict[str, list[str]]:
    """The IDs of what each row comes from directly, which may have been deleted, by its ID."""
    corpora = [row for row in rows if isinstance(row, Corpus)]
    tokenizers = [row.id for row in rows if isinstance(row, Tokenizer)]
    versions = _versions(session, corpora)
    training_jobs = _training_jobs(session, tokenizers)
    by_row: dict[str, list[str]] = {}
    for row in rows:
        match row:
            case Corpus():
                ids = _corpus_sources(row, versions)
            case Tokenizer():
                ids = [*row.corpora, *training_jobs.get(row.id, [])]
            case Job():
                ids = _job_sources(row)
            case Checkpoint():
                ids = [row.job_id]
            case BackgroundTask():
                ids = [row.checkpoint_id, row.model_id, *row.options.corpora, row.options.judge]
            case Deployment():
                ids = [row.model_id]
            case _:
                ids = []
        by_row[row.id] = list(dict.fromkeys(row_id for row_id in ids if row_id and row_id != row.id))
    return by_row


def _versions(session: Session, corpora: Sequence[Corpus]) -> dict[tuple[str, int], str]:
    """The IDs of all versions of some corpora, by lineage and version."""
    query = select(Corpus.lineage_id, Corpus.version, Corpus.id)
    query = query.where(Corpus.lineage_id.in_({corpus.lineage_id for corpus in corpora}))
    return {(row.lineage_id, row.version): row.id for row in session.execute(query)}


def _corpus_sources(corpus: Corpus, versions: dict[tuple[str, int], str]) -> list[str | None]:
    """A cleaned version comes of another one and of the models that scored its documents, generated records of
    documents, a model and the version that they were added to, others of the version before.
    """
    if corpus.cleaning is not None:
        return [corpus.cleaning.parent_id, *corpus.cleaning.models]
    before = versions.get((corpus.lineage_id, corpus.version - 1))
    if corpus.synthesis is not None:
        return [corpus.synthesis.parent_id, corpus.synthesis.model_id, before]
    return [before]


def _training_jobs(session: Session, tokenizers: Sequence[str]) -> dict[str, list[str]]:
    """The jobs that trained each tokenizer."""
    is_trained = Job.spec["tokenizer"].as_string().is_(None)
    query = select(Job.id, Job.tokenizer_id).where(Job.tokenizer_id.in_(tokenizers), is_trained)
    jobs: dict[str, list[str]] = {}
    for row in session.execute(query.order_by(Job.id)):
        jobs.setdefault(row.tokenizer_id, []).append(row.id)
    return jobs


def _job_sources(job: Job) -> list[str | None]:
    spec = job.spec
    return [*spec.corpora, *spec.validation_corpora, spec.tokenizer, spec.base_model, job.resume_from_id]


def products(session: Session, principal: Principal, rows: Sequence[Row]) -> list[Row]:
    """The newest rows of each table that may have come of some directly; `sources` says of which."""
    ids = {table: [row.id for row in rows if isinstance(row, table)] for table in TABLES}
    corpora, tokenizers, jobs = ids[Corpus], ids[Tokenizer], ids[Job]
    models = [*ids[ImportedModel], *ids[Checkpoint]]
    lineages = {row.lineage_id for row in rows if isinstance(row, Corpus)}
    conditions: dict[type[Any], ColumnElement[bool]] = {
        Corpus: or_(
            Corpus.lineage_id.in_(lineages),
            Corpus.cleaning["parent_id"].as_string().in_(corpora),
            *(func.jsonb_exists(Corpus.cleaning["models"], model_id) for model_id in models),
            Corpus.synthesis["parent_id"].as_string().in_(corpora),
            Corpus.synthesis["model_id"].as_string().in_(models),
        ),
        Tokenizer: or_(
            _names_any(Tokenizer.corpora, corpora),
            Tokenizer.id.in_(select(Job.tokenizer_id).where(Job.id.in_(jobs))),
        ),
        Job: or_(
            *(_names_any(Job.spec[field], corpora) for field in CORPUS_FIELDS),
            Job.spec["tokenizer"].as_string().in_(tokenizers),
            Job.spec["base_model"].as_string().in_(models),
            Job.resume_from_id.in_(models),
        ),
        Checkpoint: (Checkpoint.job_id.in_(jobs)) & Checkpoint.state.in_(("ready", "corrupt")),
        BackgroundTask: or_(
            BackgroundTask.checkpoint_id.in_(models),
            BackgroundTask.model_id.in_(models),
            BackgroundTask.options["judge"].as_string().in_(models),
            _names_any(BackgroundTask.options["corpora"], corpora),
        ),
        Deployment: Deployment.model_id.in_(models),
    }
    return [row for table, condition in conditions.items() for row in _rows(session, principal, table, condition)]


def _names_any(column: Any, ids: Sequence[str]) -> ColumnElement[bool]:
    """Whether a JSON list of a row has one of the IDs."""
    return or_(func.jsonb_array_length(column) < 0, *(column.contains([row_id]) for row_id in ids))


def job_names(session: Session, rows: Iterable[Row]) -> dict[str, str]:
    """The names of the jobs of checkpoints, by their IDs."""
    ids = {row.job_id for row in rows if isinstance(row, Checkpoint)}
    return {row.id: row.name for row in session.execute(select(Job.id, Job.name).where(Job.id.in_(ids)))}
