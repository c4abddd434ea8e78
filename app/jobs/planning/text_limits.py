"""What the text of a job is enough for before it is tokenized: its sequences, and the tokens of a new vocabulary."""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from app.core.errors import bad_field
from app.core.i18n import _, ngettext
from app.core.models import Corpus, Tokenizer
from app.core.principal import Principal
from app.jobs.planning import training_data
from trainer.families import TEXT_OBJECTIVES, smallest_vocabulary
from trainer.formats import messages
from trainer.formats.messages import Message
from trainer.planning.plan import MESSAGES
from trainer.planning.scaling_laws import choose_vocab_size
from trainer.planning.training_data import MAX_BYTES_PER_TOKEN, TrainingData, num_needed_tokens
from trainer.spec import TrainSpec

# Tokens that texts yield for the square root of their bytes: small talk 4.5, the Bible 7.5, news 10, reviews 19.
USUAL_VOCABULARY = 4.5
SMALLEST_LENGTH = 8  # that a spec can have


def check_size(spec: TrainSpec, corpora: Sequence[Corpus]) -> None:
    """Refuse text that is too short for the spec whatever the tokenizer makes of it: a token has at least one byte."""
    if spec.objective not in TEXT_OBJECTIVES:
        if sum(corpus.num_documents or 0 for corpus in corpora) < 2 and not spec.validation_corpora:
            message = _(
                "There is only one record; training and validation need at least one each. Choose a larger corpus, "
                "or a validation corpus."
            )
            raise bad_field("corpora", "records_few", message)
        return
    num_bytes = sum(corpus.num_text_bytes or 0 for corpus in corpora)
    most_tokens, needed = num_bytes + sum(corpus.num_documents or 0 for corpus in corpora), num_needed_tokens(spec)
    if most_tokens < needed:
        message = ngettext(
            "The text has {n} byte, too few for the {needed} tokens that the job needs with sequences of {length} "
            "tokens. Choose more text or a sequence length of at most {largest}.",
            "The text has {n} bytes, too few for the {needed} tokens that the job needs with sequences of {length} "
            "tokens. Choose more text or a sequence length of at most {largest}.",
            num_bytes,
            needed=needed,
            length=spec.sequence_length,
            largest=_longest(spec, most_tokens),
        )
        error = bad_field("sequence_length", "data_short", message)
        error.changes = _fitting_length(spec, num_bytes / MAX_BYTES_PER_TOKEN)
        raise error


def _longest(spec: TrainSpec, num_tokens: float) -> int:
    """The longest sequences, shorter than those of the spec, for which so many tokens are enough; 0 if none are."""
    lengths = range(SMALLEST_LENGTH, spec.sequence_length)
    number = bisect_right(
        lengths, num_tokens, key=lambda length: num_needed_tokens(spec.model_copy(update={"sequence_length": length}))
    )
    return lengths[number - 1] if number else 0


def _fitting_length(spec: TrainSpec, num_tokens: float) -> dict[str, Any]:
    """The change to the longest sequences, a power of two, for which so many tokens are enough; empty if none are."""
    longest = _longest(spec, num_tokens)
    return {"sequence_length": 1 << (longest.bit_length() - 1)} if longest else {}


@dataclass(frozen=True)
class TextLimits:
    """The size of the vocabulary as far as it is known, what is doubtful, and the changes of a spec that avoid it."""

    vocab_size: int
    notes: list[Message]
    changes: dict[str, Any]


def estimate(
    session: Session,
    principal: Principal,
    spec: TrainSpec,
    corpora: Sequence[Corpus],
    tokenizer: Tokenizer | None,
    data: TrainingData,
) -> TextLimits:
    """What the text of a job yields: the tokens of its vocabulary, and whether its sequences are enough."""
    num_bytes = sum(corpus.num_text_bytes or 0 for corpus in corpora)
    if tokenizer is not None and tokenizer.vocab_size:
        limits = TextLimits(tokenizer.vocab_size, [], {})
    elif spec.base_model is not None and spec.vocab_size:
        limits = TextLimits(spec.vocab_size, [], {})
    else:
        limits = _new_vocabulary(session, principal, spec, corpora, num_bytes)
    num_tokens, needed = data.num_tokens or num_bytes / MAX_BYTES_PER_TOKEN, num_needed_tokens(spec)
    if spec.objective in TEXT_OBJECTIVES and num_tokens < needed:
        if data.num_tokens:
            note = messages.message(MESSAGES, "text_short", found=data.num_tokens, needed=needed)
        else:
            note = messages.message(MESSAGES, "text_doubtful", text_bytes=num_bytes, needed=needed)
        limits.notes.append(note)
        limits.changes.update(_fitting_length(spec, num_tokens))
    return limits


def _new_vocabulary(
    session: Session, principal: Principal, spec: TrainSpec, corpora: Sequence[Corpus], num_bytes: int
) -> TextLimits:
    """A new vocabulary has as many tokens as the text yields, at most those of the spec.

    How many it yields is known exactly only when its merges are learned, which takes a second per 3 MB. Bytes alone
    give no tight bound: each token beyond the first ones joins a pair that occurs twice, and a text of words that occur
    twice yields almost one for two bytes. Of the texts measured, the Bible yields one for 19 bytes of 20 kB and for 127
    of 1 MB, Chinese reviews one for 20 of 3 MB.
    """
    automatic, smallest = choose_vocab_size(num_bytes), smallest_vocabulary(spec.model_type)
    usual = max(smallest, math.floor(USUAL_VOCABULARY * math.sqrt(num_bytes)))
    most = spec.vocab_size or automatic
    limit = training_data.vocab_limit(session, principal, spec, corpora)
    limits = TextLimits(min(most, limit or smallest + num_bytes // 2), [], {})
    if limit is not None and limit < most:
        limits.notes.append(messages.message(MESSAGES, "vocab_counted", largest=limit))
    elif most > usual:
        values = {"asked": most, "text_bytes": num_bytes, "usual": usual}
        limits.notes.append(messages.message(MESSAGES, "vocab_doubtful", **values))
    if limits.notes and most > automatic:
        limits.changes["vocab_size"] = None
    return limits
