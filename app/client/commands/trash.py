"""Commands of the trash."""

import typer

from ..language import _
from .resources import Limit, delete_command, show_list
from .terminal import AsJson, Id, command, connect, print_json, say

trash = typer.Typer(help="What was deleted in the last seven days.", no_args_is_help=True)


@command(trash, "list")
def list_trash(limit: Limit = 50, as_json: AsJson = False) -> None:
    """List what is in your trash, the last deleted first."""
    with connect() as client:
        show_list(client.trash.list(), ("id", "kind", "name", "num_bytes", "ends_at"), limit, as_json=as_json)


@command(trash, "restore")
def restore(id: Id, as_json: AsJson = False) -> None:
    """Take something out of the trash."""
    with connect() as client:
        client.trash.restore(id)
    if as_json:
        print_json({"restored": id})
    else:
        say(_("Restored: {id}", id=id))


@command(trash, "empty")
def empty(as_json: AsJson = False) -> None:
    """Delete everything in your trash for good."""
    with connect() as client:
        client.trash.empty()
    if as_json:
        print_json({"emptied": True})
    else:
        say(_("The trash is empty."))


delete_command(trash, lambda client: client.trash.delete, "something in the trash for good")
