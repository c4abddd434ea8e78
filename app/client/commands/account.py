"""Logging in and out."""

import socket
from typing import Annotated

import typer

from .. import login
from ..accounts import create_token
from ..api import Client
from ..language import _
from ..login import StoredLogin
from .terminal import AsJson, print_json, say


def log_in(
    url: Annotated[str | None, typer.Argument(help="Address of the server, such as http://127.0.0.1:8000.")] = None,
    token: Annotated[
        str | None, typer.Option(help="An API token of the account page, in place of name and password.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Your user name.")] = None,
    as_json: AsJson = False,
) -> None:
    """Log in: store the address of a server and an API token for it, for all later commands."""
    address = (url or login.read().url).rstrip("/")
    if token is None:
        user = name or typer.prompt(_("Name"), err=True)
        password = typer.prompt(_("Password"), hide_input=True, err=True)
        token = create_token(address, user, password, f"athanor on {socket.gethostname()}")
    with Client(address, token) as client:
        user_info = client.me()
    login.write(StoredLogin(address, token))
    if as_json:
        print_json(user_info)
    else:
        say(_("Logged in to {url} as {name}.", url=address, name=user_info.name))


def log_out(as_json: AsJson = False) -> None:
    """Forget the stored API token. Revoke it on the account page."""
    login.delete()
    if as_json:
        print_json({"token": None})
    else:
        say(_("The token is deleted from this machine. Revoke it on the account page if others may have seen it."))


def who_am_i(as_json: AsJson = False) -> None:
    """Show the server, the user and the scopes of the token."""
    with Client() as client:
        user = client.me()
        if as_json:
            print_json({"url": client.url, **user.model_dump(mode="json")})
        else:
            say(f"{client.url}  {user.name}  {', '.join(user.scopes)}")
