"""Commands that list, show and change: corpora, tokenizers, models, jobs, checkpoints, tasks, recipes."""

import json
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from ..api import Client
from ..language import _, join_sentences
from ..shapes import BaseModelInfo, CorpusInfo, JsonObject, Shape
from .terminal import (
    AsJson,
    Id,
    command,
    connect,
    print_fields,
    print_json,
    print_rows,
    progress_bar,
    say,
)

corpora = typer.Typer(help="Uploaded text and records.", no_args_is_help=True)
tokenizers = typer.Typer(help="Trained vocabularies.", no_args_is_help=True)
models = typer.Typer(help="Imported base models.", no_args_is_help=True)
jobs = typer.Typer(help="Requests to train.", no_args_is_help=True)
checkpoints = typer.Typer(help="Saved weights.", no_args_is_help=True)
tasks = typer.Typer(help="Background tasks: parsing, imports, exports, evaluations.", no_args_is_help=True)

Limit = Annotated[int, typer.Option(min=1, help="Entries at most.")]
Search = Annotated[str | None, typer.Option("--search", help="A part of the name, tags or notes.")]
Tag = Annotated[str | None, typer.Option("--tag", help="Only those with this tag.")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait until it is done.")]


def show_list(entries: Iterator[Shape], columns: Iterable[str], limit: int, *, as_json: bool) -> None:
    """Print some entries of a list: these fields of each, or all as JSON."""
    rows = list(islice(entries, limit))
    names = list(columns)
    if as_json:
        print_json(rows)
    else:
        print_rows(names, ([getattr(row, name) for name in names] for row in rows))


def show(answer: Shape, names: Iterable[str], *, as_json: bool) -> None:
    """Print some fields of an answer, or all as JSON."""
    if as_json:
        print_json(answer)
    else:
        print_fields(answer, *names)


def delete_command(group: typer.Typer, verb: Callable[[Client], Callable[[str], None]], what: str) -> None:
    def delete(id: Id, as_json: AsJson = False) -> None:
        with connect() as client:
            verb(client)(id)
        if as_json:
            print_json({"deleted": id})
        else:
            say(_("Deleted: {id}", id=id))

    delete.__doc__ = f"Delete {what}."
    command(group, "delete")(delete)


def rename_command(group: typer.Typer, verb: Callable[[Client], Callable[[str, str], Shape]], what: str) -> None:
    def rename(id: Id, name: str, as_json: AsJson = False) -> None:
        with connect() as client:
            show(verb(client)(id, name), ("id", "name"), as_json=as_json)

    rename.__doc__ = f"Rename {what}."
    command(group, "rename")(rename)


# ---- corpora --------------------------------------------------------------------------------------------------------

CORPUS = ("id", "name", "state", "kind", "num_documents", "num_characters", "num_bytes", "num_bad_lines")


@command(corpora, "list")
def list_corpora(search: Search = None, tag: Tag = None, limit: Limit = 50, as_json: AsJson = False) -> None:
    """List corpora, newest first."""
    with connect() as client:
        show_list(
            client.corpora.list(search=search, tag=tag),
            ("id", "name", "state", "kind", "num_documents"),
            limit,
            as_json=as_json,
        )


@command(corpora, "show")
def show_corpus(id: Id, as_json: AsJson = False) -> None:
    """Show a corpus with its problems."""
    with connect() as client:
        _print_corpus(client.corpora.get(id), as_json=as_json)


def _print_corpus(corpus: CorpusInfo, *, as_json: bool) -> None:
    show(corpus, CORPUS, as_json=as_json)
    for problem in [] if as_json else corpus.problems:
        say(f"{problem.line}: {problem.message}" if problem.line else problem.message)


@command(corpora, "upload")
def upload_corpus(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False)],
    name: Annotated[str, typer.Option(help="Name in lists; the file's if left out.")] = "",
    encoding: Annotated[str, typer.Option(help="Encoding, if it is not UTF-8.")] = "",
    kind: Annotated[str, typer.Option(help="Kind of the records; that of the first one if left out.")] = "",
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Upload texts or records: text, HTML, PDF, Word, EPUB, JSON, CSV, spreadsheets, Parquet, archives of them."""
    with connect() as client:
        with progress_bar(file.name) as on_progress:
            corpus = client.corpora.upload(file, name=name, encoding=encoding, kind=kind, on_progress=on_progress)
        if wait:
            corpus = client.corpora.wait(corpus.id)
        _print_corpus(corpus, as_json=as_json)


STEP = ("name", "num_seen", "num_removed", "num_changed", "num_places", "removed_characters")


@command(corpora, "clean")
def clean_corpus(
    id: Id,
    step: Annotated[
        list[str],
        typer.Option(
            help="A step: its name, or its name with settings, such as 'length:{\"min_characters\": 200}'; repeated, "
            "in the order in which documents pass them."
        ),
    ],
    preview: Annotated[int, typer.Option(min=0, help="Only try it on so many documents; nothing is written.")] = 0,
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Clean a corpus by a recipe, which makes a new version."""
    steps = [_step(text) for text in step]
    with connect() as client:
        if preview:
            preview_result = client.corpora.preview_cleaning(id, steps, preview)
            _print_steps(preview_result, preview_result.steps, ("num_documents", "num_left"), as_json=as_json)
            return
        corpus = client.corpora.clean(id, steps)
        if not wait:
            _print_corpus(corpus, as_json=as_json)
            return
        client.corpora.wait(corpus.id)
        cleaning = client.corpora.cleaning(corpus.id)
    if not as_json:
        say(corpus.id)
    _print_steps(cleaning, cleaning.steps, ("num_documents", "num_left", "sha256"), as_json=as_json)


def _step(text: str) -> JsonObject:
    """A step of the command line. Raises BadParameter for settings that are not a JSON object."""
    name, _colon, settings = text.partition(":")
    try:
        return {**json.loads(settings or "{}"), "name": name}
    except (ValueError, TypeError):
        raise typer.BadParameter(_("The settings of “{name}” are not a JSON object.", name=name)) from None


def _print_steps(answer: Shape, steps: Iterable[Shape], names: Iterable[str], *, as_json: bool) -> None:
    show(answer, names, as_json=as_json)
    if not as_json:
        print_rows(STEP, ([getattr(step, name) for name in STEP] for step in steps))


@command(corpora, "restore")
def restore_corpus(id: Id, wait: Wait = False, as_json: AsJson = False) -> None:
    """Make an older version of a corpus the newest again, which undoes a cleaning."""
    with connect() as client:
        corpus = client.corpora.restore(id)
        _print_corpus(client.corpora.wait(corpus.id) if wait else corpus, as_json=as_json)


rename_command(corpora, lambda client: client.corpora.rename, "a corpus, with all its versions")
delete_command(corpora, lambda client: client.corpora.delete, "a corpus: it moves to the trash")


# ---- tokenizers -----------------------------------------------------------------------------------------------------

TOKENIZER = ("id", "name", "state", "vocab_size", "corpora")


@command(tokenizers, "list")
def list_tokenizers(search: Search = None, tag: Tag = None, limit: Limit = 50, as_json: AsJson = False) -> None:
    """List tokenizers, newest first."""
    with connect() as client:
        show_list(client.tokenizers.list(search=search, tag=tag), TOKENIZER, limit, as_json=as_json)


@command(tokenizers, "show")
def show_tokenizer(id: Id, as_json: AsJson = False) -> None:
    """Show a tokenizer."""
    with connect() as client:
        show(client.tokenizers.get(id), TOKENIZER, as_json=as_json)


@command(tokenizers, "train")
def train_tokenizer(
    corpora: Annotated[list[str], typer.Argument(help="IDs of the corpora to train on.")],
    name: Annotated[str, typer.Option(help="Name in lists; that of the corpora if left out.")] = "",
    vocab_size: Annotated[int | None, typer.Option(help="Number of tokens; as the text suggests if left out.")] = None,
    special_token: Annotated[list[str] | None, typer.Option(help="A special token; may be repeated.")] = None,
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Train a byte-level BPE tokenizer on corpora."""
    with connect() as client:
        tokenizer = client.tokenizers.train(
            corpora, name=name, vocab_size=vocab_size, special_tokens=special_token or ()
        )
        show(client.tokenizers.wait(tokenizer.id) if wait else tokenizer, TOKENIZER, as_json=as_json)


@command(tokenizers, "import")
def import_tokenizer(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="tokenizer.json, .model, .zip or .tar.")],
    name: Annotated[str, typer.Option(help="Name in lists; the file's if left out.")] = "",
    end_of_text: Annotated[str, typer.Option(help="The end-of-text token, if the file does not name it.")] = "",
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Import a tokenizer."""
    with connect() as client:
        with progress_bar(file.name) as on_progress:
            tokenizer = client.tokenizers.import_file(file, name=name, end_of_text=end_of_text, on_progress=on_progress)
        show(client.tokenizers.wait(tokenizer.id) if wait else tokenizer, TOKENIZER, as_json=as_json)


rename_command(tokenizers, lambda client: client.tokenizers.rename, "a tokenizer")
delete_command(
    tokenizers,
    lambda client: client.tokenizers.delete,
    "a tokenizer: it moves to the trash; checkpoints hold their own copies",
)


# ---- base models ----------------------------------------------------------------------------------------------------

MODEL = ("id", "name", "state", "source", "reference", "num_bytes")


@command(models, "list")
def list_models(search: Search = None, tag: Tag = None, limit: Limit = 50, as_json: AsJson = False) -> None:
    """List base models, newest first."""
    with connect() as client:
        show_list(client.models.list(search=search, tag=tag), ("id", "name", "state", "source"), limit, as_json=as_json)


@command(models, "show")
def show_model(id: Id, as_json: AsJson = False) -> None:
    """Show a base model with its problems and what it cannot be used for."""
    with connect() as client:
        _print_model(client.models.get(id), as_json=as_json)


def _print_model(model: BaseModelInfo, *, as_json: bool) -> None:
    show(model, MODEL, as_json=as_json)
    remarks = [remark.message for remark in model.problems] + [limit.message for limit in model.limits]
    for remark in [] if as_json else remarks:
        say(remark)


@command(models, "upload")
def upload_model(
    folder: Annotated[Path, typer.Argument(exists=True, help="In Hugging Face layout, or a .zip or .tar of it.")],
    name: Annotated[str, typer.Option(help="Name in lists; the folder's if left out.")] = "",
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Upload a base model and import it."""
    with connect() as client:
        with progress_bar(folder.name) as on_progress:
            model = client.models.upload(folder, name=name, on_progress=on_progress)
        _print_model(client.models.wait(model.id) if wait else model, as_json=as_json)


@command(models, "import")
def import_model(
    reference: Annotated[str, typer.Argument(help="owner/name or owner/name@revision of the Hugging Face hub.")],
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Let the server download and import a base model."""
    with connect() as client:
        model = client.models.create(reference=reference)
        _print_model(client.models.wait(model.id) if wait else model, as_json=as_json)


rename_command(models, lambda client: client.models.rename, "a base model")
delete_command(models, lambda client: client.models.delete, "a base model: it moves to the trash")


# ---- jobs -----------------------------------------------------------------------------------------------------------

JOB = ("id", "name", "state", "step", "max_steps", "node", "eta_seconds", "latest", "created_at", "finished_at")


@command(jobs, "import")
def import_job(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="Archive that `export` wrote.")],
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Import a job from an archive of this or another installation; --wait prints the job."""
    with connect() as client:
        with progress_bar(file.name) as on_progress:
            task = client.jobs.import_archive(file, on_progress)
        if wait:
            task = client.tasks.wait(task.id)
            show(client.jobs.get(str((task.result or {})["job_id"])), JOB, as_json=as_json)
        else:
            show(task, ("id", "kind", "state"), as_json=as_json)


@command(jobs, "list")
def list_jobs(
    state: Annotated[list[str] | None, typer.Option(help="Only jobs in this state; may be repeated.")] = None,
    search: Search = None,
    tag: Tag = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """List jobs, newest first."""
    with connect() as client:
        columns = ("id", "name", "state", "step", "max_steps", "created_at")
        show_list(client.jobs.list(state or (), search=search or "", tag=tag), columns, limit, as_json=as_json)


@command(jobs, "show")
def show_job(id: Id, as_json: AsJson = False) -> None:
    """Show a job, and why it waits or failed."""
    with connect() as client:
        job = client.jobs.get(id)
    show(job, JOB, as_json=as_json)
    if as_json:
        return
    if job.wait is not None:
        say(job.wait.message)
    if job.failure is not None:
        say(join_sentences((job.failure.cause, job.failure.next_step)))


def _change_command(name: str, verb: Callable[[Client], Callable[[str], Shape]], what: str) -> None:
    def change(id: Id, as_json: AsJson = False) -> None:
        with connect() as client:
            show(verb(client)(id), ("id", "name", "state", "desired"), as_json=as_json)

    change.__doc__ = what
    command(jobs, name)(change)


_change_command("pause", lambda client: client.jobs.pause, "Pause a job: it saves a checkpoint and frees its node.")
_change_command("resume", lambda client: client.jobs.resume, "Resume a paused job.")
_change_command("cancel", lambda client: client.jobs.cancel, "Cancel a job; its checkpoints are kept.")
delete_command(
    jobs, lambda client: client.jobs.delete, "a job that has ended, with its checkpoints: they move to the trash"
)


@command(jobs, "forward")
def forward_job(
    id: Id,
    tracker: Annotated[str, typer.Argument(help="mlflow, tensorboard, …; all are listed if it is left out.")] = "",
    stop: Annotated[bool, typer.Option("--stop", help="Forward no more of it.")] = False,
    as_json: AsJson = False,
) -> None:
    """Forward a job to an experiment tracker of the installation, or show how far it is there."""
    with connect() as client:
        rows = iter(client.jobs.forward(id, {tracker: not stop}).data) if tracker else client.jobs.forwardings(id)
        show_list(rows, ("tracker", "state", "step", "error"), 100, as_json=as_json)


# ---- checkpoints ----------------------------------------------------------------------------------------------------

CHECKPOINT = ("id", "name", "job_id", "step", "state", "num_bytes", "kept", "tags", "notes", "metrics")


@command(checkpoints, "list")
def list_checkpoints(
    job: Annotated[str | None, typer.Option(help="Only those of the job with this ID.")] = None,
    search: Search = None,
    tag: Tag = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """List checkpoints, newest first."""
    columns = ("id", "job_id", "step", "name", "num_bytes", "kept")
    with connect() as client:
        show_list(client.checkpoints.list(job, search=search, tag=tag), columns, limit, as_json=as_json)


@command(checkpoints, "show")
def show_checkpoint(id: Id, as_json: AsJson = False) -> None:
    """Show a checkpoint; with --json also its manifest."""
    with connect() as client:
        show(client.checkpoints.get(id), CHECKPOINT, as_json=as_json)


def _pin_command(name: str, verb: Callable[[Client], Callable[[str], Shape]], what: str) -> None:
    def pin(id: Id, as_json: AsJson = False) -> None:
        with connect() as client:
            show(verb(client)(id), CHECKPOINT, as_json=as_json)

    pin.__doc__ = what
    command(checkpoints, name)(pin)


_pin_command("pin", lambda client: client.checkpoints.pin, "Pin a checkpoint, so that it is never deleted on its own.")
_pin_command("unpin", lambda client: client.checkpoints.unpin, "Unpin a checkpoint.")
delete_command(checkpoints, lambda client: client.checkpoints.delete, "a checkpoint: it moves to the trash")


# ---- tasks and recipes ----------------------------------------------------------------------------------------------

TASK = ("id", "kind", "state", "checkpoint_id", "model_id", "corpus_id", "node", "progress", "result", "finished_at")


@command(tasks, "list")
def list_tasks(
    subject: Annotated[str | None, typer.Option(help="Only those of this corpus, checkpoint or model.")] = None,
    kind: Annotated[list[str] | None, typer.Option(help="Only those of this kind; may be repeated.")] = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """List background tasks, newest first."""
    with connect() as client:
        entries = client.tasks.list(subject, kind or ())
        show_list(entries, ("id", "kind", "state", "node", "created_at"), limit, as_json=as_json)


@command(tasks, "show")
def show_task(id: Id, wait: Wait = False, as_json: AsJson = False) -> None:
    """Show a background task with its result."""
    with connect() as client:
        task = client.tasks.wait(id) if wait else client.tasks.get(id)
    show(task, TASK, as_json=as_json)
    if task.failure is not None and not as_json:
        say(task.failure.message)


@command(tasks, "cancel")
def cancel_task(id: Id, as_json: AsJson = False) -> None:
    """Cancel a background task."""
    with connect() as client:
        show(client.tasks.cancel(id), TASK, as_json=as_json)


delete_command(tasks, lambda client: client.tasks.delete, "a background task that has ended, and an export's files")


def show_recipes(as_json: AsJson = False) -> None:
    """List the ready-made specs, smallest first."""
    with connect() as client:
        show_list(client.recipes(), ("name", "num_parameters", "spec"), 1_000, as_json=as_json)


def start_evaluation(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="ID of a checkpoint or base model.")],
    corpus: Annotated[list[str], typer.Option(help="ID of a held-out corpus; may be repeated.")],
    documents: Annotated[int, typer.Option(min=1, help="Documents of each corpus at most.")] = 200,
    num_fewshot: Annotated[int, typer.Option(min=0, max=32, help="Solved examples before each question.")] = 0,
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Evaluate a checkpoint or base model on held-out corpora."""
    with connect() as client:
        task = client.evaluations.start(model, corpus, limit=documents, num_fewshot=num_fewshot)
        show(client.tasks.wait(task.id) if wait else task, TASK, as_json=as_json)
