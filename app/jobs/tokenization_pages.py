"""The form on the page of a corpus that tokenizes it before a job."""

from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse

from app.core import db, queue
from app.core.errors import PanelError
from app.corpora import service as corpora_service
from app.corpora.pages import corpus_page
from app.jobs import form_plan, tokenization
from app.jobs.views import form
from app.jobs.views.form import SubmittedForm
from app.web.auth import Submitter
from app.web.json_body import StrictRoute
from trainer.spec_errors import SpecError

router = APIRouter(route_class=StrictRoute)


@router.post("/jobs/tokenize")
def tokenize_corpus(
    request: Request,
    principal: Submitter,
    corpus: Annotated[str, Form(max_length=64)],
    tokenizer: Annotated[str, Form(max_length=64)] = "",
    sequence_length: Annotated[str, Form(max_length=20)] = "",
) -> Response:
    """Tokenize a corpus for jobs of the recipe that learns from its kind, and go back to its page."""
    try:
        with db.transaction() as session:
            kind = corpora_service.get_corpus(session, principal=principal, corpus_id=corpus).kind
            fields = {"recipe": form.recipe_of_kind(kind), "tokenizer": tokenizer, "sequence_length": sequence_length}
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
