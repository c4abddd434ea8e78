"""The one error the web answers with: a status, a code for programs, a sentence for people."""

from dataclasses import dataclass, field


@dataclass
class FieldError:
    """What is wrong with one field of a request, in a sentence in the reader's language."""

    field: str
    message: str


@dataclass
class PanelError(Exception):
    """An error with an HTTP status: problem+json (RFC 9457) under /api and /v1, a page elsewhere."""

    status: int
    code: str
    message: str
    fields: list[FieldError] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.message


def bad_field(name: str, code: str, message: str, status: int = 422) -> PanelError:
    """The common case: exactly one field is wrong."""
    return PanelError(status, code, message, [FieldError(name, message)])
