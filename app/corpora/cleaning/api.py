"""JSON routes of cleaning."""

from fastapi import APIRouter

from app.core import db
from app.core.errors import PanelError
from app.core.i18n import _
from app.corpora import schemas as corpora_schemas
from app.corpora import service as corpora_service
from app.corpora.cleaning import preview, schemas, service
from app.corpora.cleaning.schemas import (
    CleaningAnswer,
    CleaningPreviewAnswer,
    CleaningPreviewRequest,
    CleaningRequest,
)
from app.corpora.schemas import CorpusAnswer
from app.web.auth import Reader, Submitter
from app.web.idempotency import ApiRoute
from app.web.parameters import Id
from app.web.preview_process import PREVIEWS
from app.web.problem_types import errors

router = APIRouter(route_class=ApiRoute, tags=["corpora"])
_RECIPE_ERRORS = (
    *("corpus_unknown", "corpus_parsing", "corpus_failed", "corpus_same", "limits_crossed", "language_unknown"),
    *("scorer_unclear", "checkpoint_unknown", "checkpoint_corrupt", "model_unready", "perplexity_unfit"),
)


@router.post(
    "/corpora/{corpus_id}/clean",
    status_code=201,
    responses=errors(*_RECIPE_ERRORS, "corpus_shipped", "tasks_open", "disk_full"),
)
def clean_corpus(principal: Submitter, corpus_id: Id, body: CleaningRequest) -> CorpusAnswer:
    """Clean a version of a corpus by a recipe, in the background. The answer is the new version that it makes; poll it
    until its state is `ready`. The version itself stays as it is, and so do jobs that use it.
    """
    return corpora_schemas.corpus_answer(service.start(principal, corpus_id, body.steps))


@router.post(
    "/corpora/{corpus_id}/preview-cleaning",
    responses=errors(
        *_RECIPE_ERRORS,
        *("ngrams_many", "reference_short", "scoring_memory", "scoring_model_gone", "scoring_model_unreadable"),
        *("preview_slow", "preview_busy"),
    ),
)
@PREVIEWS
def preview_cleaning(principal: Reader, corpus_id: Id, body: CleaningPreviewRequest) -> CleaningPreviewAnswer:
    """Try a recipe on the first documents of a corpus: counts and examples of each step. Nothing is written. Of other
    corpora at most the first 8 MiB are compared. With a model that scores documents, no further ones are read after
    half a minute; what is scored is kept for the next preview and the cleaning.
    """
    result = preview.preview(principal, corpus_id, body.steps, body.num_documents)
    return schemas.preview_answer([step.model_dump() for step in body.steps], result)


@router.get("/corpora/{corpus_id}/cleaning", responses=errors("not_cleaned"))
def get_cleaning(principal: Reader, corpus_id: Id) -> CleaningAnswer:
    """Get the recipe that made a version of a corpus, and what each of its steps removed and changed, with examples."""
    with db.transaction() as session:
        corpus = corpora_service.get_corpus(session, principal=principal, corpus_id=corpus_id)
    if corpus.cleaning is None:
        raise PanelError(404, "not_cleaned", _("No recipe made this version."))
    cleaning = corpus.cleaning
    same = ("parent_id", "parent_version", "parent_sha256", "corpora", "num_documents", "recipe")
    is_ready = corpus.state == "ready"
    return CleaningAnswer(
        **{name: getattr(cleaning, name) for name in same},
        models=schemas.model_answers(cleaning.models),
        sha256=corpus.text_sha256 if is_ready else None,
        num_left=corpus.num_documents if is_ready else None,
        steps=schemas.step_answers(cleaning, service.examples(corpus)) if is_ready else [],
    )


@router.post(
    "/corpora/{corpus_id}/restore",
    status_code=201,
    responses=errors("corpus_shipped", "corpus_parsing", "version_newest", "file_gone", "tasks_open", "disk_full"),
)
def restore_corpus(principal: Submitter, corpus_id: Id) -> CorpusAnswer:
    """Make an older version of a corpus the newest again, which undoes a cleaning: a new version with the same files.
    All others stay.
    """
    return corpora_schemas.corpus_answer(service.restore(principal, corpus_id))
