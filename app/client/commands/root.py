"""The client's commands in one place. Each is a thin layer over the Python client."""

from collections.abc import Callable
from typing import Any

import typer

from . import (
    account,
    conversing,
    deploying,
    generating,
    generating_records,
    labeling,
    nodes,
    pulling,
    resources,
    submitting,
    trash,
    watching,
)
from .terminal import command

commands = typer.Typer(
    help="Train, watch and try language models on a server. The commands that run a server are in its checkout.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

labeling.add_commands()
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "login": account.log_in,
    "logout": account.log_out,
    "whoami": account.who_am_i,
    "recipes": resources.show_recipes,
    "plan": submitting.plan,
    "tokenize": submitting.tokenize,
    "submit": submitting.submit,
    "watch": watching.watch,
    "evaluate": resources.start_evaluation,
    "generate": generating.generate,
    "chat": generating.chat,
    "pull": pulling.pull,
    "deploy": deploying.deploy,
    "undeploy": deploying.undeploy,
    "health": nodes.show_health,
}
for _name, _function in _FUNCTIONS.items():
    command(commands, _name)(_function)

command(resources.checkpoints, "download")(pulling.download)
command(resources.jobs, "log")(watching.show_log)
command(resources.jobs, "metrics")(pulling.download_metrics)
command(resources.jobs, "export")(pulling.export_job)

for _name, _group in {
    "corpora": resources.corpora,
    "tokenizers": resources.tokenizers,
    "models": resources.models,
    "jobs": resources.jobs,
    "checkpoints": resources.checkpoints,
    "deployments": deploying.deployments,
    "conversations": conversing.conversations,
    "records": generating_records.records,
    "tasks": resources.tasks,
    "nodes": nodes.nodes,
    "trash": trash.trash,
}.items():
    commands.add_typer(_group, name=_name)


def names() -> set[str]:
    """The names of all commands and groups."""
    single = {registered.name for registered in commands.registered_commands}
    return {name for name in single | {group.name for group in commands.registered_groups} if isinstance(name, str)}
