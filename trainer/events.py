"""What a run tells the world: one JSON line an event, appended to `events.jsonl`. Imports pydantic only.

The journal is the durable truth of a run: the trainer appends, the supervisor reads from a byte offset and ships,
and shipping a line twice does no harm because `seq` numbers them.
"""

import errno
import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

from pydantic import BaseModel, Field, TypeAdapter

Phase = Literal["prepare", "tokenise", "load", "train", "evaluate", "save"]
PHASES: tuple[Phase, ...] = ("prepare", "tokenise", "load", "train", "evaluate", "save")

# Exit codes of a trainer process, as DESIGN fixes them.
EXIT_OK = 0
EXIT_BAD_INPUT = 64
EXIT_NONFINITE = 70
EXIT_OUT_OF_MEMORY = 71
EXIT_RESUMABLE = 75
EXIT_BUSY = 69  # a GPU is held by somebody else
EXIT_PEER_LOST = 76  # another process of the run is gone
EXIT_BUG = 77

FULL = (errno.ENOSPC, errno.EDQUOT)


class _Event(BaseModel):
    seq: int
    at: float  # Unix seconds


class PhaseEvent(_Event):
    """How far the present phase is: `done` of `total` units (steps, bytes or files)."""

    kind: Literal["phase"] = "phase"
    phase: Phase
    done: int
    total: int


class PointsEvent(_Event):
    """One value of each series at a step. A non-finite value stands as the word nan, inf or -inf."""

    kind: Literal["points"] = "points"
    step: int
    values: dict[str, float | Literal["nan", "inf", "-inf"]]


class SampleEvent(_Event):
    """What the model wrote at a step when it continued `prompt`."""

    kind: Literal["sample"] = "sample"
    step: int
    prompt: str
    text: str


class TokenizerEvent(_Event):
    """The tokenizer the run uses; `trained` says whether the run made it. `path` is relative to the run directory."""

    kind: Literal["tokenizer"] = "tokenizer"
    path: str
    sha256: str
    vocab_size: int
    trained: bool


class DataEvent(_Event):
    """What tokenising found: the numbers of tokens, and of sequences for training and for validation."""

    kind: Literal["data"] = "data"
    num_tokens: int
    num_train_sequences: int
    num_validation_sequences: int
    bytes_per_token: float
    num_cut: int = 0  # records whose end is missing
    num_dropped: int = 0  # records that are left out


class ProbeEvent(_Event):
    """What was measured before the first step of an attempt.

    `gemm_flops` are operations a second of matrix products on one device. `step_seconds` is a step without its
    optimizer; unless it `is_whole` only the forward pass was taken, and the rest estimated. `save_seconds` is what a
    checkpoint takes. `precision` is what the device computes in, where the spec left it open.
    """

    kind: Literal["probe"] = "probe"
    precision: Literal["fp32", "bf16"]
    gemm_flops: float
    step_seconds: float
    peak_bytes: int
    save_seconds: float | None
    is_whole: bool


class UsageEvent(_Event):
    """What an attempt really took so far: the median seconds of a step, and the most memory that a rank held."""

    kind: Literal["usage"] = "usage"
    step: int
    step_seconds: float
    peak_bytes: int


class CheckEvent(_Event):
    """What was checked at the first step, what was found, and between what it must lie."""

    kind: Literal["check"] = "check"
    check: Literal["blind_loss", "trained_share", "whole_loss"]
    found: float
    least: float
    most: float


class CheckpointEvent(_Event):
    """A whole checkpoint lies at `path` (relative to the run directory), not yet verified nor published."""

    kind: Literal["checkpoint"] = "checkpoint"
    step: int
    path: str
    metrics: dict[str, float]


class ResumedEvent(_Event):
    """Training goes on behind `step` of a checkpoint. Where nothing `differs` the same bits must come again."""

    kind: Literal["resumed"] = "resumed"
    step: int
    differs: list[str]  # world size, threads, versions and the like that are not what they were


class SaveFailedEvent(_Event):
    """A checkpoint could not be written; training goes on. Bytes are of the disk."""

    kind: Literal["save_failed"] = "save_failed"
    step: int
    free: int
    needed: int
    why: str


class FailureEvent(_Event):
    """Why the run is about to exit: a failure code and the numbers its sentence needs."""

    kind: Literal["failure"] = "failure"
    code: str
    values: dict[str, Any] = {}


class FinishedEvent(_Event):
    """All steps are done and the last checkpoint is written."""

    kind: Literal["finished"] = "finished"
    step: int


Event = Annotated[
    PhaseEvent
    | PointsEvent
    | SampleEvent
    | TokenizerEvent
    | DataEvent
    | CheckEvent
    | ProbeEvent
    | UsageEvent
    | CheckpointEvent
    | ResumedEvent
    | SaveFailedEvent
    | FailureEvent
    | FinishedEvent,
    Field(discriminator="kind"),
]
_EVENT: TypeAdapter[Event] = TypeAdapter(Event)


def finite(value: float) -> float | str:
    """The value, or its word where it is not finite: JSON holds no NaN."""
    if math.isnan(value):
        return "nan"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return value


class Journal:
    """Appends events to a file. One writer; opened again it goes on with the next `seq`.

    While the disk is full the lines are kept in memory: training goes on, and nothing is lost if room comes again.
    """

    def __init__(self, path: Path) -> None:
        if path.exists():
            _drop_torn_line(path)
        self._seq = max((event.seq for event, _offset in read(path, 0)), default=0)
        self._file = path.open("ab", buffering=0)
        self._pending = bytearray()

    def write(self, kind: str, **fields: Any) -> None:
        """Append one event of this kind in a single write call."""
        self._seq += 1
        line = {"seq": self._seq, "at": round(time.time(), 3), "kind": kind, **fields}
        self._pending += json.dumps(line, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        self._flush()

    def _flush(self) -> None:
        try:
            while self._pending:
                del self._pending[: self._file.write(self._pending)]
        except OSError as error:
            if error.errno not in FULL:
                raise
            os.utime(self._file.fileno())  # a sign of life that needs no room

    def points(self, step: int, **values: float) -> None:
        """Append one value of each series at a step."""
        self.write("points", step=step, values={name: finite(value) for name, value in values.items()})

    def sync(self) -> None:
        """Force what was written to the disk."""
        self._flush()
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            if error.errno not in FULL:
                raise

    def close(self) -> None:
        """Sync and close."""
        self.sync()
        self._file.close()


def read(path: Path, offset: int) -> Iterator[tuple[Event, int]]:
    """Whole events from a byte offset on, each with the offset behind it. A line still being written is left."""
    if not path.exists():
        return
    with path.open("rb") as file:
        file.seek(offset)
        for line in _whole_lines(file):
            offset += len(line)
            yield _EVENT.validate_json(line), offset


def _whole_lines(file: BinaryIO) -> Iterator[bytes]:
    for line in file:
        if not line.endswith(b"\n"):
            return
        yield line


def _drop_torn_line(path: Path) -> None:
    data = path.read_bytes()
    if data and not data.endswith(b"\n"):
        os.truncate(path, data.rfind(b"\n") + 1)
