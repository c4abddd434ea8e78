"""HTML routes of cleaning: the form of a recipe, its preview, and the way back."""

from collections.abc import Callable

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from starlette.datastructures import FormData

from app.core.errors import PanelError
from app.core.principal import Principal
from app.corpora.cleaning import form as forms
from app.corpora.cleaning import preview, schemas, service
from app.corpora.cleaning.form import FormRefused, RecipeForm
from app.corpora.cleaning.recipe import StepSettings
from app.corpora.pages import corpus_page
from app.web.auth import Submitter
from app.web.forms import FormBody
from app.web.parameters import Id
from app.web.preview_process import PREVIEWS

router = APIRouter()


@router.post("/corpora/{corpus_id}/clean")
def clean(request: Request, principal: Submitter, corpus_id: Id, form: FormBody) -> Response:
    """Clean a version by the recipe of the form, and go to the version that it makes."""

    def start(steps: list[StepSettings], _recipe_form: RecipeForm) -> Response:
        return RedirectResponse(f"/corpora/{service.start(principal, corpus_id, steps).id}", status_code=303)

    return _with_recipe(request, principal, corpus_id, form, start)


@router.post("/corpora/{corpus_id}/preview-cleaning")
@PREVIEWS
def preview_cleaning(request: Request, principal: Submitter, corpus_id: Id, form: FormBody) -> Response:
    """The page of the corpus with what the recipe of the form does to its first documents."""

    def show(steps: list[StepSettings], recipe_form: RecipeForm) -> Response:
        num_documents = min(max(1, recipe_form.num_documents), preview.MAX_DOCUMENTS)
        result = preview.preview(principal, corpus_id, steps, num_documents)
        answer = schemas.preview_answer([step.model_dump() for step in steps], result)
        drawn = RecipeForm(**{**vars(recipe_form), "preview": answer})
        return corpus_page(request, principal, corpus_id, 0, recipe_form=drawn)

    return _with_recipe(request, principal, corpus_id, form, show)


def _with_recipe(
    request: Request,
    principal: Principal,
    corpus_id: str,
    form: FormData,
    verb: Callable[[list[StepSettings], RecipeForm], Response],
) -> Response:
    """What `verb` makes of the recipe of a form; if one of them refuses it, the page of the corpus with the reason."""
    try:
        steps, recipe_form = forms.read(form)
    except FormRefused as refused:
        return _refused(request, principal, corpus_id, refused)
    try:
        return verb(steps, recipe_form)
    except PanelError as error:
        if error.status == 404:
            raise
        return _refused(request, principal, corpus_id, FormRefused(error, recipe_form))


def _refused(request: Request, principal: Principal, corpus_id: str, refused: FormRefused) -> Response:
    return corpus_page(request, principal, corpus_id, 0, recipe_form=refused.form, status=refused.error.status)


@router.post("/corpora/{corpus_id}/restore")
def restore(request: Request, principal: Submitter, corpus_id: Id) -> Response:
    """Make an older version the newest again, and go to it."""
    try:
        corpus = service.restore(principal, corpus_id)
    except PanelError as error:
        if error.status == 404:
            raise
        return corpus_page(request, principal, corpus_id, 0, error)
    return RedirectResponse(f"/corpora/{corpus.id}", status_code=303)
