"""What the loss of a job is compared with: guessing blindly or by frequency, and the best earlier run on its data."""

import math

from pydantic import BaseModel, Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.core.models import Corpus, Job
from app.core.principal import Principal
from app.jobs.attempts import metrics
from app.jobs.planning import training_data
from trainer.families import TOKEN_OBJECTIVES


class EarlierRun(BaseModel):
    """A job that was submitted earlier, and the lowest validation loss that it reached."""

    id: str
    name: str
    eval_loss: float


class Baselines(BaseModel):
    """What a loss is compared with."""

    blind_loss: float | None = Field(
        description="Of finding every token equally likely; null if that is not known (yet)."
    )
    unigram_loss: float | None = Field(description="Of guessing each token by its frequency in the training data.")
    best_earlier: EarlierRun | None = Field(
        description="The best of the user's newest earlier jobs with the same objective, data and tokenizer."
    )


def blind_loss(job: Job) -> float | None:
    """The loss of a model that finds every token equally likely: ln of the vocabulary, where tokens are predicted."""
    if job.spec.objective not in TOKEN_OBJECTIVES or not job.facts.vocab_size:
        return None
    return math.log(job.facts.vocab_size)


def best_earlier(session: Session, principal: Principal, job: Job) -> EarlierRun | None:
    """The user's best earlier job with the same tokens to predict; None for a job of somebody else."""
    if job.owner_id != principal.user_id:
        return None
    corpora = session.scalars(select(Corpus).where(Corpus.id.in_(job.spec.corpora))).all()
    fields = (*training_data.SAME_FIELDS, "validation_corpora")
    is_earlier = (Job.id < job.id, Job.deleted_at.is_(None), Job.eval_loss < math.inf)
    rows = training_data.earlier_jobs(session, principal, job.spec, corpora, fields, is_earlier)
    by_id = {row.id: row for row in rows if training_data.has_tokenizer_of(row, job.spec)}
    ranges = metrics.extremes(session, job_ids=list(by_id))
    losses = [(series["eval_loss"][0], job_id) for job_id, series in ranges.items() if "eval_loss" in series]
    if not losses:
        return None
    loss, job_id = min(losses)
    return EarlierRun(id=job_id, name=by_id[job_id].name, eval_loss=loss)


def of_job(session: Session, principal: Principal, job: Job) -> Baselines:
    """What the loss of a job is compared with."""
    return Baselines(
        blind_loss=blind_loss(job),
        unigram_loss=job.facts.unigram_loss,
        best_earlier=best_earlier(session, principal, job),
    )
