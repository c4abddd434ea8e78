"""The client of tokenizer_server.py: encodes records and prompts and decodes tokens in a child process with limits.

A chat template is a program, and a tokenizer.json can be one: both may compute for ever or fill the memory. No torch.
"""

import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
from base64 import b64decode
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import chain, repeat
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from transformers import PreTrainedTokenizerFast

from trainer.data import tokenizer as tokenizers
from trainer.data.encoding_budget import encoding_budget
from trainer.data.fast_encoding import TokenIds
from trainer.data.record_encoding import RecordRefused, Segment
from trainer.failure import Failure
from trainer.formats.messages import Message
from trainer.processes import child_limits
from trainer.processes.child_environment import child_environment
from trainer.processes.child_limits import ChildLimits, limited_command

LIMITS = ChildLimits(
    memory_bytes=8 << 30,  # for the longest records; each call has its own, smaller limit
    file_bytes=1 << 20,  # its standard error
    niceness=0,  # people and jobs wait for it
    dies_with_parent=False,  # it ends with its connection, and may outlive the thread that started it
)
BATCH_BYTES = 256 << 10  # of records sent at a time
OPEN_FAST_BYTES = 2 << 20  # size of a call with the time and memory to open the largest vocabularies
LOOK_SECONDS = 0.25  # between checks whether a call is still wanted
WAIT_FACTOR = 60  # a call may wait for its computing time so many times longer, on a busy machine
MAX_DEATHS = 10  # of the child, before its client gives up
ROOT = Path(child_limits.__file__).parents[2]

IsStopped = Callable[[], bool]


class CallStopped(Exception):
    """A call was ended because nobody wants its result anymore."""


class TokenizerProcess:
    """A child process with the tokenizer of a directory, or with the one that is passed. Start at once, wait at use.

    Only one thread may use it at a time. All calls raise RecordRefused if the template or the tokenizer refuses the
    text or exceeds its budget, and Failure if the tokenizer cannot be opened. `with_text` if `texts` will be called.
    """

    def __init__(self, source: Path | PreTrainedTokenizerFast, *, with_text: bool = False) -> None:
        self._options = ["text"] if with_text else []
        self._resources = ExitStack()
        if isinstance(source, Path):
            self._directory = source
        else:
            self._directory = Path(self._resources.enter_context(tempfile.TemporaryDirectory(prefix="tokenizer-")))
            tokenizers.save_pretrained(source, self._directory)
        self._deaths = 0
        self._is_ready = False
        self.number = 0  # of the child: it counts up with each start
        self._start()

    def __enter__(self) -> "TokenizerProcess":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._end()
        self._resources.close()

    # ---- what it is asked -------------------------------------------------------------------------------------------

    def segments(self, objective: str, records: Iterable[str]) -> Iterator[tuple[str, list[Segment] | RecordRefused]]:
        """Encode records, as JSON texts: each with its segments, or with the reason why it cannot be used."""
        for batch in _batches(records):
            calls = [("segments", len(record.encode()), (objective, record)) for record in batch]
            for record, answer in zip(batch, self._answers(calls, is_stopped=lambda: False), strict=True):
                is_refused = isinstance(answer, RecordRefused)
                yield record, answer if is_refused else [_unpacked(*segment) for segment in answer]

    def texts(self, texts: Sequence[str]) -> Iterator[list[int] | RecordRefused]:
        """Encode plain texts: each its tokens, without special ones, or the reason why it cannot be used."""
        yield from self._texts("text", texts)

    def open_fast(self) -> bool:
        """Make `fast_texts` work. Returns whether gigatoken encodes as this tokenizer does (fast_encoding.py)."""
        (is_open,) = self._answers([("open_fast", OPEN_FAST_BYTES, ())], is_stopped=lambda: False)
        return is_open is True

    def fast_texts(self, texts: Sequence[str]) -> Iterator[TokenIds | RecordRefused]:
        """The same as `texts` by gigatoken."""
        for answer in self._texts("fast_text", texts):
            yield answer if isinstance(answer, RecordRefused) else np.frombuffer(b64decode(answer), dtype="<u4")

    def fast_or_exact_texts(self, texts: Sequence[str]) -> Iterator[TokenIds | RecordRefused]:
        """The same by gigatoken; what it refuses, as its cache leaves a call less memory, by the tokenizer itself."""
        for text, answer in zip(texts, list(self.fast_texts(texts)), strict=True):
            yield from self.texts([text]) if isinstance(answer, RecordRefused) else [answer]

    def _texts(self, name: str, texts: Sequence[str]) -> Iterator[Any]:
        yield from self._answers([(name, len(text.encode()), (text,)) for text in texts], is_stopped=lambda: False)

    def call(self, name: str, *arguments: Any, is_stopped: IsStopped = lambda: False) -> Any:
        """The result of a method of TokenizerServer. Raises CallStopped soon after `is_stopped`."""
        size = len(json.dumps(arguments, ensure_ascii=False).encode(errors="replace"))
        for answer in self._answers([(name, size, arguments)], is_stopped):
            if isinstance(answer, RecordRefused):
                raise answer
            return answer
        raise AssertionError("each call has an answer")

    # ---- calls ------------------------------------------------------------------------------------------------------

    def _answers(self, calls: Sequence[tuple[str, int, Sequence[Any]]], is_stopped: IsStopped) -> Iterator[Any]:
        """One answer per call; the rest of the calls are sent again to a new process where one ends the process."""
        done = 0
        try:
            while done < len(calls):
                self._wait_until_ready(is_stopped)
                try:
                    self._connection.send_bytes(json.dumps({"calls": calls[done:]}).encode())
                    for call in calls[done:]:
                        message = self._receive(encoding_budget(call[1]).cpu_seconds, is_stopped)
                        done += 1
                        yield _refusal(message["refused"]) if "refused" in message else message["result"]
                except (EOFError, OSError):
                    done += 1
                    yield self._death(calls[done - 1][1])
        finally:
            if done < len(calls):  # answers that nobody reads must not be taken for those of later calls
                self._end()

    def _receive(self, cpu_seconds: float, is_stopped: IsStopped) -> Any:
        """The next message. Raises EOFError if the child died or takes far too long, and CallStopped."""
        deadline = time.monotonic() + WAIT_FACTOR * cpu_seconds
        while not self._connection.poll(LOOK_SECONDS):
            if is_stopped():
                self._end()
                raise CallStopped
            if time.monotonic() > deadline:
                self._child.kill()
        return json.loads(self._connection.recv_bytes())

    def _death(self, size: int) -> RecordRefused:
        """Why the child died of a call of this size. Raises Failure if too many ended it."""
        status = self._child.wait()
        self._stderr.seek(0)
        output = self._stderr.read().decode(errors="replace")
        self._end()
        refused = death_reason(status, output, size)
        self._deaths += 1
        if self._deaths > MAX_DEATHS:
            raise Failure("chat_template_unusable", why=refused.message)
        return refused

    # ---- the process ------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by _end
        with theirs:
            number = str(theirs.fileno())
            command = [sys.executable, "-m", "trainer.data.tokenizer_server", number, str(self._directory.resolve())]
            command += self._options
            self._child = subprocess.Popen(
                limited_command(LIMITS, command),
                cwd=ROOT,
                env=child_environment("tokenizer"),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._stderr,
                pass_fds=[theirs.fileno()],
            )
        self._connection: Connection[Any, Any] = Connection(ours.detach())
        self._is_ready = False
        self.number += 1

    def _wait_until_ready(self, is_stopped: IsStopped) -> None:
        if self._connection.closed:
            self._start()
        if self._is_ready:
            return
        try:
            message = self._receive(60.0, is_stopped)
        except (EOFError, OSError):
            status = self._child.wait()
            self._end()
            message = {"failed": f"the process that opens it ended with status {status}"}
        if "failed" in message:
            raise Failure("tokenizer_mismatch", found=f"unreadable: {message['failed']}", needed="one that opens")
        self._is_ready = True

    def _end(self) -> None:
        if not self._connection.closed:
            self._connection.close()
            self._child.kill()
            self._child.wait()
            self._stderr.close()


def _batches(records: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for record in records:
        batch.append(record)
        size += len(record)
        if size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def death_reason(status: int, output: str, size: int) -> RecordRefused:
    """Why a process ended while it encoded a text of `size` bytes, from its exit status and standard error."""
    budget = encoding_budget(size)
    if status in (-signal.SIGPROF, -signal.SIGXCPU):
        return RecordRefused("time", seconds=round(budget.cpu_seconds))
    if "memory allocation" in output:  # how Rust ends a process
        return RecordRefused("memory", megabytes=budget.megabytes)
    last = output.strip().rpartition("\n")[2]
    return RecordRefused("crash", why=" ".join(last.split())[:200] or f"status {status}")


def _refusal(message: dict[str, Any]) -> RecordRefused:
    read = Message.model_validate(message)
    return RecordRefused(read.code, **read.values)


def _unpacked(ids: list[int], runs: list[tuple[float, int]]) -> Segment:
    return Segment(ids, list(chain.from_iterable(repeat(weight, count) for weight, count in runs)))
