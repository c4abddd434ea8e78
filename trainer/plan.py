"""What a spec costs before anything runs: parameters, memory of each process, tokens. Arithmetic only."""

import math
from typing import Any, Literal

from pydantic import BaseModel

from trainer.spec import TrainSpec

BYTES_PER_TOKEN = 3.3  # of English and Chinese text, with vocabularies of thousands of tokens
# Values that each block keeps per token for the backward pass, as multiples of hidden_size and of intermediate_size,
# counted from the tensors that autograd saves.
ACTIVATIONS = {"llama": (10, 4), "gpt2": (8, 5)}


class Memory(BaseModel):
    """Bytes that one process needs at its peak, by part."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations + self.logits


class Plan(BaseModel):
    """The cost of a job. `reason` is an English sentence whose numbers are in `values`, for translation."""

    num_parameters: int
    num_tokens: int
    memory: Memory
    memory_bytes: int
    checkpoint_bytes: int  # of the weights
    resume_bytes: int  # of what a checkpoint holds beside them, to go on from it
    num_epochs: float | None
    fits: bool | None
    reason: str
    values: dict[str, Any]


def plan(
    spec: TrainSpec,
    vocab_size: int,
    memory_bytes: int | None,
    num_bytes_of_text: int | None,
    device: Literal["cpu", "cuda"] = "cpu",
) -> Plan:
    """Estimate a job on devices with this much memory each; without a size whether it fits stays open."""
    parameters, precision = num_parameters(spec, vocab_size), spec.precision
    if precision == "auto":
        precision = "bf16" if device == "cuda" else "fp32"
    memory = _memory(spec, vocab_size, parameters, precision)
    fits = None if memory_bytes is None else memory.total <= memory_bytes
    return Plan(
        num_parameters=parameters,
        num_tokens=spec.max_steps * spec.tokens_per_step,
        memory=memory,
        memory_bytes=memory.total,
        checkpoint_bytes=parameters * _width(precision),
        # AdamW's two fp32 moments; bf16 training keeps an fp32 master copy of the weights too.
        resume_bytes=parameters * (8 if precision == "fp32" else 12),
        num_epochs=_epochs(spec, num_bytes_of_text),
        fits=fits,
        reason=_REASONS[fits],
        values={"needed": memory.total, "available": memory_bytes},
    )


_REASONS = {
    None: "Each process needs about {needed} of memory.",
    True: "Each process needs about {needed} of memory and has {available}.",
    False: (
        "Each process needs about {needed} of memory, but has {available}. Lower per_device_batch_size or "
        "sequence_length, switch on gradient_checkpointing, or raise zero_stage or num_processes."
    ),
}


def choose_vocab_size(num_bytes: int) -> int:
    """A vocabulary for a text of this size: the square root of its bytes, from 2,048 to 65,536.

    Heaps' law: the number of different words in a text grows about as the square root of its length, so this keeps
    the number of times each token is seen growing with the text. 1 GB gives 31,680; 65,536 ids still fit two bytes.
    """
    return min(65_536, max(2_048, round(math.sqrt(num_bytes) / 64) * 64))


def num_parameters(spec: TrainSpec, vocab_size: int) -> int:
    """Exactly as many as the model has; tied embeddings count once."""
    hidden, inner = spec.hidden_size, spec.intermediate_size
    head = 0 if spec.tie_word_embeddings else vocab_size * hidden
    if spec.model_type == "gpt2":
        attention = 4 * hidden * hidden + 4 * hidden
        feed_forward = 2 * hidden * inner + inner + hidden
        block, final_norm = attention + feed_forward + 4 * hidden, 2 * hidden
        embeddings = (vocab_size + spec.sequence_length) * hidden
    else:
        key_value = hidden // spec.num_attention_heads * spec.num_key_value_heads
        attention = 2 * hidden * hidden + 2 * hidden * key_value
        block, final_norm = attention + 3 * hidden * inner + 2 * hidden, hidden
        embeddings = vocab_size * hidden
    return embeddings + spec.num_hidden_layers * block + final_norm + head


def _memory(spec: TrainSpec, vocab_size: int, parameters: int, precision: str) -> Memory:
    width, stage, processes = _width(precision), spec.zero_stage, spec.num_processes
    # AdamW keeps two fp32 moments; bf16 training adds an fp32 master copy and fp32 gradients.
    optimizer = parameters * (8 if precision == "fp32" else 16)
    tokens = spec.per_device_batch_size * spec.sequence_length
    return Memory(
        weights=parameters * width // (processes if stage == 3 else 1),
        gradients=parameters * width // (processes if stage >= 2 else 1),
        optimizer=optimizer // (processes if stage >= 1 else 1),
        activations=tokens * width * _activations_per_token(spec),
        logits=tokens * vocab_size * (width + 8),  # the logits, their fp32 copy and its gradient
    )


def _activations_per_token(spec: TrainSpec) -> int:
    of_hidden, of_inner = ACTIVATIONS[spec.model_type]
    block = of_hidden * spec.hidden_size + of_inner * spec.intermediate_size
    if spec.gradient_checkpointing:  # the input of each block, and one block in full
        return spec.num_hidden_layers * spec.hidden_size + block
    return spec.num_hidden_layers * block


def _epochs(spec: TrainSpec, num_bytes_of_text: int | None) -> float | None:
    if not num_bytes_of_text:
        return None
    train_tokens = num_bytes_of_text / BYTES_PER_TOKEN * (1 - spec.validation_fraction)
    return spec.max_steps * spec.tokens_per_step / train_tokens


def _width(precision: str) -> int:
    return 4 if precision == "fp32" else 2
