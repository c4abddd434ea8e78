"""Commands of nodes, and of the tokens with which machines become nodes."""

from typing import Annotated

import typer

from ..language import _, join_sentences
from .resources import Limit, show_list
from .terminal import AsJson, Id, command, connect, hint, print_json, say

nodes = typer.Typer(help="Machines that run jobs.", no_args_is_help=True)


@command(nodes, "list")
def list_nodes(limit: Limit = 50, as_json: AsJson = False) -> None:
    """List the machines that run jobs, by name."""
    columns = ("name", "live", "num_cpus", "memory_bytes", "last_seen_at")
    with connect() as client:
        show_list(client.nodes(), columns, limit, as_json=as_json)


@command(nodes, "add")
def add_node(
    minutes: Annotated[int, typer.Option(min=1, help="Minutes until the token expires.")] = 60, as_json: AsJson = False
) -> None:
    """Print the command with which another machine becomes a node, once."""
    with connect() as client:
        token = client.join_tokens.create(minutes)
    if as_json:
        print_json(token)
        return
    for sentence in token.hints:
        hint(sentence)
    say(token.command)


@command(nodes, "remove")
def remove_node(name: Annotated[str, typer.Argument(help="As in the list of nodes.")], as_json: AsJson = False) -> None:
    """Remove a node that is offline and has no work from the list."""
    with connect() as client:
        client.remove_node(name)
    _say_deleted(name, as_json=as_json)


@command(nodes, "tokens")
def list_join_tokens(limit: Limit = 50, as_json: AsJson = False) -> None:
    """List the join tokens, newest first, each with the node that joined with it."""
    columns = ("id", "state", "node", "creator", "expires_at")
    with connect() as client:
        show_list(client.join_tokens.list(), columns, limit, as_json=as_json)


@command(nodes, "revoke")
def revoke_join_token(id: Id, as_json: AsJson = False) -> None:
    """Revoke a join token that was not used."""
    with connect() as client:
        client.join_tokens.revoke(id)
    _say_deleted(id, as_json=as_json)


def show_health(
    *,
    free_cache: Annotated[
        bool, typer.Option("--free-cache", help="Delete first the cached tokens that no job or task needs.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show the state of each part of the server, and what to do if one fails."""
    with connect() as client:
        if free_cache:
            client.delete_unneeded_cache()
        health = client.health()
    if as_json:
        print_json(health)
        return
    for part in health.parts:
        say(f"{part.state:5} {part.name}: {join_sentences((part.description, part.remedy))}")


def _say_deleted(id: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"deleted": id})
    else:
        say(_("Deleted: {id}", id=id))
