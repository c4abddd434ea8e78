"""What is said of the data before a job starts: records that its sequence length cuts, and duplicates.

Nothing is counted here: the figures are those of the stored statistics of each corpus, and of an earlier job or task
that tokenized them.
"""

from collections.abc import Sequence

from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from app.core.formatting import number
from app.core.i18n import _, ngettext
from app.core.models import Corpus
from app.core.principal import Principal
from app.corpora import service as corpora_service
from app.corpora.statistics import CorpusStatistics, Statistics, list_statistics, longer_than
from app.jobs.planning import training_data
from trainer.families import TEXT_OBJECTIVES
from trainer.spec import TrainSpec


class DataCheck(BaseModel):
    """What is known of a corpus of a job. Figures that were not counted are null."""

    corpus: str = Field(description="Its ID.")
    name: str
    is_held_out: bool = Field(description="Whether it is a validation corpus.")
    num_documents: int
    num_longer: int | None = Field(
        description="Records with more tokens than the sequence length, which are cut to it, or left out if nothing "
        "to learn is left. Null for texts, of which nothing is lost."
    )
    is_estimated: bool = Field(description="Whether that is an estimate, by a sample, other lengths or tokenizer.")
    tokenizer: str | None = Field(description="Name of the tokenizer that it was counted with.")
    num_duplicates: int | None = Field(description="Documents whose text occurs before, byte by byte.")
    num_near_duplicates: int | None = Field(description="Documents that are almost an earlier one.")
    sentences: list[str] = Field(description="The same for people, and what can be done.")


class DataChecks(BaseModel):
    """What is known of the data of a job before it starts."""

    num_cut: int | None = Field(
        description="Records that are cut, as an earlier job, or a task that tokenized these corpora, with the same "
        "settings counted; null without one."
    )
    num_dropped: int | None = Field(description="Records that it left out.")
    corpora: list[DataCheck]
    sentences: list[str] = Field(description="Of these two counts, for people.")


def check(session: Session, principal: Principal, spec: TrainSpec, corpora: Sequence[Corpus]) -> DataChecks:
    """What is known of the training corpora and the validation corpora of a resolved spec."""
    held_out = corpora_service.existing(session, spec.validation_corpora)
    checks = [_of_corpus(session, principal, spec, corpus, False) for corpus in corpora]
    checks += [_of_corpus(session, principal, spec, corpus, True) for corpus in held_out]
    counts = (
        None if spec.objective in TEXT_OBJECTIVES else training_data.token_counts(session, principal, spec, corpora)
    )
    if counts is None:
        return DataChecks(num_cut=None, num_dropped=None, corpora=checks, sentences=[])
    cut = ngettext("{n} record is cut", "{n} records are cut", counts.num_cut)
    dropped = ngettext("{n} record is left out", "{n} records are left out", counts.num_dropped)
    sentence = _("At this sequence length {cut} and {dropped}, as counted before.", cut=cut, dropped=dropped)
    return DataChecks(num_cut=counts.num_cut, num_dropped=counts.num_dropped, corpora=checks, sentences=[sentence])


def _of_corpus(session: Session, principal: Principal, spec: TrainSpec, corpus: Corpus, is_held_out: bool) -> DataCheck:
    every = list_statistics(session, principal=principal, corpus=corpus)
    counted = [(row, row.counted) for row in every]
    results = [(row, result) for row, result in counted if result is not None]
    tokenized = [(row, result) for row, result in results if result.tokens is not None]
    tokenized.sort(key=lambda pair: pair[0].task.options.tokenizer != spec.tokenizer)
    is_text = spec.objective in TEXT_OBJECTIVES
    values = {
        **_duplicates(results),
        **(_NO_LENGTHS if is_text or not tokenized else _lengths(spec, corpus, tokenized[0])),
    }
    check = DataCheck(
        corpus=corpus.id,
        name=corpus.name,
        is_held_out=is_held_out,
        num_documents=corpus.num_documents or 0,
        sentences=[],
        **values,
    )
    check.sentences += _sentences(spec, check, is_text)
    return check


_NO_LENGTHS = {"num_longer": None, "is_estimated": False, "tokenizer": None}
_Values = dict[str, int | str | bool | None]


def _duplicates(results: Sequence[tuple[Statistics, CorpusStatistics]]) -> _Values:
    if not results:
        return {"num_duplicates": None, "num_near_duplicates": None}
    counts = [result for _row, result in results]
    near = next((result.num_near_duplicates for result in counts if result.num_near_duplicates is not None), None)
    return {"num_duplicates": counts[0].num_duplicates, "num_near_duplicates": near}


def _lengths(spec: TrainSpec, corpus: Corpus, tokenized: tuple[Statistics, CorpusStatistics]) -> _Values:
    row, result = tokenized
    assert result.tokens is not None
    share, is_counted = longer_than(result.tokens, spec.sequence_length)
    is_own = row.tokenizer is not None and row.tokenizer.id == spec.tokenizer
    return {
        "num_longer": round(share * (corpus.num_documents or 0)),
        "is_estimated": not (is_counted and is_own and result.tokens.is_complete),
        "tokenizer": row.tokenizer.name if row.tokenizer is not None else None,
    }


def _sentences(spec: TrainSpec, check: DataCheck, is_text: bool) -> list[str]:
    sentences = []
    if check.num_longer is not None:
        share = check.num_longer / max(1, check.num_documents)
        text = ngettext(
            "{about}{n} record ({share}) is longer than {length} tokens, counted with the tokenizer “{tokenizer}”: it "
            "is cut, or left out if nothing to learn is left.",
            "{about}{n} records ({share}) are longer than {length} tokens, counted with the tokenizer “{tokenizer}”: "
            "they are cut, or left out if nothing to learn is left.",
            check.num_longer,
            about="≈ " if check.is_estimated else "",
            share=f"{100 * share:.1f} %",
            length=number(spec.sequence_length),
            tokenizer=check.tokenizer or "",
        )
        sentences.append(text)
    if check.num_duplicates:
        sentences.append(
            ngettext(
                "{n} document is a copy of another one.", "{n} documents are copies of others.", check.num_duplicates
            )
        )
    if check.num_near_duplicates:
        sentences.append(
            ngettext(
                "{n} document is nearly the same as another one.",
                "{n} documents are nearly the same as others.",
                check.num_near_duplicates,
            )
        )
    if check.num_duplicates == 0 and check.num_near_duplicates == 0:
        sentences.append(_("It has no duplicates."))
    missing = [_("records that are cut")] if check.num_longer is None and not is_text else []
    missing += [_("copies")] if check.num_duplicates is None else []
    missing += [_("near duplicates")] if check.num_near_duplicates is None else []
    if missing:
        sentences.append(
            _("Not counted yet: {missing}. Count them on the page of the corpus.", missing=", ".join(missing))
        )
    return sentences
