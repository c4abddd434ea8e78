"""Writes checkpoints beside the training: a fork of each rank holds what the weights were and writes it, at leisure.

A fork costs no copy of the weights at once: the kernel copies what training changes while the fork still writes. One
save is under way at a time. A fork that dies costs that save, and a rank that dies takes its fork along.
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
from trainer.parent_death import signal_on_parent_death
from trainer.report import Reporter
from trainer.training import checkpoint
from trainer.training.checkpoint import CheckpointWriter, NotSaved

NICENESS = 10  # of a fork: training goes first
LOOK_SECONDS = 0.02
MAX_ERROR_BYTES = 2000
FEWEST_BYTES = 64 << 20  # a smaller checkpoint is written at once: it is safe sooner, and nobody feels the pause
ROOM = 1.5  # free memory wanted for a save beside the training, in sizes of the checkpoint


class ForkedWriter:
    """A child that does one thing. What went wrong comes back through a pipe, and by its exit code."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._errors, errors = os.pipe()
        sys.stdout.flush()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(self._errors)
            _be_fork(work, errors)
        os.close(errors)
        self._code: int | None = None

    def is_done(self) -> bool:
        """Whether it ended."""
        if self._code is None:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
        return self._code is not None

    def error(self) -> str | None:
        """What went wrong, of one that ended."""
        with os.fdopen(self._errors, "rb") as file:
            said = file.read().decode(errors="replace")
        return None if self._code == 0 else said or f"the process that wrote it ended with {self._code}"


def _be_fork(work: Callable[[], None], errors: int) -> None:
    code = 1
    try:
        signal_on_parent_death(signal.SIGKILL)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)  # meant for the rank, which waits for its last save
        os.nice(NICENESS)
        torch.set_num_threads(1)  # the pool of threads is the parent's
        work()
        code = 0
    except BaseException as error:
        os.write(errors, checkpoint.error_text(error).encode()[:MAX_ERROR_BYTES])
    finally:
        os._exit(code)


@dataclass
class PendingSave:
    """A save that forks write."""

    save: CheckpointWriter
    works: list[Callable[[], None]]  # what comes behind what the fork does
    fork: ForkedWriter


class AsyncCheckpointer:
    """The saves of one rank. All ranks call everything, at the same steps."""

    def __init__(
        self,
        engine: Engine,
        report: Reporter,
        run_directory: Path,
        on_saved: Callable[[Path, int], None],
    ) -> None:
        self._engine, self._report = engine, report
        self._run_directory, self._on_saved = run_directory, on_saved
        self._under_way: PendingSave | None = None
        self._problem: NotSaved | None = None  # of the newest save

    def start(self, save: CheckpointWriter, *, is_full: bool, is_lost: bool) -> None:
        """Begin a save, behind the one before it. `is_full` and `is_lost` pretend that the disk is, or that the fork
        is killed. Raises Failure where a weight is not finite.
        """
        self.finish()
        self._problem = None
        self._report.phase("save", 0, 1)
        try:
            save.begin(is_full)
            room = psutil.virtual_memory().available
            if self._engine.any_rank(save.num_bytes < FEWEST_BYTES or room < ROOM * save.num_bytes):
                save.write(self._report.heartbeat)
                self._saved(save)
            else:
                work, *works = save.works(self._report.heartbeat)
                self._under_way = PendingSave(save, works, ForkedWriter(_die if is_lost else work))
        except NotSaved as problem:
            self._not_saved(save, problem)
        self._report.phase("save", 1, 1)

    def poll(self) -> None:
        """Go on with the save under way where the forks of all ranks are done."""
        way = self._under_way
        if way is None or self._engine.any_rank(not way.fork.is_done()):
            return
        error = way.fork.error()
        self._under_way = None
        if self._engine.any_rank(error is not None):
            self._not_saved(way.save, way.save.given_up(error))
        elif way.works:
            self._under_way = PendingSave(way.save, way.works[1:], ForkedWriter(way.works[0]))
        else:
            self._saved(way.save)

    def finish(self) -> NotSaved | None:
        """Wait for the save under way. Returns why the newest one is none, if it is."""
        while self._under_way is not None:
            self.poll()
            if self._under_way is not None:
                time.sleep(LOOK_SECONDS)
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
        self._report.line(f"step {save.step} not saved: {problem.why}, {problem.free} free, {problem.needed} needed")


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
