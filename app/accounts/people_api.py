"""JSON routes for those who manage people: users and invitations."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response

from app.accounts import access, invitations, removal, schemas, service
from app.accounts.api import NEW_NAME, NEW_PASSWORD, reset_link
from app.accounts.passwords import HASHING
from app.accounts.schemas import (
    InvitationAnswer,
    InvitationRequest,
    NewInvitationAnswer,
    ResetLinkAnswer,
    RoleRequest,
    UserAnswer,
    UserDetail,
    UserRequest,
    UserUsageAnswer,
)
from app.core import db, quotas
from app.core.paging import Listing
from app.core.quotas import Quotas
from app.core.roles import Role
from app.web.auth import PeopleManager
from app.web.idempotency import ApiRoute
from app.web.paging import After, Limit, Search
from app.web.parameters import Id
from app.web.problem_types import errors

router = APIRouter(route_class=ApiRoute, tags=["people"])


@router.get("/users", responses=errors("role_missing"))
def list_users(
    _principal: PeopleManager,
    q: Search = "",
    role: Annotated[Role | None, Query(description="Only users with this role.")] = None,
    access: Annotated[
        service.Access | None, Query(description="Only users who may log in, or only those who may not.")
    ] = None,
    order: Annotated[Literal["newest", "name"], Query(description="Newest first, or by name.")] = "newest",
    limit: Limit = 50,
    after: After = None,
) -> Listing[UserAnswer]:
    """List users."""
    with db.transaction() as session:
        rows, cursor = service.list_users(
            session, search=q, role=role, access=access, order=order, limit=limit, after=after
        )
    return Listing(data=[schemas.user_answer(row) for row in rows], next=cursor)


@router.post(
    "/users",
    status_code=201,
    responses=errors(
        "role_missing",
        *NEW_NAME,
        *NEW_PASSWORD,
    ),
)
@HASHING
def create_user(principal: PeopleManager, body: UserRequest) -> UserAnswer:
    """Create a user with an initial password."""
    return schemas.user_answer(access.add_user(principal, body.name, body.password, body.role))


@router.get("/users/{user_id}", responses=errors("role_missing"))
def get_user(_principal: PeopleManager, user_id: Id) -> UserDetail:
    """Get a user, with how much they have."""
    with db.transaction() as session:
        user = service.get_user(session, user_id=user_id)
        return schemas.user_detail(user, removal.belongings(session, user_id))


@router.patch("/users/{user_id}", responses=errors("role_missing", "last_owner", "password_missing"))
def change_user(principal: PeopleManager, user_id: Id, body: RoleRequest) -> UserAnswer:
    """Give a user another role, effective immediately. Owners give any role, admins those of viewers and members."""
    with db.transaction() as session:
        return schemas.user_answer(service.set_role(session, principal=principal, user_id=user_id, role=body.role))


@router.put("/users/{user_id}/quotas", responses=errors("role_missing"))
def set_quotas(principal: PeopleManager, user_id: Id, body: Quotas) -> UserUsageAnswer:
    """Change what a user may take at most. What they have and what runs stays, even if it is more."""
    with db.transaction() as session:
        user = service.set_quotas(session, principal=principal, user_id=user_id, quotas=body)
        return schemas.usage_answer(user, quotas.usage(session, user_id))


@router.get("/users/{user_id}/usage", responses=errors("role_missing"))
def get_usage_of_user(_principal: PeopleManager, user_id: Id) -> UserUsageAnswer:
    """Get what a user takes, and may take."""
    with db.transaction() as session:
        return schemas.usage_answer(service.get_user(session, user_id=user_id), quotas.usage(session, user_id))


@router.post("/users/{user_id}/disable", responses=errors("role_missing", "last_owner"))
def disable_user(principal: PeopleManager, user_id: Id) -> UserAnswer:
    """Disable a user: password, sessions and tokens stop at once; running jobs keep running."""
    with db.transaction() as session:
        return schemas.user_answer(service.disable(session, principal=principal, user_id=user_id))


@router.post("/users/{user_id}/enable", responses=errors("role_missing"))
def enable_user(principal: PeopleManager, user_id: Id) -> UserAnswer:
    """Enable a user again, with the password and the tokens of before."""
    with db.transaction() as session:
        return schemas.user_answer(service.enable(session, principal=principal, user_id=user_id))


@router.post(
    "/users/{user_id}/password-reset",
    status_code=201,
    responses=errors("role_missing", "user_disabled", "answer_secret"),
)
def create_password_reset(request: Request, principal: PeopleManager, user_id: Id) -> ResetLinkAnswer:
    """Create a link with which a user chooses a new password, once, within 24 hours."""
    with db.transaction() as session:
        user = service.managed_user(session, principal=principal, user_id=user_id)
        code = service.create_password_reset(session, user=user, principal=principal)
    return ResetLinkAnswer(link=reset_link(str(request.base_url), code), expires_at=db.now() + service.RESET_LIFETIME)


@router.delete(
    "/users/{user_id}",
    status_code=204,
    responses=errors("role_missing", "last_owner", "own_account", "user_busy", "choice_missing"),
)
def remove_user(
    principal: PeopleManager,
    user_id: Id,
    data: Annotated[
        removal.Choice | None, Query(description="What happens to their data: it is deleted, or becomes yours.")
    ] = None,
) -> Response:
    """Remove a user. Deleting their data is refused while jobs or tasks have not finished."""
    with db.transaction() as session:
        removal.remove(session, principal=principal, user_id=user_id, choice=data)
    return Response(status_code=204)


@router.get("/invitations", responses=errors("role_missing"))
def list_invitations(_principal: PeopleManager, limit: Limit = 50, after: After = None) -> Listing[InvitationAnswer]:
    """List the invitations that can still be used, newest first."""
    with db.transaction() as session:
        rows, cursor = invitations.list_open(session, limit=limit, after=after)
        return Listing(data=[schemas.invitation_answer(row, name) for row, name in rows], next=cursor)


@router.post("/invitations", status_code=201, responses=errors("role_missing", "answer_secret"))
def create_invitation(request: Request, principal: PeopleManager, body: InvitationRequest) -> NewInvitationAnswer:
    """Create a link with which somebody creates an account of this role, once."""
    with db.transaction() as session:
        row, code = invitations.create(session, principal=principal, role=body.role, days=body.days)
        answer = schemas.invitation_answer(row, principal.name)
    return NewInvitationAnswer(link=invitations.link(str(request.base_url), code), **answer.model_dump())


@router.delete("/invitations/{invitation_id}", status_code=204, responses=errors("role_missing"))
def revoke_invitation(principal: PeopleManager, invitation_id: Id) -> Response:
    """Revoke an invitation: its link stops working."""
    with db.transaction() as session:
        invitations.revoke(session, principal=principal, invitation_id=invitation_id)
    return Response(status_code=204)
