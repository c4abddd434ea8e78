"""What the panel knows of a checkpoint or an imported model, for its model card: the job, its spec, corpora, curves."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.core.models import BackgroundTask, Checkpoint, Corpus, ImportedModel, Job, MetricPoint

MAX_POINTS = 500  # of a curve
CURVES = ("loss", "eval_loss")


def export_facts(session: Session, task_id: str) -> dict[str, Any]:
    """JSON for `python -m trainer export --facts`."""
    task = session.get_one(BackgroundTask, task_id)
    if task.model_id is not None:
        model = session.get_one(ImportedModel, task.model_id)
        license_name = task.options.license or model.facts.license or ""
        return {"name": model.name, "base_model": _hub_name(session, model.id), "license": license_name}
    checkpoint = session.get_one(Checkpoint, task.checkpoint_id)
    job = session.get_one(Job, checkpoint.job_id)
    ids = job.spec.corpora
    corpora = {row.id: row for row in session.scalars(select(Corpus).where(Corpus.id.in_(ids)))}
    return {
        "name": job.name,
        "step": checkpoint.step,
        "spec": {**job.spec.model_dump(), "max_steps": job.max_steps},  # steps of epochs: as they were counted
        "base_model": _hub_name(session, job.spec.base_model),
        "facts": job.facts.model_dump(exclude_unset=True),
        "metrics": checkpoint.metrics,
        "corpora": [_corpus(corpora[corpus_id]) for corpus_id in ids if corpus_id in corpora],
        "curves": {series: _curve(session, job.id, series, checkpoint.step) for series in CURVES},
        "license": task.options.license,
    }


def _hub_name(session: Session, base_id: str | None) -> str | None:
    """The name of a base model on the hub that it was imported from; None for one that has none."""
    base = session.get(ImportedModel, base_id) if base_id is not None else None
    return base.reference.partition("@")[0] if base is not None and base.reference is not None else None


def _corpus(corpus: Corpus) -> dict[str, Any]:
    names = ("name", "kind", "num_documents", "num_characters", "num_text_bytes", "text_sha256")
    return {name: getattr(corpus, name) for name in names}


def _curve(session: Session, job_id: str, series: str, last_step: int) -> list[tuple[int, float]]:
    points = select(MetricPoint.step, MetricPoint.value).where(
        MetricPoint.job_id == job_id,
        MetricPoint.series == series,
        MetricPoint.step <= last_step,
        MetricPoint.value.is_not(None),
        ~MetricPoint.archived,
    )
    rows = [(int(row.step), float(row.value)) for row in session.execute(points.order_by(MetricPoint.step))]
    return rows[:: max(1, len(rows) // MAX_POINTS)]
