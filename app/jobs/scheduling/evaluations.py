"""Starts the evaluations that jobs were asked to begin when they have succeeded."""

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from app.background_tasks import service as background_tasks
from app.background_tasks.schemas import EvaluationRequest
from app.checkpoints import service as checkpoints
from app.core.account_models import User
from app.core.errors import PanelError
from app.core.models import EVALUATION_IS_DUE, Job
from app.core.principal import background_principal
from app.jobs.lifecycle.state import add_history

MAX_STARTED = 20  # in one round


def start_due(session: Session) -> list[str]:
    """Evaluate the best checkpoint of each job that has succeeded. Returns the IDs of the jobs.

    An evaluation that is refused, such as for a deleted corpus, is noted in the history of its job.
    """
    due = select(Job).where(text(EVALUATION_IS_DUE), Job.deleted_at.is_(None)).order_by(Job.id).limit(MAX_STARTED)
    jobs = session.scalars(due.with_for_update(skip_locked=True)).all()
    for job in jobs:
        corpora, job.evaluation_corpora = job.evaluation_corpora, []
        try:
            with session.begin_nested():
                _start(session, job, corpora)
        except PanelError as error:
            add_history(session, job, job.state, "scheduler", "evaluation_refused", why=error.message)
    return [job.id for job in jobs]


def _start(session: Session, job: Job, corpora: list[str]) -> None:
    owner = session.get_one(User, job.owner_id)
    principal = background_principal(owner)
    best = checkpoints.best_of_job(session, job.id)
    if best is not None:
        request = EvaluationRequest(checkpoint=best.id, corpora=corpora)
        background_tasks.evaluate(session, principal=principal, request=request)
