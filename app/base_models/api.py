"""JSON routes of imported base models."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from app.base_models import schemas, service, uploads
from app.base_models.bulk import ROWS
from app.base_models.schemas import ModelAnswer, ModelRequest
from app.core import db, queue
from app.core.labels import LabelChanges
from app.core.paging import Listing
from app.core.principal import OwnerFilter
from app.web import bulk_requests
from app.web.auth import Reader, Submitter
from app.web.bulk_requests import RowsAnswer, RowsRequest
from app.web.idempotency import ApiRoute
from app.web.labels import LABEL_ERRORS
from app.web.paging import After, LabelSearch, Limit, Tag
from app.web.parameters import FileName, Id
from app.web.problem_types import errors
from app.web.uploads import RAW_BODY_SCHEMA

router = APIRouter(route_class=ApiRoute)


@router.post(
    "/models",
    status_code=201,
    tags=["models"],
    responses=errors(
        "tasks_open",
        "disk_full",
        "name_missing",
        "name_too_long",
        "character_invalid",
        "reference_invalid",
        "hub_offline",
    ),
)
def create_model(principal: Submitter, body: ModelRequest) -> ModelAnswer:
    """Create a base model, to upload its files and import it. One from the hub is downloaded and imported at once."""
    with db.transaction() as session:
        model = service.create(session, principal=principal, name=body.name, reference=body.reference)
    queue.flush_outbox()
    return schemas.model_answer(model)


@router.put(
    "/models/{model_id}/files/{name}",
    tags=["models"],
    openapi_extra=RAW_BODY_SCHEMA,
    responses=errors(
        "model_closed", "file_unknown", "file_unsafe", "file_empty", "model_too_large", "upload_broken", "disk_full"
    ),
)
async def upload_file(request: Request, principal: Submitter, model_id: Id, name: FileName) -> ModelAnswer:
    """Upload one file of a model: config.json, *.safetensors, a tokenizer file, or one .zip or .tar of all of them."""
    declared = request.headers.get("content-length")
    return schemas.model_answer(await uploads.receive(principal, model_id, name, declared, request.stream()))


@router.post(
    "/models/{model_id}/import",
    status_code=202,
    tags=["models"],
    responses=errors("tasks_open", "disk_full", "model_importing", "model_ready", "model_empty", "hub_offline"),
)
def import_model(principal: Submitter, model_id: Id) -> ModelAnswer:
    """Validate the uploaded files in the background; poll the model until its state is `ready` or `failed`."""
    with db.transaction() as session:
        model = service.begin_import(session, principal=principal, model_id=model_id)
    queue.flush_outbox()
    return schemas.model_answer(model)


@router.get("/models", tags=["models"])
def list_models(
    principal: Reader,
    q: LabelSearch = "",
    tag: Tag = "",
    source: Annotated[service.ModelSource | None, Query(description="Only uploaded ones, or those of the hub.")] = None,
    state: Annotated[service.ModelState | None, Query(description="Only models in this state.")] = None,
    owner: Annotated[
        OwnerFilter | None, Query(description="Only your own, or only what others share with you.")
    ] = None,
    order: Annotated[service.ModelOrder, Query(description="size: the largest first.")] = "newest",
    limit: Limit = 50,
    after: After = None,
) -> Listing[ModelAnswer]:
    """List your imported base models, newest first unless `order` says otherwise."""
    with db.transaction() as session:
        rows, cursor = service.list_models(
            session,
            principal=principal,
            limit=limit,
            after=after,
            search=q,
            tag=tag,
            source=source or "",
            state=state,
            owner=owner,
            order=order,
        )
        tasks = service.import_tasks(session, rows)
    return Listing(data=[schemas.model_answer(row, tasks.get(row.id)) for row in rows], next=cursor)


@router.get("/models/{model_id}", tags=["models"])
def get_model(principal: Reader, model_id: Id) -> ModelAnswer:
    """Get a base model with its problems."""
    with db.transaction() as session:
        model = service.get(session, principal=principal, model_id=model_id)
        return schemas.model_answer(model, service.import_tasks(session, [model]).get(model.id))


@router.patch("/models/{model_id}", tags=["models"], responses=errors(*LABEL_ERRORS))
def change_model(principal: Submitter, model_id: Id, body: LabelChanges) -> ModelAnswer:
    """Rename, tag or describe a base model; fields that are left out stay."""
    with db.transaction() as session:
        model = service.change_labels(session, principal=principal, model_id=model_id, changes=body)
        return schemas.model_answer(model, service.import_tasks(session, [model]).get(model.id))


@router.delete("/models/{model_id}", status_code=204, tags=["models"], responses=errors("model_in_use"))
def delete_model(principal: Submitter, model_id: Id) -> Response:
    """Delete a model and its files. Refused while an unfinished job starts from it."""
    with db.transaction() as session:
        service.delete(session, principal=principal, model_id=model_id)
    return Response(status_code=204)


@router.post("/models/bulk", tags=["models"], responses=errors("tag_missing"))
def change_models(principal: Submitter, body: RowsRequest) -> RowsAnswer:
    """Move several base models to the trash, or tag them. Each is changed by itself, as the answer says."""
    return bulk_requests.change_rows(principal, ROWS, body, body.tag)
