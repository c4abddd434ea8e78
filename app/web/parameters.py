"""The path and query parameters that routes share, each with the bounds that the API reference states."""

from typing import Annotated, Any

from fastapi import Path, Query
from pydantic import StringConstraints

# An id that cannot exist is answered like one that does not (404), see app/web/errors.py.
_ID: dict[str, Any] = {"max_length": 32, "pattern": "^[0-9a-z]+$"}
Id = Annotated[str, Path(**_ID)]
FileName = Annotated[str, Path(max_length=1000)]  # longer ones cannot exist either
NodeName = Annotated[str, Path(max_length=255)]
Part = Annotated[str, Query(max_length=20, description="Only this part of the page, to update it.")]
ShortText = Annotated[str, StringConstraints(max_length=64)]


def id_named(name: str) -> Any:
    """The declaration of an Id that has this name in the path of a route, and another one in its function."""
    return Path(alias=name, **_ID)
