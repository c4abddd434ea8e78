"""Who is woken when a job changes. Apart from the view itself, so that a supervisor starts without the web's weight."""

from app.core import live, queue

SCHEDULER = "scheduler"


def topic(job_id: str, *view: str) -> str:
    """The hub's topic of a job, or of one view of it: sentences differ by language, so each has its own."""
    return ":".join(("job", job_id, *view))


def notify_job(job_id: str) -> None:
    """Wake every view of a job: something is new."""
    live.notify(topic(job_id))


def notify_supervisor(job_id: str) -> None:
    """Tell the supervisor of a job, if it has one, that its user wishes something."""
    live.notify(wish_topic(job_id))


def wish_topic(job_id: str) -> str:
    """What a supervisor listens to."""
    return f"wish:{job_id}"


def notify_scheduler() -> None:
    """Tell the scheduler that there is something to decide."""
    live.notify(SCHEDULER)


def notify_job_changed(job_id: str) -> None:
    """After the commit of a change: wake the scheduler, the supervisor and whoever watches."""
    queue.flush_outbox()
    notify_scheduler()
    notify_supervisor(job_id)
    notify_job(job_id)
