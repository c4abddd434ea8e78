"""Invitations: links with which somebody creates an account of a role, once."""

from datetime import timedelta

from sqlalchemy import ColumnElement, delete, func, select
from sqlalchemy.orm import Session

from app.accounts import service
from app.core import audit_log, paging
from app.core.account_models import Invitation, User
from app.core.errors import bad_field
from app.core.i18n import _
from app.core.principal import Principal, digest, new_secret, not_found
from app.core.roles import Role, may_manage

MAX_DAYS = 30


def link(address: str, code: str) -> str:
    """The link with a code of `create`."""
    return f"{address.rstrip('/')}/invitation?code={code}"


def create(session: Session, *, principal: Principal, role: Role, days: int) -> tuple[Invitation, str]:
    """A new invitation, and its code, of which only the hash is stored. Deletes those that have expired.

    Raises PanelError for a role that the principal may not give.
    """
    service.require_may_manage(principal, role)
    session.execute(delete(Invitation).where(Invitation.expires_at < func.now()))
    code = new_secret()
    row = Invitation(code_sha256=digest(code), inviter_id=principal.user_id, role=role)
    row.expires_at = func.now() + timedelta(days=days)
    session.add(row)
    session.flush()
    session.refresh(row)
    audit_log.record(session, "invitation_created", principal, subject=role, subject_id=row.id)
    return row, code


def list_open(
    session: Session, *, limit: int = 100, after: str | None = None
) -> tuple[list[tuple[Invitation, str]], str | None]:
    """The invitations that can be used, newest first, each with the name of who invites, and the next cursor."""
    rows, cursor = paging.newest(session, select(Invitation).where(_is_open()), Invitation.id, limit, after)
    ids = {row.inviter_id for row in rows}
    inviters = {user.id: user.name for user in session.scalars(select(User).where(User.id.in_(ids)))}
    return [(row, inviters[row.inviter_id]) for row in rows], cursor


def revoke(session: Session, *, principal: Principal, invitation_id: str) -> None:
    """Delete an invitation that was not used. Raises 404, and 403 for a role that the principal may not give."""
    row = session.scalar(select(Invitation).where(Invitation.id == invitation_id, _is_open()).with_for_update())
    if row is None:
        raise not_found()
    service.require_may_manage(principal, row.role)
    audit_log.record(session, "invitation_revoked", principal, subject=row.role, subject_id=row.id)
    session.delete(row)


def of_code(session: Session, *, code: str, for_update: bool = False) -> Invitation:
    """The invitation of a code.

    Raises PanelError, the same one for a code that is wrong, used, revoked or too old, and for one of somebody who may
    no longer give its role.
    """
    query = select(Invitation, User).join(User, User.id == Invitation.inviter_id)
    query = query.where(Invitation.code_sha256 == digest(code), User.disabled_at.is_(None), _is_open())
    row = session.execute(query.with_for_update(of=Invitation) if for_update else query).first()
    if row is None or not may_manage(row[1].role, row[0].role):
        message = _("This invitation is not valid: it was used or revoked, or it is too old. Ask for a new one.")
        raise bad_field("code", "invitation_wrong", message, 403)
    return row[0]


def accept(session: Session, *, code: str, name: str, password_hash: str) -> User:
    """Create the account that an invitation is for, and delete the invitation. Raises PanelError."""
    row = of_code(session, code=code, for_update=True)
    user = service.create_user(session, name=name, password_hash=password_hash, role=row.role)
    inviter = service.get_user(session, user_id=row.inviter_id).name
    audit_log.record(session, "invitation_used", user, subject=row.role, subject_id=row.id, detail=inviter)
    session.delete(row)
    return user


def _is_open() -> ColumnElement[bool]:
    return Invitation.expires_at > func.now()
