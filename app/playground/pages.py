"""HTML routes of the playground. Its script streams from the API; without scripts, the form's answer has all text."""

from collections import defaultdict
from typing import Any

from anyio import to_thread
from fastapi import APIRouter, Request, Response
from pydantic import ValidationError

from app.checkpoints import service as checkpoints
from app.core import db
from app.core.errors import PanelError
from app.core.models import Job
from app.core.principal import Principal
from app.playground import api, service
from app.playground.schemas import GenerateRequest
from app.playground.service import JobCheckpoints
from app.web.auth import Reader, Submitter
from app.web.errors import validation_field
from app.web.pages import page
from app.web.parameters import ShortText

router = APIRouter()

DEFAULTS = GenerateRequest(checkpoint="-").model_dump(exclude={"checkpoint", "stream"})


@router.get("/playground")
def show_playground(request: Request, principal: Reader, checkpoint: ShortText | None = None) -> Response:
    """The playground, with a checkpoint selected: the one in the query, else the newest."""
    return _draw(request, principal, {**DEFAULTS, "checkpoint": checkpoint})


@router.post("/playground")
async def generate(request: Request, principal: Submitter) -> Response:
    """Generate text for a browser without scripts."""
    form = {name: str(value) for name, value in (await request.form()).items()}
    values: dict[str, Any] = {**DEFAULTS, **form, "stop": [line for line in form.get("stop", "").splitlines() if line]}
    values["prompt"] = form.get("prompt", "").replace("\r\n", "\n")
    if values.pop("random_seed", "") or not values["seed"]:
        values["seed"] = None
    result: dict[str, Any] | None = None
    errors: dict[str, str] = {}
    status = 200
    try:
        task = await to_thread.run_sync(api.enqueue, principal, GenerateRequest.model_validate(values))
        result = await api.collect_while_connected(request, task)
    except ValidationError as error:
        problems = [validation_field({**detail, "loc": ("form", *detail["loc"])}) for detail in error.errors()]
        errors = {problem.field.partition(".")[0]: problem.message for problem in problems}
        status = 422
    except PanelError as error:
        errors = {problem.field: problem.message for problem in error.fields} or {"": error.message}
        status = error.status
    if isinstance(result, Response):  # the client has disconnected
        return result
    return await to_thread.run_sync(lambda: _draw(request, principal, values, errors, result, status))


def _draw(
    request: Request,
    principal: Principal,
    values: dict[str, Any],
    errors: dict[str, str] | None = None,
    result: dict[str, Any] | None = None,
    status: int = 200,
) -> Response:
    with db.transaction() as session:
        jobs = service.list_checkpoints(session, principal=principal)
        models = service.list_models(session, principal=principal)
        selected = values["checkpoint"]
        ids = [row.id for job in jobs for row in job.checkpoints] + [model.id for model in models]
        if selected and selected not in ids:
            # Too old to be in the list, or of another user, which raises a 404.
            row = checkpoints.get(session, principal=principal, checkpoint_id=selected)
            jobs.append(JobCheckpoints(row.job_id, session.get_one(Job, row.job_id).name, [row]))
    if not selected and ids:
        values = {**values, "checkpoint": ids[0]}
    return page(
        request,
        "playground/index.html",
        status,
        principal=principal,
        jobs=jobs,
        models=models,
        values=values,
        errors=defaultdict(str, errors or {}),
        result=result,
        address=str(request.base_url).rstrip("/"),
    )
