"""The path and query parameters that routes share, each with the bounds that the API reference states."""

from typing import Annotated

from fastapi import Path, Query
from pydantic import StringConstraints

# An id that cannot exist is answered like one that does not (404), see app/web/errors.py.
Id = Annotated[str, Path(max_length=32, pattern="^[0-9a-z]+$")]
FileName = Annotated[str, Path(max_length=1000)]  # longer ones cannot exist either
NodeName = Annotated[str, Path(max_length=255)]
Part = Annotated[str, Query(max_length=20, description="Only this part of the page, to update it.")]
ShortText = Annotated[str, StringConstraints(max_length=64)]
