"""Who is notified when a job changes. Needs no web framework: supervisors import it."""

from app.core import live, queue

SCHEDULER = "scheduler"


def topic(job_id: str, *view: str) -> str:
    """The hub's topic of a job, or of one view of it: sentences differ by language, so each has its own."""
    return ":".join(("job", job_id, *view))


def notify_job(job_id: str) -> None:
    """Wake every view of a job: something is new."""
    live.notify(topic(job_id))


def notify_supervisor(job_id: str) -> None:
    """Wake the supervisor of a job, if it has one: the desired state has changed."""
    live.notify(supervisor_topic(job_id))


def supervisor_topic(job_id: str) -> str:
    """The topic that a job's supervisor listens to."""
    return f"supervisor:{job_id}"


def notify_scheduler() -> None:
    """Wake the scheduler: there is something to decide."""
    live.notify(SCHEDULER)


def notify_job_changed(job_id: str) -> None:
    """After the commit of a change: wake the scheduler, the supervisor and all viewers."""
    queue.flush_outbox()
    notify_scheduler()
    notify_supervisor(job_id)
    notify_job(job_id)
