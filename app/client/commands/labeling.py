"""Commands that name, tag and describe rows of lists, and that change several of them at once."""

from collections.abc import Callable
from typing import Annotated

import typer

from ..api import Client
from ..language import _
from ..shapes import ChangedRowsInfo, Shape
from .resources import checkpoints, corpora, jobs, models, show, tokenizers
from .terminal import AsJson, Id, command, connect, print_json, print_rows


def _label_command(group: typer.Typer, what: str, verb: Callable[[Client], Callable[..., Shape]]) -> None:
    def label(
        id: Id,
        name: Annotated[str | None, typer.Option(help="How it is listed from now on.")] = None,
        tag: Annotated[
            list[str] | None, typer.Option(help="Replaces its tags; may be repeated. An empty one removes all.")
        ] = None,
        notes: Annotated[str | None, typer.Option(help="Replaces its notes.")] = None,
        as_json: AsJson = False,
    ) -> None:
        with connect() as client:
            row = verb(client)(id, name=name, tags=[text for text in tag if text] if tag else None, notes=notes)
            show(row, ("id", "name", "tags", "notes"), as_json=as_json)

    label.__doc__ = f"Name, tag or describe {what}; what is left out stays."
    command(group, "label")(label)


def _change_command(
    group: typer.Typer, actions: str, verb: Callable[[Client], Callable[[list[str], str, str], ChangedRowsInfo]]
) -> None:
    def change(
        action: Annotated[str, typer.Argument(help=actions)],
        ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Up to 100.")],
        tag: Annotated[str, typer.Option(help="The tag to add, with the action tag.")] = "",
        as_json: AsJson = False,
    ) -> None:
        """Change several at once, each by itself; exit code 1 if one of them was not changed."""
        with connect() as client:
            outcome = verb(client)(ids, action, tag)
        if as_json:
            print_json(outcome)
        else:
            print_rows(("id", "outcome"), ([row.id, row.message or _("done")] for row in outcome.data))
        if outcome.num_changed < len(outcome.data):
            raise typer.Exit(1)

    command(group, "change")(change)


def add_commands() -> None:
    """Add the commands to the groups."""
    _label_command(corpora, "a corpus", lambda client: client.corpora.label)
    _label_command(tokenizers, "a tokenizer", lambda client: client.tokenizers.label)
    _label_command(models, "a base model", lambda client: client.models.label)
    _label_command(jobs, "a job", lambda client: client.jobs.change)
    _label_command(checkpoints, "a checkpoint", lambda client: client.checkpoints.label)
    _change_command(corpora, "delete or tag", lambda client: client.corpora.change_many)
    _change_command(tokenizers, "delete or tag", lambda client: client.tokenizers.change_many)
    _change_command(models, "delete or tag", lambda client: client.models.change_many)
    _change_command(jobs, "cancel, delete or tag", lambda client: client.jobs.change_many)
    _change_command(checkpoints, "pin, unpin, delete or tag", lambda client: client.checkpoints.change_many)
