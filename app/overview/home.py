"""The HTML route of the overview."""

from collections.abc import Sequence

from fastapi import APIRouter, Request, Response
from sqlalchemy.orm import Session

from app.checkpoints import service as checkpoints
from app.core import db
from app.core.i18n import locale
from app.core.models import HELD, STATES, TERMINAL, Corpus
from app.core.principal import Principal
from app.corpora import service as corpora
from app.jobs import service
from app.jobs.schemas import rows
from app.overview import nodes
from app.web.auth import Reader
from app.web.pages import page

router = APIRouter()

NUM_ACTIVE = 8


@router.get("/")
def overview(request: Request, principal: Reader) -> Response:
    """The home page: active jobs, finished jobs and newest checkpoints, or the three steps to a first model."""
    with db.transaction() as session:
        running, _more = service.list_jobs(session, principal=principal, limit=NUM_ACTIVE, states=HELD, owner="own")
        waiting_states = tuple(state for state in STATES if state not in (*TERMINAL, *HELD))
        waiting, _more = service.list_jobs(
            session, principal=principal, limit=NUM_ACTIVE, states=waiting_states, owner="own"
        )
        active = [*running, *waiting][:NUM_ACTIVE]
        ended, _more = service.list_jobs(session, principal=principal, limit=6, states=TERMINAL, owner="own")
        saved = checkpoints.best_of_newest_jobs(session, principal=principal, limit=5)
        texts, _more = corpora.list_corpora(session, principal=principal, limit=50)
        names = {job.id: job.name for job in (*active, *ended)}
        names |= _missing_names(session, principal, [c.job_id for c in saved if c.job_id not in names])
        return page(
            request,
            "home/overview.html",
            principal=principal,
            active=rows(session, active),
            ended=rows(session, ended),
            checkpoints=saved,
            names=names,
            starter=_starter(texts),
            own_corpora=[corpus for corpus in texts if corpus.owner_id is not None],
            nodes=nodes.node_answers(session, principal),
        )


def _missing_names(session: Session, principal: Principal, ids: Sequence[str]) -> dict[str, str]:
    return {job_id: service.get(session, principal=principal, job_id=job_id).name for job_id in dict.fromkeys(ids)}


def _starter(texts: Sequence[Corpus]) -> Corpus | None:
    """The corpus for a first job: the user's newest text that is ready, else a sample in the reader's language."""
    ready = [corpus for corpus in texts if corpus.state == "ready" and corpus.kind == "text"]
    own = [corpus for corpus in ready if corpus.owner_id is not None]
    shipped = [corpus for corpus in ready if corpus.owner_id is None]
    chinese = locale() == "zh-CN"
    return next(iter([*own, *sorted(shipped, key=lambda corpus: corpus.name.isascii() is chinese)]), None)
