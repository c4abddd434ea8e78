"""The Celery task that claims a job and starts its supervisor. Safe to run any number of times."""

import subprocess
import sys
from contextlib import suppress

from app.core import db, fault_injection, queue, storage
from app.core.processes import environment_without_secrets
from app.core.queue import celery
from app.core.settings import ROOT, settings
from app.jobs.attempts import attempts
from app.jobs.lifecycle import notifications

_children: list[subprocess.Popen[bytes]] = []  # supervisors started here, so that they are reaped; never waited for


@celery.task(name=queue.START_JOB)  # type: ignore[untyped-decorator]
def start_job(job_id: str) -> None:
    """Start a job that was placed on this node, unless an earlier message already did."""
    _children[:] = [child for child in _children if child.poll() is None]
    with db.transaction() as session:
        fence = attempts.claim(session, job_id=job_id, node=settings().node_name)
    if fence is None:
        return
    fault_injection.reach("claimed")
    notifications.notify_job(job_id)
    try:
        _children.append(start_supervisor(job_id, fence))
    except OSError:
        with suppress(attempts.LeaseLost), db.transaction() as session:
            attempts.release(session, job_id=job_id, fence=fence, reason="worker_lost")
        notifications.notify_job(job_id)
        raise


def start_supervisor(job_id: str, fence: int) -> subprocess.Popen[bytes]:
    """Start a supervisor in its own session, so that it outlives this worker."""
    directory = storage.run(job_id)
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "supervisor.log").open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "worker.supervisor", job_id, str(fence)],
            cwd=ROOT,
            env={
                **environment_without_secrets(),
                "ATHANOR_DATA": str(storage.data()),
                "ATHANOR_NODE_NAME": settings().node_name,
            },
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
