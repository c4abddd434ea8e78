"""An API token for a name and a password: the session that it takes is closed at once."""

import httpx2

from .shapes import NewTokenInfo
from .transport import Transport

SCOPES = ("read", "submit")  # all that the commands need


def create_token(
    url: str, name: str, password: str, token_name: str, transport: httpx2.BaseTransport | None = None
) -> str:
    """The secret of a new API token that can read and submit. Raises NotLoggedIn for a wrong password."""
    visitor = Transport(url, "", transport=transport)
    try:
        visitor.command("/login", {"name": name, "password": password})  # its cookie authenticates what follows
        created = visitor.post(NewTokenInfo, "/tokens", {"name": token_name, "scopes": [*SCOPES]})
        visitor.command("/logout")
        return created.token
    finally:
        visitor.close()
