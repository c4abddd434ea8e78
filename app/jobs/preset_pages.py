"""HTML routes of the list of presets of jobs."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from app.core import db
from app.jobs import presets
from app.jobs.views import form
from app.web.auth import Reader, Submitter
from app.web.json_body import StrictRoute
from app.web.pages import page
from app.web.paging import After
from app.web.parameters import Id

router = APIRouter(route_class=StrictRoute)


@router.get("/jobs/presets")
def show_presets(request: Request, principal: Reader, after: After = None) -> Response:
    """Your presets and those for everyone, with what each sets."""
    with db.transaction() as session:
        rows, more = presets.list_presets(session, principal=principal, limit=50, after=after)
        names = presets.owner_names(session, rows)
    return page(
        request,
        "jobs/presets.html",
        principal=principal,
        presets=rows,
        owners=names,
        settings={row.id: form.titled_values(row.spec) for row in rows},
        next=more,
        after=after,
    )


@router.post("/jobs/presets/{preset_id}/delete")
def delete_preset(principal: Submitter, preset_id: Id) -> Response:
    """Delete a preset and go back to the list."""
    with db.transaction() as session:
        presets.delete(session, principal=principal, preset_id=preset_id)
    return RedirectResponse("/jobs/presets", status_code=303)
