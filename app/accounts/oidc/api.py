"""JSON routes of the identities that log in as a user."""

from datetime import datetime

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from app.accounts.oidc import service
from app.core import db
from app.core.account_models import ExternalIdentity
from app.core.paging import Listing
from app.web.auth import OwnAccount
from app.web.idempotency import ApiRoute
from app.web.parameters import Id
from app.web.problem_types import errors

router = APIRouter(route_class=ApiRoute, tags=["accounts"])


class IdentityAnswer(BaseModel):
    """Who a user is at an OpenID Connect provider, and logs in as."""

    id: str
    issuer: str = Field(description="URL of the provider.")
    account: str = Field(description="E-mail address or name there, as of the last login.")
    is_of_provider: bool = Field(description="Whether one can log in with it: the provider is still that of the panel.")
    created_at: datetime
    last_login_at: datetime | None


def identity_answer(row: ExternalIdentity) -> IdentityAnswer:
    """The response for an identity."""
    return IdentityAnswer(
        id=row.id,
        issuer=row.issuer,
        account=row.label,
        is_of_provider=service.is_of_provider(row),
        created_at=row.created_at,
        last_login_at=row.last_login_at,
    )


@router.get("/identities")
def list_identities(principal: OwnAccount) -> Listing[IdentityAnswer]:
    """List the identities at an OpenID Connect provider that log in as you, the oldest first.

    One is connected in a browser, on the account page, as the provider asks for consent there.
    """
    with db.transaction() as session:
        rows = service.identities(session, user_id=principal.user_id)
        return Listing(data=[identity_answer(row) for row in rows], next=None)


@router.delete("/identities/{identity_id}", status_code=204, responses=errors("password_missing"))
def disconnect_identity(principal: OwnAccount, identity_id: Id) -> Response:
    """Disconnect an identity, so that it no longer logs in as you."""
    with db.transaction() as session:
        service.disconnect(session, principal=principal, identity_id=identity_id)
    return Response(status_code=204)
