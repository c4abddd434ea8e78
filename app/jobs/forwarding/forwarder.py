"""Forwards what is new about jobs to trackers, in a thread and a process for each tracker.

The leading scheduler does it. A tracker that is slow or down keeps nothing else waiting, and what it did not take is
sent again: the journal's lines in the database are the queue.
"""

import logging
import threading
import time
from collections.abc import Callable

from sqlalchemy.exc import SQLAlchemyError

from app.core import db
from app.jobs.forwarding import service, trackers
from app.jobs.forwarding.tracker_process import TrackerFailed, TrackerProcess
from app.jobs.forwarding.trackers import Tracker

log = logging.getLogger(__name__)

IDLE_SECONDS = 60.0  # until a process that has nothing to send ends


class Forwarding:
    """The threads of all trackers."""

    def __init__(self) -> None:
        self._threads: dict[str, TrackerThread] = {}

    def step(self) -> None:
        """Have every tracker's thread look for what is new."""
        for tracker in trackers.available():
            if tracker.name not in self._threads:
                self._threads[tracker.name] = TrackerThread(tracker)
                self._threads[tracker.name].start()
            self._threads[tracker.name].wake.set()

    def close(self) -> None:
        """End all threads and their processes, each after the batch that it is sending."""
        for thread in self._threads.values():
            thread.is_over = True
            thread.wake.set()
        self._threads = {}


class TrackerThread(threading.Thread):
    """Forwards to one tracker whenever it is woken."""

    def __init__(self, tracker: Tracker) -> None:
        super().__init__(name=f"forward-{tracker.name}", daemon=True)
        self.wake = threading.Event()
        self.is_over = False
        self._tracker = tracker
        self._process = TrackerProcess(tracker)

    def run(self) -> None:
        """Forward until the thread is over, or the process ends."""
        used_at = time.monotonic()
        while not self.is_over:
            if not self.wake.wait(IDLE_SECONDS):
                self._process.close()
                continue
            self.wake.clear()
            try:
                if forward_due(self._tracker, self._process, lambda: self.is_over):
                    used_at = time.monotonic()
                elif time.monotonic() - used_at > IDLE_SECONDS:
                    self._process.close()
            except SQLAlchemyError as error:
                log.warning("forwarding to %s: the database cannot be reached: %s", self._tracker.name, error)
            except Exception:  # would end the thread
                log.exception("forwarding to %s failed", self._tracker.name)
        self._process.close()


def forward_due(tracker: Tracker, process: TrackerProcess, is_over: Callable[[], bool] = lambda: False) -> int:
    """Send what is new of all jobs, by turns a batch of each, until it `is_over`.

    Returns the number of batches that were tried.
    """
    with db.transaction() as session:
        job_ids = service.due(session, tracker.name)
    num_batches = 0
    while job_ids:
        full = []
        for job_id in job_ids:
            if is_over():
                return num_batches
            with db.transaction() as session:
                claimed = service.claim(session, tracker, job_id)
            if claimed is None:
                continue
            num_batches += 1
            if _forward(tracker, process, claimed) and claimed.batch.is_full:
                full.append(job_id)
        job_ids = full
    return num_batches


def _forward(tracker: Tracker, process: TrackerProcess, claimed: service.Claimed) -> bool:
    """Send a batch and record the outcome; returns whether the tracker has it."""
    try:
        remote = process.send(claimed)
    except TrackerFailed as failure:
        log.info("job %s was not forwarded to %s: %s", claimed.batch.job["id"], tracker.name, failure)
        with db.transaction() as session:
            service.fail(session, tracker, claimed, failure.reason, is_lost=failure.is_lost)
        return False
    with db.transaction() as session:
        service.succeed(session, tracker, claimed, remote)
    return True
