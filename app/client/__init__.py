"""The Python client of Athanor: `from athanor import Client`. It needs neither torch nor the server's packages."""

from .api import Client
from .errors import (
    AthanorError,
    BrokenDownload,
    Conflict,
    DeploymentFailed,
    Forbidden,
    GenerationFailed,
    InvalidRequest,
    NotFound,
    NotLoggedIn,
    ServerBusy,
    ServerProblem,
    ServerUnreachable,
    TaskEnded,
    UnexpectedAnswer,
)

__all__ = [
    "AthanorError",
    "BrokenDownload",
    "Client",
    "Conflict",
    "DeploymentFailed",
    "Forbidden",
    "GenerationFailed",
    "InvalidRequest",
    "NotFound",
    "NotLoggedIn",
    "ServerBusy",
    "ServerProblem",
    "ServerUnreachable",
    "TaskEnded",
    "UnexpectedAnswer",
]
