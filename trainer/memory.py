"""Bytes that each process of a job holds at its peak, by part, and those on the disk. Arithmetic only.

Counted as DeepSpeed 0.19 and autograd keep them; tests compare with both.
"""

from dataclasses import dataclass
from functools import lru_cache

from pydantic import BaseModel

from trainer.counts import counts, num_adapter_parameters
from trainer.spec import TrainSpec

# Values that each block keeps per token for the backward pass, as multiples of hidden_size and of intermediate_size,
# counted from the tensors that autograd saves.
ACTIVATIONS = {"llama": (10, 4), "gpt2": (8, 2)}
NORM_COPIES = {"llama": 2, "gpt2": 0}  # norms of a block that compute in fp32 whatever the model's precision
# Logits that a decoder's loss holds at a time, and how many rows of them at least (trainer/quick.py).
LOGITS = {"cpu": 2**21, "cuda": 2**26}
FEWEST_ROWS = 128
BUCKET = 500_000_000  # values DeepSpeed sends at a time; it allocates them whatever the size of the model
MAX_LIVE = 1_000_000_000  # values of gathered weights that ZeRO-3 holds at most
# Of a process before it holds a model: the interpreter, libraries, on a GPU the context, kernels and handles.
PROCESS_BYTES = {"cpu": 420 << 20, "cuda": 900 << 20}
NCCL_BYTES = 700 << 20
HOST_BYTES_OF_A_GPU_PROCESS = 3 << 30
SLACK = {"cpu": 0.2, "cuda": 0.05}  # of activations and logits, lost between the allocator's blocks


@dataclass(frozen=True)
class Means:
    """Ways to save memory that a spec has no field for."""

    offload_optimizer: bool = False
    offload_parameters: bool = False
    lora_rank: int | None = None


PLAIN = Means()


class Memory(BaseModel):
    """Bytes that one process needs at its peak, by part.

    `update` is what building the model or the optimizer's step needs beyond the activations, which are not there at
    that time; `overhead` are libraries, buffers for communication and what is lost between blocks.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    update: int
    overhead: int

    @property
    def states(self) -> int:
        """What stays from step to step."""
        return self.weights + self.gradients + self.optimizer

    @property
    def total(self) -> int:
        return self.states + self.activations + self.logits + self.update + self.overhead


PARTS = tuple(Memory.model_fields)


def memory(spec: TrainSpec, vocab_size: int, precision: str, kind: str = "cuda", means: Means = PLAIN) -> Memory:
    """The peak of one process. ZeRO shards the optimizer from stage 1 on, gradients from 2, weights at 3."""
    parameters, width = counts(spec, vocab_size).total, width_of(precision)
    stage, processes = spec.zero_stage, spec.num_processes
    trained = parameters if means.lora_rank is None else num_adapter_parameters(spec, means.lora_rank)
    held = parameters if means.lora_rank is None else parameters + trained
    gradients = _share(trained, processes if stage >= 2 else 1) * width
    optimizer = _share(trained, processes if stage >= 1 else 1) * _optimizer_width(precision, stage)
    if means.offload_optimizer:
        optimizer = 0
        gradients = 0 if stage >= 2 else gradients  # they leave bucket by bucket
    weights = 0 if means.offload_parameters else _share(held, processes if stage == 3 else 1) * width
    tokens = spec.per_device_batch_size * spec.sequence_length
    activations = tokens * _activation_bytes(spec, width)
    logits = _logit_bytes(spec, vocab_size, width, kind)
    steady = weights + gradients + optimizer
    surges = (
        0 if means.offload_optimizer else _copy_of_gradients(trained, precision, stage, processes),
        parameters * 4 - steady if stage < 3 and means.lora_rank is None else 0,  # built in fp32, whole
    )
    return Memory(
        weights=weights,
        gradients=gradients,
        optimizer=optimizer,
        activations=activations,
        logits=logits,
        update=max(0, *(surge - activations - logits for surge in surges)),
        overhead=_overhead(spec, trained, held, width, kind) + int(SLACK[kind] * (activations + logits)),
    )


def _logit_bytes(spec: TrainSpec, vocab_size: int, width: int, kind: str) -> int:
    tokens = spec.per_device_batch_size * spec.sequence_length
    if spec.objective not in ("causal", "chat", "completion") or spec.zero_stage == 3:
        return tokens * vocab_size * 12  # log-probabilities, their gradient, the logits' gradient, all fp32
    # A part of them at a time, and of the hidden states the gradient; below fp32 also fp32 copies of that part, and the
    # gradient of the matrix in fp32.
    rows = min(tokens, max(FEWEST_ROWS, LOGITS[kind] // vocab_size))
    in_fp32 = 0 if width == 4 else 4 * vocab_size * (rows + spec.hidden_size) + rows * vocab_size * width
    return (rows * vocab_size + tokens * spec.hidden_size) * width + in_fp32


def _share(values: int, parts: int) -> int:
    """Of one process; DeepSpeed pads the last one's."""
    return -(-values // parts)


def _optimizer_width(precision: str, stage: int) -> int:
    """AdamW's two fp32 moments; bf16 training and every ZeRO stage keep an fp32 copy of the weights too."""
    return 8 if precision == "fp32" and stage == 0 else 12


def _copy_of_gradients(trained: int, precision: str, stage: int, processes: int) -> int:
    """The optimizer steps on an fp32 copy of its share of the gradients; ZeRO-3 makes it a part at a time."""
    if stage == 0:
        return 0 if precision == "fp32" else trained * 4
    share = _share(trained, processes)
    return 4 * (min(share, MAX_LIVE) if stage == 3 else share)


@lru_cache(maxsize=4096)
def _activation_bytes_of_a_block(model_type: str, hidden: int, inner: int, width: int) -> int:
    of_hidden, of_inner = ACTIVATIONS[model_type]
    in_fp32 = 4 * hidden * NORM_COPIES[model_type] if width == 2 else 0
    return (of_hidden * hidden + of_inner * inner) * width + in_fp32


def _activation_bytes(spec: TrainSpec, width: int) -> int:
    """Of one token."""
    block = _activation_bytes_of_a_block(spec.model_type, spec.hidden_size, spec.intermediate_size, width)
    if spec.gradient_checkpointing:  # the input of each block, and one block in full
        return spec.num_hidden_layers * spec.hidden_size * width + block
    return spec.num_hidden_layers * block


def _overhead(spec: TrainSpec, trained: int, held: int, width: int, kind: str) -> int:
    total = PROCESS_BYTES[kind]
    if spec.num_processes > 1 and kind == "cuda":
        total += NCCL_BYTES
    if spec.num_processes > 1 or spec.zero_stage > 0:
        total += min(BUCKET, trained) * width
    if spec.zero_stage == 3 and spec.num_processes > 1:
        total += min(MAX_LIVE, held) * width
    return total


def host_bytes(spec: TrainSpec, vocab_size: int, precision: str, means: Means) -> int:
    """What all processes of one machine with GPUs hold in its own memory."""
    total = spec.num_processes * HOST_BYTES_OF_A_GPU_PROCESS
    parameters, width = counts(spec, vocab_size).total, width_of(precision)
    if means.offload_optimizer:  # the fp32 weights and two moments, and gradients in fp32
        trained = parameters if means.lora_rank is None else num_adapter_parameters(spec, means.lora_rank)
        total += trained * (12 + 4)
    if means.offload_parameters:
        total += parameters * width
    return total


def width_of(precision: str) -> int:
    """Bytes of one value."""
    return 4 if precision == "fp32" else 2


# ---- on the disk ----------------------------------------------------------------------------------------------------


def checkpoint_bytes(parameters: int, precision: str) -> int:
    """Of the weights in a checkpoint."""
    return parameters * width_of(precision)


def resume_bytes(parameters: int, precision: str) -> int:
    """Of what a checkpoint holds beside them: AdamW's two fp32 moments, under bf16 an fp32 copy of the weights too."""
    return parameters * (8 if precision == "fp32" else 12)


def num_kept(spec: TrainSpec) -> int:
    """Checkpoints that are there in the end: the newest ones, each so many-th save, and the best."""
    num_saves = -(-spec.max_steps // spec.save_steps)
    if spec.save_total_limit is None:
        return num_saves
    return min(num_saves, spec.save_total_limit + num_saves // spec.keep_every + 1)
