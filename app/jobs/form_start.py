"""What the form of a new job starts from: a recipe for its corpora, a base model or a checkpoint."""

from contextlib import suppress

from sqlalchemy.orm import Session

from app.core.errors import PanelError
from app.core.i18n import _
from app.core.models import Checkpoint
from app.core.principal import Principal, visible
from app.corpora import service as corpora
from app.jobs import service
from app.jobs.attempts.effective_spec import effective_spec
from app.jobs.planning import base_model as bases
from app.jobs.views import form
from app.jobs.views.form import Origin, SubmittedForm
from app.jobs.views.form_controls import FormContext


def recipe_for(session: Session, principal: Principal, ids: list[str]) -> str:
    """The recipe that learns from what the documents of the first corpus that there is are."""
    for corpus_id in ids:
        with suppress(PanelError):
            return form.recipe_of_kind(corpora.get_corpus(session, principal=principal, corpus_id=corpus_id).kind)
    return "tiny"


def origin_of(session: Session, principal: Principal, checkpoint_id: str) -> Origin:
    """A checkpoint to continue from, even one whose files were deleted: the jobs that did so still name it.

    Raises PanelError (404) if the user cannot see it.
    """
    checkpoint = visible(session, Checkpoint, checkpoint_id, principal=principal)
    job = service.get(session, principal=principal, job_id=checkpoint.job_id)
    names = corpora.corpus_names(session, principal=principal, ids=job.spec.corpora)
    names_shown = [names.get(corpus_id, _("a deleted corpus")) for corpus_id in job.spec.corpora]
    return Origin(
        checkpoint.id,
        checkpoint.step,
        job.id,
        job.name,
        effective_spec(job).model_dump(),
        names_shown,
        checkpoint.state,
    )


def form_context(session: Session, principal: Principal, submitted: SubmittedForm) -> FormContext:
    """What the job of a form starts from; empty if that does not exist, which its plan reports."""
    origin = base = None
    if submitted.origin_id:
        with suppress(PanelError):
            origin = origin_of(session, principal, submitted.origin_id)
    elif submitted.base_id:
        with suppress(PanelError):
            base = bases.find(session, principal, submitted.base_id)
    return FormContext(submitted, {}, origin, base)
