"""Who is woken when a job changes. Apart from the view itself, so that a supervisor starts without the web's weight."""

from app.core import i18n, live, queue

SCHEDULER = "scheduler"


def topic(job_id: str, language: str) -> str:
    """The hub's topic: sentences differ by language, so each has its own."""
    return f"job:{job_id}:{language}"


def ring(job_id: str) -> None:
    """Tell whoever watches a job that something is new."""
    for language in i18n.LOCALES:
        live.ring(topic(job_id, language))


def ring_wish(job_id: str) -> None:
    """Tell the supervisor of a job, if it has one, that its user wishes something."""
    live.ring(wish_topic(job_id))


def wish_topic(job_id: str) -> str:
    """What a supervisor listens to."""
    return f"wish:{job_id}"


def ring_scheduler() -> None:
    """Tell the scheduler that there is something to decide."""
    live.ring(SCHEDULER)


def announce(job_id: str) -> None:
    """After the commit of a change: wake the scheduler, the supervisor and whoever watches."""
    queue.flush_outbox()
    ring_scheduler()
    ring_wish(job_id)
    ring(job_id)
