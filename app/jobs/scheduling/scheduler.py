"""The scheduler: one loop that submits and places jobs, expires leases, sends what waits and cleans up the disk.

`python -m app.jobs.scheduling.scheduler`. Any number may run; the one that holds an advisory lock of PostgreSQL leads.
All its work is in transactions that are safe to repeat, so it may be killed at any point.
"""

import logging
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

from sqlalchemy import Connection, func, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError, TimeoutError
from sqlalchemy.orm import Session

from app.background_tasks import outcomes
from app.core import db, disk, live, log_lines, queue
from app.core.installation_models import Heartbeat
from app.core.settings import settings
from app.jobs import submissions
from app.jobs.forwarding import service as forwarding
from app.jobs.forwarding.forwarder import Forwarding
from app.jobs.lifecycle import notifications
from app.jobs.scheduling import dispatch, evaluations, stalls
from app.jobs.scheduling.sweep import Sweep
from app.jobs.searches import service as hyperparameter_search
from app.jobs.searches.adaptive import AdaptiveSearches
from app.notices import delivery as notice_delivery
from app.notices import service as notices
from app.notices.quota_notices import QuotaNotices
from app.webhooks import delivery as webhooks
from app.webhooks.delivery import Deliveries

log = logging.getLogger(__name__)

LEADER_LOCK = 0x617468  # any number that nothing else in this database locks
OUTAGE = (DBAPIError, TimeoutError)


class Scheduler:
    """Leads if no other scheduler does. After an outage it waits before it expires leases: nodes reconnect, too."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock  # seconds
        self._lock: Connection | None = None
        self._is_away = False
        self._reap_at = self._clock() + self._grace()
        self._sweep = Sweep()
        self._adaptive_searches = AdaptiveSearches()
        self._forwarding = Forwarding()
        self._quota_notices = QuotaNotices(clock)
        self._deliveries = (
            Deliveries(webhooks.claim, webhooks.deliver),
            Deliveries(notice_delivery.claim, notice_delivery.deliver),
        )

    def step(self) -> bool:
        """Run one round if this process leads; returns whether it does. An outage is logged once and not raised."""
        disk.keep_ballast()  # first, as PostgreSQL may need its space
        try:
            if not self._leads():
                return False
            self._round()
        except OUTAGE as error:
            if isinstance(error, DBAPIError) and not db.is_outage(error):
                raise
            self._go_away(error)
            return False
        if self._is_away:
            log.info("the database is back")
            self._is_away = False
        return True

    def close(self) -> None:
        """Release the lock, so that another scheduler leads at once instead of after a connection timeout."""
        if self._lock is not None:
            with suppress(*OUTAGE):
                self._lock.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": LEADER_LOCK})
        self._drop_lock()

    def _drop_lock(self) -> None:
        self._forwarding.close()  # only the leader forwards
        if self._lock is not None:
            with suppress(*OUTAGE):
                self._lock.close()
            self._lock = None

    def _leads(self) -> bool:
        """Whether this process holds the lock. It has its own connection, and PostgreSQL releases it with that."""
        if self._lock is None:
            connection = db.engine().connect().execution_options(isolation_level="AUTOCOMMIT")
            if not connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": LEADER_LOCK}):
                connection.close()
                return False
            connection.detach()  # closing it must end the session, not hand it and its lock back to the pool
            self._lock = connection
            log.info("this scheduler leads")
        self._lock.execute(text("SELECT 1"))  # raises where the connection, and with it the lock, is gone
        return True

    def _round(self) -> None:
        may_expire = self._clock() >= self._reap_at
        counts = {"given_up": self._run(dispatch.expire_leases) if may_expire else 0}
        counts["submitted"] = self._run(submissions.submit_ready)
        counts["settled"] = self._run(dispatch.requeue_or_fail)
        counts["stopped"] = self._run(hyperparameter_search.stop_worse_jobs)
        self._run(self._adaptive_searches.begin)
        counts["placed"] = self._run(dispatch.place)
        counts["evaluated"] = self._run(evaluations.start_due)
        if may_expire:
            with db.transaction() as session:
                outcomes.expire_leases(session)
        self._run(stalls.notify_of_stalls)
        with db.transaction() as session:
            notices.notify_of_low_disk(session)
            self._quota_notices.step(session)
            notices.forget_old(session)
            forwarding.begin_new(session)
        counts["sent"] = queue.flush_outbox()
        counts["delivered"] = sum(deliveries.step() for deliveries in self._deliveries)
        self._forwarding.step()
        counts["removed"] = self._sweep.step()
        with db.transaction() as session:
            _record_heartbeat(session, counts)

    def _run(self, verb: Callable[[Session], list[str]]) -> int:
        """Run one function. An error in it is logged and does not stop the others."""
        try:
            with db.transaction() as session:
                changed = verb(session)
        except Exception as error:
            if isinstance(error, TimeoutError) or (isinstance(error, DBAPIError) and db.is_outage(error)):
                raise
            log.exception("%s failed", verb.__name__)
            return 0
        for job_id in changed:
            notifications.notify_job(job_id)
        return len(changed)

    def _go_away(self, error: Exception) -> None:
        self._drop_lock()
        if not self._is_away:
            log.warning("the database cannot be reached, looking again every few seconds: %s", error)
        self._is_away = True
        self._reap_at = self._clock() + self._grace()

    @staticmethod
    def _grace() -> float:
        return 2 * settings().lease_seconds  # a supervisor may need one to notice, and a moment to reconnect


def _record_heartbeat(session: Session, counts: dict[str, int]) -> None:
    """Record that the leader is alive, with the counts of its last round."""
    columns = {"at": func.now(), "facts": counts}
    row = insert(Heartbeat).values(name="scheduler", **columns)
    session.execute(row.on_conflict_do_update(index_elements=["name"], set_=columns))


def main() -> None:
    """Run until SIGTERM or Ctrl-C."""
    log_lines.configure()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    scheduler, subscription = Scheduler(), live.Subscription(notifications.SCHEDULER)
    try:
        while True:
            scheduler.step()
            subscription.wait(settings().scheduler_seconds)
    finally:
        scheduler.close()


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(0)


if __name__ == "__main__":
    main()
