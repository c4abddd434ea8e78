"""Commands of the conversations that the playground stores."""

from typing import Annotated

import typer

from ..shapes import ConversationDetails
from .resources import Limit, delete_command, show_list
from .terminal import AsJson, Id, command, connect, print_json, say

conversations = typer.Typer(help="Conversations with models.", no_args_is_help=True)

Leaf = Annotated[
    str | None, typer.Option(help="The branch that ends with this message; of the first column if left out.")
]


@command(conversations, "list")
def list_conversations(
    search: Annotated[str, typer.Option(help="Only those that contain this text.")] = "",
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """List conversations, the last changed first."""
    columns = ("id", "title", "excerpt") if search else ("id", "title", "updated_at")
    with connect() as client:
        show_list(client.conversations.list(search), columns, limit, as_json=as_json)


@command(conversations, "show")
def show_conversation(id: Id, leaf: Leaf = None, as_json: AsJson = False) -> None:
    """Print a branch of a conversation; with --json the messages of all branches."""
    with connect() as client:
        conversation = client.conversations.get(id)
    if as_json:
        print_json(conversation)
        return
    say(conversation.title)
    if conversation.system_prompt:
        say(f"\nsystem: {conversation.system_prompt}")
    for message in conversation.branch(leaf or _default_leaf(conversation)):
        say(f"\n{message.model_name or message.role}: {message.content}")


def _default_leaf(conversation: ConversationDetails) -> str | None:
    """The last message of the first column that shows one, else the newest message."""
    shown_leaves = [column.leaf_id for column in conversation.columns if column.leaf_id is not None]
    newest = conversation.messages[-1].id if conversation.messages else None
    return shown_leaves[0] if shown_leaves else newest


@command(conversations, "export")
def export_conversation(id: Id, leaf: Leaf = None, as_json: AsJson = False) -> None:
    """Print a branch as a training record, a line of JSON: `athanor conversations export ID >> talks.jsonl`."""
    with connect() as client:
        record = client.conversations.record(id, leaf)
    if as_json:
        print_json(record)
    else:
        typer.echo(record.model_dump_json())


delete_command(conversations, lambda client: client.conversations.delete, "a conversation with all its branches")
