"""The query parameters of every list: ?limit=&after=."""

from typing import Annotated

from fastapi import Query

Limit = Annotated[int, Query(ge=1, le=200, description="How many to list at most.")]


After = Annotated[str | None, Query(max_length=64, description="The `next` of the page before this one.")]
