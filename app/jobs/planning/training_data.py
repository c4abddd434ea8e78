"""What is known of the corpora of a job before they are tokenized: their counts, and those of an earlier job."""

from collections import Counter
from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.core.json_shapes import ParseReport
from app.core.models import Corpus, Job
from app.core.principal import Principal
from trainer.families import TEXT_OBJECTIVES
from trainer.formats.corpus_kinds import TRAIN_NAMES, VALIDATION_NAMES
from trainer.planning.training_data import TrainingData
from trainer.spec import TrainSpec

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
    on_them = (Job.owner_id == principal.user_id, Job.spec["corpora"].contains(list(spec.corpora)))
    counted = func.jsonb_exists(Job.facts, "num_tokens")
    rows = session.scalars(select(Job).where(*on_them, counted).order_by(Job.id.desc()).limit(MAX_JOBS))
    fields = SAME_FIELDS if spec.objective in TEXT_OBJECTIVES else (*SAME_FIELDS, "sequence_length")
    parsed_at = max((corpus.parsed_at for corpus in corpora if corpus.parsed_at is not None), default=None)
    for job in rows:
        is_same = all(getattr(job.spec, name) == getattr(spec, name) for name in fields)
        if spec.tokenizer is not None:
            is_same = is_same and job.tokenizer_id == spec.tokenizer
        elif spec.base_model is None:
            is_same = is_same and (job.spec.tokenizer, job.spec.vocab_size) == (None, spec.vocab_size)
        if is_same and (parsed_at is None or parsed_at < job.created_at):
            return job
    return None
