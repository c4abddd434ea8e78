"""Chooses model size, training tokens, batch size and learning rate for a text, a node and a time. Arithmetic only.

Sources. Size and tokens: Hoffmann et al. 2022 (Chinchilla), arXiv 2203.15556. Repeated text: Muennighoff et al. 2023,
arXiv 2305.16264. Learning rate and batch size: DeepSeek LLM, Bi et al. 2024, arXiv 2401.02954, section 3.1. Vocabulary:
Tao et al. 2024, arXiv 2407.13623.
"""

import math
from typing import Any

from pydantic import BaseModel

from trainer.formats.messages import Message, message
from trainer.planning.config_search import fastest_fitting_spec
from trainer.planning.counts import num_parameters
from trainer.planning.hardware import NodeHardware
from trainer.planning.step_time import estimate_step_time, total_seconds
from trainer.planning.training_data import BYTES_PER_TOKEN
from trainer.rounding import round_up_to_multiple
from trainer.spec import TrainSpec, resolve

TOKENS_PER_PARAMETER = 20
MAX_EPOCHS = 4
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
SMALLEST_VOCABULARY = 2_048
NOT_PROPOSED = {"name", "corpora", "objective", "priority", "resume_from_checkpoint", "tokenizer"}

MESSAGES = {
    "size_by_time": (
        "The largest model that sees {ratio} tokens per parameter in {available_seconds}, the compute-optimal ratio "
        "(Hoffmann et al. 2022)."
    ),
    "size_by_text": (
        "The largest model for which {epochs} epochs of the text give {ratio} tokens per parameter (Hoffmann et al. "
        "2022); more text would help, more time would not."
    ),
    "size_by_memory": "The largest model that fits this machine's memory.",
    "size_largest": "The largest size that is proposed; this machine could train a larger model.",
    "size_smallest_by_time": "The smallest model: there is too little time for {ratio} tokens per parameter.",
    "size_smallest_by_text": (
        "The smallest model: there is too little text for {ratio} tokens per parameter; more text would help, more "
        "time would not."
    ),
    "tokens_optimal": "{ratio} tokens per parameter (Hoffmann et al. 2022); epochs of the text: {epochs}.",
    "tokens_by_text": (
        "Epochs of the text: {epochs}; up to about four, repeated text helps almost as much as new text (Muennighoff "
        "et al. 2023)."
    ),
    "tokens_by_time": "As many as {available_seconds} of training allow.",
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
}


class Proposal(BaseModel):
    """A proposed job: fields of a spec, its size, tokens and seconds, and the reason for each chosen quantity."""

    fields: dict[str, Any]
    num_parameters: int
    num_tokens: int
    seconds: float
    reasons: dict[str, Message]


def choose_vocab_size(num_bytes: int) -> int:
    """Vocabulary size for a text of `num_bytes`: the square root of its bytes, from 2,048 to 65,536.

    Heaps' law: the number of distinct words grows about with the square root of a text's length, so this lets each
    token occur more often the longer the text is. 1 GB gives 31,680; up to 65,536 ids fit two bytes.
    """
    return min(65_536, max(2_048, round(math.sqrt(num_bytes) / 64) * 64))


def propose(num_bytes_of_text: int, node: NodeHardware, seconds: float) -> Proposal:
    """The largest model that fits time, text and memory, with the compute-optimal number of tokens for its size.

    Raises ValueError if the text is too short, or if not even the smallest model fits the node.
    """
    max_tokens = int(MAX_EPOCHS * num_bytes_of_text / BYTES_PER_TOKEN * (1 - VALIDATION_FRACTION))
    if max_tokens < 8 * MIN_STEPS:
        raise ValueError(f"{num_bytes_of_text} bytes of text are too few to learn from: give at least 10000")
    chosen, size_code = None, "size_largest"
    for hidden in WIDTHS:
        vocab_size = _vocab_size(hidden, num_bytes_of_text)
        spec, limit = _limited_spec(hidden, vocab_size, max_tokens, node, seconds)
        if chosen is None and spec is None:
            raise ValueError("this node has too little memory for the smallest model")
        if limit is not None:
            size_code = limit if chosen is not None else limit.replace("size_", "size_smallest_")
            chosen = chosen or spec
            break
        chosen = spec
    assert chosen is not None
    return _proposal(chosen, size_code, num_bytes_of_text, max_tokens, node, seconds)


def _vocab_size(hidden: int, num_bytes: int) -> int:
    """The vocabulary size for the text, limited so that the embeddings are not larger than all blocks together."""
    largest = 12 * _layers(hidden) * hidden // 64 * 64
    return min(choose_vocab_size(num_bytes), max(SMALLEST_VOCABULARY, largest))


def _layers(hidden: int) -> int:
    return max(2, round(0.36 * math.pow(hidden, 0.53)))


def _length(hidden: int) -> int:
    return next((length for width, length in LENGTHS if hidden < width), 4096)


def _limited_spec(
    hidden: int, vocab_size: int, max_tokens: int, node: NodeHardware, seconds: float
) -> tuple[TrainSpec | None, str | None]:
    """The spec for a hidden size, and the limit that rules out larger ones: memory, text, time or None."""
    parameters = num_parameters(_spec(hidden, vocab_size, MIN_STEPS, 1, 1e-3, 1), vocab_size)
    optimal = TOKENS_PER_PARAMETER * parameters
    tokens = min(optimal, max_tokens)
    spec = fastest_fitting_spec(_for_tokens(hidden, vocab_size, tokens, parameters, _processes(node)), vocab_size, node)
    if spec is None:
        return None, "size_by_memory"
    needed = _seconds(spec, vocab_size, node)
    if needed <= seconds:
        return spec, "size_by_text" if optimal > max_tokens else None
    affordable = max(_length(hidden), int(tokens * seconds / needed))
    fewer = _for_tokens(hidden, vocab_size, affordable, parameters, _processes(node))
    return fastest_fitting_spec(fewer, vocab_size, node), "size_by_time"


def _seconds(spec: TrainSpec, vocab_size: int, node: NodeHardware) -> float:
    return total_seconds(spec, vocab_size, node, estimate_step_time(spec, vocab_size, node)) * node.time_correction


def _processes(node: NodeHardware) -> int:
    """The node's GPUs, rounded down to a power of two so that batches divide evenly; 1 on a CPU."""
    return 1 << (node.count.bit_length() - 1) if node.kind == "cuda" else 1


def _for_tokens(hidden: int, vocab_size: int, tokens: int, parameters: int, processes: int) -> TrainSpec:
    """A spec with batch size B and learning rate by the scaling laws of DeepSeek LLM (arXiv 2401.02954, equation 1).

    For C FLOPs of training: B = 0.2920 C^0.3271 tokens, learning rate = 0.3118 C^-0.1250.
    """
    operations = 6.0 * parameters * tokens
    optimal = 0.2920 * operations**0.3271 / _length(hidden)
    largest = tokens // _length(hidden) // MIN_STEPS
    each = 1 << max(0, round(math.log2(max(1.0, min(optimal, largest, MAX_BATCH) / processes))))
    steps = max(1, round(tokens / (each * processes * _length(hidden))))
    rate = float(f"{0.3118 * operations**-0.1250:.2g}")
    return _spec(hidden, vocab_size, steps, each * processes, rate, processes)


def _spec(hidden: int, vocab_size: int, steps: int, batch: int, rate: float, processes: int) -> TrainSpec:
    heads = hidden // (32 if hidden < 256 else 64 if hidden < 2048 else 128)
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
        "max_steps": steps,
        "train_batch_size": batch,
        "per_device_batch_size": min(batch // processes, 4096),
        "learning_rate": rate,
        "warmup_steps": min(2000, int(WARMUP_FRACTION * steps)),
        "eval_steps": max(1, steps // 20),
        "save_steps": max(1, steps // 10),
        "num_processes": processes,
    }
    return resolve(fields)


def _proposal(
    spec: TrainSpec, size_code: str, num_bytes: int, max_tokens: int, node: NodeHardware, seconds: float
) -> Proposal:
    vocab_size = spec.vocab_size or choose_vocab_size(num_bytes)
    parameters = num_parameters(spec, vocab_size)
    tokens = spec.total_steps * spec.tokens_per_step
    tokens_code = "tokens_optimal"
    if tokens < 0.9 * TOKENS_PER_PARAMETER * parameters:
        tokens_code = "tokens_by_text" if tokens >= 0.9 * max_tokens else "tokens_by_time"
    epochs = float(f"{tokens / max_tokens * MAX_EPOCHS:.2g}")
    values = {"ratio": TOKENS_PER_PARAMETER, "available_seconds": seconds}
    return Proposal(
        fields=spec.model_dump(exclude=NOT_PROPOSED),
        num_parameters=parameters,
        num_tokens=tokens,
        seconds=_seconds(spec, vocab_size, node),
        reasons={
            "size": message(MESSAGES, size_code, **values, epochs=MAX_EPOCHS),
            "tokens": message(MESSAGES, tokens_code, **values, epochs=epochs),
            **{name: message(MESSAGES, name) for name in ("vocab_size", "learning_rate", "train_batch_size")},
        },
    )
