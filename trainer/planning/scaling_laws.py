"""One dial: from a text, a node and a time, the model to train with what it learns best by. Arithmetic only.

Size and tokens: Hoffmann et al. 2022, arXiv 2203.15556. Repeated text: Muennighoff et al. 2023, arXiv 2305.16264.
Learning rate and batch: the fits of DeepSeek LLM, Bi et al. 2024, arXiv 2401.02954. Vocabulary: Tao et al. 2024,
arXiv 2407.13623.
"""

import math
from typing import Any

from pydantic import BaseModel

from trainer.planning.config_search import fastest_fitting_spec
from trainer.planning.counts import num_parameters
from trainer.planning.estimates import Message, message
from trainer.planning.hardware import Node
from trainer.planning.step_time import estimate_step_time, total_seconds
from trainer.spec import TrainSpec, resolve

TOKENS_PER_PARAMETER = 20
MAX_EPOCHS = 4
BYTES_PER_TOKEN = 3.3  # of English and Chinese text, with vocabularies of thousands of tokens
VALIDATION_FRACTION = 0.01
FEWEST_STEPS = 100
MAX_BATCH = 32_768
WARMUP_SHARE = 0.05
# Of the models that are considered, smallest first; depth and sequence length grow with width as in published families.
WIDTHS = [
    *(32, 48, 64, 96, 128, 160, 192, 256, 320, 384, 448, 512, 576, 640, 704, 768, 896, 1024, 1152, 1280, 1408, 1536),
    *(1792, 2048, 2304, 2560, 3072, 3584, 4096, 5120, 6144, 7168, 8192),
]
LENGTHS = [(192, 128), (512, 256), (768, 512), (1536, 1024), (4096, 2048)]
SMALLEST_VOCABULARY = 2_048
NOT_PROPOSED = {"name", "corpora", "objective", "priority", "resume_from_checkpoint", "tokenizer"}

MESSAGES = {
    "size_by_time": (
        "The largest model that sees {ratio} tokens for each parameter in {given_seconds}, the ratio at which "
        "computing buys most (Hoffmann et al. 2022)."
    ),
    "size_by_text": (
        "The largest model for which {epochs} times over the text are {ratio} tokens for each parameter (Hoffmann et "
        "al. 2022); more time would not help, more text would."
    ),
    "size_by_memory": "The largest model that this machine's memory can train; a larger one would need more of it.",
    "size_largest": "The largest model that is proposed; the machine could train a larger one.",
    "size_smallest": "The smallest model: there is too little time or text for {ratio} tokens for each parameter.",
    "tokens_optimal": "{ratio} for each parameter (Hoffmann et al. 2022): {epochs} times over the text.",
    "tokens_by_text": (
        "{epochs} times over the text: up to that, repeating it teaches almost as much as new text (Muennighoff et al. "
        "2023)."
    ),
    "tokens_by_time": "As many as can be trained on in {given_seconds}.",
    "learning_rate": (
        "Fitted to trainings of many sizes: it falls with their operations to the power of 1/8 (DeepSeek LLM 2024)."
    ),
    "vocab_size": (
        "About the square root of the text's bytes, but no more than makes embeddings as large as all blocks (Tao et "
        "al. 2024)."
    ),
    "train_batch_size": (
        "Fitted to trainings of many sizes: it grows with their operations to the power of 1/3 (DeepSeek LLM 2024)."
    ),
}


class Proposal(BaseModel):
    """Fields of a spec, and where size, tokens, learning rate and batch come from."""

    fields: dict[str, Any]
    num_parameters: int
    num_tokens: int
    seconds: float
    reasons: dict[str, Message]


def choose_vocab_size(num_bytes: int) -> int:
    """A vocabulary for a text of this size: the square root of its bytes, from 2,048 to 65,536.

    Heaps' law: the number of different words in a text grows about as the square root of its length, so this keeps
    the number of times each token is seen growing with the text. 1 GB gives 31,680; 65,536 ids still fit two bytes.
    """
    return min(65_536, max(2_048, round(math.sqrt(num_bytes) / 64) * 64))


def propose(num_bytes_of_text: int, node: Node, seconds: float) -> Proposal:
    """The largest model that fits time, text and memory, trained on as many tokens as are best for its size.

    Raises ValueError where not even the smallest fits.
    """
    most_tokens = int(MAX_EPOCHS * num_bytes_of_text / BYTES_PER_TOKEN * (1 - VALIDATION_FRACTION))
    if most_tokens < 8 * FEWEST_STEPS:
        raise ValueError(f"{num_bytes_of_text} bytes of text are too few to learn from: give at least 10000")
    chosen, why = None, "size_largest"
    for hidden in WIDTHS:
        vocab_size = _vocab_size(hidden, num_bytes_of_text)
        spec, limit = _sized(hidden, vocab_size, most_tokens, node, seconds)
        if chosen is None and spec is None:
            raise ValueError("this node has too little memory for the smallest model")
        if limit is not None:
            why = limit if chosen is not None else "size_smallest"
            chosen = chosen or spec
            break
        chosen = spec
    assert chosen is not None
    return _proposal(chosen, why, num_bytes_of_text, most_tokens, node, seconds)


def _vocab_size(hidden: int, num_bytes: int) -> int:
    """What suits the text, but no more than makes embeddings as large as all blocks."""
    largest = 12 * _layers(hidden) * hidden // 64 * 64
    return min(choose_vocab_size(num_bytes), max(SMALLEST_VOCABULARY, largest))


def _layers(hidden: int) -> int:
    return max(2, round(0.36 * math.pow(hidden, 0.53)))


def _length(hidden: int) -> int:
    return next((length for width, length in LENGTHS if hidden < width), 4096)


def _sized(
    hidden: int, vocab_size: int, most_tokens: int, node: Node, seconds: float
) -> tuple[TrainSpec | None, str | None]:
    """The spec of a width with as many tokens as it should see, and what speaks against it."""
    parameters = num_parameters(_spec(hidden, vocab_size, FEWEST_STEPS, 1, 1e-3, 1), vocab_size)
    wanted = TOKENS_PER_PARAMETER * parameters
    tokens = min(wanted, most_tokens)
    spec = fastest_fitting_spec(_for_tokens(hidden, vocab_size, tokens, parameters, _processes(node)), vocab_size, node)
    if spec is None:
        return None, "size_by_memory"
    needed = _seconds(spec, vocab_size, node)
    if needed <= seconds:
        return spec, "size_by_text" if wanted > most_tokens else None
    affordable = max(_length(hidden), int(tokens * seconds / needed))
    fewer = _for_tokens(hidden, vocab_size, affordable, parameters, _processes(node))
    return fastest_fitting_spec(fewer, vocab_size, node), "size_by_time"


def _seconds(spec: TrainSpec, vocab_size: int, node: Node) -> float:
    return total_seconds(spec, vocab_size, node, estimate_step_time(spec, vocab_size, node)) * node.time_correction


def _processes(node: Node) -> int:
    """As many as the node has GPUs, down to a power of two, so that batches divide evenly."""
    return 1 << (node.count.bit_length() - 1) if node.kind == "cuda" else 1


def _for_tokens(hidden: int, vocab_size: int, tokens: int, parameters: int, processes: int) -> TrainSpec:
    """Batch and learning rate from the operations of the whole training."""
    operations = 6.0 * parameters * tokens
    best = 0.2920 * operations**0.3271 / _length(hidden)
    most = tokens // _length(hidden) // FEWEST_STEPS
    each = 1 << max(0, round(math.log2(max(1.0, min(best, most, MAX_BATCH) / processes))))
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
        "intermediate_size": -(-hidden * 8 // 3 // 32) * 32,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "tie_word_embeddings": hidden < 2048,
        "max_steps": steps,
        "train_batch_size": batch,
        "per_device_batch_size": min(batch // processes, 4096),
        "learning_rate": rate,
        "warmup_steps": min(2000, int(WARMUP_SHARE * steps)),
        "eval_steps": max(1, steps // 20),
        "save_steps": max(1, steps // 10),
        "num_processes": processes,
    }
    return resolve(fields)


def _proposal(spec: TrainSpec, why: str, num_bytes: int, most_tokens: int, node: Node, seconds: float) -> Proposal:
    vocab_size = spec.vocab_size or choose_vocab_size(num_bytes)
    parameters = num_parameters(spec, vocab_size)
    tokens = spec.max_steps * spec.tokens_per_step
    of_tokens = "tokens_optimal"
    if tokens < 0.9 * TOKENS_PER_PARAMETER * parameters:
        of_tokens = "tokens_by_text" if tokens >= 0.9 * most_tokens else "tokens_by_time"
    epochs = float(f"{tokens / most_tokens * MAX_EPOCHS:.2g}")
    given = {"ratio": TOKENS_PER_PARAMETER, "given_seconds": seconds}
    chosen = {"size": (why, MAX_EPOCHS), "tokens": (of_tokens, epochs)}
    return Proposal(
        fields=spec.model_dump(exclude=NOT_PROPOSED),
        num_parameters=parameters,
        num_tokens=tokens,
        seconds=_seconds(spec, vocab_size, node),
        reasons={
            **{name: message(MESSAGES, code, **given, epochs=times) for name, (code, times) in chosen.items()},
            **{name: message(MESSAGES, name) for name in ("vocab_size", "learning_rate", "train_batch_size")},
        },
    )
