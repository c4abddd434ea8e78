"""The parts of a job's page that change while it runs: the same HTML for the page and for its stream of events."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from markupsafe import Markup
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session, defer

from app.checkpoints.schemas import CheckpointAnswer, checkpoint_answers
from app.checkpoints.service import LIVE
from app.core.models import TERMINAL, Checkpoint, Corpus, Job, Sample
from app.jobs import schemas, service
from app.jobs.attempts.effective_spec import step_cost
from app.jobs.forwarding import service as forwarding
from app.jobs.forwarding.schemas import forwarding_answer
from app.jobs.planning import accuracy
from app.jobs.views import baselines
from app.jobs.views.chart_words import series_words
from app.web.pages import templates
from trainer.families import CHAT_OBJECTIVES

PARTS = ("heading", "node", "actions", "status", "baselines", "latest", "checkpoints", "facts", "forwarding", "history")
MAX_CHECKPOINTS = 500


def context(session: Session, job: Job) -> dict[str, Any]:
    """What the parts show, in the reader's language."""
    checkpoints = saved(session, job_id=job.id)
    history = service.history(session, job_id=job.id)
    attempts = schemas.attempt_answers(session, job, service.list_attempts(session, job_id=job.id))
    return {
        "job": schemas.job_answer(session, job),
        "is_over": job.state in TERMINAL,
        "continue_path": f"/jobs/new?{'from' if job.imported_from is None else 'base_model'}=",
        "checkpoints": checkpoints,
        "ready": _most_useful(checkpoints),
        "progress_made": _before_and_after(session, job) if job.state == "succeeded" else [],
        "blind_loss": baselines.blind_loss(job),
        "step_cost": step_cost(job),
        "talks": job.spec.objective in CHAT_OBJECTIVES,
        "writes": job.spec.objective not in ("masked", "classification"),
        "newest": next((checkpoint.id for checkpoint in checkpoints if checkpoint.state == "ready"), None),
        "history": [schemas.history_entry(event) for event in reversed(history)],
        "attempts": {attempt.fence: attempt for attempt in attempts},
        "compared": accuracy.compared(job.facts, history),
        "corpus_names": corpus_names(session, [*job.spec.corpora, *job.facts.held_out]),
        "series": series_words(),
        "forwardings": [forwarding_answer(*row) for row in forwarding.list_forwardings(session, job_id=job.id)],
    }


def _most_useful(checkpoints: Sequence[CheckpointAnswer]) -> CheckpointAnswer | None:
    """The intact checkpoint with the lowest validation loss; without any loss the newest one."""
    intact = [checkpoint for checkpoint in checkpoints if checkpoint.state == "ready"]
    return next((checkpoint for checkpoint in intact if "best" in checkpoint.kept), intact[0] if intact else None)


def _before_and_after(session: Session, job: Job) -> list[tuple[Sample, Sample]]:
    """The first and the last sample of each kind of prompt, held-out ones first, where they are not the same."""
    of_split = select(Sample).where(Sample.job_id == job.id).ext(distinct_on(Sample.split))
    order = Sample.split.desc()  # validation, train
    before, after = (
        session.scalars(of_split.order_by(order, step, Sample.fence.desc(), Sample.seq.desc())).all()
        for step in (Sample.step, Sample.step.desc())
    )
    return [(first, last) for first, last in zip(before, after, strict=True) if first.step < last.step]


def corpus_names(session: Session, corpora: Iterable[str]) -> dict[str, str]:
    """The names of corpora by their IDs, without deleted ones."""
    rows = session.execute(
        select(Corpus.id, Corpus.name).where(Corpus.id.in_(list(corpora)), Corpus.deleted_at.is_(None))
    )
    return {row.id: row.name for row in rows}


def render(context: Mapping[str, Any]) -> dict[str, Markup]:
    """The HTML of each part, by its name. The element of a part has the ID part-NAME."""
    return {name: Markup(_template(name).render(context)) for name in PARTS}  # noqa: S704 - templates escape


def render_sample(sample: Sample) -> Markup:
    """The HTML of a sample, a line of the page's list."""
    return Markup(_template("sample").render(sample=sample))  # noqa: S704 - templates escape


def _template(name: str) -> Any:
    return templates.env.get_template(f"jobs/parts/{name}.html")


def saved(session: Session, *, job_id: str) -> list[CheckpointAnswer]:
    """The checkpoints of a job whose files exist, newest first."""
    of_job = (Checkpoint.job_id == job_id, Checkpoint.state.in_(LIVE), Checkpoint.deleted_at.is_(None))
    query = select(Checkpoint).where(*of_job)
    query = query.options(defer(Checkpoint.manifest))  # it may be long
    rows = session.scalars(query.order_by(Checkpoint.step.desc(), Checkpoint.fence.desc()).limit(MAX_CHECKPOINTS))
    return checkpoint_answers(session, rows.all())
