"""What all objects under /v1 have in common: prefixed IDs, Unix seconds, and pages of lists."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

from fastapi import Header, Query

from app.core.principal import not_found

ORGANIZATION = "org-local"
After = Annotated[str | None, Query(max_length=200, description="The ID of the last object of the page before.")]

# How often a client has sent a request before: its answer may not have arrived.
RetryCount = Annotated[int, Header(alias="x-stainless-retry-count", ge=0, le=1000)]


def seconds(instant: datetime | None) -> int | None:
    """An instant in Unix seconds."""
    return None if instant is None else int(instant.timestamp())


def row_id(prefix: str, wire_id: str) -> str:
    """The ID of a row by its ID under /v1, such as `ftjob-…`; the ID itself will do. Raises 404 for any other text."""
    plain = wire_id.removeprefix(prefix)
    if not plain.isascii() or not plain.isalnum():
        raise not_found()
    return plain


def page(data: Sequence[dict[str, Any]], has_more: bool) -> dict[str, Any]:
    """A page of a list."""
    ends = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    return {"object": "list", "data": data, "has_more": has_more, "first_id": ends[0], "last_id": ends[1]}
