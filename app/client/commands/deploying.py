"""Commands of deployments: models that stay in memory under a name."""

from typing import Annotated

import typer

from ..deployments import DeploymentOptions
from ..language import _
from ..shapes import DeploymentInfo
from .resources import Limit, show, show_list
from .terminal import AsJson, ModelId, command, connect, print_json, say, with_error_messages

deployments = typer.Typer(help="Models that stay in memory under a name.", invoke_without_command=True)

DEPLOYMENT = (
    "id",
    "name",
    "model",
    "state",
    "num_replicas",
    "nodes",
    "removed_nodes",
    "access",
    "users",
    "requests_per_minute",
)
LISTED = ("name", "state", "model", "access", "requests_per_minute")

DeploymentName = Annotated[str, typer.Argument(metavar="NAME", help="Name or ID of the deployment.")]


def deploy(
    model: ModelId,
    name: Annotated[str, typer.Option(help="What callers name as their model.")],
    replicas: Annotated[int | None, typer.Option(min=1, help="Nodes that keep the model in memory.")] = None,
    nodes: Annotated[list[str] | None, typer.Option(help="A node that may keep it; may be repeated.")] = None,
    access: Annotated[str | None, typer.Option(help="Who may call it: owner, users or everyone.")] = None,
    users: Annotated[list[str] | None, typer.Option(help="A user who may call it; may be repeated.")] = None,
    requests_per_minute: Annotated[int | None, typer.Option(min=1, help="Limit of each API token.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the model is loaded.")] = False,
    as_json: AsJson = False,
) -> None:
    """Keep a checkpoint or base model in memory under a name, for `generate`, `chat` and OpenAI's clients."""
    settings = _settings(replicas, nodes, access, users, requests_per_minute)
    with connect() as client:
        deployment = client.deployments.create(name, model, **settings)
        _show(client.deployments.wait(deployment.id) if wait else deployment, as_json=as_json)


def _settings(
    replicas: int | None,
    nodes: list[str] | None,
    access: str | None,
    users: list[str] | None,
    requests_per_minute: int | None,
) -> DeploymentOptions:
    """The options that were given. Users who are named may call it, unless `access` says otherwise."""
    settings: DeploymentOptions = {}
    if replicas is not None:
        settings["num_replicas"] = replicas
    if nodes:
        settings["nodes"] = nodes
    if users:
        settings["users"], settings["access"] = users, "users"
    if access is not None:
        settings["access"] = access
    if requests_per_minute is not None:
        settings["requests_per_minute"] = requests_per_minute
    return settings


def undeploy(name: DeploymentName, as_json: AsJson = False) -> None:
    """Remove a deployment, which frees its memory. The model stays."""
    with connect() as client:
        deployment = client.deployments.find(name)
        client.deployments.delete(deployment.id)
    if as_json:
        print_json({"deleted": deployment.id})
    else:
        say(_("Deleted: {id}", id=deployment.name))


@command(deployments, "list")
def list_deployments(limit: Limit = 50, as_json: AsJson = False) -> None:
    """List the deployments that you may call, newest first."""
    with connect() as client:
        show_list(client.deployments.list(), LISTED, limit, as_json=as_json)


@deployments.callback()
def _list_by_default(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        with_error_messages(list_deployments)()


@command(deployments, "show")
def show_deployment(name: DeploymentName, as_json: AsJson = False) -> None:
    """Show a deployment with its nodes and the calls of the last day."""
    with connect() as client:
        _show(client.deployments.find(name), as_json=as_json)


def _show(deployment: DeploymentInfo, *, as_json: bool) -> None:
    show(deployment, DEPLOYMENT, as_json=as_json)
    if as_json:
        return
    for replica in deployment.replicas:
        say(f"{replica.node}: {replica.state} {replica.message or ''}".rstrip())
    say(f"{'last_day':<16} {deployment.last_day.model_dump_json(exclude_none=True)}")


@command(deployments, "move")
def move_deployment(name: DeploymentName, model: ModelId, as_json: AsJson = False) -> None:
    """Move the name to another model. Calls go to the old one until that is loaded."""
    with connect() as client:
        _show(client.deployments.change(client.deployments.find(name).id, model), as_json=as_json)


@command(deployments, "usage")
def show_usage(
    name: DeploymentName,
    hours: Annotated[int, typer.Option(min=1, help="Of so many hours.")] = 24,
    as_json: AsJson = False,
) -> None:
    """Count the calls of each hour: requests, errors, tokens, latency."""
    columns = ("hour", "requests", "errors", "prompt_tokens", "tokens", "first_token_p50_ms", "p50_ms", "p95_ms")
    with connect() as client:
        show_list(client.deployments.usage(client.deployments.find(name).id, hours), columns, hours, as_json=as_json)
