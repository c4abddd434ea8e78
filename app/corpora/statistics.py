"""Statistics of a version of a corpus: duplicates, its longest documents, and what a tokenizer makes of its text.

They are counted by a background task and kept as its result, one for each text and tokenizer.
"""

from dataclasses import dataclass
from itertools import pairwise

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.core import background_tasks
from app.core.errors import bad_field
from app.core.i18n import _
from app.core.json_shapes import TaskOptions
from app.core.models import BackgroundTask, Corpus, Tokenizer
from app.core.principal import Principal, visible_to
from app.core.settings import settings
from app.corpora import service, tokenizers

MAX_LISTED = 50  # tokenizers with statistics


class _Counted(BaseModel):
    model_config = ConfigDict(frozen=True)


class CountedDocument(_Counted):
    """A document with its beginning."""

    index: int
    num_bytes: int
    text: str = Field(description="Its first 160 characters.")
    num_tokens: int | None = Field(None, description="Of the longest documents of a tokenizer.")
    count: int | None = Field(None, description="Of a repeated text: how often it occurs.")


class LengthCut(_Counted):
    """What a sequence length would cut."""

    length: int = Field(description="In tokens.")
    num_longer: int = Field(description="Documents that are longer.")
    num_cut_tokens: int = Field(description="Tokens of these beyond the length.")


class FrequentToken(_Counted):
    """A token, the text that it stands for, and how often it occurs."""

    id: int
    text: str
    count: int


class TokenStatistics(_Counted):
    """What a tokenizer makes of the text; of a large corpus, of a sample: every `stride`-th document from the first on.

    Tokens of records are those of their texts, without the marks of a chat template.
    """

    stride: int
    num_documents: int = Field(description="Documents that were tokenized.")
    num_stored_bytes: int = Field(description="Their size; of records, that of their JSON.")
    num_bytes: int = Field(description="Their text in UTF-8; of records, without the names of their fields.")
    num_tokens: int
    is_complete: bool = Field(description="Whether all documents were tokenized.")
    vocab_size: int
    num_used_tokens: int = Field(description="Tokens of the vocabulary that occur.")
    median_length: int = Field(description="Tokens of the median document.")
    max_length: int
    cuts: list[LengthCut]
    frequent: list[FrequentToken] = Field(description="The 50 most frequent tokens.")
    longest: list[CountedDocument] = Field(description="The ten longest documents by tokens.")

    @property
    def bytes_per_token(self) -> float:
        """How much text a token stands for; 0 without tokens."""
        return self.num_bytes / self.num_tokens if self.num_tokens else 0.0


class LanguageCount(_Counted):
    """How many of the looked-at documents are in a language."""

    language: str | None = Field(description="ISO 639 code; null: texts of fewer than 20 letters.")
    num_documents: int


class SplitPreview(_Counted):
    """What a job with this split and fraction would hold out of the corpus."""

    split: str = Field(description="As the field of a job: document, group, label or column.")
    fraction: float | None = Field(description="The validation fraction; null: the column decides.")
    num_held_out: int = Field(description="Documents held out.")
    num_held_out_bytes: int = Field(description="Their size.")
    num_repeated: int = Field(description="Of these, documents whose text is also trained on.")


class CorpusStatistics(_Counted):
    """What was counted."""

    num_documents: int
    num_text_bytes: int
    num_duplicates: int = Field(description="Documents whose text occurs before, byte by byte.")
    num_near_duplicates: int | None = Field(
        None, description="Documents that are almost an earlier one (MinHash, similarity of 0.8), besides duplicates."
    )
    num_compared: int | None = Field(None, description="Documents, the first ones, among which those were counted.")
    languages: list[LanguageCount] = Field([], description="The 20 most frequent (py3langid), by their documents.")
    num_identified: int | None = Field(None, description="Documents, at even distances, whose languages those are.")
    num_repeated: int = Field(description="Texts that occur more than once.")
    repeated: list[CountedDocument] = Field(description="Of these the ten most frequent, each where it occurs first.")
    longest: list[CountedDocument] = Field(description="The ten longest documents by bytes.")
    splits: list[SplitPreview] = Field([], description="What splits by documents would hold out.")
    tokens: TokenStatistics | None = Field(description="With a tokenizer.")

    @property
    def num_tokens(self) -> int:
        """Tokens of the whole corpus; of a sample, in proportion to its bytes."""
        if self.tokens is None:
            return 0
        if self.tokens.is_complete:
            return self.tokens.num_tokens
        return round(self.tokens.num_tokens * self.num_text_bytes / max(1, self.tokens.num_stored_bytes))


def longer_than(tokens: TokenStatistics, length: int) -> tuple[float, bool]:
    """The share of the documents with more than `length` tokens, and whether it was counted: between the lengths at
    which it was, it is interpolated.
    """
    points = [(0, tokens.num_documents), *((cut.length, cut.num_longer) for cut in tokens.cuts)]
    total = max(1, tokens.num_documents)
    for (low, more), (high, fewer) in pairwise(points):
        if low <= length < high:
            between = more + (fewer - more) * (length - low) / (high - low)
            return between / total, length == low or more == fewer
    return points[-1][1] / total, length == points[-1][0]


@dataclass(frozen=True)
class Statistics:
    """The task that counts or has counted with a tokenizer (None: without one), and what it has counted."""

    task: BackgroundTask
    tokenizer: Tokenizer | None

    @property
    def counted(self) -> CorpusStatistics | None:
        """The result; None before the task has succeeded."""
        if self.task.state != "succeeded" or self.task.result is None:
            return None
        return CorpusStatistics.model_validate(self.task.result.model_dump())


def start(session: Session, *, principal: Principal, corpus_id: str, tokenizer_id: str | None) -> Statistics:
    """Count a corpus with a tokenizer or without, unless that was done or is being done. Raises PanelError.

    Call `queue.flush_outbox` after the commit.
    """
    service.get_corpus(session, principal=principal, corpus_id=corpus_id)
    corpus = service.require_ready_corpora(session, principal=principal, ids=[corpus_id], field="corpus")[0]
    tokenizer = None
    if tokenizer_id:
        tokenizer = tokenizers.usable_tokenizer(session, principal=principal, tokenizer_id=tokenizer_id)
    every = list_statistics(session, principal=principal, corpus=corpus)
    present = next((one for one in every if one.task.options.tokenizer == (tokenizer_id or None)), None)
    if present is not None and present.task.state in (*background_tasks.OPEN, "succeeded"):
        return present
    if not corpus.num_text_bytes:
        raise bad_field("corpus", "corpus_empty", _("This corpus has no text that could be counted."))
    task = background_tasks.enqueue(
        session,
        kind="statistics",
        owner_id=principal.user_id,
        corpus_id=corpus.id,
        memory_bytes=settings().parse_memory_bytes,
        options=TaskOptions(tokenizer=tokenizer_id or None, text_sha256=corpus.text_sha256),
    )
    session.refresh(task)
    return Statistics(task, tokenizer)


def list_statistics(session: Session, *, principal: Principal, corpus: Corpus) -> list[Statistics]:
    """The user's newest statistics of a corpus as it was read last, one for each tokenizer, the newest first."""
    query = select(BackgroundTask).where(
        BackgroundTask.corpus_id == corpus.id,
        BackgroundTask.kind == "statistics",
        BackgroundTask.owner_id == principal.user_id,
        BackgroundTask.options["text_sha256"].as_string() == (corpus.text_sha256 or ""),
    )
    newest: dict[str | None, BackgroundTask] = {}
    for task in session.scalars(query.order_by(BackgroundTask.id.desc()).limit(10 * MAX_LISTED)):
        newest.setdefault(task.options.tokenizer, task)
    ids = [tokenizer_id for tokenizer_id in newest if tokenizer_id is not None]
    is_visible = visible_to(Tokenizer.owner_id, principal)
    rows = session.scalars(select(Tokenizer).where(Tokenizer.id.in_(ids), is_visible))
    of_ids = {row.id: row for row in rows}
    return [
        Statistics(task, of_ids.get(tokenizer_id or ""))
        for tokenizer_id, task in list(newest.items())[:MAX_LISTED]
        if tokenizer_id is None or tokenizer_id in of_ids
    ]


# ---- as it is drawn --------------------------------------------------------------------------------------------------

FIRST_LENGTH = 512  # at which the slider begins


@dataclass(frozen=True)
class Bar:
    """The documents with more tokens than the bar before and at most `length`, and what a sequence of that cuts."""

    length: int
    num_documents: int
    share_longer: float
    share_cut: float


def length_bars(tokens: TokenStatistics) -> list[Bar]:
    """The histogram of lengths, from the first bar with documents to the last."""
    num_before = tokens.num_documents
    every = []
    for cut in tokens.cuts:
        longer = cut.num_longer / max(1, tokens.num_documents)
        every.append(
            Bar(cut.length, num_before - cut.num_longer, longer, cut.num_cut_tokens / max(1, tokens.num_tokens))
        )
        num_before = cut.num_longer
    filled = [position for position, bar in enumerate(every) if bar.num_documents]
    return every[filled[0] : filled[-1] + 1] if filled else every[:1]


def first_bar(drawn: list[Bar]) -> int:
    """The position of the bar at which the slider begins: one that cuts something, if any does."""
    short = [position for position, bar in enumerate(drawn) if bar.length <= FIRST_LENGTH]
    return max(0, min(short[-1] if short else 0, len(drawn) - 2))
