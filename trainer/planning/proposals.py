"""Proposes the job with the lowest expected loss for a text, a machine and a time. Arithmetic only.

Every hidden size of WIDTHS is a candidate, with as many tokens as time and text allow. The expected loss falls with the
size up to the best one and rises after it, so a search for several times goes through the sizes only once.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel

from trainer.formats.messages import Message, message
from trainer.planning.config_search import fastest_fitting_spec
from trainer.planning.counts import num_parameters
from trainer.planning.hardware import NodeHardware
from trainer.planning.scaling_laws import (
    MAX_EPOCHS,
    TOKENS_PER_PARAMETER,
    choose_vocab_size,
    effective_tokens,
    expected_bits_per_byte,
    optimal_batch_tokens,
    optimal_learning_rate,
)
from trainer.planning.startup_time import estimate_startup
from trainer.planning.step_time import estimate_step_time, training_seconds
from trainer.planning.training_data import TrainingData, bytes_per_token
from trainer.rounding import ceil_div, round_up_to_multiple
from trainer.spec import MAX_STEPS, TrainSpec, resolve

VALIDATION_FRACTION = 0.01
MIN_STEPS = 100
MAX_BATCH = 32_768
WARMUP_FRACTION = 0.05
# Hidden sizes to consider, ascending; depth and sequence length grow with them as in published model families.
WIDTHS = [
    *(32, 48, 64, 96, 128, 160, 192, 256, 320, 384, 448, 512, 576, 640, 704, 768, 896, 1024, 1152, 1280, 1408, 1536),
    *(1792, 2048, 2304, 2560, 3072, 3584, 4096, 5120, 6144, 7168, 8192),
]
LENGTHS = [(192, 128), (512, 256), (768, 512), (1536, 1024), (4096, 2048)]
BUDGETS = (  # seconds: the times of the curve, from a minute to a week
    *(60, 120, 300, 600, 1_200, 1_800, 3_600, 7_200, 14_400, 28_800, 86_400, 172_800, 259_200, 604_800),
)
LOOKAHEAD = 3  # sizes with a higher loss, after which no larger one is tried: vocabulary and length grow in leaps
SMALLEST_VOCABULARY = 2_048
NOT_PROPOSED = {
    *("name", "corpora", "evaluation_corpora", "objective", "priority", "resume_from_checkpoint", "tokenizer")
}
USED_SHARE = 0.9  # of the time, from which on time is the limit
Limit = Literal["time", "text", "memory", "size"]

MESSAGES = {
    "size_by_time": (
        "The size with the lowest expected loss after {available_seconds}: a larger model would see too few tokens in "
        "this time (Hoffmann et al. 2022)."
    ),
    "size_by_text": (
        "The largest model for which {epochs} epochs of the text are worth {ratio} tokens per parameter (Hoffmann et "
        "al. 2022, Muennighoff et al. 2023); more text would help, more time would not."
    ),
    "size_by_memory": "The largest model that fits this machine's memory.",
    "size_by_size": "The largest size that is proposed; this machine could train a larger model.",
    "size_smallest_by_time": "The smallest model: there is too little time for {ratio} tokens per parameter.",
    "size_smallest_by_text": (
        "The smallest model: there is too little text for {ratio} tokens per parameter; more text would help, more "
        "time would not."
    ),
    "tokens_by_text": ("Epochs of the text: {epochs}; repeated text helps less each time (Muennighoff et al. 2023)."),
    "tokens_by_time": "As many as {available_seconds} allow; epochs of the text: {epochs}.",
    "learning_rate": (
        "From a scaling law fitted to many training runs: it falls with the total operations to the power of 1/8 "
        "(DeepSeek LLM 2024)."
    ),
    "vocab_size": (
        "About the square root of the text's bytes, limited so that the embeddings are not larger than all blocks "
        "together (Tao et al. 2024)."
    ),
    "train_batch_size": (
        "From a scaling law fitted to many training runs: it grows with the total operations to the power of 1/3 "
        "(DeepSeek LLM 2024)."
    ),
    "limit_time": "With ten times the time, the expected loss would be about {gain} % lower.",
    "limit_text": (
        "The text is used up after {used_seconds}. With ten times the text, {possible_seconds} would be used and the "
        "expected loss would be about {gain} % lower."
    ),
    "limit_memory": "With four times the memory, the expected loss would be about {gain} % lower.",
    "loss": (
        "Expected of English web text, from published scaling laws (Kaplan et al. 2020, Hoffmann et al. 2022); other "
        "texts are easier or harder, but their curves have about the same form."
    ),
    "loss_learned": (
        "From published scaling laws (Kaplan et al. 2020, Hoffmann et al. 2022), corrected by the earlier jobs on "
        "these corpora ({num_jobs})."
    ),
}


class TextData(BaseModel):
    """What is known of the text to train on.

    `prepared_vocab_sizes` are those of tokenizers that earlier jobs trained on it, `loss_ratio` their loss as a factor
    of the expected one.
    """

    num_bytes: int
    prepared_vocab_sizes: frozenset[int] = frozenset()
    loss_ratio: float = 1.0
    num_earlier_jobs: int = 0


class Proposal(BaseModel):
    """A proposed job: fields of a spec, its size, tokens, seconds and expected validation loss, and the reasons.

    `limit` is what keeps the loss from being lower.
    """

    fields: dict[str, Any]
    vocab_size: int
    num_parameters: int
    num_tokens: int
    seconds: float
    expected_loss: float  # nats per token of its own vocabulary
    bits_per_byte: float
    limit: Limit
    reasons: dict[str, Message]


class _Candidate(BaseModel):
    """A spec of the hidden size at `place` in WIDTHS."""

    place: int
    spec: TrainSpec
    vocab_size: int
    num_parameters: int
    seconds: float
    bits_per_byte: float
    limit: Limit = "time"

    @property
    def num_tokens(self) -> int:
        return self.spec.total_steps * self.spec.tokens_per_step


def propose(text: TextData, node: NodeHardware, seconds: float) -> Proposal:
    """The job that is expected to reach the lowest loss in this time, and what more of its limit would bring.

    Raises ValueError if the text is too short, or if not even the smallest model fits the node.
    """
    best = _Search(text, node).best(seconds)
    proposal = _proposal(best, text, seconds)
    if best.limit != "size":
        proposal.reasons["limit"] = _limit_reason(best, text, node, seconds)
    return proposal


def propose_each(text: TextData, node: NodeHardware, budgets: Sequence[float]) -> list[Proposal]:
    """What `propose` proposes for each of several times, without what more would bring."""
    search = _Search(text, node)
    proposals, place = {}, 0
    for seconds in sorted(set(budgets)):
        best = search.best(seconds, place)
        place = best.place
        proposals[seconds] = _proposal(best, text, seconds)
    return [proposals[seconds] for seconds in budgets]


class _Search:
    """The candidates for a text and a machine. What does not depend on the time is worked out once."""

    def __init__(self, text: TextData, node: NodeHardware) -> None:
        self._text, self._node = text, node
        self._fitted: dict[int, TrainSpec | None] = {}
        if self._text_tokens(SMALLEST_VOCABULARY) * MAX_EPOCHS < 8 * MIN_STEPS:
            raise ValueError(f"{text.num_bytes} bytes of text are too few to learn from: give at least 10000")

    def best(self, seconds: float, first: int = 0) -> _Candidate:
        """The candidate with the lowest expected loss, from a size on that is not larger than the best one."""
        best: _Candidate | None = None
        end: Limit = "size"
        last = first
        for place in range(first, len(WIDTHS)):
            if best is not None and place > best.place + LOOKAHEAD:
                end = "time"
                break
            candidate = self._candidate(place, seconds)
            if candidate is None:
                end = "memory"
                break
            if best is not None and candidate.seconds > seconds:
                end = "time"
                break
            if best is not None and self._lacks_text(candidate):
                end = "text"
                break
            last = place
            if best is None or candidate.bits_per_byte < best.bits_per_byte:
                best = candidate
        if best is None:
            raise ValueError("this node has too little memory for the smallest model")
        return best.model_copy(update={"limit": self._limit(best, seconds, end if best.place == last else "time")})

    def _limit(self, best: _Candidate, seconds: float, end: Limit) -> Limit:
        """What keeps the loss from being lower: the `end` of the sizes, if the best is the last, or what is used up."""
        optimal = TOKENS_PER_PARAMETER * best.num_parameters
        if end in ("memory", "size") and best.num_tokens > 2 * optimal:
            return end
        is_time_used = best.seconds >= USED_SHARE * seconds
        return "time" if is_time_used else "text" if end == "time" else end

    def _lacks_text(self, candidate: _Candidate) -> bool:
        """Whether all epochs of the text are worth less than the optimal number of tokens for a model's size."""
        tokens = self._text_tokens(candidate.vocab_size)
        return effective_tokens(MAX_EPOCHS * tokens, tokens) < TOKENS_PER_PARAMETER * candidate.num_parameters

    def _text_tokens(self, vocab_size: int) -> float:
        return self._text.num_bytes / bytes_per_token(vocab_size) * (1 - VALIDATION_FRACTION)

    def _candidate(self, place: int, seconds: float) -> _Candidate | None:
        """The spec of a hidden size with as many tokens as time and text allow; None if its model does not fit."""
        vocab_size = _vocab_size(WIDTHS[place], self._text.num_bytes)
        fitted = self._fit(place, vocab_size)
        if fitted is None:
            return None
        parameters, text_tokens = num_parameters(fitted, vocab_size), self._text_tokens(vocab_size)
        tokens = MAX_EPOCHS * text_tokens
        for _round in range(3):  # the number of tokens decides the batch, and the batch the speed
            spec = _with_tokens(fitted, parameters, tokens)
            step = estimate_step_time(spec, vocab_size, self._node).seconds
            rest = self._seconds(spec, vocab_size) - spec.total_steps * step
            affordable = (seconds / self._node.time_correction - rest) / step
            steps = int(max(MIN_STEPS, min(affordable, MAX_EPOCHS * text_tokens / spec.tokens_per_step, MAX_STEPS)))
            tokens = steps * spec.tokens_per_step
        spec = _with_steps(spec, steps)
        return _Candidate(
            place=place,
            spec=spec,
            vocab_size=vocab_size,
            num_parameters=parameters,
            seconds=self._seconds(spec, vocab_size) * self._node.time_correction,
            bits_per_byte=self._text.loss_ratio
            * expected_bits_per_byte(parameters, effective_tokens(tokens, text_tokens)),
        )

    def _fit(self, place: int, vocab_size: int) -> TrainSpec | None:
        """The model of a hidden size with the fastest settings that fit, with the largest batch; None if none fit."""
        if place not in self._fitted:
            widest = _spec(WIDTHS[place], vocab_size, _processes(self._node))
            self._fitted[place] = fastest_fitting_spec(widest, vocab_size, self._node)
        return self._fitted[place]

    def _seconds(self, spec: TrainSpec, vocab_size: int) -> float:
        """Seconds of a whole job, before the node's correction."""
        num_tokens = int(self._text_tokens(vocab_size)) if vocab_size in self._text.prepared_vocab_sizes else None
        data = TrainingData(num_bytes=self._text.num_bytes, num_tokens=num_tokens)
        step = estimate_step_time(spec, vocab_size, self._node)
        startup = estimate_startup(spec, self._node, data)
        return startup.seconds + training_seconds(spec, vocab_size, self._node, step)


# ---- specs ----------------------------------------------------------------------------------------------------------


def _vocab_size(hidden: int, num_bytes: int) -> int:
    """The vocabulary size for the text, limited so that the embeddings are not larger than all blocks together."""
    largest = 12 * _layers(hidden) * hidden // 64 * 64
    return min(choose_vocab_size(num_bytes), max(SMALLEST_VOCABULARY, largest))


def _layers(hidden: int) -> int:
    return max(2, round(0.36 * math.pow(hidden, 0.53)))


def _length(hidden: int) -> int:
    return next((length for width, length in LENGTHS if hidden < width), 4096)


def _processes(node: NodeHardware) -> int:
    """The node's GPUs, rounded down to a power of two so that batches divide evenly; 1 on a CPU."""
    return 1 << (node.count.bit_length() - 1) if node.kind == "cuda" else 1


def _spec(hidden: int, vocab_size: int, processes: int) -> TrainSpec:
    """The model of a hidden size, with the largest batch."""
    heads = hidden // (32 if hidden < 256 else 64 if hidden < 2048 else 128)
    batch = max(MAX_BATCH, processes)
    fields = {
        "recipe": "tiny",
        "corpora": ["corpus"],
        "vocab_size": vocab_size,
        "sequence_length": _length(hidden),
        "validation_fraction": VALIDATION_FRACTION,
        "num_hidden_layers": _layers(hidden),
        "hidden_size": hidden,
        "intermediate_size": round_up_to_multiple(hidden * 8 // 3, 32),
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "tie_word_embeddings": hidden < 2048,
        "max_steps": MIN_STEPS,
        "train_batch_size": batch,
        "per_device_batch_size": min(batch // processes, 4096),
        "num_processes": processes,
    }
    return resolve(fields)


def _with_tokens(spec: TrainSpec, parameters: int, tokens: float) -> TrainSpec:
    """A spec for so many tokens, with batch size and learning rate by the scaling laws."""
    flops = 6.0 * parameters * tokens
    optimal = optimal_batch_tokens(flops) / spec.sequence_length
    largest = tokens // spec.sequence_length // MIN_STEPS
    processes = spec.num_processes
    each = 1 << max(0, round(math.log2(max(1.0, min(optimal, largest, MAX_BATCH) / processes))))
    sized = spec.model_copy(
        update={
            "train_batch_size": each * processes,
            "per_device_batch_size": min(each, spec.per_device_batch_size),
            "learning_rate": optimal_learning_rate(flops),
        }
    )
    return _with_steps(sized, max(1, round(tokens / sized.tokens_per_step)))


def _with_steps(spec: TrainSpec, steps: int) -> TrainSpec:
    update = {
        "max_steps": steps,
        "warmup_steps": min(2000, int(WARMUP_FRACTION * steps)),
        "eval_steps": ceil_div(steps, 20),
        "save_steps": ceil_div(steps, 10),
    }
    return spec.model_copy(update=update)


# ---- answers --------------------------------------------------------------------------------------------------------


def _proposal(best: _Candidate, text: TextData, seconds: float) -> Proposal:
    values = {"ratio": TOKENS_PER_PARAMETER, "available_seconds": seconds, "epochs": MAX_EPOCHS}
    tokens = best.num_tokens
    bytes_each = bytes_per_token(best.vocab_size)
    epochs = tokens * bytes_each / text.num_bytes
    code = f"size_by_{best.limit}"
    if best.place == 0 and best.limit in ("time", "text") and tokens < 0.9 * TOKENS_PER_PARAMETER * best.num_parameters:
        code = f"size_smallest_by_{best.limit}"
    is_chosen = best.vocab_size == choose_vocab_size(text.num_bytes)  # as the trainer does; a short text has fewer
    tokens_code = "tokens_by_text" if epochs > 0.95 * MAX_EPOCHS else "tokens_by_time"
    return Proposal(
        fields={**best.spec.model_dump(exclude=NOT_PROPOSED), "vocab_size": None if is_chosen else best.vocab_size},
        vocab_size=best.vocab_size,
        num_parameters=best.num_parameters,
        num_tokens=tokens,
        seconds=best.seconds,
        expected_loss=best.bits_per_byte * math.log(2) * bytes_each,
        bits_per_byte=best.bits_per_byte,
        limit=best.limit,
        reasons={
            "size": message(MESSAGES, code, **values),
            "tokens": message(MESSAGES, tokens_code, available_seconds=seconds, epochs=float(f"{epochs:.2g}")),
            "loss": message(MESSAGES, "loss_learned", num_jobs=text.num_earlier_jobs)
            if text.num_earlier_jobs
            else message(MESSAGES, "loss"),
            **{name: message(MESSAGES, name) for name in ("vocab_size", "learning_rate", "train_batch_size")},
        },
    )


def _limit_reason(best: _Candidate, text: TextData, node: NodeHardware, seconds: float) -> Message:
    """What more of the time, the text or the memory would bring."""
    if best.limit == "text":
        text = text.model_copy(update={"num_bytes": 10 * text.num_bytes, "prepared_vocab_sizes": frozenset()})
    elif best.limit == "memory":
        host = node.host_memory_bytes and 4 * node.host_memory_bytes
        node = node.model_copy(update={"memory_bytes": 4 * node.memory_bytes, "host_memory_bytes": host})
    more = _Search(text, node).best(10 * seconds if best.limit == "time" else seconds, best.place)
    gain = round(100 * (1 - more.bits_per_byte / best.bits_per_byte))
    used = {"used_seconds": best.seconds, "possible_seconds": more.seconds}
    return message(MESSAGES, f"limit_{best.limit}", gain=gain, **used)
