"""The curves of a job as a Parquet file or an event file of TensorBoard, which a child process makes of the CSV file.

The libraries for these formats stay out of the web process.
"""

import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import IO, Literal

from app.core.errors import PanelError
from app.core.i18n import _
from app.core.node_budget import NoRoom, Reservation, node_budget
from app.core.settings import ROOT
from app.jobs.attempts import metrics_csv
from app.web.pools import Pool
from trainer.processes.child_environment import child_environment
from trainer.processes.child_limits import ChildLimits, limited_command

log = logging.getLogger(__name__)

Format = Literal["parquet", "tensorboard"]

MEMORY_BYTES = 512 << 20
LIMITS = ChildLimits(memory_bytes=MEMORY_BYTES, cpu_seconds=1800)
ROOM_SECONDS = 10.0  # for the node to have room
CHUNK_BYTES = 1 << 16

MAX_SECONDS = 1800.0  # until a reader has all of a file
MAX_OPEN = 4  # files that are being read at once

CONVERSIONS = Pool(2, max_waiting=8, max_per_client=3, refusal=lambda: busy())  # whose threads outlive the children


_PLACES = threading.BoundedSemaphore(MAX_OPEN)


class ConversionFailed(Exception):
    """The child died, so that what was sent of the file is not all of it."""


def chunks(job_id: str, file_format: Format) -> Iterator[bytes]:
    """The file in pieces, as the child writes them. Call it in a thread of CONVERSIONS: the child dies with its thread.

    Raises PanelError: 503 if too many files are being read or there is no room for the child, 500 if it does not begin.
    Later, ConversionFailed.
    """
    try:
        reservation = node_budget().wait_for(MEMORY_BYTES, seconds=ROOM_SECONDS)
    except NoRoom:
        raise busy() from None
    pieces = _converted(metrics_csv.chunks(job_id), file_format, reservation)
    try:
        first = next(pieces)  # from here on the generator ends its child, whether it is read to its end or not
    except ConversionFailed as failure:
        log.error("the curves of job %s cannot be written as %s: %s", job_id, file_format, failure)
        message = _("The curves cannot be written in this format. The server's log says why; CSV has the same points.")
        raise PanelError(500, "metrics_failed", message) from None
    return chain([first], pieces)


def _converted(lines: Iterator[bytes], file_format: Format, reservation: Reservation) -> Iterator[bytes]:
    with reservation, _place():
        child = subprocess.Popen(
            limited_command(LIMITS, [sys.executable, "-m", "trainer.export.metric_files", file_format]),
            cwd=ROOT,
            env=child_environment("parse", OPENBLAS_NUM_THREADS="1"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert child.stdin is not None
        assert child.stdout is not None
        threading.Thread(target=_feed, args=(child, child.stdin, lines), daemon=True).start()
        deadline = threading.Timer(MAX_SECONDS, child.kill)
        deadline.daemon = True
        deadline.start()
        try:
            while piece := child.stdout.read(CHUNK_BYTES):
                yield piece
            if child.wait() != 0:
                raise ConversionFailed(f"exit status {child.returncode}")
        finally:
            deadline.cancel()
            child.kill()
            child.wait()
            child.stdout.close()


@contextmanager
def _place() -> Iterator[None]:
    """One of MAX_OPEN places, of whoever reads a file. Raises PanelError (503) if none is free."""
    if not _PLACES.acquire(blocking=False):
        raise busy()
    try:
        yield
    finally:
        _PLACES.release()


def _feed(child: subprocess.Popen[bytes], target: IO[bytes], lines: Iterator[bytes]) -> None:
    """Write the CSV file to the child, and kill it where that cannot be read to its end."""
    try:
        for chunk in lines:
            target.write(chunk)
        target.close()
    except BrokenPipeError:
        pass  # the child has ended, and its exit status says how
    except Exception:
        log.exception("the curves cannot be read")
        child.kill()


def busy() -> PanelError:
    """The error for a file that finds no place."""
    message = _("Other files of curves are being written. Try again in a moment.")
    return PanelError(503, "metrics_busy", message, headers={"Retry-After": "5"})
