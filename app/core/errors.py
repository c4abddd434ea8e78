"""The error type of all operations: an HTTP status, a code for programs and a sentence for people."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class FieldError:
    """The error of one field of a request, as a sentence in the reader's language."""

    field: str
    message: str


@dataclass
class PanelError(Exception):
    """An error with an HTTP status: problem+json (RFC 9457) under /api, OpenAI's form under /v1, a page elsewhere."""

    status: int
    code: str
    message: str
    fields: list[FieldError] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    changes: dict[str, Any] = field(default_factory=dict)  # of the request, which would be accepted

    def __str__(self) -> str:
        return self.message


def bad_field(name: str, code: str, message: str, status: int = 422) -> PanelError:
    """The error for a request with exactly one wrong field."""
    return PanelError(status, code, message, [FieldError(name, message)])
