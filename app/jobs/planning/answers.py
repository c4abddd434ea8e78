"""What the API takes and says about plans: figures and sentences in the reader's language."""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, Field

from app.core.formatting import compact, file_size, number, span
from app.core.i18n import _, translate
from app.core.settings import settings
from app.jobs.planning.data_checks import DataChecks
from trainer.formats.messages import Message
from trainer.planning.estimates import Estimate
from trainer.planning.plan import Plan
from trainer.planning.proposals import BUDGETS, Limit, Proposal
from trainer.spec import TrainSpec

Budget = Annotated[float, Field(ge=60, le=10_000_000, allow_inf_nan=False)]  # seconds
PREFIXES = ((1e24, "Y"), (1e21, "Z"), (1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"))


def localize(message: Message) -> str:
    """A message in the reader's language, its values formatted by the suffix of their names."""
    return _(message.template, **{name: _formatted(name, value) for name, value in message.values.items()})


def interval(figure: Estimate) -> str:
    """A figure and the interval that it is expected in."""
    low, value, high = (format_estimate(end, figure.unit) for end in (figure.low, figure.value, figure.high))
    if low == high:
        return value
    return _("{value} ({low} to {high})", value=value, low=low, high=high)


def _formatted(name: str, value: Any) -> Any:
    unit = name.rpartition("_")[2]
    if unit in ("bytes", "seconds", "flops") and isinstance(value, int | float):
        return format_estimate(value, unit)
    if isinstance(value, str) or value is None:
        return translate(value or "–")
    return number(value)


def format_estimate(value: float, unit: str) -> str:
    """A figure's number as people read it."""
    if unit == "bytes":
        return file_size(value)
    if unit == "seconds":
        return span(value) if value >= 10 else _("{n} s", n=f"{value:.2g}")
    if unit == "flops":
        size, prefix = next(((size, prefix) for size, prefix in PREFIXES if value >= size), (1.0, ""))
        return f"{value / size:.3g} {prefix}FLOP"
    if unit in ("epochs", "steps"):
        return number(round(value) if unit == "steps" else float(f"{value:.3g}"))
    if unit == "kWh":
        return f"{value:.3g} kWh"
    return f"{compact(value)} {settings().currency}".strip()


# ---- answers --------------------------------------------------------------------------------------------------------


class FigureAnswer(BaseModel):
    """A number that was estimated, the interval that it is expected in, and why. `text` writes it for people."""

    low: float
    value: float
    high: float
    unit: str
    text: str
    reason: str


def figure_answer(figure: Estimate) -> FigureAnswer:
    """A figure in the reader's language."""
    plain = figure.model_dump(exclude={"reason"})
    return FigureAnswer(**plain, text=interval(figure), reason=localize(figure.reason))


class CorpusShareAnswer(BaseModel):
    """What a job sees of one of its corpora."""

    corpus: str = Field(description="Its ID.")
    share: float = Field(description="Of all tokens that the job sees, from 0 to 1.")
    num_epochs: float = Field(description="How often the job goes over the corpus.")


class PlanAnswer(BaseModel):
    """A resolved spec and what it costs."""

    spec: TrainSpec
    num_parameters: int
    num_tokens: int
    tokens_per_step: int
    max_steps: int = Field(description="Of the whole job; with num_train_epochs an estimate, see figures.")
    num_epochs: float | None
    vocab_size: int
    memory: dict[str, int] = Field(description="Bytes each process needs at its peak, by part.")
    memory_bytes: int
    checkpoint_bytes: int = Field(description="Of the weights in a checkpoint.")
    resume_bytes: int = Field(description="Of the state in a checkpoint that resuming needs besides the weights.")
    host_bytes: int | None = Field(description="Of the machine's own memory, where the job runs on GPUs.")
    flops_per_token: dict[str, int] = Field(
        description="Operations: matmuls and attention are the model's, recomputed are gradient checkpointing's; "
        "published is 6 N + 12 L d T, as most published utilizations count."
    )
    chosen: dict[str, Any] = Field(description="Fields that were given as auto, with the fastest that fits.")
    fits: bool | None
    reason: str
    changes: dict[str, Any] | None = Field(description="Where it does not fit: the cheapest change that makes it fit.")
    figures: dict[str, FigureAnswer]
    notes: list[str] = Field(description="Where the rates come from, and what would be better.")
    corpora: list[CorpusShareAnswer] = Field(description="Estimates for each corpus; empty if its size is unknown.")
    data: DataChecks | None = Field(None, description="What is known of its records, from statistics; null for a job.")


def plan_answer(
    spec: TrainSpec, vocab_size: int, plan: Plan, free: Sequence[str] = (), data: DataChecks | None = None
) -> PlanAnswer:
    """A plan in the reader's language."""
    same = ("num_parameters", "num_tokens", "memory_bytes", "checkpoint_bytes", "resume_bytes", "host_bytes")
    return PlanAnswer(
        spec=spec,
        tokens_per_step=spec.tokens_per_step,
        vocab_size=vocab_size,
        memory=plan.memory.model_dump(),
        flops_per_token=plan.flops_per_token.model_dump(),
        max_steps=plan.max_steps,
        num_epochs=plan.num_epochs,
        chosen={name: getattr(spec, name) for name in free},
        fits=plan.fits,
        reason=localize(plan.verdict),
        changes=plan.remedy.changes if plan.remedy is not None else None,
        figures={name: figure_answer(figure) for name, figure in plan.figures.items()},
        notes=[localize(note) for note in plan.notes],
        corpora=[
            CorpusShareAnswer(corpus=corpus, **share.model_dump())
            for corpus, share in zip(spec.corpora, plan.corpora, strict=False)
        ],
        data=data,
        **{name: getattr(plan, name) for name in same},
    )


class ProposeRequest(BaseModel):
    """What to train on, and how long."""

    corpora: list[str] = Field(min_length=1, max_length=64)
    seconds: Budget


class ProposedFigures(BaseModel):
    """What is expected of a proposal."""

    num_parameters: int
    num_tokens: int
    seconds: float = Field(
        description="What it is expected to take, with what comes before the first step; less than the time that was "
        "asked for where another limit ends it."
    )
    expected_loss: float = Field(description="Validation loss after it, in nats per token of its vocabulary.")
    bits_per_byte: float = Field(description="The same in bits per byte, which do not depend on the vocabulary.")
    limit: Limit = Field(description="What keeps the loss from being lower; size: no larger model is proposed.")


def proposed_figures(proposal: Proposal) -> dict[str, Any]:
    """The values of ProposedFigures."""
    return {name: getattr(proposal, name) for name in ProposedFigures.model_fields}


class ProposeAnswer(ProposedFigures):
    """A partial spec to plan or to submit."""

    spec: dict[str, Any] = Field(description="Fields of a spec.")
    vocab_size: int = Field(description="That of spec, or what the size of the text will decide where it has none.")
    reasons: dict[str, str] = Field(
        description="Where size, tokens, loss, vocab_size, learning_rate and train_batch_size come from, and what more "
        "of its limit would bring."
    )


def propose_answer(corpora: list[str], proposal: Proposal) -> ProposeAnswer:
    """A proposal in the reader's language."""
    return ProposeAnswer(
        spec={**proposal.fields, "corpora": corpora},
        vocab_size=proposal.vocab_size,
        reasons={name: localize(reason) for name, reason in proposal.reasons.items()},
        **proposed_figures(proposal),
    )


class ProposalCurveRequest(BaseModel):
    """What to train on, and the times to compare."""

    corpora: list[str] = Field(min_length=1, max_length=64)
    seconds: list[Budget] = Field(
        list(BUDGETS), min_length=1, max_length=32, description="Training times; by default from a minute to a week."
    )


class ProposalPoint(ProposedFigures):
    """What is proposed for a training time."""

    budget_seconds: float


class ProposalCurveAnswer(BaseModel):
    """The expected loss by training time."""

    points: list[ProposalPoint]
    reason: str = Field(description="Where the expected loss comes from.")


def proposal_curve_answer(budgets: Sequence[float], proposals: Sequence[Proposal]) -> ProposalCurveAnswer:
    """Proposals for several times in the reader's language."""
    points = [
        ProposalPoint(budget_seconds=seconds, **proposed_figures(proposal))
        for seconds, proposal in zip(budgets, proposals, strict=True)
    ]
    return ProposalCurveAnswer(points=points, reason=localize(proposals[0].reasons["loss"]))
