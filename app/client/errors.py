"""What can go wrong: exceptions of the server's answers, and of the way to it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


class AthanorError(Exception):
    """Any error of this client. Its text is a sentence that says what to do."""


class ServerUnreachable(AthanorError):
    """The server could not be reached, or the connection to it broke."""


class UnexpectedAnswer(AthanorError):
    """The server answered something that this version of the client does not understand."""


class BrokenDownload(AthanorError):
    """A downloaded file differs from what the server said about it: in its size or its SHA-256."""


class TaskEnded(AthanorError):
    """A background task, or what it prepares, failed or was cancelled."""


class DeploymentFailed(AthanorError):
    """No node can load the model of a deployment."""


class GenerationFailed(AthanorError):
    """A stream of generated text ended with a failure. `code` is one of docs/api.md."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class WrongField:
    """A field of a request that the server refused, and the sentence that says why."""

    field: str
    message: str


class ServerProblem(AthanorError):
    """An error response of the server (RFC 9457).

    `status` is its HTTP status, `code` one of docs/api.md, `title` the sentence, `fields` the fields that are wrong,
    `request_id` what the server's log has it under.
    """

    def __init__(
        self, status: int, code: str, title: str, fields: Sequence[WrongField] = (), request_id: str = ""
    ) -> None:
        super().__init__(title)
        self.status = status
        self.code = code
        self.title = title
        self.fields = tuple(fields)
        self.request_id = request_id

    @property
    def field(self) -> str | None:
        """The name of the first wrong field, or None."""
        return self.fields[0].field if self.fields else None


class NotLoggedIn(ServerProblem):
    """401: there is no token, or it is wrong, revoked or expired."""


class Forbidden(ServerProblem):
    """403: the token lacks a scope, or only others may do this."""


class NotFound(ServerProblem):
    """404 and 410: there is nothing with this ID, or it was deleted."""


class Conflict(ServerProblem):
    """409: the request does not fit the present state."""


class InvalidRequest(ServerProblem):
    """413 and 422: fields of the request are wrong; `fields` has a sentence for each."""


class ServerBusy(ServerProblem):
    """429 and 503: too much at once. What could be repeated was repeated already."""


_BY_STATUS: dict[int, type[ServerProblem]] = {
    401: NotLoggedIn,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: NotFound,
    413: InvalidRequest,
    422: InvalidRequest,
    429: ServerBusy,
    503: ServerBusy,
}


def problem(status: int, body: Any) -> ServerProblem:
    """The exception for an error response and its JSON, which a proxy may have replaced by anything."""
    document = body if isinstance(body, dict) else {}
    fields = [
        WrongField(str(entry.get("field")), str(entry.get("message")))
        for entry in document.get("errors", [])
        if isinstance(entry, dict)
    ]
    code, title = str(document.get("code", "http_error")), str(document.get("title") or f"HTTP {status}")
    return _BY_STATUS.get(status, ServerProblem)(status, code, title, fields, str(document.get("request_id", "")))
