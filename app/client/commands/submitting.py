"""Planning and submitting jobs."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import AthanorError
from ..job_shapes import PlanInfo
from ..language import _
from .terminal import AsJson, connect, print_fields, print_json, say
from .watching import follow

SpecFile = Annotated[
    Path | None, typer.Option("--spec", exists=True, dir_okay=False, help="JSON file with a partial TrainSpec.")
]
Recipe = Annotated[str | None, typer.Option(help="Ready-made spec to start from; see `athanor recipes`.")]
CorpusIds = Annotated[list[str] | None, typer.Option("--corpus", help="ID of a corpus; may be repeated.")]
Name = Annotated[str | None, typer.Option(help="Name of the job.")]
BaseModelId = Annotated[str | None, typer.Option("--base-model", help="Checkpoint or base model to fine-tune.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="A field of the spec, its value as JSON or text; repeatable."),
]


def submit(
    spec: SpecFile = None,
    recipe: Recipe = None,
    corpus: CorpusIds = None,
    base_model: BaseModelId = None,
    name: Name = None,
    settings: Settings = None,
    watch: Annotated[bool, typer.Option("--watch", help="Watch the job until it ends.")] = False,
    as_json: AsJson = False,
) -> None:
    """Submit a job."""
    body = assembled(spec, recipe, corpus, base_model, name, settings)
    with connect() as client:
        job = client.jobs.submit(body)
        if watch:
            follow(client, job.id, as_json=as_json)
        elif as_json:
            print_json(job)
        else:
            say(job.id)


def plan(
    spec: SpecFile = None,
    recipe: Recipe = None,
    corpus: CorpusIds = None,
    base_model: BaseModelId = None,
    name: Name = None,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Estimate what a job would cost, without submitting it."""
    with connect() as client:
        answer = client.jobs.plan(assembled(spec, recipe, corpus, base_model, name, settings))
    if as_json:
        print_json(answer)
    else:
        _print_plan(answer)


def tokenize(
    spec: SpecFile = None,
    recipe: Recipe = None,
    corpus: CorpusIds = None,
    base_model: BaseModelId = None,
    tokenizer: Annotated[str | None, typer.Option(help="ID of the tokenizer, unless a base model has one.")] = None,
    settings: Settings = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it is done.")] = False,
    as_json: AsJson = False,
) -> None:
    """Tokenize corpora before a job, which then begins to train at once."""
    body = assembled(spec, recipe, corpus, base_model, None, settings)
    with connect() as client:
        task = client.jobs.tokenize({**body, **({"tokenizer": tokenizer} if tokenizer else {})})
        if wait:
            task = client.tasks.wait(task.id)
    if as_json:
        print_json(task)
    else:
        print_fields(task, "id", "state", "result")


def _print_plan(plan: PlanInfo) -> None:
    say(plan.reason)
    for name in ("num_parameters", "num_tokens", "max_steps", "memory_bytes"):
        say(f"{name:<16} {getattr(plan, name):,}")
    for name, figure in plan.figures.items():
        say(f"{name:<16} {figure.text}")
    for note in plan.notes:
        say(note)


def assembled(
    spec: Path | None,
    recipe: str | None,
    corpora: list[str] | None,
    base_model: str | None,
    name: str | None,
    settings: list[str] | None,
) -> dict[str, Any]:
    """The partial spec of a command line: options go before the file, --set before both. Raises AthanorError."""
    body = _read(spec) if spec is not None else {}
    options = {"recipe": recipe, "corpora": corpora, "base_model": base_model, "name": name}
    return {**body, **{key: value for key, value in options.items() if value}, **dict(map(_field, settings or ()))}


def _read(path: Path) -> dict[str, Any]:
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise AthanorError(_("{file} is not JSON: {why}.", file=path, why=error)) from error
    if not isinstance(body, dict):
        raise AthanorError(_("{file} must hold a JSON object.", file=path))
    return body


def _field(setting: str) -> tuple[str, Any]:
    name, equals, value = setting.partition("=")
    if not name or not equals:
        raise AthanorError(_("--set {setting}: write FIELD=VALUE, such as max_steps=200.", setting=setting))
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
