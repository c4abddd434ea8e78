"""The supervisor of one attempt: renews its lease, records its journal, publishes checkpoints, obeys its user.

`python -m worker.supervisor JOB_ID FENCE`, started by the worker in its own session. It outlives worker, web server,
broker and database: during an outage of the database it queues what is to be written while training continues.
"""

import logging
import math
import os
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal

from sqlalchemy.orm import Session

from app.core import fault_injection, live, storage
from app.core.node_budget import node_budget
from app.core.settings import settings
from app.jobs.attempts import attempts
from app.jobs.attempts.attempts import Assignment
from app.jobs.lifecycle import notifications
from trainer import events
from trainer.run_dir import Inputs, RunDir
from worker.supervisor import gang_client as gangs
from worker.supervisor.database import DatabaseLink, DatabaseUnavailable, T
from worker.supervisor.gang_client import GangClient
from worker.supervisor.journal_reader import BATCH_EVENTS, JournalReader
from worker.supervisor.outcome import AttemptEvidence, Outcome, classify_outcome
from worker.supervisor.publishing import Publisher
from worker.supervisor.resource_usage import ResourceUsage, num_cores
from worker.supervisor.resume_point import ResumePoint, choose_resume_point, find_damage
from worker.supervisor.watchdog import Watchdog

log = logging.getLogger("supervisor")

TURN_SECONDS = 0.25  # between two reads of the journal
GONE_SECONDS = 10.0  # how long exited processes may take to disappear
STACK_SECONDS = 1.0  # for hung processes to write their stacks
OOM_TURNS = 20  # an OOM kill more than so many turns before the end hit another process
OOM_EVENTS = Path("/sys/fs/cgroup/memory.events")
FAULT = "ATHANOR_FAULT"


class Supervisor:
    """One attempt, from creating its run directory to reporting its outcome."""

    gang: GangClient
    usage: ResourceUsage

    def __init__(self, work: Assignment, fence: int, link: DatabaseLink) -> None:
        self.job_id, self.fence = work.job_id, fence
        self.work, self.link = work, link
        self.run_dir = RunDir(storage.run(work.job_id))
        self.publisher = Publisher(self.run_dir, work, fence)
        self.ending = AttemptEvidence(has_gpus=bool(work.gpus))
        self.watchdog = Watchdog(settings().step_seconds, settings().first_step_seconds, time.monotonic())
        self.is_asked_to_stop = False  # by SIGTERM
        self._journal = JournalReader(self.run_dir.events_path(fence))
        self._oom_kills = deque([oom_kills()], maxlen=OOM_TURNS)  # counters of the last turns
        self._written_at = 0.0  # the journal's last modification time
        self._renew_at = 0.0
        self._is_behind = False  # more than one batch is waiting
        self._wish = "run"
        self._kill_at: float | None = None
        self._subscription = live.Subscription(notifications.supervisor_topic(work.job_id))

    def run(self) -> None:
        """Run the attempt to its end. Raises LeaseLost if another attempt took over; no process is left then either."""
        choice = self._prepare()
        if choice is None:
            return
        self._set_aside()
        self.run_dir.create(self.work.spec, inputs(self.work, choice), self.fence)
        with node_budget().reserve(self.work.memory_bytes, self.work.spec.num_processes + 2, is_training=True):
            self._train()

    def _train(self) -> None:
        """Have the gang train, and report how it ended."""
        device: Literal["cpu", "cuda"] = "cuda" if self.work.gpus else "cpu"
        num_processes, env = self.work.spec.num_processes, environment(self.work)
        self.gang.run(self.run_dir.path, self.fence, num_processes, device, self.work.gpus, env)
        self.watchdog.last_event_at = now = time.monotonic()
        self.usage = ResourceUsage(self.gang.processes, self.work.gpus, self.run_dir.path, now)
        try:
            while not (self.gang.is_finished and self._is_shipped()) and not self._is_out_of_time():
                if self._subscription.wait(0.0 if self._is_behind else TURN_SECONDS):
                    self._renew_at = 0.0  # the user requested something
                self._turn()
        finally:
            self._clear_away()
            self.publisher.close()
        self._conclude()

    def _prepare(self) -> ResumePoint | None:
        """Start a gang and choose the checkpoint to resume from; None if the attempt has already ended.

        A cold start and hashing gigabytes can take longer than a lease, so it is renewed meanwhile.
        """
        pool = ThreadPoolExecutor(3, thread_name_prefix="prepare")
        gang_future, resume_future = pool.submit(gangs.start), pool.submit(choose_resume_point, self.work.saved)
        base_future = pool.submit(find_damage, self.work.base) if self.work.spec.base_model is not None else None
        futures: list[Future[Any]] = [
            future for future in (gang_future, resume_future, base_future) if future is not None
        ]
        while wait(futures, TURN_SECONDS).not_done:
            with suppress(DatabaseUnavailable):
                self._renew()
            if self._wish != "run" or self.is_asked_to_stop:
                self._leave_early()
                return None
        self.gang, resume_point = gang_future.result(), resume_future.result()
        resume = {"step": resume_point.step, "saved": resume_point.saved, "damaged": resume_point.damaged}
        patiently(lambda: self._call(attempts.resume_at, **resume))
        damage = base_future.result() if base_future is not None else None
        if not resume_point.is_hopeless and damage is None:
            return resume_point
        self.gang.close()
        outcome = Outcome("fail", "base_damaged", {"why": damage})
        if resume_point.is_hopeless:
            outcome = Outcome(
                "fail", "no_valid_ckpt", {"count": len(resume_point.damaged), "why": resume_point.damaged[0][1]}
            )
        report_outcome(self.link, self.job_id, self.fence, outcome, patient=True)
        return None

    def _leave_early(self) -> None:
        """Stop before training has started. The gang, still waiting for a request, exits with this process."""
        why = {"cancel": "cancelled", "pause": "paused"}.get(self._wish, "shutdown")
        if why != "shutdown":
            patiently(lambda: self._begin("cancelling" if why == "cancelled" else "pausing"))
        report_outcome(self.link, self.job_id, self.fence, Outcome("release", why), patient=not self.is_asked_to_stop)

    def _set_aside(self) -> None:
        """Move away an attempt directory with the same fence, left from before a database backup was restored."""
        path = self.run_dir.attempt_path(self.fence)
        if path.exists():
            path.rename(path.with_name(f"{path.name}.{time.time_ns()}"))

    def _call(self, verb: Callable[..., T], **values: Any) -> T:
        """What a verb of app/jobs/attempts returns for this attempt. Raises LeaseLost and DatabaseUnavailable."""
        return self.link.call(lambda session: verb(session, job_id=self.job_id, fence=self.fence, **values))

    def _turn(self) -> None:
        self.gang.poll()
        if not self.gang.is_finished:
            self._oom_kills.append(oom_kills())
        self._watch()
        self.usage.observe(time.monotonic())
        with suppress(DatabaseUnavailable):
            is_new = self._record_events()
            is_new |= self.publisher.record_published(self.link)
            self._renew()
            self._apply_desired_state()
            if is_new:
                notifications.notify_job(self.job_id)
        if self.is_asked_to_stop:
            self._stop("shutdown")
        if self._kill_at is not None and time.monotonic() >= self._kill_at:
            self.gang.kill()

    # ---- the journal ------------------------------------------------------------------------------------------------

    def _record_events(self) -> bool:
        """Record one batch of the journal; returns whether there was one.

        Only one per turn: a fast trainer always has more, and user requests and the watchdog must not wait.
        """
        batch = self._journal.next_batch()
        self._is_behind = len(batch) == BATCH_EVENTS
        if not batch:
            return False
        measured = self.usage.with_usage(batch, time.monotonic())
        self._wish = self._call(attempts.record, batch=measured)
        if measured is not batch:
            self.usage.confirm(time.monotonic())
        self._journal.drop(len(batch))
        self._renew_at = time.monotonic() + settings().renew_seconds
        for event in batch:
            self._handle_event(event)
        return True

    def _handle_event(self, event: events.Event) -> None:
        match event:
            case events.PointsEvent():
                self.ending.step = event.step
            case events.CheckpointEvent():
                self.publisher.take_checkpoint(event)
            case events.TokenizerEvent():
                self.publisher.take_tokenizer(event)
            case events.FailureEvent():
                self.ending.failure = event
            case events.FinishedEvent():
                self.ending.is_finished = True

    def _watch(self) -> None:
        """Kill processes that hang, after their stacks are in the log."""
        now = time.monotonic()
        path = self._journal.path
        touched_at = path.stat().st_mtime if path.exists() else 0.0
        if touched_at != self._written_at:  # it is touched even when the disk is full and no line can be written
            self._written_at, self.watchdog.last_event_at = touched_at, now
        for event in self._journal.read_new():
            self.watchdog.observe(event, now)
        is_ending = self._kill_at is not None and self._kill_at != math.inf
        if self.gang.is_finished or is_ending or not self.watchdog.is_hung(now):
            return
        step = self.watchdog.step + 1
        log.error("no progress for %.0f s at step %d: dumping stacks and killing it", self.watchdog.limit(), step)
        self.ending.is_hung = True
        self.gang.dump_stacks()
        self._kill_at = now + STACK_SECONDS

    def _is_shipped(self) -> bool:
        return self._journal.is_drained and not self.publisher.is_busy

    def _is_out_of_time(self) -> bool:
        """Whether this node is shutting down and the database stays unavailable for the rest of the records."""
        grace = GONE_SECONDS / 2
        is_late = self._kill_at is not None and time.monotonic() > self._kill_at + grace
        return self.is_asked_to_stop and is_late and self.gang.is_finished

    # ---- lease and requests -----------------------------------------------------------------------------------------

    def _renew(self) -> None:
        if time.monotonic() >= self._renew_at:
            self._wish = self._call(attempts.renew)
            self._renew_at = time.monotonic() + settings().renew_seconds

    def _apply_desired_state(self) -> None:
        if self.gang.is_finished:
            return
        if self._wish == "cancel" and self.ending.stopped_for != "cancel":
            self._begin("cancelling")
            self._stop("cancel")
        elif self._wish == "pause" and self.ending.stopped_for is None:
            self._begin("pausing")
            self._stop("pause")

    def _begin(self, state: str) -> None:
        self._call(attempts.begin_stop, state=state)
        notifications.notify_job(self.job_id)

    def _stop(self, why: Literal["cancel", "pause", "shutdown"]) -> None:
        """Ask the processes to save and exit. On cancel and shutdown they are killed if that takes too long; a pause
        waits for the checkpoint, however large, as long as it makes progress.
        """
        if self.ending.stopped_for in (None, "pause") and self.ending.stopped_for != why:
            log.info("stopping: %s", why)
            self.gang.terminate()
            self.ending.stopped_for = why
            grace = {"cancel": settings().stop_seconds, "shutdown": settings().save_seconds, "pause": math.inf}[why]
            self._kill_at = min(time.monotonic() + grace, self._kill_at or math.inf)

    # ---- the end ----------------------------------------------------------------------------------------------------

    def _clear_away(self) -> None:
        """Wait until no process of the attempt is left, killing any that remain, before the outcome is reported."""
        deadline = time.monotonic() + (GONE_SECONDS if self.gang.is_finished else 0.0)
        while not self.gang.is_gone():
            if time.monotonic() >= deadline:
                self.gang.kill()
            time.sleep(0.02)
        self.gang.close()

    def _conclude(self) -> None:
        self.ending.code, self.ending.exits = self.gang.done, self.gang.exits
        self.ending.unpublished = self.publisher.unpublished
        self.ending.is_out_of_memory = oom_kills() > self._oom_kills[0]
        outcome = classify_outcome(self.ending)
        log.info("the attempt ended: %s %s %s", outcome.verb, outcome.code, outcome.values)
        fault_injection.reach("concluding")
        report_outcome(self.link, self.job_id, self.fence, outcome, patient=not self.is_asked_to_stop)


def patiently(call: Callable[[], object]) -> None:
    """Repeat a call until the database is reachable."""
    while True:
        try:
            call()
            return
        except DatabaseUnavailable:
            time.sleep(TURN_SECONDS)


def oom_kills() -> int:
    """The container's OOM kill counter; 0 if the kernel does not report one."""
    with suppress(OSError, ValueError):
        for line in OOM_EVENTS.read_text().splitlines():
            name, _space, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    return 0


def report_outcome(link: DatabaseLink, job_id: str, fence: int, outcome: Outcome, *, patient: bool) -> None:
    """Record the outcome and notify. With `patient` it waits for the database; otherwise the lease expires instead."""
    try:
        record = partial(link.call, lambda session: _record_outcome(session, job_id, fence, outcome))
        patiently(record) if patient else record()
    except DatabaseUnavailable:
        return
    notifications.notify_job(job_id)
    notifications.notify_scheduler()


def _record_outcome(session: Session, job_id: str, fence: int, outcome: Outcome) -> None:
    match outcome.verb:
        case "finish":
            attempts.finish(session, job_id=job_id, fence=fence)
        case "fail":
            attempts.fail(session, job_id=job_id, fence=fence, code=outcome.code, values=outcome.values)
        case "release":
            attempts.release(session, job_id=job_id, fence=fence, reason=outcome.code, **outcome.values)


def inputs(work: Assignment, choice: ResumePoint) -> Inputs:
    """The IDs in the spec resolved to paths, and the steps whose samples are skipped.

    An attempt that resumes keeps the tokenizer of the checkpoint: another version could train another one.
    """
    tokenizer = work.spec.tokenizer or (work.tokenizer_id if choice.saved is not None else None)
    return Inputs(
        corpora=work.corpora,
        validation=work.validation,
        tokenizer=str(storage.tokenizer(tokenizer)) if tokenizer else None,
        base=str(storage.checkpoint(work.base.path)) if work.base is not None else None,
        cache=str(storage.cache()),
        resume=str(storage.checkpoint(choice.saved.path)) if choice.saved is not None else None,
        skipped_steps=work.skipped_steps,
    )


def environment(work: Assignment) -> dict[str, str]:
    """Environment variables of the trainer processes in addition to the profile "trainer"."""
    env = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    if FAULT in os.environ:  # fault-injection tests
        log.warning("fault injection is on: %s", os.environ[FAULT])
        env[FAULT] = os.environ[FAULT]
    if work.gpus:
        return {**env, "CUDA_VISIBLE_DEVICES": ",".join(work.gpus)}
    threads = max(1, num_cores() // (work.spec.num_processes * settings().node_slots))
    on_cpu = {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": str(threads), "ATHANOR_FP32_MATMUL": settings().fp32_matmul}
    return {**env, "CUDA_VISIBLE_DEVICES": "", **on_cpu}
