"""Notifies the endpoints of a user that a job has ended, in the transaction in which it ends."""

from sqlalchemy.orm import Session

from app.webhooks import service

JOB_PREFIX = "ftjob-"  # of the ID of a job under /v1


def enqueue(session: Session, *, owner_id: str, job_id: str, state: str) -> None:
    """Notify that a job succeeded, failed or was cancelled."""
    event_type = f"fine_tuning.job.{state}"
    service.enqueue(session, owner_id=owner_id, event_type=event_type, data={"id": f"{JOB_PREFIX}{job_id}"})
