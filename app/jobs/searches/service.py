"""Hyperparameter searches: jobs over a grid or random values of some fields, and the early end of the worse ones.

Those whose later jobs depend on earlier results begin here, too, and continue in adaptive.py.
"""

import itertools
import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from app.core import paging
from app.core.errors import FieldError, PanelError, bad_field
from app.core.i18n import _
from app.core.models import TERMINAL, HyperparameterSearch, Job, MetricPoint
from app.core.names import checked_name
from app.core.principal import Principal, visible, visible_to
from app.core.search_shapes import AdaptivePlan, FieldValue, SearchTrial, ValueRange
from app.jobs import service
from app.jobs.lifecycle.state import add_history
from app.jobs.views import form
from app.web.errors import spec_fields
from trainer.spec_errors import SpecError

MAX_JOBS = 50
MAX_FIELDS = 8
REDUCTION = 3  # of the jobs that reach a rung, one in so many goes on
SAMPLE_TRIES = 20  # for each job, to draw values that no other job of the search has

FieldName = Annotated[str, Field(max_length=64)]


class HyperparameterSearchRequest(BaseModel):
    """Jobs to submit together: one for each combination of the values of `grid`; or, with `num_jobs`, a random sample.

    With `ranges` each job of the sample also has random values from these. With the sampler `tpe` Optuna chooses
    the values of each job by what earlier ones have reached, as soon as fewer than `parallel_jobs` are under way; the
    first few are random.
    """

    model_config = ConfigDict(extra="forbid")

    name: str = Field(max_length=1_000)
    spec: dict[str, Any] = Field(description="A partial TrainSpec: what all jobs have in common.")
    grid: dict[FieldName, list[FieldValue]] = Field({}, max_length=MAX_FIELDS, description="Values by field.")
    ranges: dict[FieldName, ValueRange] = Field({}, max_length=MAX_FIELDS, description="Ranges by field.")
    num_jobs: int | None = Field(None, ge=1, le=MAX_JOBS, description="Required with ranges.")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Of the random sample.")
    sampler: Literal["random", "tpe"] = Field(
        "random", description="tpe: Optuna's tree-structured Parzen estimator; it needs num_jobs."
    )
    parallel_jobs: int = Field(2, ge=1, le=MAX_JOBS, description="Jobs of a search by tpe that are under way at once.")
    early_stopping: bool = Field(
        False, description="Cancel jobs whose validation loss is not among the best third (ASHA, arXiv 1810.05934)."
    )


class HyperparameterSearchAnswer(BaseModel):
    """A hyperparameter search and its jobs."""

    id: str
    name: str
    fields: list[str] = Field(description="Fields of TrainSpec that its jobs differ in.")
    early_stopping: bool
    sampler: Literal["random", "tpe"] = Field(description="random also stands for every combination of a grid.")
    is_open: bool = Field(description="Whether it will submit further jobs.")
    num_planned: int = Field(description="Jobs that it has or will have, refused ones included.")
    num_refused: int = Field(description="Jobs of a search by tpe that could not be submitted with the chosen values.")
    num_jobs: int
    num_open: int = Field(description="Jobs that have not ended.")
    jobs: list[str] = Field(description="The ids of its jobs, in the order in which they were submitted.")
    created_at: datetime


def combinations(request: HyperparameterSearchRequest) -> list[dict[str, FieldValue]]:
    """The fields that each job sets. Raises PanelError at the field of the request that is wrong."""
    if not request.grid and not request.ranges:
        raise bad_field("grid", "search_empty", _("Give at least one field with the values to try."))
    if twice := request.grid.keys() & request.ranges.keys():
        raise bad_field("ranges", "search_field_twice", _("{field} has both values and a range.", field=min(twice)))
    for name, values in request.grid.items():
        if not values:
            raise bad_field("grid", "search_empty", _("{field} has no values to try.", field=name))
    for name, bounds in request.ranges.items():
        low, high = (round(bounds.low), round(bounds.high)) if is_whole(name) else (bounds.low, bounds.high)
        if low >= high or (bounds.is_log and low <= 0):
            message = _(
                "The range of {field} needs a low end below the high one, and above 0 on a logarithmic scale.",
                field=name,
            )
            raise bad_field(f"ranges.{name}", "range_invalid", message)
    count = math.prod(len(values) for values in request.grid.values())
    if request.num_jobs is None and (request.ranges or request.sampler == "tpe"):
        raise bad_field("num_jobs", "search_unlimited", _("Say how many jobs to submit."))
    if request.num_jobs is None and count > MAX_JOBS:
        message = _("These are {n} combinations, and a search can have at most {max} jobs.", n=count, max=MAX_JOBS)
        raise bad_field("grid", "search_large", message)
    if request.num_jobs is None:
        return list(_grid(request.grid))
    is_adaptive = request.sampler == "tpe"
    return _sample(request, min(request.num_jobs, request.parallel_jobs) if is_adaptive else request.num_jobs)


def is_whole(field: str) -> bool:
    """Whether a field takes whole numbers only."""
    return form.properties().get(field, {}).get("type") == "integer"


def _grid(grid: Mapping[str, Sequence[FieldValue]]) -> Iterator[dict[str, FieldValue]]:
    for values in itertools.product(*(list(dict.fromkeys(values)) for values in grid.values())):
        yield dict(zip(grid, values, strict=True))


def _sample(request: HyperparameterSearchRequest, num_jobs: int) -> list[dict[str, FieldValue]]:
    """Different combinations, `num_jobs` of them or as many as were found."""
    generator = random.Random(request.seed)  # noqa: S311 - a repeatable sample
    sample: dict[str, dict[str, FieldValue]] = {}
    for _try in range(SAMPLE_TRIES * num_jobs):
        fields = {name: generator.choice(values) for name, values in request.grid.items()}
        fields |= {name: bounds.draw(generator, is_whole=is_whole(name)) for name, bounds in request.ranges.items()}
        sample.setdefault(json.dumps(fields, sort_keys=True), fields)
        if len(sample) == num_jobs:
            break
    return list(sample.values())


def create(
    session: Session, *, principal: Principal, request: HyperparameterSearchRequest, idempotency_key: str | None = None
) -> HyperparameterSearch:
    """Submit the jobs of a search, all or none, of an adaptive one the first; again with the same key, it is the same.

    Raises PanelError, which names the fields that are wrong.
    """
    name = checked_name(request.name, max_length=service.MAX_NAME_LENGTH)
    chosen = combinations(request)
    search = HyperparameterSearch(
        owner_id=principal.user_id,
        name=name,
        fields=[*request.grid, *request.ranges],
        early_stopping=request.early_stopping,
    )
    trials = []
    for index, values in enumerate(chosen):
        key = f"{idempotency_key}-{index}" if idempotency_key else None
        try:
            job, is_new = submit_job(session, principal, name, request.spec, values, key)
        except PanelError as error:
            raise _refusal(error, values) from error
        if not is_new and job.search_id is not None:
            return session.get_one(HyperparameterSearch, job.search_id)
        if index == 0:
            session.add(search)
            session.flush()
        job.search_id = search.id
        trials.append(SearchTrial(values=values, job_id=job.id))
    if request.sampler == "tpe" and request.num_jobs is not None:
        names = ("spec", "grid", "ranges", "num_jobs", "parallel_jobs", "seed")
        search.plan = AdaptivePlan(**{name: getattr(request, name) for name in names}, trials=trials)
        search.is_open = len(trials) < request.num_jobs
    session.flush()
    return search


def submit_job(
    session: Session,
    principal: Principal,
    name: str,
    spec: Mapping[str, Any],
    values: Mapping[str, FieldValue],
    idempotency_key: str | None,
) -> tuple[Job, bool]:
    """Submit a job of the search of this name, and whether it is new. Raises PanelError."""
    request = {**spec, **values, "name": _job_name(name, values)}
    try:
        return service.submit(session, principal=principal, request=request, idempotency_key=idempotency_key)
    except SpecError as error:
        raise PanelError(422, "spec_invalid", str(error), spec_fields(error)) from error


def _refusal(error: PanelError, values: Mapping[str, FieldValue]) -> PanelError:
    """The error of one job of a search, with the values that are its own."""
    fields = [
        FieldError(f.field, f"{f.message} ({values[f.field]})" if f.field in values else f.message)
        for f in error.fields
    ]
    return PanelError(error.status, error.code, f"{error.message} ({_words(values)})", fields)


def _words(values: Mapping[str, FieldValue]) -> str:
    return ", ".join(f"{name}={_text(value)}" for name, value in values.items())


def _text(value: FieldValue) -> str:
    return "auto" if value is None else str(value)


def _job_name(name: str, values: Mapping[str, FieldValue]) -> str:
    words = " ".join(f"{field}={_text(value)}" for field, value in values.items())
    return "".join(c if c.isprintable() else " " for c in f"{name}: {words}")[: service.MAX_NAME_LENGTH].strip()


def get(session: Session, *, principal: Principal, search_id: str, for_update: bool = False) -> HyperparameterSearch:
    """A search of the user. Raises 404."""
    return visible(session, HyperparameterSearch, search_id, principal=principal, for_update=for_update)


def list_searches(
    session: Session, *, principal: Principal, limit: int, after: str | None
) -> tuple[list[HyperparameterSearch], str | None]:
    """The searches of the user, newest first, and the cursor of the next page."""
    query = select(HyperparameterSearch).where(visible_to(HyperparameterSearch.owner_id, principal))
    return paging.newest(session, query, HyperparameterSearch.id, limit, after)


def answers(session: Session, searches: Sequence[HyperparameterSearch]) -> list[HyperparameterSearchAnswer]:
    """Searches with their jobs."""
    jobs: dict[str, list[Any]] = {search.id: [] for search in searches}
    query = (
        select(Job.id, Job.search_id, Job.state)
        .where(Job.search_id.in_(jobs), Job.deleted_at.is_(None))
        .order_by(Job.id)
    )
    for row in session.execute(query):
        jobs[row.search_id].append(row)
    return [
        HyperparameterSearchAnswer(
            **{name: getattr(search, name) for name in ("id", "name", "fields", "early_stopping", "created_at")},
            **_plan_fields(search, len(jobs[search.id])),
            num_jobs=len(jobs[search.id]),
            num_open=sum(row.state not in TERMINAL for row in jobs[search.id]),
            jobs=[row.id for row in jobs[search.id]],
        )
        for search in searches
    ]


def _plan_fields(search: HyperparameterSearch, num_jobs: int) -> dict[str, Any]:
    if search.plan is None:
        return {"sampler": "random", "is_open": False, "num_planned": num_jobs, "num_refused": 0}
    trials = search.plan.trials
    return {
        "sampler": "tpe",
        "is_open": search.is_open,
        "num_planned": search.plan.num_jobs if search.is_open else len(trials),
        "num_refused": sum(trial.job_id is None for trial in trials),
    }


def cancel(session: Session, *, principal: Principal, search_id: str) -> HyperparameterSearch:
    """Cancel all jobs of a search that have not ended, and submit no further ones. Raises 404."""
    search = get(session, principal=principal, search_id=search_id, for_update=True)
    search.is_open = False
    open_jobs = select(Job.id).where(Job.search_id == search_id, Job.state.not_in(TERMINAL)).order_by(Job.id)
    for job_id in session.scalars(open_jobs).all():
        service.cancel(session, principal=principal, job_id=job_id)
    return search


def least_validation_losses(session: Session, job_ids: Sequence[str]) -> dict[str, float]:
    """The least validation loss of each job that has a finite one."""
    point = MetricPoint
    least = select(point.job_id, func.min(point.value)).where(
        point.job_id.in_(job_ids), point.series == "eval_loss", ~point.archived, point.value.is_not(None)
    )
    rows = session.execute(least.group_by(point.job_id)).all()
    return {row[0]: row[1] for row in rows if row[1] is not None and math.isfinite(row[1])}


# ---- early stopping -------------------------------------------------------------------------------------------------


def stop_worse_jobs(session: Session) -> list[str]:
    """Cancel running jobs of searches with early stopping that fall behind at a rung; returns their ids.

    The rungs are a third, a ninth and so on of all steps. A job is judged once at each rung, when it reaches it: it is
    stopped if at least three jobs have been there and its validation loss is not among the best third (the stopping
    variant of ASHA, arXiv 1810.05934).
    """
    running = (Job.state == "running", Job.desired == "run", HyperparameterSearch.early_stopping)
    ids = select(Job.search_id).join(HyperparameterSearch, Job.search_id == HyperparameterSearch.id).where(*running)
    stopped = []
    for search_id in session.scalars(ids.distinct()).all():
        jobs = session.scalars(select(Job).where(Job.search_id == search_id).order_by(Job.id)).all()
        for job, step, is_worse in _judged(session, jobs):
            locked = session.scalar(
                select(Job).where(Job.id == job.id).with_for_update().execution_options(populate_existing=True)
            )
            if locked is None or locked.state != "running" or locked.desired != "run":
                continue
            locked.search_rung = step
            if is_worse:
                locked.desired = "cancel"
                add_history(session, locked, locked.state, "scheduler", "search_stopped", step=step)
                stopped.append(locked.id)
    return stopped


def _judged(session: Session, jobs: Sequence[Job]) -> list[tuple[Job, int, bool]]:
    """The running jobs that have reached a new rung, with the highest such and whether they fall behind there."""
    judged = []
    waiting = {job.id: job for job in jobs if job.state == "running"}
    for step in rungs(jobs):
        losses = _losses_at(session, [job.id for job in jobs], step)
        kept = sorted(losses.values())[: len(losses) // REDUCTION]
        for job_id in [job_id for job_id in waiting if job_id in losses]:
            job = waiting.pop(job_id)
            if step > (job.search_rung or 0):
                judged.append((job, step, bool(kept) and losses[job_id] > kept[-1]))
    return judged


def rungs(jobs: Sequence[Job]) -> list[int]:
    """The steps at which jobs are compared, the highest first: a third, a ninth and so on of the longest job's."""
    longest = max((job.max_steps or 0 for job in jobs), default=0)
    first = min((job.spec.eval_steps for job in jobs), default=1)
    return [longest // REDUCTION**n for n in range(1, 20) if longest // REDUCTION**n >= first]


def _losses_at(session: Session, job_ids: Sequence[str], step: int) -> dict[str, float]:
    """The validation loss of each job at its first evaluation from a step on; inf where it is no number."""
    point = MetricPoint
    query = select(point.job_id, func.coalesce(point.value, math.inf)).where(
        point.job_id.in_(job_ids), point.series == "eval_loss", ~point.archived, point.step >= step
    )
    first = query.ext(distinct_on(point.job_id)).order_by(point.job_id, point.step)
    return {row[0]: row[1] for row in session.execute(first)}
