"""The server and token that `athanor login` stores, readable by their owner only."""

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import typer

DEFAULT_URL = "http://127.0.0.1:8000"


@dataclass(frozen=True)
class StoredLogin:
    """The address of a server, and an API token for it; empty: none."""

    url: str = DEFAULT_URL
    token: str = ""


def path() -> Path:
    """The file that holds the login, in the user's configuration directory."""
    return Path(typer.get_app_dir("athanor")) / "login.json"


def read(url: str | None = None) -> StoredLogin:
    """The login of the environment (ATHANOR_URL, ATHANOR_TOKEN), filled up from the file; for `url` if it is set.

    The token of the file is sent to no other server than the one that it was stored for.
    """
    stored = _stored()
    chosen = url or os.environ.get("ATHANOR_URL") or stored.url
    token = stored.token if chosen.rstrip("/") == stored.url.rstrip("/") else ""
    return StoredLogin(chosen, os.environ.get("ATHANOR_TOKEN") or token)


def _stored() -> StoredLogin:
    with suppress(OSError, ValueError, TypeError):
        return StoredLogin(**json.loads(path().read_text()))
    return StoredLogin()


def write(login: StoredLogin) -> None:
    """Store a login for later commands and for `Client()`."""
    directory = path().parent
    directory.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        path().unlink()  # so that the mode below applies
    with os.fdopen(os.open(path(), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(asdict(login), file)


def delete() -> None:
    """Forget the login."""
    path().unlink(missing_ok=True)
