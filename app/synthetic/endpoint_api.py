"""JSON routes of model endpoints."""

from fastapi import APIRouter, Response

from app.core import db
from app.core.paging import Listing
from app.synthetic import endpoints
from app.synthetic.endpoint_schemas import ModelEndpointAnswer, ModelEndpointRequest, endpoint_answer
from app.web.auth import Reader, Submitter
from app.web.idempotency import ApiRoute
from app.web.paging import After, Limit
from app.web.parameters import Id
from app.web.problem_types import errors

router = APIRouter(route_class=ApiRoute, tags=["synthetic data"])
_FIELDS = ("url_invalid", "url_refused", "api_key_invalid", "name_missing", "name_too_long", "character_invalid")


@router.get("/model-endpoints")
def list_model_endpoints(principal: Reader, limit: Limit = 50, after: After = None) -> Listing[ModelEndpointAnswer]:
    """List your model endpoints, newest first."""
    with db.transaction() as session:
        rows, cursor = endpoints.list_endpoints(session, principal=principal, limit=limit, after=after)
        return Listing(data=[endpoint_answer(row) for row in rows], next=cursor)


@router.post("/model-endpoints", status_code=201, responses=errors("endpoints_many", "endpoint_exists", *_FIELDS))
def create_model_endpoint(principal: Submitter, body: ModelEndpointRequest) -> ModelEndpointAnswer:
    """Add a model behind an API like OpenAI's, which can then write records."""
    with db.transaction() as session:
        return endpoint_answer(endpoints.create(session, principal=principal, request=body))


@router.get("/model-endpoints/{model_endpoint_id}")
def get_model_endpoint(principal: Reader, model_endpoint_id: Id) -> ModelEndpointAnswer:
    """Get a model endpoint."""
    with db.transaction() as session:
        return endpoint_answer(endpoints.get(session, principal=principal, endpoint_id=model_endpoint_id))


@router.put("/model-endpoints/{model_endpoint_id}", responses=errors("api_key_missing", "endpoint_exists", *_FIELDS))
def change_model_endpoint(
    principal: Submitter, model_endpoint_id: Id, body: ModelEndpointRequest
) -> ModelEndpointAnswer:
    """Replace the fields of a model endpoint. Another address needs its key again."""
    with db.transaction() as session:
        row = endpoints.change(session, principal=principal, endpoint_id=model_endpoint_id, request=body)
        return endpoint_answer(row)


@router.delete("/model-endpoints/{model_endpoint_id}", status_code=204)
def delete_model_endpoint(principal: Submitter, model_endpoint_id: Id) -> Response:
    """Delete a model endpoint. What it wrote stays; generations that use it end."""
    with db.transaction() as session:
        endpoints.delete(session, principal=principal, endpoint_id=model_endpoint_id)
    return Response(status_code=204)
