"""Finds tokenizers for what uses them. Their table is written by app/tokenizers/service.py."""

from typing import Any, Literal

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from app.core import labels, sharing
from app.core.errors import bad_field
from app.core.i18n import _
from app.core.models import Tokenizer
from app.core.principal import Principal, in_trash, is_in_trash, visible_to

TokenizerOrder = Literal["newest", "name", "size"]
TokenizerSource = Literal["job", "training", "import"]
TokenizerState = Literal["preparing", "ready", "failed"]
_ORDERS: dict[str, ColumnElement[Any]] = {
    "name": func.lower(Tokenizer.name),
    "size": -func.coalesce(Tokenizer.vocab_size, 0),
}


def list_tokenizers(
    session: Session,
    *,
    principal: Principal,
    limit: int = 100,
    after: str | None = None,
    search: str = "",
    tag: str = "",
    source: str = "",
    state: str | None = None,
    owner: str | None = None,
    order: str = "newest",
) -> tuple[list[Tokenizer], str | None]:
    """The tokenizers the user may see, and the cursor of the next page. `search` is a part of name, tags or notes."""
    visible = select(Tokenizer).where(visible_to(Tokenizer.owner_id, principal))
    if search:
        visible = visible.where(labels.matches(Tokenizer, search))
    if tag:
        visible = visible.where(labels.has_tag(Tokenizer, tag))
    if source:
        visible = visible.where(Tokenizer.source == source)
    if state:
        visible = visible.where(Tokenizer.state == state)
    return sharing.listed(session, principal, visible, Tokenizer, _ORDERS.get(order), limit, after, owner)


def usable_tokenizer(
    session: Session, *, principal: Principal, tokenizer_id: str, field: str = "tokenizer"
) -> Tokenizer:
    """The tokenizer of a job. Raises PanelError at the field if it is unknown, another user's or not ready."""
    visible = visible_to(Tokenizer.owner_id, principal)
    # Held until the commit, so that it is not deleted under the job that is being submitted.
    own = select(Tokenizer).where(Tokenizer.id == tokenizer_id, visible).with_for_update(read=True)
    tokenizer = session.scalar(own)
    if tokenizer is None:
        if is_in_trash(session, Tokenizer, tokenizer_id, principal=principal):
            raise bad_field(field, "in_trash", in_trash().message)
        message = _("There is no tokenizer {id}, or it is not yours.", id=tokenizer_id)
        raise bad_field(field, "tokenizer_unknown", message)
    if tokenizer.state != "ready":
        message = _("The tokenizer “{name}” is not ready. Its page says why.", name=tokenizer.name)
        raise bad_field(field, "tokenizer_unready", message)
    return tokenizer
