"""The query parameters that lists share: ?limit=&after=, and ?q= of those that can be searched."""

from typing import Annotated

from fastapi import Query
from pydantic import AfterValidator

Limit = Annotated[int, Query(ge=1, le=200, description="Maximum number of entries.")]


After = Annotated[str | None, Query(max_length=64, description="Value of `next` from the previous page.")]


_stripped = AfterValidator(lambda text: text.replace("\0", "").strip())


LabelSearch = Annotated[
    str,
    _stripped,
    Query(max_length=200, description="A part of the name, tags or notes, in upper or lower case."),
]


Tag = Annotated[
    str,
    _stripped,
    Query(max_length=200, description="Only rows with exactly this tag."),
]


Search = Annotated[
    str,
    _stripped,
    Query(max_length=200, description="A part of the name, in upper or lower case."),
]
