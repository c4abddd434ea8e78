"""What several tokenizers make of one text, told by a child process with limits: a tokenizer may be hostile."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from app.base_models import service as base_models
from app.core import storage
from app.core.errors import PanelError
from app.core.i18n import _
from app.core.principal import Principal
from app.corpora import tokenizers as stored_tokenizers
from app.tokenizers.schemas import ComparedToken, Tokenization
from app.web import preview_process


@dataclass(frozen=True)
class Compared:
    """A tokenizer, by itself or of an imported base model, and the directory with its files."""

    id: str
    name: str
    vocab_size: int | None
    path: str


def find(session: Session, *, principal: Principal, ids: Sequence[str]) -> list[Compared]:
    """The tokenizers to compare, in the given order. Raises PanelError at the field `tokenizers`."""
    compared: list[Compared] = []
    for tokenizer_id in ids:
        model = base_models.find(session, principal=principal, model_id=tokenizer_id)
        if model is not None:
            base_models.check_ready(model, "tokenizers")
            path = str(storage.base_model(model.id))
            compared.append(Compared(model.id, model.name, model.facts.vocab_size, path))
            continue
        own = stored_tokenizers.usable_tokenizer(
            session, principal=principal, tokenizer_id=tokenizer_id, field="tokenizers"
        )
        compared.append(Compared(own.id, own.name, own.vocab_size, str(storage.tokenizer(own.id))))
    return compared


def choices(session: Session, *, principal: Principal) -> list[tuple[str, str]]:
    """ID and name of every tokenizer that can be compared: those that are ready, then those of base models."""
    tokenizers, _next = stored_tokenizers.list_tokenizers(session, principal=principal, state="ready")
    models, _next = base_models.list_models(session, principal=principal, state="ready")
    return [(row.id, row.name) for row in tokenizers] + [
        (row.id, _("{name} (base model)", name=row.name)) for row in models
    ]


def compare(text: str, tokenizers: Sequence[Compared]) -> list[Tokenization]:
    """The tokens of a text by each tokenizer. Raises PanelError if that takes too long or the node has no room."""
    paths = [tokenizer.path for tokenizer in tokenizers]
    answer = json.loads(preview_process.run("trainer", "tokens", *paths, too_slow=_too_slow, text=text))
    num_bytes = len(text.encode())
    compared = []
    for tokenizer, listed in zip(tokenizers, answer, strict=True):
        tokens = [ComparedToken(**token) for token in listed or ()]
        compared.append(
            Tokenization(
                tokenizer=tokenizer.id,
                name=tokenizer.name,
                vocab_size=tokenizer.vocab_size,
                num_bytes=num_bytes,
                num_tokens=len(tokens),
                bytes_per_token=num_bytes / len(tokens) if tokens else None,
                tokens=tokens,
                refused=_("This tokenizer needs too much memory for this text.") if listed is None else None,
            )
        )
    return compared


def _too_slow() -> PanelError:
    return PanelError(422, "text_slow", _("These tokenizers take too much time or memory for this text. Shorten it."))
