"""How much each field of a hyperparameter search decides about its result, by the jobs that have one.

Optuna computes it in a child process (trainer/tuning/importance.py): the web process loads no numpy.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pydantic import BaseModel, Field
from sqlalchemy import exists, or_, select
from sqlalchemy.orm import Session

from app.core.errors import PanelError
from app.core.i18n import _, translate
from app.core.models import HyperparameterSearch, Job, JobEvent
from app.jobs.searches import service
from app.jobs.views import form
from app.web import preview_process

# With ten jobs the best third are four. In 100 random searches over three fields, of which one decides, that one came
# first in 88 with ten jobs, in 79 with eight and in 65 with six (docs/decisions/0060-importance-by-ped-anova.md).
MIN_JOBS = 10


class FieldImportance(BaseModel):
    """A field that a search varies, and its part in the result."""

    name: str = Field(description="Of TrainSpec.")
    title: str = Field(description="As the form calls it.")
    share: float = Field(description="Of all that separates the best third of the jobs from the others, from 0 to 1.")


class SearchImportance(BaseModel):
    """How much each field of a hyperparameter search decides about the validation loss."""

    num_jobs: int = Field(description="Jobs that it rests on: those that succeeded or were stopped early, with a loss.")
    min_jobs: int = Field(description="With fewer jobs than this nothing can be said.")
    fields: list[FieldImportance] = Field(
        description="The most important first. Empty with fewer than `min_jobs` jobs or two fields that vary; all "
        "shares are 0 if no job is better than another."
    )


@dataclass(frozen=True)
class SearchResults:
    """The jobs of a search with a result: the values of its fields that vary and the loss, as trainer/tuning reads
    them.
    """

    fields: tuple[str, ...]
    trials: Sequence[dict[str, Any]]

    @property
    def is_enough(self) -> bool:
        """Whether importance can be computed."""
        return len(self.trials) >= MIN_JOBS and len(self.fields) > 1


def results(session: Session, search: HyperparameterSearch) -> SearchResults:
    """The jobs of a search that succeeded or were stopped early, each with its least validation loss.

    Those that a user has cancelled, or that failed, may be worse only because they learned for less time.
    """
    by_search = exists().where(JobEvent.job_id == Job.id, JobEvent.reason == "search_stopped")
    is_stopped = (Job.state == "cancelled") & by_search
    query = select(Job).where(
        Job.search_id == search.id, Job.deleted_at.is_(None), or_(Job.state == "succeeded", is_stopped)
    )
    jobs = session.scalars(query.order_by(Job.id)).all()
    losses = service.least_validation_losses(session, [job.id for job in jobs])
    with_result = [job for job in jobs if job.id in losses]
    specs = [{name: _scalar(getattr(job.spec, name)) for name in search.fields} for job in with_result]
    fields = tuple(name for name in search.fields if len({json.dumps(spec[name]) for spec in specs}) > 1)
    trials = [
        {"values": {name: spec[name] for name in fields}, "loss": losses[job.id]}
        for job, spec in zip(with_result, specs, strict=True)
    ]
    return SearchResults(fields, trials)


def _scalar(value: Any) -> Any:
    """A value that can be a category: lists, which "auto" may have become, as text."""
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def compute(search_results: SearchResults) -> SearchImportance:
    """The importance of the fields. Raises PanelError if it takes too long or the node has no room for it."""
    return _answer(search_results, _shares(json.dumps(search_results.trials)) if search_results.is_enough else {})


def without_computing(search_results: SearchResults) -> SearchImportance | None:
    """The same where no child process is needed; None where it is."""
    return None if search_results.is_enough else _answer(search_results, {})


def _answer(search_results: SearchResults, shares: dict[str, float]) -> SearchImportance:
    properties = form.properties()
    fields = [
        FieldImportance(
            name=name, title=translate(properties[name]["title"]) if name in properties else name, share=share
        )
        for name, share in sorted(shares.items(), key=lambda item: -item[1])
    ]
    return SearchImportance(num_jobs=len(search_results.trials), min_jobs=MIN_JOBS, fields=fields)


@lru_cache(maxsize=256)
def _shares(trials: str) -> dict[str, float]:
    """The share of each field; what it was asked before is not computed again."""
    answer = preview_process.run("trainer.tuning.importance", text=trials, too_slow=_too_slow)
    shares: dict[str, float] = json.loads(answer)
    return shares


def _too_slow() -> PanelError:
    message = _("The importance of the fields takes too much time or memory at the moment. Try again later.")
    return PanelError(503, "importance_slow", message, headers={"Retry-After": "60"})
