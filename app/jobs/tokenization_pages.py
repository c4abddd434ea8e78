"""The form on the page of a corpus that tokenizes it before a job."""

from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse
from sqlalchemy.orm import Session

from app.core import db, queue
from app.core.errors import PanelError
from app.core.principal import Principal
from app.corpora import service as corpora_service
from app.corpora.pages import corpus_page
from app.jobs import form_plan, tokenization
from app.jobs.planning import base_model
from app.jobs.views import form
from app.jobs.views.form import SubmittedForm
from app.web.auth import Submitter
from app.web.json_body import StrictRoute
from trainer.formats.corpus_kinds import CORPUS_KINDS_BY_OBJECTIVE
from trainer.spec_errors import SpecError

router = APIRouter(route_class=StrictRoute)
BASE_MODEL = "base_model:"  # before the ID of a model, among those of tokenizers


@router.post("/jobs/tokenize")
def tokenize_corpus(
    request: Request,
    principal: Submitter,
    corpus: Annotated[str, Form(max_length=64)],
    tokenizer: Annotated[str, Form(max_length=64)] = "",
    sequence_length: Annotated[str, Form(max_length=20)] = "",
) -> Response:
    """Tokenize a corpus for jobs of the recipe that learns from its kind, and go back to its page. `tokenizer` is an
    ID, or that of a base model after BASE_MODEL.
    """
    try:
        with db.transaction() as session:
            kind = corpora_service.get_corpus(session, principal=principal, corpus_id=corpus).kind
            fields = {**_fields(session, principal, kind, tokenizer), "sequence_length": sequence_length}
            spec = form.to_partial_spec(SubmittedForm(fields, [corpus]))
            tokenization.start(session, principal=principal, request=spec)
    except SpecError as error:
        return corpus_page(request, principal, corpus, 0, form_plan.as_panel_error(error))
    except PanelError as error:
        if error.status == 404:
            raise
        return corpus_page(request, principal, corpus, 0, error)
    queue.flush_outbox()
    return RedirectResponse(f"/corpora/{corpus}#tokens", status_code=303)


def _fields(session: Session, principal: Principal, kind: str, chosen: str) -> dict[str, str]:
    """The recipe that learns from a kind of documents, with the chosen tokenizer or base model. Raises PanelError."""
    recipe = form.recipe_of_kind(kind)
    if not chosen.startswith(BASE_MODEL):
        return {"recipe": recipe, "tokenizer": chosen}
    base = base_model.find(session, principal, chosen.removeprefix(BASE_MODEL))
    learned = [name for name in base.objectives if CORPUS_KINDS_BY_OBJECTIVE[name][0] == kind] if base else []
    return {
        "recipe": base_model.RECIPES[learned[0]] if learned else recipe,
        "base_model": chosen.removeprefix(BASE_MODEL),
    }
