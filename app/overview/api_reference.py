"""The API reference: Swagger UI over the application's own OpenAPI document."""

from fastapi import APIRouter, Request, Response

from app.web.auth import Reader
from app.web.pages import page

router = APIRouter()


@router.get("/api/docs")
def show_reference(request: Request, principal: Reader) -> Response:
    """The page of the API reference: every endpoint with its fields and a form to try it."""
    base = str(request.base_url).rstrip("/")
    return page(request, "docs/reference.html", principal=principal, base=base)
