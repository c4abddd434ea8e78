"""Classifies how an attempt ended, from its processes' reports and exit codes. Pure functions."""

import signal
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from app.core.job_failures import FAILURES
from trainer.events import (
    EXIT_BUG,
    EXIT_BUSY,
    EXIT_OK,
    EXIT_OUT_OF_MEMORY,
    EXIT_PEER_LOST,
    EXIT_RESUMABLE,
    FailureEvent,
)


@dataclass
class AttemptEvidence:
    """What the supervisor knows once all processes are gone."""

    code: int | None = None  # exit code of the gang; None if it could not report one
    exits: dict[int, int] = field(default_factory=dict)  # by rank: exit code, or the negative signal number
    failure: FailureEvent | None = None
    is_finished: bool = False
    step: int = 0
    stopped_for: Literal["cancel", "pause", "shutdown"] | None = None
    has_gpus: bool = False
    is_hung: bool = False
    is_out_of_memory: bool = False  # the kernel's OOM killer struck meanwhile
    unpublished: tuple[int, str] | None = None  # the last checkpoint could not be published: its step, and why


@dataclass(frozen=True)
class Outcome:
    """What to do with the job: finish it, fail it with a code, or release it for a reason."""

    verb: Literal["finish", "fail", "release"]
    code: str = ""
    values: dict[str, Any] = field(default_factory=dict)


STOPPED = {"cancel": "cancelled", "pause": "paused", "shutdown": "shutdown"}
TRY_AGAIN = ("disk_full", "no_space")  # failures that are not the job's fault
NO_CAUSE = (EXIT_OK, EXIT_RESUMABLE, EXIT_PEER_LOST)
CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE)


def classify_outcome(ending: AttemptEvidence) -> Outcome:
    """Choose the outcome. A failure that the trainer reported takes precedence over exit codes."""
    if ending.unpublished is not None:
        step, why = ending.unpublished
        return Outcome("release", "checkpoint_failed", {"step": step, "why": why})
    if ending.is_finished and ending.code == EXIT_OK:
        return Outcome("finish")
    if ending.failure is not None:
        code = ending.failure.code if ending.failure.code in FAILURES else "internal"
        return Outcome("release" if code in TRY_AGAIN else "fail", code, ending.failure.values)
    if ending.is_hung:
        return Outcome("release", "hang", {"step": ending.step + 1})
    if ending.stopped_for is not None:
        return Outcome("release", STOPPED[ending.stopped_for])
    if ending.code == EXIT_BUG:  # from a rank without a journal
        return Outcome("fail", "trainer_bug", {"error": "?"})
    if ending.code == EXIT_OUT_OF_MEMORY:  # from a rank without a journal
        return Outcome("fail", "oom_gpu" if ending.has_gpus else "oom_host", {"step": ending.step + 1})
    if ending.is_out_of_memory and -signal.SIGKILL in _cause(ending):
        return Outcome("fail", "oom_host", {"step": ending.step + 1})
    if ending.code == EXIT_BUSY:
        return Outcome("release", "gpu_busy")
    return Outcome("release", _kind(_cause(ending)), {"how": describe_exits(ending)})


def _kind(codes: list[int]) -> str:
    """The reason code for the exit codes of processes that were not stopped."""
    if any(-code in CRASHES for code in codes):
        return "trainer_segfault"
    if -signal.SIGABRT in codes:
        return "trainer_abort"
    if any(code < 0 for code in codes):
        return "trainer_killed"
    return "trainer_exit" if codes else "gang_rank_died"


def _cause(ending: AttemptEvidence) -> list[int]:
    unexpected = list(_odd(ending).values())
    return unexpected or [code for code in (ending.code,) if code not in (None, *NO_CAUSE)]


def _odd(ending: AttemptEvidence) -> dict[int, int]:
    """The ranks with an unexpected exit code, not counting those ended because of others."""
    unexpected = {rank: code for rank, code in ending.exits.items() if code not in NO_CAUSE}
    return {rank: code for rank, code in unexpected.items() if code != -signal.SIGTERM} or unexpected


def describe_exits(ending: AttemptEvidence) -> str:
    """Which process exited how, for people: "rank 1: SIGKILL"."""
    if cause := _odd(ending):
        return ", ".join(f"rank {rank}: {exit_text(code)}" for rank, code in sorted(cause.items()))
    return exit_text(ending.code) if ending.code is not None else "no answer"


def exit_text(code: int) -> str:
    """The name of a signal, or "exit code N"."""
    if code < 0:
        with suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"
