"""The events of a run and its journal `events.jsonl`, one JSON object per line. Imports pydantic only.

The journal is the durable record of a run. The trainer appends to it; the supervisor reads from a byte offset and
stores the events. Storing an event twice does no harm, because `seq` numbers them.
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

from trainer.formats.messages import Message

Phase = Literal["prepare", "tokenise", "load", "train", "evaluate", "save"]
PHASES: tuple[Phase, ...] = ("prepare", "tokenise", "load", "train", "evaluate", "save")

SampleSplit = Literal["validation", "train"]  # data that the prompt of a sample is from

# Records that the chat template refuses, that have nothing to learn, whose answers are equal, and truncated ones.
RemarkKind = Literal["refused", "empty", "equal", "cut"]

# Exit codes of a trainer process.
EXIT_OK = 0
EXIT_BAD_INPUT = 64
EXIT_NONFINITE = 70
EXIT_OUT_OF_MEMORY = 71
EXIT_RESUMABLE = 75
EXIT_BUSY = 69  # another process uses a GPU
EXIT_PEER_LOST = 76  # another process of the run was lost
EXIT_BUG = 77

FULL = (errno.ENOSPC, errno.EDQUOT)


class _Event(BaseModel):
    seq: int
    at: float  # Unix seconds


class PhaseEvent(_Event):
    """Progress of the current phase: `done` of `total` units (steps, bytes or files)."""

    kind: Literal["phase"] = "phase"
    phase: Phase
    done: int
    total: int


class PointsEvent(_Event):
    """One value of each metric at a step. Non-finite values are the strings nan, inf and -inf."""

    kind: Literal["points"] = "points"
    step: int
    values: dict[str, float | Literal["nan", "inf", "-inf"]]


class SampleEvent(_Event):
    """The model's continuation `text` of `prompt` at a step. `split` says which data the prompt is from."""

    kind: Literal["sample"] = "sample"
    step: int
    split: SampleSplit = "validation"
    prompt: str
    text: str


class TokenizerEvent(_Event):
    """The tokenizer of the run; `trained` if the run trained it. `path` is relative to the run directory."""

    kind: Literal["tokenizer"] = "tokenizer"
    path: str
    sha256: str
    vocab_size: int
    trained: bool


class RecordRemark(BaseModel):
    """Why a record was left out or cut: the ID of its corpus, and its number there from 1."""

    corpus: str
    record: int
    kind: RemarkKind
    why: Message


class HeldOutData(BaseModel):
    """The size of a validation corpus: its sequences, truncated records, and those left out or refused.

    `num_in_training` counts its documents or records that are also trained on.
    """

    num_sequences: int
    num_cut: int
    num_dropped: int
    num_refused: int = 0
    num_in_training: int = 0
    remarks: list[RecordRemark] = []


class CorpusUse(BaseModel):
    """What a run sees of one of its corpora: its share of all training tokens, and how often it goes over the corpus.

    `num_tokens` are those of its training samples.
    """

    corpus: str
    num_tokens: int
    share: float
    num_epochs: float


class DataEvent(_Event):
    """The size of the tokenized data: tokens, training sequences and validation sequences.

    `corpora` are those to train on, `held_out` the validation corpora by their IDs.
    """

    kind: Literal["data"] = "data"
    num_tokens: int
    num_train_sequences: int
    num_validation_sequences: int
    max_steps: int | None = None  # of the run
    num_epochs: float | None = None  # how often the run goes over the training sequences
    bytes_per_token: float
    unigram_loss: float | None = None  # of guessing each token by its frequency in the training data
    num_cut: int = 0  # truncated records
    num_dropped: int = 0  # records left out
    num_refused: int = 0  # of these, records that the chat template refuses
    remarks: list[RecordRemark] = []  # on the first records of each kind
    num_equal: int = 0  # of those left out, pairs whose answers do not differ within the sequence length
    num_validation_in_training: int = 0  # held-out documents or records that are also trained on
    corpora: list[CorpusUse] = []
    unvalidated_labels: list[str] = []  # those of classes of one record, which is trained on
    held_out: dict[str, HeldOutData] = {}


class ProbeEvent(_Event):
    """Measurements before the first step of an attempt.

    `gemm_flops` is the rate of matrix products on one device, in FLOPs per second. `step_seconds` is the time of a step
    without the optimizer; if not `is_whole`, it is extrapolated from the forward pass. `save_seconds` is the time to
    write a checkpoint. `precision` is the resolved precision.
    """

    kind: Literal["probe"] = "probe"
    precision: Literal["fp32", "bf16"]
    gemm_flops: float
    step_seconds: float
    peak_bytes: int
    save_seconds: float | None
    is_whole: bool


class UsageEvent(_Event):
    """Actual usage of an attempt so far: median seconds of a step, and peak memory of a rank in bytes."""

    kind: Literal["usage"] = "usage"
    step: int
    step_seconds: float
    peak_bytes: int


class CheckEvent(_Event):
    """A check at the first step: the value `found`, which must be between `least` and `most`."""

    kind: Literal["check"] = "check"
    check: Literal["blind_loss", "trained_share", "whole_loss"]
    found: float
    least: float
    most: float


class CheckpointEvent(_Event):
    """A checkpoint is complete at `path`, relative to the run directory, but not yet verified and published."""

    kind: Literal["checkpoint"] = "checkpoint"
    step: int
    path: str
    metrics: dict[str, float]


class ResumedEvent(_Event):
    """Training resumed after `step`. If `differs` is empty, results must be bit-identical."""

    kind: Literal["resumed"] = "resumed"
    step: int
    differs: list[str]  # settings that changed: world size, threads, versions


class SaveFailedEvent(_Event):
    """A checkpoint could not be written; training continues. `free` and `needed` are bytes on disk."""

    kind: Literal["save_failed"] = "save_failed"
    step: int
    free: int
    needed: int
    why: str


class FailureEvent(_Event):
    """The reason for the coming exit: a failure code and the values of its message."""

    kind: Literal["failure"] = "failure"
    code: str
    values: dict[str, Any] = {}


class FinishedEvent(_Event):
    """Training is over, after all steps or early, and the last checkpoint is written."""

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
    """The value, or nan, inf or -inf as a string, as JSON has no such numbers."""
    if math.isnan(value):
        return "nan"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return value


class Journal:
    """Appends events to a file. One writer only; reopened, it continues with the next `seq`.

    While the disk is full, lines are buffered in memory and written once there is space again.
    """

    def __init__(self, path: Path) -> None:
        if path.exists():
            _drop_torn_line(path)
        self._seq = max((event.seq for event, _offset in read(path, 0)), default=0)
        self._file = path.open("ab", buffering=0)
        self._pending = bytearray()

    def write(self, kind: str, **fields: Any) -> None:
        """Append one event in a single write call. Raises OSError unless the disk is full."""
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
            os.utime(self._file.fileno())  # a sign of life that needs no disk space

    def points(self, step: int, **values: float) -> None:
        """Append one value of each metric at a step."""
        self.write("points", step=step, values={name: finite(value) for name, value in values.items()})

    def sync(self) -> None:
        """Flush buffered lines and sync the file to disk."""
        self._flush()
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            if error.errno not in FULL:
                raise

    def close(self) -> None:
        """Sync and close the file."""
        self.sync()
        self._file.close()


def read(path: Path, offset: int) -> Iterator[tuple[Event, int]]:
    """The events from a byte offset on, each with the offset after it. A line still being written is left out."""
    if not path.exists():
        return
    with path.open("rb") as file:
        file.seek(offset)
        for line in _complete_lines(file):
            offset += len(line)
            yield _EVENT.validate_json(line), offset


def _complete_lines(file: BinaryIO) -> Iterator[bytes]:
    for line in file:
        if not line.endswith(b"\n"):
            return
        yield line


def _drop_torn_line(path: Path) -> None:
    data = path.read_bytes()
    if data and not data.endswith(b"\n"):
        os.truncate(path, data.rfind(b"\n") + 1)
