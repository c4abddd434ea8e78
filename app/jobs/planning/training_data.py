"""What is known of the corpora of a job before they are tokenized: their counts, and those of an earlier job."""

from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import median

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from app.core.json_shapes import ParseReport
from app.core.models import Corpus, Job
from app.core.principal import Principal
from trainer.families import TEXT_OBJECTIVES
from trainer.formats.corpus_kinds import TRAIN_NAMES, VALIDATION_NAMES
from trainer.planning.proposals import TextData
from trainer.planning.scaling_laws import choose_vocab_size, effective_tokens, expected_bits_per_byte
from trainer.planning.training_data import TrainingData
from trainer.spec import TrainSpec, resolve

MAX_JOBS = 50  # newest jobs on the corpora that are compared
# Fields on which the tokens of a corpus depend, besides its tokenizer; of records also the sequence length, as they
# are cut to it.
SAME_FIELDS = ("objective", "corpora", "base_model", "model_type", "chat_template")


def of_corpora(session: Session, principal: Principal, spec: TrainSpec, corpora: Sequence[Corpus]) -> TrainingData:
    """The counts of these training corpora, with what an earlier job of the user has counted in their tokens."""
    data = _sum_counts(corpora)
    earlier = earlier_job(session, principal, spec, corpora)
    if earlier is not None:
        counted = {"num_tokens": earlier.facts.num_tokens, "num_dropped": earlier.facts.num_dropped or 0}
        data = data.model_copy(update=counted)
    return data.model_copy(update={"corpora": [_sum_counts([corpus]) for corpus in corpora]})


def _sum_counts(corpora: Sequence[Corpus]) -> TrainingData:
    """The counts of these corpora together."""
    reports = [corpus.progress for corpus in corpora]
    lengths: Counter[int] = Counter()
    labels: Counter[str] = Counter()
    for report in reports:
        lengths.update({int(bits): count for bits, count in report.lengths.items()})
        labels.update(report.labels)
    return TrainingData(
        num_bytes=sum(corpus.num_text_bytes or 0 for corpus in corpora),
        num_records=sum(corpus.num_documents or 0 for corpus in corpora),
        num_messages=sum(report.num_turns or 0 for report in reports),
        lengths=lengths,
        labels=labels,
        validation_share=_validation_share(reports),
    )


def _validation_share(reports: Sequence[ParseReport]) -> float | None:
    """The share of records that the column of groups calls validation; None if it names no side."""
    groups: Counter[str] = Counter()
    for report in reports:
        groups.update(report.groups)
    counts = [sum(groups[name] for name in names) for names in (TRAIN_NAMES, VALIDATION_NAMES)]
    return counts[1] / sum(counts) if any(counts) else None


def earlier_job(session: Session, principal: Principal, spec: TrainSpec, corpora: Sequence[Corpus]) -> Job | None:
    """The user's newest job that tokenized these corpora as this one will."""
    fields = SAME_FIELDS if spec.objective in TEXT_OBJECTIVES else (*SAME_FIELDS, "sequence_length")
    for job in _earlier_jobs(session, principal, spec, corpora, fields):
        is_same = True
        if spec.tokenizer is not None:
            is_same = job.tokenizer_id == spec.tokenizer
        elif spec.base_model is None:
            is_same = (job.spec.tokenizer, job.spec.vocab_size) == (None, spec.vocab_size)
        if is_same:
            return job
    return None


def vocab_limit(session: Session, principal: Principal, spec: TrainSpec, corpora: Sequence[Corpus]) -> int | None:
    """How many tokens a tokenizer trained on these corpora can have, where a job of the user failed because of it."""
    failed = (Job.failure_code == "vocab_too_large",)
    jobs = _earlier_jobs(session, principal, spec, corpora, ("objective", "corpora", "model_type"), failed)
    largest = next((job.failure.get("largest") for job in jobs if job.spec.tokenizer is None), None)
    return largest if isinstance(largest, int) else None


def _earlier_jobs(
    session: Session,
    principal: Principal,
    spec: TrainSpec,
    corpora: Sequence[Corpus],
    fields: Sequence[str],
    conditions: Sequence[ColumnElement[bool]] = (func.jsonb_exists(Job.facts, "num_tokens"),),
) -> Iterator[Job]:
    """The user's jobs on these corpora as they are now, with the same values of these fields, the newest first.

    By default those that tokenized them.
    """
    on_them = (Job.owner_id == principal.user_id, Job.spec["corpora"].contains(list(spec.corpora)))
    rows = session.scalars(select(Job).where(*on_them, *conditions).order_by(Job.id.desc()).limit(MAX_JOBS))
    parsed_at = max((corpus.parsed_at for corpus in corpora if corpus.parsed_at is not None), default=None)
    for job in rows:
        is_same = all(getattr(job.spec, name) == getattr(spec, name) for name in fields)
        if is_same and (parsed_at is None or parsed_at < job.created_at):
            yield job


def text_data(session: Session, principal: Principal, corpora: Sequence[Corpus]) -> TextData:
    """What a proposal needs to know of corpora: their size, and what earlier jobs like those proposed tell of them."""
    spec = resolve({"corpora": [corpus.id for corpus in corpora]})
    jobs = list(_earlier_jobs(session, principal, spec, corpora, SAME_FIELDS))
    ratios = [ratio for job in jobs if (ratio := _loss_ratio(job)) is not None]
    num_bytes = sum(corpus.num_text_bytes or 0 for corpus in corpora)
    automatic = choose_vocab_size(num_bytes)  # which a proposal leaves to the trainer: another entry of its cache
    sizes = {job.spec.vocab_size for job in jobs if job.spec.tokenizer is None and job.spec.vocab_size != automatic}
    return TextData(
        num_bytes=num_bytes,
        prepared_vocab_sizes=frozenset(size or automatic for size in sizes),
        loss_ratio=median(ratios) if ratios else 1.0,
        num_earlier_jobs=len(ratios),
    )


def _loss_ratio(job: Job) -> float | None:
    """The validation loss of a job that trained to its end, as a factor of the one that scaling laws expect."""
    measured, facts = job.progress.latest.get("eval_bits_per_byte"), job.facts
    if job.state != "succeeded" or not measured or not facts.num_parameters or not facts.num_tokens:
        return None
    tokens = effective_tokens(job.step * job.spec.tokens_per_step, facts.num_tokens)
    return float(measured) / expected_bits_per_byte(facts.num_parameters, tokens)
