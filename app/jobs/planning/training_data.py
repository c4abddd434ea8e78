"""What is known of the corpora of a job before it starts: their counts, and those of their tokens if there are any."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from app.core.json_shapes import ParseReport
from app.core.models import BackgroundTask, Corpus, Job
from app.core.principal import Principal
from trainer.families import TEXT_OBJECTIVES
from trainer.formats.corpus_kinds import TRAIN_NAMES, VALIDATION_NAMES
from trainer.planning.proposals import TextData
from trainer.planning.scaling_laws import choose_vocab_size, effective_tokens, expected_bits_per_byte
from trainer.planning.training_data import TrainingData
from trainer.spec import TrainSpec, resolve

MAX_JOBS = 50  # newest jobs, and newest tasks, on the corpora that are compared
# Fields on which the tokens of a corpus depend, besides its tokenizer; of records also the sequence length, as they
# are cut to it, and what is done with those that cannot be encoded.
SAME_FIELDS = ("objective", "corpora", "base_model", "model_type", "chat_template", "split", "validation_fraction")
RECORD_FIELDS = ("sequence_length", "on_record_error")


@dataclass(frozen=True)
class TokenCounts:
    """What was counted when corpora were tokenized: their tokens, and the records that were cut or left out."""

    num_tokens: int
    num_cut: int
    num_dropped: int


def of_corpora(session: Session, principal: Principal, spec: TrainSpec, corpora: Sequence[Corpus]) -> TrainingData:
    """The counts of these training corpora, and of their tokens if the user has tokenized them before."""
    data = _sum_counts(corpora)
    counts = token_counts(session, principal, spec, corpora)
    if counts is not None:
        data = data.model_copy(update={"num_tokens": counts.num_tokens, "num_dropped": counts.num_dropped})
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


def token_counts(
    session: Session, principal: Principal, spec: TrainSpec, corpora: Sequence[Corpus]
) -> TokenCounts | None:
    """What the user's newest job, or else newest task, that tokenized these corpora as this job will has counted."""
    fields = SAME_FIELDS if spec.objective in TEXT_OBJECTIVES else (*SAME_FIELDS, *RECORD_FIELDS)
    for job in earlier_jobs(session, principal, spec, corpora, fields):
        if has_tokenizer_of(job, spec):
            return TokenCounts(job.facts.num_tokens or 0, job.facts.num_cut or 0, job.facts.num_dropped or 0)
    wanted = spec.model_dump(mode="json", include={*fields, "tokenizer"})
    for task in _tokenize_tasks(session, principal, spec, corpora):
        counted = task.result.model_extra if task.result is not None else None
        if counted and task.options.spec is not None and wanted.items() <= task.options.spec.items():
            return TokenCounts(*(int(counted[name]) for name in ("num_tokens", "num_cut", "num_dropped")))
    return None


def has_tokenizer_of(job: Job, spec: TrainSpec) -> bool:
    """Whether a job used the tokenizer that a spec names or, if it names none, trained one of the same size."""
    if spec.tokenizer is not None:
        return job.tokenizer_id == spec.tokenizer
    return spec.base_model is not None or (job.spec.tokenizer, job.spec.vocab_size) == (None, spec.vocab_size)


def _tokenize_tasks(
    session: Session, principal: Principal, spec: TrainSpec, corpora: Sequence[Corpus]
) -> Iterator[BackgroundTask]:
    """The user's tasks that tokenized the first of these corpora since all of them were parsed, the newest first."""
    task = BackgroundTask
    condition = (task.owner_id == principal.user_id, task.corpus_id == spec.corpora[0])
    succeeded = (task.kind == "tokenize", task.state == "succeeded")
    query = select(task).where(*condition, *succeeded).order_by(task.id.desc()).limit(MAX_JOBS)
    parsed_at = _parsed_at(corpora)
    yield from (row for row in session.scalars(query) if parsed_at is None or parsed_at < row.created_at)


def _parsed_at(corpora: Sequence[Corpus]) -> datetime | None:
    """When the last of the corpora was parsed."""
    return max((corpus.parsed_at for corpus in corpora if corpus.parsed_at is not None), default=None)


def vocab_limit(session: Session, principal: Principal, spec: TrainSpec, corpora: Sequence[Corpus]) -> int | None:
    """How many tokens these corpora yield, where a job of the user got fewer than it asked for."""
    automatic = choose_vocab_size(sum(corpus.num_text_bytes or 0 for corpus in corpora))
    for job in earlier_jobs(session, principal, spec, corpora, ("corpora", "model_type", "base_model")):
        size = job.facts.vocab_size
        if job.spec.tokenizer is None and size is not None and size < (job.spec.vocab_size or automatic):
            return size
    return None


def earlier_jobs(
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
    parsed_at = _parsed_at(corpora)
    for job in rows:
        is_same = all(getattr(job.spec, name) == getattr(spec, name) for name in fields)
        if is_same and (parsed_at is None or parsed_at < job.created_at):
            yield job


def text_data(session: Session, principal: Principal, corpora: Sequence[Corpus]) -> TextData:
    """What a proposal needs to know of corpora: their size, and what earlier jobs like those proposed tell of them."""
    spec = resolve({"corpora": [corpus.id for corpus in corpora]})
    jobs = list(earlier_jobs(session, principal, spec, corpora, SAME_FIELDS))
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
