"""Join tokens: with one a machine becomes a node, once, and gets the addresses and credentials that a node needs."""

import re
from datetime import timedelta

from sqlalchemy import ColumnElement, delete, func, select
from sqlalchemy.orm import Session

from app.core import audit_log, db, migrations, paging
from app.core.account_models import JoinToken, User
from app.core.errors import PanelError, bad_field
from app.core.i18n import _, join_sentences
from app.core.models import Node
from app.core.principal import TOKEN_PREFIX, Principal, digest, new_secret, not_found
from app.jobs.cluster import node_configuration, nodes
from app.jobs.cluster.node_configuration import NodeConfiguration

LIFETIME_MINUTES = 60
MAX_MINUTES = 24 * 60
LISTED_AFTER_EXPIRY = timedelta(days=7)
NODE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def create(session: Session, *, principal: Principal, minutes: int = LIFETIME_MINUTES) -> tuple[JoinToken, str]:
    """A new token, and its secret, of which only the hash is stored. Forgets those that expired long ago."""
    session.execute(delete(JoinToken).where(JoinToken.expires_at < func.now() - LISTED_AFTER_EXPIRY))
    secret = f"{TOKEN_PREFIX}join_{new_secret()}"
    row = JoinToken(token_sha256=digest(secret), creator_id=principal.user_id)
    row.expires_at = func.now() + timedelta(minutes=minutes)
    session.add(row)
    session.flush()
    session.refresh(row)
    audit_log.record(session, "join_token_created", principal, subject_id=row.id)
    return row, secret


def list_tokens(
    session: Session, *, limit: int = 50, after: str | None = None
) -> tuple[list[tuple[JoinToken, str]], str | None]:
    """The tokens, newest first, each with the name of who created it, and the next cursor."""
    rows, cursor = paging.newest(session, select(JoinToken), JoinToken.id, limit, after)
    ids = {row.creator_id for row in rows}
    names = {user.id: user.name for user in session.scalars(select(User).where(User.id.in_(ids)))}
    return [(row, names[row.creator_id]) for row in rows], cursor


def revoke(session: Session, *, principal: Principal, token_id: str) -> None:
    """Delete a token that can still be used. Raises 404."""
    row = session.scalar(select(JoinToken).where(JoinToken.id == token_id, _is_open()).with_for_update())
    if row is None:
        raise not_found()
    audit_log.record(session, "join_token_revoked", principal, subject_id=row.id)
    session.delete(row)


def of_secret(session: Session, *, secret: str, for_update: bool = False) -> tuple[JoinToken, User]:
    """The token of a secret, and its creator.

    Raises PanelError, the same one for a token that is wrong, used, revoked or too old, and for one of somebody who is
    no longer an owner.
    """
    query = select(JoinToken, User).join(User, User.id == JoinToken.creator_id)
    query = query.where(JoinToken.token_sha256 == digest(secret), _is_open())
    query = query.where(User.disabled_at.is_(None), User.role == "owner")
    row = session.execute(query.with_for_update(of=JoinToken) if for_update else query).first()
    if row is None:
        message = _("This join token is not valid: it was used or revoked, or it is too old. Create a new one.")
        raise bad_field("token", "join_token_wrong", message, 403)
    return row[0], row[1]


def redeem(session: Session, *, secret: str, name: str, revision: str, is_local: bool) -> NodeConfiguration:
    """Use a token: what the machine that becomes the node of this name needs.

    `revision` is that of the database's schema which its program expects, `is_local` whether it is this machine.
    Raises PanelError, which leaves the token as it was.
    """
    row, creator = of_secret(session, secret=secret, for_update=True)
    if not is_local and (sentences := node_configuration.obstacles()):
        raise PanelError(409, "join_unavailable", join_sentences(sentences))
    if revision != migrations.newest():
        message = _("This machine has another version of Athanor than the panel. Install the panel's version on it.")
        raise PanelError(409, "version_differs", message)
    _check_name(session, name)
    row.used_at = func.now()
    row.node = name
    audit_log.record(session, "node_joined", creator, subject=name, subject_id=row.id)
    return node_configuration.read()


def _check_name(session: Session, name: str) -> None:
    if not NODE_NAME.fullmatch(name):
        message = _("The name of a node has up to 63 letters without accents, digits, dots, hyphens and underscores.")
        raise bad_field("name", "node_name_invalid", message)
    node = session.get(Node, name)
    if node is not None and nodes.is_live(node, db.now()):
        message = _("A node named {name} is online already. Choose another name with --name.", name=name)
        raise bad_field("name", "node_online", message, 409)


def _is_open() -> ColumnElement[bool]:
    return JoinToken.used_at.is_(None) & (JoinToken.expires_at > func.now())
