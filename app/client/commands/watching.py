"""Following a job in the terminal: a live curve, or lines where standard output is no terminal; and its log."""

import json
import sys
import time
from threading import Lock
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ..api import Client
from ..job_shapes import JobInfo
from ..jobs import StreamedEvent
from ..language import _, join_sentences
from .curve import Curve, add_points, drawn
from .terminal import FAILED, AsJson, Id, connect, hint, output, print_json, printable, say

LINE_SECONDS = 5.0  # between lines of progress where standard output is no terminal
FRAMES_PER_SECOND = 4
CURVE_LINES = 18


def watch(id: Id, as_json: AsJson = False) -> None:
    """Watch a job until it ends: its state, progress and loss. Ctrl-C stops watching, not the job."""
    with connect() as client:
        follow(client, id, as_json=as_json)


def show_log(
    id: Id,
    search: Annotated[str, typer.Option("--search", help="Only lines with this text, in upper or lower case.")] = "",
    level: Annotated[str | None, typer.Option("--level", help="warning (and above) or error: only such lines.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print what the processes of a job printed, or only some of the lines."""
    with connect() as client:
        if search or level:
            lines = list(client.jobs.log_lines(id, search, level))
            text = "".join(f"{printable(line.text)}\n" for line in lines)
            document: dict[str, Any] = {"lines": lines}
        else:
            text = _complete_log(client, id)
            document = {"text": text}
    if as_json:
        print_json(document)
    else:
        typer.echo(text, nl=False)


def _complete_log(client: Client, job_id: str) -> str:
    chunk = client.jobs.log(job_id)
    text = chunk.text
    while chunk.next_offset < chunk.size and chunk.next_offset > chunk.offset:
        chunk = client.jobs.log(job_id, chunk.next_offset)
        text += chunk.text
    return text


def follow(client: Client, job_id: str, *, as_json: bool) -> None:
    """Show a job until it has ended. Exits with code 1 unless it succeeded."""
    client.jobs.get(job_id)  # a wrong ID is refused before anything is drawn
    job: JobInfo | None = None
    screen: _Lines | _Screen | _Json = _Json() if as_json else _Screen() if sys.stdout.isatty() else _Lines()
    try:
        with screen:
            for event in client.jobs.events(job_id, on_disconnect=screen.disconnected):
                job = event.job or job
                screen.show(event, job)
    except KeyboardInterrupt:
        hint(_("The job keeps running. Watch it again: athanor watch {id}", id=job_id))
        raise
    if job is None or job.state != "succeeded":
        raise typer.Exit(FAILED)


def _value(value: float | str | None) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else str(value)


def _figures(job: JobInfo) -> str:
    """The step, the last losses, the speed and the time left of a job."""
    parts = [_("step {step} of {total}", step=job.step, total=job.max_steps or "?")]
    for name in ("loss", "eval_loss", "tokens_per_second"):
        if name in job.latest:
            parts.append(f"{name} {_value(job.latest[name])}")
    if job.eta_seconds is not None and not job.has_ended:
        parts.append(_("{time} left", time=_span(job.eta_seconds)))
    return "  ".join(parts)


def _span(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _outcome(job: JobInfo) -> str:
    """Why a job waits, what troubles it, or why it failed; "" if there is nothing to say."""
    if job.failure is not None:
        return join_sentences((job.failure.cause, job.failure.next_step))
    if job.wait is not None:
        return job.wait.message
    return job.notice.message if job.notice is not None else ""


class _Json:
    """Every event as a line of JSON."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, *details: object) -> None:
        pass

    def disconnected(self, error: Exception) -> None:
        """Say nothing: programs want the events only."""

    def show(self, event: StreamedEvent, job: JobInfo | None) -> None:
        """Print the event."""
        sys.stdout.write(json.dumps({"event": event.name, "id": event.id, "data": event.data}) + "\n")
        sys.stdout.flush()


class _Lines:
    """A line for each change of state, each sample, and now and then for the progress."""

    def __init__(self) -> None:
        self._state = ""
        self._line = ""
        self._printed_at = 0.0

    def __enter__(self) -> None:
        pass

    def __exit__(self, *details: object) -> None:
        pass

    def disconnected(self, error: Exception) -> None:
        """Say that the connection broke."""
        hint(_("The connection broke; connecting again."))

    def show(self, event: StreamedEvent, job: JobInfo | None) -> None:
        """Print what is new."""
        if event.name == "sample":
            text = f"{event.data['prompt']}{event.data['text']}"
            say(_("Sample at step {step}: {text}", step=event.data["step"], text=text))
        if event.name == "job" and job is not None:
            self._show_job(job)

    def _show_job(self, job: JobInfo) -> None:
        line = f"{_figures(job)}  {_outcome(job)}".rstrip()
        has_new_state, self._state = job.state != self._state, job.state
        if has_new_state or (line != self._line and time.monotonic() - self._printed_at >= LINE_SECONDS):
            say(f"{job.state:<10}  {line}")
            self._line, self._printed_at = line, time.monotonic()
        sys.stdout.flush()


class _Screen:
    """The job's name, state and figures, a progress bar, and the curve of its loss, drawn anew in place."""

    def __init__(self) -> None:
        self._console = output()
        self._curves: dict[str, Curve] = {}
        self._job: JobInfo | None = None
        self._sample = ""
        self._is_connected = True
        self._lock = Lock()  # it is drawn by a thread of its own
        self._live = Live(
            console=self._console, get_renderable=self._drawn, refresh_per_second=FRAMES_PER_SECOND, screen=False
        )

    def __enter__(self) -> None:
        self._live.start()

    def __exit__(self, *details: object) -> None:
        self._live.stop()  # draws it a last time, so that it stays

    def disconnected(self, error: Exception) -> None:
        """Show that the connection broke."""
        self._is_connected = False

    def show(self, event: StreamedEvent, job: JobInfo | None) -> None:
        """Take an event into what is drawn."""
        with self._lock:
            self._job, self._is_connected = job, True
            if event.name in ("points", "curve"):
                add_points(self._curves, event.name, event.data["series"])
            elif event.name == "sample":
                self._sample = printable(f"{event.data['prompt']}{event.data['text']}")

    def _drawn(self) -> RenderableType:
        job = self._job
        if job is None:
            return Text(_("Connecting"))
        width = self._console.width
        height = min(CURVE_LINES, self._console.height - 6)
        with self._lock:
            curve = drawn(self._curves, width=width, height=height, max_steps=job.max_steps)
        lines: list[RenderableType] = [self._heading(job), self._bar(job)]
        lines += [Text.from_ansi(curve, no_wrap=True)] if curve else []
        lines += [Text(" ".join(self._sample.split())[: width - 1], style="dim")] if self._sample else []
        outcome = _outcome(job)
        return Group(*lines, *([Text(outcome)] if outcome else []))

    def _heading(self, job: JobInfo) -> Text:
        style = {"succeeded": "green", "failed": "red", "running": "cyan"}.get(job.state, "yellow")
        heading = Text.assemble((job.name, "bold"), "  ", (job.state, style), "  ", _figures(job))
        if not self._is_connected:
            heading.append(f"  {_('The connection broke; connecting again.')}", "yellow")
        return heading

    def _bar(self, job: JobInfo) -> RenderableType:
        done, total = job.progress.done, job.progress.total
        if job.state == "succeeded":
            done = total = max(total, 1)
        row: Table = Table.grid(expand=True)
        row.add_column(width=12, no_wrap=True)
        row.add_column(ratio=1)
        row.add_row(Text(job.progress.phase or ""), ProgressBar(total=max(total, 1), completed=done))
        return row
