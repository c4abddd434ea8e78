"""Who asks: the principal, its scopes, which rows it may see, and how its secrets are made and stored."""

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, TypeVar

from sqlalchemy import ARRAY, ColumnElement, Text, and_, any_, exists, func, or_, select, true
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.core.account_models import User
from app.core.conversation_models import Conversation
from app.core.errors import PanelError
from app.core.i18n import _
from app.core.model_base import Artifact
from app.core.models import BackgroundTask, Checkpoint, Corpus, HyperparameterSearch, ImportedModel, Job, Tokenizer
from app.core.preset_models import NamedMapping
from app.core.roles import Role, is_at_least
from app.core.share_models import Share

SESSION_LIFETIME = timedelta(days=30)


TOKEN_PREFIX = "ath_"  # noqa: S105 - it marks a token as ours and is none


Scope = Literal["read", "submit", "admin"]


SCOPES: tuple[Scope, ...] = ("read", "submit", "admin")


def scopes_of(role: str) -> frozenset[str]:
    """The scopes of a user with this role: submit is for members."""
    return frozenset(scope for scope in SCOPES if scope != "submit" or is_at_least(role, "member"))


OwnerFilter = Literal["own", "shared"]


Owned = TypeVar(
    "Owned",
    Checkpoint,
    Corpus,
    HyperparameterSearch,
    ImportedModel,
    Job,
    Tokenizer,
    BackgroundTask,
    Conversation,
    NamedMapping,
)


@dataclass(frozen=True)
class Principal:
    """The authenticated user of a request, with the scopes of its cookie or token."""

    user_id: str
    name: str
    role: str
    scopes: frozenset[str]
    by_cookie: bool
    session_id: str | None = None  # of the cookie's session
    token_id: str | None = None  # of the API token

    @property
    def credential_id(self) -> str:
        """What is limited together: a token, a session, or the user where there is neither."""
        return self.token_id or self.session_id or self.user_id

    def is_at_least(self, role: Role) -> bool:
        """Whether the user may do what this role may."""
        return is_at_least(self.role, role)


def background_principal(user: User) -> Principal:
    """A user for whom the server itself acts, such as for a job that was requested earlier."""
    return Principal(user.id, user.name, user.role, frozenset(SCOPES), by_cookie=False)


def new_secret() -> str:
    """32 random bytes as text for a cookie, a token or a code."""
    return secrets.token_urlsafe(32)


def digest(secret: str) -> str:
    """The SHA-256 under which a secret of `new_secret` is stored. It is random, so a plain hash is enough."""
    return hashlib.sha256(secret.encode()).hexdigest()


def visible_to(owner_id: InstrumentedAttribute[Any], principal: Principal) -> ColumnElement[bool]:
    """A condition for the rows a user may see: their own, what is shared with them, and what ships with Athanor (no
    owner).

    What is in the trash is not among them, nor are the tasks that worked on it.
    """
    is_own = or_(owner_id == principal.user_id, owner_id.is_(None))
    table: Any = owner_id.class_
    if issubclass(table, Artifact):
        return and_(or_(is_own, _is_shared_with(table, principal)), table.deleted_at.is_(None))
    return and_(is_own, ~works_on_trash()) if table is BackgroundTask else is_own


def _is_shared_with(table: Any, principal: Principal) -> ColumnElement[bool]:
    """Whether a row is shared with a user. The IDs are an array, so that PostgreSQL looks them up by an index."""
    with_user = select(Share.subject_id).where(or_(Share.user_id == principal.user_id, Share.user_id.is_(None)))
    ids = func.array(with_user.scalar_subquery(), type_=ARRAY(Text))
    keys = {Corpus: (Corpus.lineage_id,), Checkpoint: (Checkpoint.id, Checkpoint.job_id)}
    return or_(*(key == any_(ids) for key in keys.get(table, (table.id,))))


def visible_parts(table: Any, principal: Principal) -> dict[str, ColumnElement[bool]]:
    """What `visible_to` says of a table, in conditions that share no row and that an index answers each: for the rows
    of the user (own), those of others (shared), and those that ship with Athanor (shipped).
    """
    parts = {
        "own": table.owner_id == principal.user_id,
        "shared": and_(table.owner_id != principal.user_id, _is_shared_with(table, principal)),
        "shipped": table.owner_id.is_(None),
    }
    if not table.__table__.c.owner_id.nullable:
        del parts["shipped"]
    return {name: and_(part, table.deleted_at.is_(None)) for name, part in parts.items()}


def name_owners(session: Session, principal: Principal, rows: Sequence[Any]) -> None:
    """Note in rows of others who shares them: in `shared_by`."""
    others = [row for row in rows if row.owner_id not in (None, principal.user_id)]
    ids = {row.owner_id for row in others}
    users = session.execute(select(User.id, User.name).where(User.id.in_(ids))).all() if ids else []
    names = {user.id: user.name for user in users}
    for row in others:
        row.shared_by = names.get(row.owner_id)


def works_on_trash() -> ColumnElement[bool]:
    """Whether the subject of a background task is in the trash. Of checkpoints only their job counts: what was exported
    and measured of one stays when it alone is deleted.
    """
    pairs = ((Corpus, BackgroundTask.corpus_id), (ImportedModel, BackgroundTask.model_id))
    subjects = (*pairs, (Tokenizer, BackgroundTask.tokenizer_id))
    of_job = exists().where(
        Checkpoint.id == BackgroundTask.checkpoint_id, Job.id == Checkpoint.job_id, Job.deleted_at.is_not(None)
    )
    return or_(of_job, *(exists().where(table.id == key, table.deleted_at.is_not(None)) for table, key in subjects))


def not_found() -> PanelError:
    """The error for another user's id, identical to that for an id that does not exist."""
    return PanelError(404, "not_found", _("There is nothing here, or it is not yours."))


def not_owner() -> PanelError:
    """The error for a change of what another user shares."""
    return PanelError(403, "not_owner", _("Only its owner can change this. You can use what is shared with you."))


def visible(
    session: Session, table: type[Owned], row_id: str, *, principal: Principal, for_update: bool = False
) -> Owned:
    """The row of this id if the user may see it, locked and read afresh if `for_update`.

    Raises 404, which tells an owner if the row is in the trash.
    """
    query = select(table).where(table.id == row_id, visible_to(table.owner_id, principal))
    if for_update:
        query = query.with_for_update().execution_options(populate_existing=True)
    row = session.scalar(query)
    if row is None:
        raise in_trash() if is_in_trash(session, table, row_id, principal=principal) else not_found()
    if isinstance(row, Artifact):
        name_owners(session, principal, [row])
    return row


def is_visible(session: Session, table: type[Owned], row_id: str, principal: Principal) -> bool:
    """Whether a user may still see a row: it can be deleted, or no longer shared with them."""
    rows = select(table.id).where(table.id == row_id, visible_to(table.owner_id, principal))
    return session.scalar(select(rows.exists())) or False


def own(session: Session, table: type[Owned], row_id: str, *, principal: Principal) -> Owned:
    """A row of this id that the user may change, locked. Raises 404, or 403 for one that is only shared with them."""
    row = visible(session, table, row_id, principal=principal, for_update=True)
    if row.owner_id not in (principal.user_id, None):
        raise not_owner()
    return row


def is_in_trash(session: Session, table: type[Any], row_id: str, *, principal: Principal) -> bool:
    """Whether a user has a row of this id in the trash."""
    if not issubclass(table, Artifact):
        return False
    artifacts: Any = table
    own = (artifacts.id == row_id, artifacts.owner_id == principal.user_id, artifacts.deleted_at.is_not(None))
    is_left = true() if table is not Job else Job.purged_at.is_(None)
    return session.scalar(select(exists().where(*own, is_left))) or False


def in_trash() -> PanelError:
    """The error for the id of what its owner has moved to the trash."""
    return PanelError(404, "in_trash", _("This is in the trash. Restore it there to use it again."))
