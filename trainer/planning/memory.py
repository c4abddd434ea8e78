"""Bytes that each process of a job holds at its peak, by part, and those on the disk. Arithmetic only.

Counted as DeepSpeed 0.19 and autograd keep them; tests compare with both.
"""

from functools import lru_cache

from pydantic import BaseModel

from trainer.planning.counts import (
    count_parameters,
    num_adapter_parameters,
    num_predicted,
    num_trainable_parameters,
    sample_lengths,
)
from trainer.spec import TrainSpec

# Values that each block keeps per token for the backward pass, as multiples of hidden_size and of intermediate_size,
# counted from the tensors that autograd saves.
ACTIVATIONS = {
    "llama": (10, 4),
    "qwen2": (10, 4),
    "gpt2": (8, 2),
    "bert": (8, 2),
    "roberta": (8, 2),
    "t5": (10, 7),
    "t5 decoder": (17, 7),
}
BYTES_OF_FOUR_BITS = 0.516  # of a QLoRA weight, with its share of the constants
NORM_COPIES = {
    "llama": 2,
    "qwen2": 2,
    "t5": 3,
    "t5 decoder": 5,
}  # norms of a block that compute in fp32 whatever the model's precision
# Logits that a decoder's loss holds at a time, in training and evaluation, and how many rows of them at least
# (trainer/modeling/fused_ops.py).
LOGITS_CHUNK_ELEMENTS = {"cpu": 2**21, "cuda": 2**26}
MIN_CHUNK_ROWS = 128
BUCKET = 500_000_000  # values DeepSpeed sends at a time; it allocates them whatever the size of the model
MAX_LIVE = 1_000_000_000  # values of gathered weights that ZeRO-3 holds at most
# Of a process before it holds a model: the interpreter, libraries, on a GPU the context, kernels and handles.
PROCESS_BYTES = {"cpu": 420 << 20, "cuda": 900 << 20}
SHARDING_BYTES = 30 << 20  # of DeepSpeed's own, in a process without a GPU; and another bucket there
NCCL_BYTES = 700 << 20
HOST_BYTES_OF_A_GPU_PROCESS = 3 << 30
SLACK = {"cpu": 0.2, "cuda": 0.05}  # of activations and logits, lost between the allocator's blocks
SLACK_OF_ADAPTERS = {"cpu": 0.9, "cuda": 0.1}  # whose small tensors lie between the large ones


class MemoryEstimate(BaseModel):
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


PARTS = tuple(MemoryEstimate.model_fields)


def estimate_memory(spec: TrainSpec, vocab_size: int, precision: str, kind: str = "cuda") -> MemoryEstimate:
    """The peak of one process. ZeRO shards the optimizer from stage 1 on, gradients from 2, weights at 3.

    Evaluation has the same micro-batches and computes logits in the same chunks as training, but keeps the activations
    of one block only and no gradients: its peak is never the larger one.
    """
    width, stage, processes = bytes_per_value(precision), spec.zero_stage, spec.num_processes
    parameters, trained = count_parameters(spec, vocab_size).total, num_trainable_parameters(spec, vocab_size)
    gradients = _share(trained, processes if stage >= 2 else 1) * width
    optimizer = _share(_optimizer_bytes(spec, vocab_size, trained, precision), processes if stage >= 1 else 1)
    if spec.offload_optimizer:
        optimizer = 0
        gradients = 0 if stage >= 2 else gradients  # they leave bucket by bucket
    held = _weight_bytes(spec, vocab_size, parameters, width)
    weights = 0 if spec.offload_parameters else _share(held, processes if stage == 3 else 1)
    if spec.objective == "dpo" and spec.tuning == "full":
        weights += parameters * width  # the model as it was, to compare with
    activations = spec.per_device_batch_size * _activation_bytes(spec, width)
    logits = _logit_bytes(spec, vocab_size, width, kind)
    steady = weights + gradients + optimizer
    surges = (
        0 if spec.offload_optimizer else _copy_of_gradients(trained, precision, stage, processes),
        parameters * 4 - steady if stage < 3 and spec.tuning == "full" else 0,  # built in fp32, whole
    )
    slack = (SLACK if spec.tuning == "full" else SLACK_OF_ADAPTERS)[kind]
    return MemoryEstimate(
        weights=weights,
        gradients=gradients,
        optimizer=optimizer,
        activations=activations,
        logits=logits,
        update=max(0, *(surge - activations - logits for surge in surges)),
        overhead=_overhead(spec, trained, parameters, width, kind) + int(slack * (activations + logits)),
    )


def _weight_bytes(spec: TrainSpec, vocab_size: int, parameters: int, width: int) -> int:
    if spec.tuning == "full":
        return parameters * width
    adapters = num_adapter_parameters(spec) * width
    if spec.tuning == "lora":
        return parameters * width + adapters
    frozen = count_parameters(spec, vocab_size).block_matrix_parameters
    return int(frozen * BYTES_OF_FOUR_BITS) + (parameters - frozen) * width + adapters


def _logit_bytes(spec: TrainSpec, vocab_size: int, width: int, kind: str) -> int:
    tokens = spec.per_device_batch_size * num_predicted(spec)
    if spec.objective == "classification":
        return 0
    if spec.objective not in ("causal", "chat", "completion"):
        return tokens * vocab_size * 12  # log-probabilities, their gradient, the logits' gradient, all fp32
    # A part of them at a time, and of the hidden states the gradient; below fp32 also fp32 copies of that part, and the
    # gradient of the matrix in fp32.
    rows = min(tokens, max(MIN_CHUNK_ROWS, LOGITS_CHUNK_ELEMENTS[kind] // vocab_size))
    in_fp32 = 0 if width == 4 else 4 * vocab_size * (rows + spec.hidden_size) + rows * vocab_size * width
    return (rows * vocab_size + tokens * spec.hidden_size) * width + in_fp32


def _share(values: int, parts: int) -> int:
    """Of one process; DeepSpeed pads the last one's."""
    return -(-values // parts)


def _optimizer_bytes(spec: TrainSpec, vocab_size: int, trained: int, precision: str) -> int:
    """AdamW's two fp32 moments, of Muon's matrices one momentum; bf16 and every ZeRO stage keep an fp32 copy, too."""
    master = 0 if precision == "fp32" and spec.zero_stage == 0 else 4
    spared = 4 * count_parameters(spec, vocab_size).block_matrix_parameters if spec.optimizer == "muon" else 0
    return trained * (8 + master) - spared


def _copy_of_gradients(trained: int, precision: str, stage: int, processes: int) -> int:
    """The optimizer steps on an fp32 copy of its share of the gradients; ZeRO-3 makes it a part at a time."""
    if stage == 0:
        return 0 if precision == "fp32" else trained * 4
    share = _share(trained, processes)
    return 4 * (min(share, MAX_LIVE) if stage == 3 else share)


@lru_cache(maxsize=4096)
def _activation_bytes_of_a_block(kind: str, hidden: int, inner: int, width: int) -> int:
    of_hidden, of_inner = ACTIVATIONS[kind]
    in_fp32 = 4 * hidden * NORM_COPIES.get(kind, 0) if width == 2 else 0
    return (of_hidden * hidden + of_inner * inner) * width + in_fp32


def _activation_bytes(spec: TrainSpec, width: int) -> int:
    """Of one sample: the encoder's part and the decoder's."""
    source, target = sample_lengths(spec)
    total = 0
    for kind, tokens, seen in _stacks(spec, source, target):
        block = tokens * _activation_bytes_of_a_block(kind, spec.hidden_size, spec.intermediate_size, width)
        if spec.model_type == "t5":  # its attention has a bias, kept with the scores
            block += 4 * tokens * seen * spec.num_attention_heads
        if spec.gradient_checkpointing:  # the input of each block, and one block in full
            total += spec.num_hidden_layers * tokens * spec.hidden_size * width + block
        else:
            total += spec.num_hidden_layers * block
    return total


def _stacks(spec: TrainSpec, source: int, target: int) -> list[tuple[str, int, int]]:
    """The kind of block, its tokens, and how many each of them sees."""
    if spec.model_type == "t5":
        return [("t5", source, source), ("t5 decoder", target, target)]
    return [(spec.model_type, source + target, source + target)]


def _overhead(spec: TrainSpec, trained: int, held: int, width: int, kind: str) -> int:
    total = PROCESS_BYTES[kind]
    if spec.num_processes > 1 and kind == "cuda":
        total += NCCL_BYTES
    if spec.num_processes > 1 or spec.zero_stage > 0:
        total += min(BUCKET, trained) * width
    if spec.zero_stage > 0 and kind == "cpu":
        total += SHARDING_BYTES + min(BUCKET, trained) * width
    if spec.zero_stage == 3 and spec.num_processes > 1:
        total += min(MAX_LIVE, held) * width
    return total


def host_bytes(spec: TrainSpec, vocab_size: int, precision: str) -> int:
    """What all processes of one machine with GPUs hold in its own memory."""
    total, parameters = 0, count_parameters(spec, vocab_size).total
    if spec.offload_optimizer:  # the fp32 weights and two moments, and gradients in fp32
        total += num_trainable_parameters(spec, vocab_size) * (12 + 4)
    if spec.offload_parameters:
        total += parameters * bytes_per_value(precision)
    # Sharded weights are made there first, in fp32 but for those that adapters leave frozen.
    made = parameters * (4 if spec.tuning == "full" else bytes_per_value(precision)) if spec.zero_stage == 3 else 0
    return spec.num_processes * HOST_BYTES_OF_A_GPU_PROCESS + max(total, made)


def bytes_per_value(precision: str) -> int:
    """Bytes of one value."""
    return 4 if precision == "fp32" else 2


# ---- on the disk ----------------------------------------------------------------------------------------------------


def checkpoint_bytes(parameters: int, precision: str) -> int:
    """Of the weights in a checkpoint."""
    return parameters * bytes_per_value(precision)


def resume_bytes(parameters: int, precision: str) -> int:
    """Of what a checkpoint holds beside them: AdamW's two fp32 moments, under bf16 an fp32 copy of the weights too."""
    return parameters * (8 if precision == "fp32" else 12)


def num_kept_checkpoints(spec: TrainSpec) -> int:
    """Checkpoints that are there in the end: the newest ones, each so many-th save, and the best."""
    num_saves = -(-spec.max_steps // spec.save_steps)
    if spec.save_total_limit is None:
        return num_saves
    return min(num_saves, spec.save_total_limit + num_saves // spec.keep_every + 1)
