"""What all commands share: options, output as text or JSON, errors as sentences with an exit code, progress bars."""

import functools
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated, Any, NoReturn, TypeVar

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ..api import Client
from ..errors import AthanorError, Forbidden, NotLoggedIn, ServerBusy, ServerProblem, ServerUnreachable
from ..files import OnProgress
from ..language import _

FAILED, DENIED, UNREACHABLE, INTERRUPTED = 1, 3, 4, 130  # exit codes; 2 is that of a wrong command line

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Id = Annotated[str, typer.Argument(metavar="ID")]
ModelId = Annotated[str, typer.Argument(metavar="MODEL", help="ID of a checkpoint or base model.")]

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
F = TypeVar("F", bound=Callable[..., Any])


def output() -> Console:
    """Standard output. Where it is no terminal, lines are not wrapped and have no colors."""
    return Console(soft_wrap=not sys.stdout.isatty(), highlight=False, markup=False, emoji=False)


def messages() -> Console:
    """Standard error, for progress and errors."""
    return Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)


def say(sentence: str) -> None:
    """Print a line as it is: square brackets mark nothing up."""
    output().print(printable(sentence))


def hint(sentence: str) -> None:
    """Print a sentence that is no part of the output."""
    messages().print(printable(sentence), style="dim")


def printable(text: str) -> str:
    """A text without the control characters with which a model could steer the terminal."""
    return CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


# ---- commands -------------------------------------------------------------------------------------------------------


def command(group: typer.Typer, name: str) -> Callable[[F], F]:
    """Register a function as a command of a group; its errors become sentences on standard error, or JSON."""

    def register(function: F) -> F:
        group.command(name)(with_error_messages(function))
        return function

    return register


def with_error_messages(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, but its errors end the program with a sentence on standard error, or JSON."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except AthanorError as error:
            _fail(error, as_json=bool(kwargs.get("as_json")))
        except OSError as error:  # a file of the user's that is missing or cannot be written
            _fail(AthanorError(str(error)), as_json=bool(kwargs.get("as_json")))
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None

    return run


def _fail(error: AthanorError, *, as_json: bool) -> NoReturn:
    console = messages()
    if as_json:
        console.print_json(json.dumps({"error": _as_json(error)}), indent=2)
    else:
        console.print(printable(str(error)), style="red")
        if isinstance(error, NotLoggedIn):
            console.print(_("Run `athanor login`."))
        if isinstance(error, ServerProblem) and len(error.fields) > 1:
            for field in error.fields:
                console.print(f"  {field.message}")
    raise typer.Exit(_exit_code(error))


def _as_json(error: AthanorError) -> dict[str, Any]:
    if not isinstance(error, ServerProblem):
        return {"message": str(error)}
    fields = [{"field": field.field, "message": field.message} for field in error.fields]
    return {"message": error.title, "code": error.code, "status": error.status, "fields": fields}


def _exit_code(error: AthanorError) -> int:
    if isinstance(error, NotLoggedIn | Forbidden):
        return DENIED
    return UNREACHABLE if isinstance(error, ServerUnreachable | ServerBusy) else FAILED


# ---- output ---------------------------------------------------------------------------------------------------------


def print_json(answer: Any) -> None:
    """Print an answer, or a list of them, as JSON."""
    if isinstance(answer, BaseModel):
        text = answer.model_dump_json(by_alias=True, indent=2)
    else:
        text = json.dumps(answer, default=_dumped, indent=2, ensure_ascii=False)
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _dumped(value: Any) -> Any:
    return value.model_dump(mode="json", by_alias=True)


def print_rows(headings: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    """Print a table; where standard output is no terminal, lines with tabs between the values."""
    if not sys.stdout.isatty():
        for row in rows:
            sys.stdout.write("\t".join(map(_cell, row)) + "\n")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, heading in enumerate(headings):
        table.add_column(heading, no_wrap=number == 0)  # IDs are copied
    for row in rows:
        table.add_row(*map(_cell, row))
    output().print(table)


def print_fields(answer: BaseModel, *names: str) -> None:
    """Print some fields of an answer, one a line; those that are empty are left out."""
    values = {name: getattr(answer, name) for name in names}
    for name, value in values.items():
        if value not in (None, "", [], {}):
            say(f"{name:<16} {_cell(value)}")


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, datetime):
        return value.astimezone().strftime("%Y-%m-%d %H:%M")
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)


@contextmanager
def progress_bar(label: str) -> Iterator[OnProgress]:
    """A bar on standard error for bytes, hidden where that is no terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=messages(), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def connect() -> Client:
    """A client for the server of the login or the environment."""
    return Client()
