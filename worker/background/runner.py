"""Runs the background tasks of this node: claims those that wait, and watches the processes of each in a thread."""

import logging
import threading
import time
from collections import Counter
from contextlib import ExitStack, suppress

from sqlalchemy.orm import Session

from app.background_tasks import outcomes
from app.core import background_tasks, db
from app.core.background_tasks import lane_of
from app.core.models import BackgroundTask
from app.core.node_budget import NoRoom, Reservation, node_budget
from app.core.settings import settings
from app.jobs import tokenization
from worker.background import (
    clean,
    export_and_evaluate,
    generate_records,
    job_import,
    model_import,
    parse,
    prepare_tokenizer,
    statistics,
    tokenize_corpora,
)
from worker.background.lease import OUTAGE, DiskFilledUp, Lease, TaskLost, is_outage
from worker.background.work import Report, Work
from worker.sandbox import runner

log = logging.getLogger(__name__)

STOP_SECONDS = 5.0  # for the processes to be killed and their tasks to be queued again, when the worker stops
RETRY_SECONDS = 1.0  # between two tries to store a result in an outage of the database
NUM_PROCESSES = 1 + tokenization.NUM_ENCODERS  # of a task at once: its child, and what that starts to encode, at most
WORK: dict[str, Work] = {
    "parse": parse.WORK,
    "clean": clean.WORK,
    "statistics": statistics.WORK,
    "import": model_import.WORK,
    "export": export_and_evaluate.EXPORT,
    "evaluation": export_and_evaluate.EVALUATION,
    "tokenizer": prepare_tokenizer.WORK,
    "generate": generate_records.WORK,
    "job_import": job_import.WORK,
    "tokenize": tokenize_corpora.WORK,
}


class TaskRunner:
    """All background tasks that run on this node."""

    def __init__(self) -> None:
        self._claiming = threading.Lock()
        self._running: dict[threading.Thread, BackgroundTask] = {}
        self._interrupted: list[BackgroundTask] = []  # by outages of the database, which does not know it yet
        self._is_stopping = threading.Event()
        self._is_first = True

    def start_waiting(self) -> None:
        """Start as many waiting tasks as there are slots and memory for. An outage of the database is only logged."""
        try:
            with self._claiming:
                self._requeue_of_earlier_worker()
                self._report_outages()
                while not self._is_stopping.is_set() and (claimed := self._claim()) is not None:
                    task = claimed[0]
                    thread = threading.Thread(target=self._run, args=claimed, name=f"task-{task.id}", daemon=True)
                    self._running[thread] = task
                    thread.start()
        except OUTAGE as error:
            log.warning("waiting tasks start later, as the database is unreachable: %s", error)

    def join(self, seconds: float) -> None:
        """Wait until no task runs."""
        deadline = time.monotonic() + seconds
        while self._running and time.monotonic() < deadline:
            for thread in list(self._running):
                thread.join(max(0.0, deadline - time.monotonic()))

    def stop(self) -> None:
        """End the processes of all tasks and queue these again."""
        self._is_stopping.set()
        self.join(STOP_SECONDS)

    def _requeue_of_earlier_worker(self) -> None:
        if self._is_first:
            with db.transaction() as session:
                outcomes.lose_node(session, node=settings().node_name)
            self._is_first = False

    def _report_outages(self) -> None:
        while self._interrupted:
            task = self._interrupted[-1]
            with db.transaction() as session:
                background_tasks.report_outage(session, task_id=task.id, fence=task.fence)
            self._interrupted.pop()

    def _claim(self) -> tuple[BackgroundTask, Reservation] | None:
        """The next task and what it may use. None if none waits that may start now."""
        running = Counter(lane_of(task.kind) for task in list(self._running.values()))
        with ExitStack() as undo, suppress(NoRoom):  # without room the transaction is rolled back
            with db.transaction() as session:
                free = node_budget().free_bytes()
                task = background_tasks.claim(session, node=settings().node_name, running=running, free_bytes=free)
                if task is None:
                    return None
                reservation = undo.enter_context(node_budget().reserve(task.memory_bytes, NUM_PROCESSES))
            undo.pop_all()
            return task, reservation
        return None

    def _run(self, task: BackgroundTask, reservation: Reservation) -> None:
        lease = Lease(task, self._is_stopping, writes_user_data=WORK[task.kind].writes_user_data)
        try:
            with reservation:
                run(task, lease)
            if self._is_stopping.is_set():
                with db.transaction() as session:
                    background_tasks.release(session, task_id=task.id, fence=task.fence)
        except Exception as error:  # its lease expires, and the task is tried again or fails
            lease.is_outage = lease.is_outage or is_outage(error)
            log.exception("task %s (%s) is left", task.id, task.kind)
        finally:
            if lease.is_outage:
                self._interrupted.append(task)
            self._running.pop(threading.current_thread())
        self.start_waiting()


def run(task: BackgroundTask, lease: Lease) -> None:
    """Do the work of a task that was claimed, and record its end unless it was cancelled, deleted or lost."""
    work = WORK[task.kind]
    is_success = False
    try:
        report = work.run(task, lease)
        is_success = not lease.is_over and bool(report) and _record_end(task, lease, report) and "result" in report
    except TaskLost:
        log.warning("task %s was cancelled, deleted or started again before its result was stored", task.id)
    except runner.DirectoryInUse:
        log.warning("task %s waits until a process of an earlier start has ended", task.id)
        with db.transaction() as session:
            background_tasks.release(session, task_id=task.id, fence=task.fence, seconds=settings().retry_seconds)
    finally:
        with suppress(runner.DirectoryInUse), runner.lock(work.directory(task)):
            work.clean_up(task, is_success)


def _record_end(task: BackgroundTask, lease: Lease, report: Report) -> bool:
    """Store the end of a task; in an outage of the database, try until the lease is over.

    Returns whether it ended as the report says.
    """

    def store(session: Session) -> bool:
        record = WORK[task.kind].record
        # First, as it may take minutes: a task that has ended is locked.
        finish = record(session, task, report, lease) if record is not None and "result" in report else None
        has_ended = outcomes.record_end(session, task=task, report=report)
        if finish is not None:
            if not has_ended:
                raise TaskLost
            finish()
        return has_ended

    def refuse(session: Session, why: str) -> bool:
        outcomes.record_end(session, task=task, report=outcomes.unstorable(task, why))
        return False

    while True:
        try:
            return db.store_result(store, refuse)
        except DiskFilledUp:
            _record_end(task, lease, {"failed": {"code": "disk_filled_up", "values": {}}})
            return False
        except OUTAGE:
            if not lease.is_valid():
                raise
            time.sleep(RETRY_SECONDS)
