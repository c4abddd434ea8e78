"""JSON routes of sharing."""

from fastapi import APIRouter

from app.core import db
from app.sharing import service
from app.sharing.schemas import SharingAnswer, SharingRequest
from app.web.auth import Reader, Submitter
from app.web.idempotency import ApiRoute
from app.web.parameters import Id
from app.web.problem_types import errors

router = APIRouter(route_class=ApiRoute, tags=["sharing"])


@router.get("/shares/{shared_id}", responses=errors("not_owner", "corpus_shipped"))
def get_sharing(principal: Reader, shared_id: Id) -> SharingAnswer:
    """With whom you share a corpus, base model, tokenizer, job or checkpoint, by its ID."""
    with db.transaction() as session:
        return SharingAnswer(**vars(service.get(session, principal=principal, row_id=shared_id)))


@router.put("/shares/{shared_id}", responses=errors("not_owner", "corpus_shipped", "user_unknown", "users_many"))
def change_sharing(principal: Submitter, shared_id: Id, body: SharingRequest) -> SharingAnswer:
    """Share a corpus, base model, tokenizer, job or checkpoint with these users and no others, read-only.

    A job is shared with its checkpoints, a corpus with all its versions. Who may no longer see it cannot use it for
    anything new at once; their jobs that use it go on.
    """
    with db.transaction() as session:
        sharing = service.change(session, principal=principal, row_id=shared_id, **body.model_dump())
        return SharingAnswer(**vars(sharing))
