"""What the JSON columns of hyperparameter searches hold."""

import math
import random
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Bound = Annotated[float, Field(ge=-1e18, le=1e18, allow_inf_nan=False)]
FieldValue = bool | Annotated[int, Field(ge=-(10**18), le=10**18)] | Bound | str | None  # None: auto, where it is taken


class ValueRange(BaseModel):
    """Where values of a field are drawn from, uniformly or, with `is_log`, uniformly in their logarithm."""

    model_config = ConfigDict(extra="forbid")

    low: Bound
    high: Bound
    is_log: bool = False

    def draw(self, generator: random.Random, *, is_whole: bool) -> int | float:
        """A random value; `is_whole` if the field takes whole numbers only."""
        if self.is_log:
            value = math.exp(generator.uniform(math.log(self.low), math.log(self.high)))
        else:
            value = generator.uniform(self.low, self.high)
        return self.rounded(value, is_whole=is_whole)

    def rounded(self, value: float, *, is_whole: bool) -> int | float:
        """A value as jobs get it: whole, or with four digits, but within the range."""
        if is_whole:
            return round(value)
        return min(self.high, max(self.low, float(f"{value:.4g}")))


class SearchTrial(BaseModel):
    """The values that a search chose for a job. `job_id` is None if the job was refused."""

    values: dict[str, FieldValue]
    job_id: str | None


class AdaptivePlan(BaseModel):
    """A search whose later jobs depend on the results of earlier ones: what its jobs have in common, where values come
    from, how many jobs there will be, how many of them at once, and those so far, in their order.
    """

    spec: dict[str, Any]
    grid: dict[str, list[FieldValue]]
    ranges: dict[str, ValueRange]
    num_jobs: int
    parallel_jobs: int
    seed: int
    trials: list[SearchTrial] = []
