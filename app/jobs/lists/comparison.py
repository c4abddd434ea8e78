"""Several jobs side by side: the fields in which their specs differ, their best values and their newest samples."""

import math
from collections.abc import Mapping, Sequence

from pydantic import BaseModel, Field
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from app.core.errors import bad_field
from app.core.i18n import _, translate
from app.core.json_shapes import Value
from app.core.models import Job, Sample
from app.core.principal import Principal, not_found, visible_to
from app.jobs import job_parts, schemas
from app.jobs.attempts import metrics
from app.jobs.attempts.effective_spec import effective_spec, step_cost
from app.jobs.submissions import CORPUS_FIELDS
from app.jobs.views import form
from trainer.spec import TrainSpec

MAX_JOBS = 50
# Whether a lower value of a series is the better one.
IS_LOWER_BETTER = {
    "eval_loss": True,
    "eval_bits_per_byte": True,
    "eval_accuracy": False,
    "eval_f1": False,
    "eval_reward_accuracy": False,
    "eval_reward_margin": False,
}


class BestValue(BaseModel):
    """The best value of a series, and the first step that has it."""

    value: float
    step: int | None


class ComparedJob(BaseModel):
    """A job of a comparison."""

    id: str
    name: str
    state: str
    step: int
    max_steps: int | None
    elapsed_seconds: float | None
    num_parameters: int | None = Field(description="Null until its first attempt has built the model.")
    tokens_per_step: int = Field(description="Positions of a batch, padding included.")
    flops_per_step: int = Field(description="What the model needs for a batch, however it is computed.")
    latest: dict[str, Value] = Field(description="The last value of each series.")
    best: dict[str, BestValue] = Field(description="The best value of each validation series.")
    series: list[str] = Field(description="The names of its curves.")
    sample: schemas.SampleAnswer | None = Field(description="What the model wrote at the newest evaluation.")


class DifferentField(BaseModel):
    """A field of TrainSpec that is not the same in all jobs."""

    name: str
    title: str = Field(description="As the form calls it.")
    values: list[str] = Field(description="As the form writes them, one for each job, in the order of `jobs`.")


class JobComparison(BaseModel):
    """Jobs side by side."""

    jobs: list[ComparedJob] = Field(description="In the order in which they were asked for.")
    fields: list[DifferentField] = Field(description="In the order of the form.")

    def best_of(self, series: str) -> float | None:
        """The best value that any of the jobs reached in a validation series; None if none of them has it."""
        values = [job.best[series].value for job in self.jobs if series in job.best]
        choose = min if IS_LOWER_BETTER[series] else max
        return choose(values, default=None)

    def by_validation_loss(self) -> "JobComparison":
        """The same with the lowest validation loss first; jobs without one last."""
        losses = [job.best["eval_loss"].value if "eval_loss" in job.best else math.inf for job in self.jobs]
        order = sorted(range(len(self.jobs)), key=lambda index: losses[index])
        fields = [field.model_copy(update={"values": [field.values[n] for n in order]}) for field in self.fields]
        return JobComparison(jobs=[self.jobs[n] for n in order], fields=fields)

    def without_prefix(self, prefix: str) -> "JobComparison":
        """The same without what the names of the jobs begin with."""
        jobs = [job.model_copy(update={"name": job.name.removeprefix(prefix)}) for job in self.jobs]
        return JobComparison(jobs=jobs, fields=self.fields)


def compare(session: Session, *, principal: Principal, job_ids: Sequence[str]) -> JobComparison:
    """Compare up to 50 jobs. Raises PanelError: 404 if one is not the user's, 422 if there are more."""
    ids = list(dict.fromkeys(job_ids))
    if len(ids) > MAX_JOBS:
        raise bad_field("job", "jobs_many", _("At most {max} jobs can be compared at once.", max=MAX_JOBS))
    rows = session.scalars(select(Job).where(Job.id.in_(ids), visible_to(Job.owner_id, principal)))
    by_id = {job.id: job for job in rows}
    if len(by_id) < len(ids):
        raise not_found()
    jobs = [by_id[job_id] for job_id in ids]
    return JobComparison(jobs=_compared(session, jobs), fields=_different_fields(session, jobs))


def _compared(session: Session, jobs: Sequence[Job]) -> list[ComparedJob]:
    ranges = metrics.extremes(session, job_ids=[job.id for job in jobs])
    samples = _newest_samples(session, [job.id for job in jobs])
    answers = schemas.job_answers(session, jobs)
    best = _best(session, ranges)
    return [
        ComparedJob(
            **{name: getattr(answer, name) for name in ("id", "name", "state", "step", "max_steps", "elapsed_seconds")},
            num_parameters=job.facts.num_parameters,
            latest=answer.latest,
            **step_cost(job),
            best=best[job.id],
            series=sorted(ranges[job.id]),
            sample=schemas.sample_answer(samples[job.id]) if job.id in samples else None,
        )
        for job, answer in zip(jobs, answers, strict=True)
    ]


def _best(session: Session, ranges: Mapping[str, Mapping[str, tuple[float, float]]]) -> dict[str, dict[str, BestValue]]:
    """The best value of each validation series of jobs, by the job's ID and the name of the series."""
    values = [
        (job_id, series, of_job[series][0 if is_lower_better else 1])
        for job_id, of_job in ranges.items()
        for series, is_lower_better in IS_LOWER_BETTER.items()
        if series in of_job
    ]
    steps = metrics.first_steps(session, values=values)
    best: dict[str, dict[str, BestValue]] = {job_id: {} for job_id in ranges}
    for job_id, series, value in values:
        best[job_id][series] = BestValue(value=value, step=steps.get((job_id, series)))
    return best


def _newest_samples(session: Session, job_ids: Sequence[str]) -> dict[str, Sample]:
    held_out = select(Sample).where(Sample.job_id.in_(job_ids), Sample.split == "validation")
    newest = held_out.ext(distinct_on(Sample.job_id)).order_by(Sample.job_id, Sample.step.desc(), Sample.fence.desc())
    return {sample.job_id: sample for sample in session.scalars(newest)}


def _different_fields(session: Session, jobs: Sequence[Job]) -> list[DifferentField]:
    specs = [effective_spec(job).model_dump() for job in jobs]
    ids = {corpus_id for spec in specs for name in CORPUS_FIELDS for corpus_id in spec[name]}
    names = job_parts.corpus_names(session, ids)
    properties = form.properties()
    return [
        DifferentField(
            name=name,
            title=translate(properties[name]["title"]) if name in properties else name,
            values=[
                form.to_cell(_readable(spec[name], names) if name in CORPUS_FIELDS else spec[name]) for spec in specs
            ],
        )
        for name in TrainSpec.model_fields
        if name != "name" and any(spec[name] != specs[0][name] for spec in specs)
    ]


def _readable(ids: Sequence[str], names: Mapping[str, str]) -> list[str]:
    return [names.get(corpus_id) or _("a deleted corpus") for corpus_id in ids]
