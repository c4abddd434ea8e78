"""Finds tokenizers for what uses them. Their table is written by app/tokenizers/service.py."""

from typing import Any, Literal

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from app.base_models import service as base_models
from app.core import labels, sharing
from app.core.errors import bad_field
from app.core.i18n import _
from app.core.models import ImportedModel, Tokenizer
from app.core.principal import Principal, in_trash, is_in_trash, visible_to
from trainer.families import FAMILIES
from trainer.formats.corpus_kinds import CORPUS_KINDS_BY_OBJECTIVE

TokenizerOrder = Literal["newest", "name", "size"]
TokenizerSource = Literal["job", "training", "import"]
TokenizerState = Literal["preparing", "ready", "failed"]
MAX_MODELS = 100  # whose tokenizers are offered
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
    query = select(Tokenizer)
    if search:
        query = query.where(labels.matches(Tokenizer, search))
    if tag:
        query = query.where(labels.has_tag(Tokenizer, tag))
    if source:
        query = query.where(Tokenizer.source == source)
    if state:
        query = query.where(Tokenizer.state == state)
    return sharing.listed(session, principal, query, Tokenizer, _ORDERS.get(order), limit, after, owner)


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


def models_for_kind(session: Session, *, principal: Principal, kind: str) -> list[ImportedModel]:
    """The imported models that can learn from documents of a kind, the newest first: a tokenizer comes with each."""
    families = {
        family
        for objective, kinds in CORPUS_KINDS_BY_OBJECTIVE.items()
        if kinds[0] == kind
        for family in FAMILIES[objective]
    }
    models, _next = base_models.list_models(session, principal=principal, limit=MAX_MODELS, state="ready")
    return [model for model in models if model.facts.model_type in families]
