"""The supervisor process of one attempt: `python -m worker.supervisor JOB_ID FENCE`."""

import argparse
import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from app.core import log_lines, processes
from app.core.settings import run_directory
from app.jobs.attempts import attempts
from app.jobs.attempts.attempts import LeaseLost
from worker.supervisor.attempt import Supervisor, log, report_outcome
from worker.supervisor.database import DatabaseLink, DatabaseUnavailable
from worker.supervisor.outcome import Outcome
from worker.supervisor.resume_point import StorageUnreachable


@contextmanager
def pid_file(job_id: str) -> Iterator[None]:
    """Write a pid file by which `athanor up` finds this process to stop it."""
    directory = run_directory() / "supervisors"
    directory.mkdir(mode=0o700, exist_ok=True)
    note = directory / f"{job_id}.{os.getpid()}.pid"
    processes.write_pid(note, os.getpid())
    try:
        yield
    finally:
        note.unlink(missing_ok=True)


def main() -> None:
    """Supervise the attempt named on the command line."""
    parser = argparse.ArgumentParser(description="Supervise one attempt of a job.")
    parser.add_argument("job_id")
    parser.add_argument("fence", type=int)
    arguments = parser.parse_args()
    log_lines.configure()
    with pid_file(arguments.job_id):
        supervise(arguments.job_id, arguments.fence)
    logging.shutdown()
    os._exit(0)  # without waiting for threads that still hash gigabytes


def supervise(job_id: str, fence: int) -> None:
    """Run one attempt and report its outcome, whatever happens."""
    stops: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stops.append(number))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the foreground processes
    link = DatabaseLink()
    try:
        work = link.call(lambda session: attempts.assignment(session, job_id=job_id, fence=fence))
        supervisor = Supervisor(work, fence, link)
        signal.signal(signal.SIGTERM, lambda number, frame: _ask(supervisor, number, frame))
        supervisor.is_asked_to_stop = bool(stops)
        supervisor.run()
    except LeaseLost:
        log.warning("lease lost: another attempt has the job")
    except DatabaseUnavailable:
        log.warning("the database became unreachable before the start; the lease will expire")
    except StorageUnreachable as error:
        log.error("%s", error)
        with suppress(LeaseLost):
            report_outcome(link, job_id, fence, Outcome("release", "worker_lost"), patient=not stops)
    except Exception:
        log.exception("the supervisor failed")
        with suppress(LeaseLost):
            report_outcome(link, job_id, fence, Outcome("release", "internal"), patient=not stops)


def _ask(supervisor: Supervisor, number: int, frame: FrameType | None) -> None:
    supervisor.is_asked_to_stop = True


if __name__ == "__main__":
    main()
