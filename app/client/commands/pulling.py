"""Downloading models: exports, and checkpoints as they were saved; and the curves of jobs."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from ..jobs import MetricsFormat
from ..language import _
from ..run_archives import CheckpointChoice
from ..shapes import FileInfo, TaskInfo
from .terminal import AsJson, Id, ModelId, connect, messages, print_json, progress_bar, say

Directory = Annotated[Path, typer.Argument(file_okay=False, help="Directory to write to.")]


def pull(
    model: ModelId,
    directory: Directory,
    format: Annotated[str, typer.Option(help="safetensors, adapter or gguf.")] = "safetensors",
    quantization: Annotated[str, typer.Option(help="Numbers of a GGUF file: f32, f16 or q8_0.")] = "f16",
    as_json: AsJson = False,
) -> None:
    """Download a checkpoint or base model for other tools; it is exported first if it has not been.

    Every file is verified; repeat the command to continue a download that broke off.
    """
    with connect() as client, _Bars() as bars:
        paths = client.exports.pull(
            model,
            directory,
            format=format,
            quantization=quantization,
            on_change=bars.exporting,
            on_progress=bars.receiving,
        )
    _print_paths(paths, as_json=as_json)


def download(id: Id, directory: Directory, as_json: AsJson = False) -> None:
    """Download a checkpoint as it was saved, which `transformers` opens, and unpack it."""
    with connect() as client, progress_bar(id) as on_progress:
        target = client.checkpoints.download(id, directory, on_progress)
    _print_paths(sorted(path for path in target.rglob("*") if path.is_file()), as_json=as_json)


def download_metrics(
    id: Id,
    target: Annotated[Path, typer.Argument(metavar="FILE", dir_okay=False, help="File to write.")],
    format: Annotated[
        MetricsFormat, typer.Option(help='For tensorboard, "tfevents" must be part of the name of the file.')
    ] = "csv",
    as_json: AsJson = False,
) -> None:
    """Write all points of all curves of a job to a file: a row for each step, or an event file of TensorBoard."""
    with connect() as client:
        path = client.jobs.download_metrics(id, target, format)
    _print_paths([path], as_json=as_json)


def export_job(
    id: Id,
    target: Annotated[Path, typer.Argument(metavar="FILE", dir_okay=False, help="Archive to write, such as run.tar.")],
    checkpoints: Annotated[
        CheckpointChoice, typer.Option(help="The checkpoints it holds: the best and the last, all, or none.")
    ] = "best_and_last",
    as_json: AsJson = False,
) -> None:
    """Download a job that has ended as one archive: spec, curves, samples, tokenizer and checkpoints."""
    with connect() as client:
        path = client.jobs.export(id, target, checkpoints)
    _print_paths([path], as_json=as_json)


def _print_paths(paths: list[Path], *, as_json: bool) -> None:
    if as_json:
        print_json([str(path) for path in paths])
        return
    for path in paths:
        say(str(path))


class _Bars:
    """Bars on standard error for the export and for each file; hidden where that is no terminal."""

    def __init__(self) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        is_hidden = not sys.stderr.isatty()
        self._progress = Progress(*columns, console=messages(), transient=True, disable=is_hidden)
        self._tasks = {_("Export"): self._progress.add_task(_("Export"), total=None)}

    def __enter__(self) -> "_Bars":
        self._progress.start()
        return self

    def __exit__(self, *details: object) -> None:
        self._progress.stop()

    def exporting(self, task: TaskInfo) -> None:
        """Show the progress of the export."""
        if task.progress is not None:
            self._update(_("Export"), task.progress.done, task.progress.total)
        elif task.state == "succeeded":
            self._update(_("Export"), 1, 1)

    def receiving(self, file: FileInfo, done: int) -> None:
        """Show how much of a file has arrived."""
        self._update(file.name, done, file.size)

    def _update(self, name: str, done: int, total: int) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name)
        self._progress.update(self._tasks[name], completed=done, total=total)
