"""The API reference: Swagger UI over the application's own OpenAPI document."""

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from app.core.errors import PanelError
from app.core.i18n import _
from app.web.auth import Reader
from app.web.pages import page
from app.web.parameters import ShortText
from app.web.problem_types import PROBLEM_TYPES

router = APIRouter()


class ProblemType(BaseModel):
    """A code of an error response, the HTTP statuses it comes with, and what it means."""

    code: str
    statuses: list[int]
    meaning: str


@router.get("/api/problems/{code}")
def show_problem_type(code: ShortText) -> ProblemType:
    """What a code of an error response means: the `type` of a problem document leads here."""
    if code not in PROBLEM_TYPES:
        raise PanelError(404, "address_unknown", _("There is nothing at this address."))
    statuses, meaning = PROBLEM_TYPES[code]
    return ProblemType(code=code, statuses=list(statuses), meaning=meaning)


@router.get("/api/docs")
def show_reference(request: Request, principal: Reader) -> Response:
    """The page of the API reference: every endpoint with its fields and a form to try it."""
    base = str(request.base_url).rstrip("/")
    return page(request, "docs/reference.html", principal=principal, base=base)
