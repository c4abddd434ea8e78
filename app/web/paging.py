"""The query parameters of every list: ?limit=&after=."""

from typing import Annotated

from fastapi import Query

Limit = Annotated[int, Query(ge=1, le=200, description="Maximum number of entries.")]


After = Annotated[str | None, Query(max_length=64, description="Value of `next` from the previous page.")]
