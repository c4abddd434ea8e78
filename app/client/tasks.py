"""Background tasks: their list, and the start of exports and evaluations."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from .errors import TaskEnded
from .evaluation_shapes import ScoreComparisonInfo
from .files import OnProgress, download, nothing
from .language import _
from .shapes import FileInfo, TaskInfo
from .transport import Transport, address
from .waiting import ignore, wait_until_ended

OPEN = ("queued", "running")


class Tasks:
    """Work that the server does in the background: parse, import, export, evaluation."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self, subject: str | None = None, kinds: Sequence[str] = (), limit: int = 50) -> Iterator[TaskInfo]:
        """Your tasks, newest first: all, those of a corpus, checkpoint or model, or those of some kinds."""
        return self._transport.pages(TaskInfo, "/tasks", subject=subject, kind=[*kinds], limit=limit)

    def get(self, task_id: str) -> TaskInfo:
        """A task with its result."""
        return self._transport.get(TaskInfo, address("tasks", task_id))

    def cancel(self, task_id: str) -> TaskInfo:
        """Cancel a task."""
        return self._transport.post(TaskInfo, address("tasks", task_id, "cancel"))

    def delete(self, task_id: str) -> None:
        """Delete a task that has ended, and the files of an export."""
        self._transport.delete(address("tasks", task_id))

    def wait(self, task_id: str, on_change: Callable[[TaskInfo], None] = ignore) -> TaskInfo:
        """Wait until a task has succeeded. Raises TaskEnded with the reason if it does not."""
        task = wait_until_ended(lambda: self.get(task_id), OPEN, on_change)
        if task.state != "succeeded":
            sentence = _("The task {id} was cancelled.", id=task.id)
            raise TaskEnded(task.failure.message if task.failure is not None else sentence)
        return task


class Exports:
    """Checkpoints and base models in formats that others read."""

    def __init__(self, transport: Transport, tasks: Tasks) -> None:
        self._transport = transport
        self._tasks = tasks

    def start(
        self,
        checkpoint_id: str,
        *,
        format: str = "safetensors",
        quantization: str = "f16",
        max_shard_bytes: int = 5 * 10**9,
        license: str = "",
    ) -> TaskInfo:
        """Export a checkpoint or base model as safetensors, adapter or gguf (in f32, f16 or q8_0)."""
        body = {
            "checkpoint": checkpoint_id,
            "format": format,
            "quantization": quantization,
            "max_shard_bytes": max_shard_bytes,
            "license": license,
        }
        return self._transport.post(TaskInfo, "/exports", body)

    def find(self, checkpoint_id: str, *, format: str = "safetensors", quantization: str = "f16") -> TaskInfo | None:
        """The newest export in this format that has succeeded or is still open, or None."""
        for task in self._tasks.list(checkpoint_id, ["export"]):
            same = task.options.get("format") == format
            if format == "gguf":
                same = same and task.options.get("quantization") == quantization
            if same and task.state in (*OPEN, "succeeded"):
                return task
        return None

    def download_file(
        self, task_id: str, file: FileInfo, directory: Path | str, on_progress: OnProgress = nothing
    ) -> Path:
        """Download one file of an export, resumed where an earlier call broke off, and verify it.

        Raises BrokenDownload.
        """
        target = Path(directory)
        target.mkdir(parents=True, exist_ok=True)
        where = address("tasks", task_id, "files", file.name)
        name = Path(file.name).name
        return download(self._transport, where, target / name, file.size, file.sha256, on_progress)

    def pull(
        self,
        checkpoint_id: str,
        directory: Path | str,
        *,
        format: str = "safetensors",
        quantization: str = "f16",
        on_change: Callable[[TaskInfo], None] = ignore,
        on_progress: Callable[[FileInfo, int], None] = lambda file, done: None,
    ) -> list[Path]:
        """Download an export of a checkpoint or base model, and start it first if there is none in this format.

        `on_change` gets the export while it runs, `on_progress` each file with its bytes so far. Raises TaskEnded and
        BrokenDownload.
        """
        task = self.find(checkpoint_id, format=format, quantization=quantization)
        task = task or self.start(checkpoint_id, format=format, quantization=quantization)
        files = self._tasks.wait(task.id, on_change).files
        return [
            self.download_file(task.id, file, directory, lambda done, total, file=file: on_progress(file, done))  # type: ignore[misc]
            for file in files
        ]


class Evaluations:
    """Scores of checkpoints and base models on held-out corpora."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def start(
        self,
        checkpoint_id: str,
        corpora: Sequence[str],
        *,
        limit: int | None = 200,
        num_fewshot: int = 0,
        max_tokens: int = 128,
        judge: str | None = None,
    ) -> TaskInfo:
        """Evaluate on at most `limit` documents of each corpus (None: all), each after `num_fewshot` solved ones.

        Answers to questions have at most `max_tokens` tokens; `judge` is the model that judges them where they ask for
        that.
        """
        body = {
            "checkpoint": checkpoint_id,
            "corpora": [*corpora],
            "limit": limit,
            "num_fewshot": num_fewshot,
            "max_tokens": max_tokens,
            "judge": judge,
        }
        return self._transport.post(TaskInfo, "/evaluations", body)

    def compare(self, search: str | None = None, *, limit: int = 500) -> Iterator[ScoreComparisonInfo]:
        """Your scores by corpus and settings, the corpus with the newest evaluation first: all, or those of models and
        corpora with a text in their name. They are read in pages of `limit` evaluations, which stand by themselves.
        """
        return self._transport.pages(ScoreComparisonInfo, "/evaluations", limit=limit, q=search)
