"""Asynchronous checkpoints: a fork of each rank has the weights of its step and writes them while training continues.

Forking copies no weights: the kernel copies only the pages that training changes while the fork still writes
(copy-on-write). One save is in progress at a time. If a fork dies, its save is lost; a fork dies with its rank.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from trainer.engines.base import Engine
from trainer.processes.parent_death import signal_on_parent_death
from trainer.report import Reporter
from trainer.training import checkpoint
from trainer.training.checkpoint import CheckpointWriter, NotSaved

NICENESS = 10  # of a fork, so that training has priority
POLL_SECONDS = 0.02
MAX_ERROR_BYTES = 2000
MIN_FORK_BYTES = 64 << 20  # a smaller checkpoint is written without a fork: it is complete sooner, the pause is short
FREE_MEMORY_FACTOR = 1.5  # free memory that a fork requires, as a multiple of the size of the checkpoint


class ForkedWriter:
    """A forked child that runs a function and exits. It sends an error through a pipe."""

    def __init__(self, write: Callable[[], None]) -> None:
        self._read_end, write_end = os.pipe()
        sys.stdout.flush()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(self._read_end)
            _run_child(write, write_end)
        os.close(write_end)
        self._exit_code: int | None = None

    def is_done(self) -> bool:
        """Whether the child has exited."""
        if self._exit_code is None:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid:
                self._exit_code = os.waitstatus_to_exitcode(status)
        return self._exit_code is not None

    def error(self) -> str | None:
        """The error of the child, which must have exited, or None. Can be called once."""
        with os.fdopen(self._read_end, "rb") as file:
            message = file.read().decode(errors="replace")
        return None if self._exit_code == 0 else message or f"the process that wrote it ended with {self._exit_code}"


def _run_child(write: Callable[[], None], error_fd: int) -> None:
    code = 1
    try:
        signal_on_parent_death(signal.SIGKILL)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)  # they are meant for the rank, which waits for its last save
        os.nice(NICENESS)
        torch.set_num_threads(1)  # the threads of the pool exist only in the parent
        write()
        code = 0
    except BaseException as error:
        os.write(error_fd, checkpoint.error_text(error).encode()[:MAX_ERROR_BYTES])
    finally:
        os._exit(code)


@dataclass
class PendingSave:
    """A save in progress: the function that the fork runs, and those to run in forks after it."""

    save: CheckpointWriter
    remaining: list[Callable[[], None]]
    fork: ForkedWriter


class AsyncCheckpointer:
    """The saves of one rank. All ranks must call each method at the same steps."""

    def __init__(
        self,
        engine: Engine,
        report: Reporter,
        run_directory: Path,
        on_saved: Callable[[Path, int], None],
    ) -> None:
        self._engine = engine
        self._report = report
        self._run_directory = run_directory
        self._on_saved = on_saved
        self._pending: PendingSave | None = None
        self._problem: NotSaved | None = None  # of the newest save

    def start(self, save: CheckpointWriter, *, is_full: bool, is_lost: bool) -> None:
        """Start a save after waiting for the previous one. Raises Failure if a weight is not finite.

        For fault injection, `is_full` simulates a full disk and `is_lost` kills the fork.
        """
        self.finish()
        self._problem = None
        self._report.phase("save", 0, 1)
        try:
            save.begin(is_full)
            has_memory = psutil.virtual_memory().available >= FREE_MEMORY_FACTOR * save.num_bytes
            if self._engine.any_rank(save.num_bytes < MIN_FORK_BYTES or not has_memory):
                save.write(self._report.heartbeat)
                self._saved(save)
            else:
                first, *remaining = save.writers(self._report.heartbeat)
                self._pending = PendingSave(save, remaining, ForkedWriter(_die if is_lost else first))
        except NotSaved as problem:
            self._not_saved(save, problem)
        self._report.phase("save", 1, 1)

    def poll(self) -> None:
        """Advance the save in progress once the forks of all ranks have exited."""
        pending = self._pending
        if pending is None or self._engine.any_rank(not pending.fork.is_done()):
            return
        error = pending.fork.error()
        self._pending = None
        if self._engine.any_rank(error is not None):
            self._not_saved(pending.save, pending.save.discard(error))
        elif pending.remaining:
            first, *remaining = pending.remaining
            self._pending = PendingSave(pending.save, remaining, ForkedWriter(first))
        else:
            self._saved(pending.save)

    def finish(self) -> NotSaved | None:
        """Wait for the save in progress. Returns the error of the newest save, or None if it succeeded."""
        while self._pending is not None:
            self.poll()
            if self._pending is not None:
                time.sleep(POLL_SECONDS)
                self._report.heartbeat()
        return self._problem

    def _saved(self, save: CheckpointWriter) -> None:
        path = str(save.directory.relative_to(self._run_directory))
        self._report.event("checkpoint", step=save.step, path=path, metrics=save.metrics)
        self._report.line(f"step {save.step} saved")
        if self._engine.rank == 0:
            self._on_saved(save.directory, save.step)

    def _not_saved(self, save: CheckpointWriter, problem: NotSaved) -> None:
        self._problem = problem
        self._report.event("save_failed", step=save.step, free=problem.free, needed=problem.needed, why=problem.why)
        self._report.warning(f"step {save.step} not saved: {problem.why}, {problem.free} free, {problem.needed} needed")


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
