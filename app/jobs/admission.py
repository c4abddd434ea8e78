"""What can be said against a job before anything is tokenised. Raises at the field that is wrong."""

from collections.abc import Iterator, Sequence
from typing import Any

from app.errors import bad_field
from app.i18n import _
from app.models import Corpus
from trainer.spec import MIN_VOCAB_SIZE, TrainSpec


def check_text(given: dict[str, Any]) -> None:
    """Refuse characters that no database and no file can hold."""
    for field, value in given.items():
        if any(c == "\0" or "\ud800" <= c <= "\udfff" for text in _texts([field, value]) for c in text):
            shown = field.encode(errors="replace").decode().replace("\0", "?")
            message = _("{field} holds a character that cannot be stored: NUL or half a surrogate pair.", field=shown)
            raise bad_field(shown, "character_invalid", message)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from _texts([*value.keys(), *value.values()])
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)


def check_size(spec: TrainSpec, corpora: Sequence[Corpus]) -> None:
    """Refuse text that is too short for the spec whatever the tokenizer makes of it: a token has at least one byte."""
    num_bytes = sum(corpus.num_text_bytes or 0 for corpus in corpora)
    most_tokens = num_bytes + sum(corpus.num_documents or 0 for corpus in corpora)
    needed = 2 * spec.sequence_length + 1
    if most_tokens < needed:
        message = _(
            "The text has {bytes} bytes, too few for a training and a validation sequence of {length} tokens. "
            "Choose more text or a sequence length of at most {largest}.",
            bytes=num_bytes,
            length=spec.sequence_length,
            largest=max(0, (most_tokens - 1) // 2),
        )
        raise bad_field("sequence_length", "data_short", message)
    largest = MIN_VOCAB_SIZE + num_bytes // 2  # every further token stands for two that occurred together
    if spec.tokenizer is None and spec.vocab_size is not None and spec.vocab_size > largest:
        message = _(
            "{asked} tokens are more than {bytes} bytes of text can give. Ask for at most {largest}, "
            "or let the text decide (auto in the form, null in the API).",
            asked=spec.vocab_size,
            bytes=num_bytes,
            largest=largest,
        )
        raise bad_field("vocab_size", "vocab_too_large", message)
