"""Estimates the peak memory of each process of a job, by part, and the size of its checkpoints. Arithmetic only.

Follows what DeepSpeed 0.19 and autograd allocate; tests compare with both. Mixed-precision and ZeRO state sizes are
those of Rajbhandari et al. 2020, arXiv 1910.02054, section 3.
"""

from functools import lru_cache

from pydantic import BaseModel

from trainer.families import PACKED_OBJECTIVES
from trainer.planning.counts import (
    count_parameters,
    num_adapter_parameters,
    num_predicted,
    num_trainable_parameters,
    sample_lengths,
)
from trainer.rounding import ceil_div
from trainer.spec import TrainSpec

# Values that a block keeps per token for the backward pass, as multiples of (hidden_size, intermediate_size): counted
# from the tensors that autograd saves.
ACTIVATIONS = {
    "llama": (10, 4),
    "qwen2": (10, 4),
    "gpt2": (8, 2),
    "bert": (8, 2),
    "roberta": (8, 2),
    "t5": (10, 7),
    "t5 decoder": (17, 7),
}
NF4_BYTES = 0.516  # per QLoRA weight: four bits and its share of the quantization constants
NORM_COPIES = {
    "llama": 2,
    "qwen2": 2,
    "t5": 3,
    "t5 decoder": 5,
}  # norms of a block that compute in fp32 whatever the model's precision
# Logits that the chunked loss of decoders computes at a time, in training and evaluation, and the fewest rows
# (trainer/modeling/fused_ops.py).
LOGITS_CHUNK_ELEMENTS = {"cpu": 2**21, "cuda": 2**26}
MIN_CHUNK_ROWS = 128
BUCKET = 500_000_000  # values DeepSpeed sends at a time
MAX_LIVE = 1_000_000_000  # values of gathered weights that ZeRO-3 keeps at most
# A process before it loads a model: the interpreter and libraries, on a GPU the context, kernels and handles.
PROCESS_BYTES = {"cpu": 400 << 20, "cuda": 900 << 20}
SHARDING_BYTES = 30 << 20  # of DeepSpeed itself in a CPU process, besides a second bucket
NCCL_BYTES = 700 << 20
HOST_BYTES_PER_GPU_PROCESS = 3 << 30
# Fraction of activations and logits lost between the allocator's blocks, and what a CPU's allocator (glibc's malloc)
# keeps of freed memory besides, at most: fitted to whole runs (bench/accuracy.py --whole-runs).
FRAGMENTATION = {"cpu": 0.25, "cuda": 0.05}
MAX_RETAINED_BYTES = {"cpu": 150 << 20, "cuda": 0}
LORA_FRAGMENTATION = {"cpu": 0.9, "cuda": 0.1}  # adapters put small tensors between the large ones


class MemoryEstimate(BaseModel):
    """Bytes that one process needs at its peak, by part.

    `update` is what building the model or the optimizer step needs beyond the activations, which are freed by then.
    `overhead` is libraries, communication buffers and fragmentation.
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
        """Bytes that are allocated from step to step: weights, gradients and optimizer state."""
        return self.weights + self.gradients + self.optimizer

    @property
    def total(self) -> int:
        """The sum of all parts."""
        return self.states + self.activations + self.logits + self.update + self.overhead


PARTS = tuple(MemoryEstimate.model_fields)


def estimate_memory(spec: TrainSpec, vocab_size: int, precision: str, kind: str = "cuda") -> MemoryEstimate:
    """Estimate the peak of one process. ZeRO shards the optimizer from stage 1 on, gradients from 2, weights at 3.

    `precision` is fp32 or bf16, `kind` is cpu or cuda. Evaluation uses the same micro-batches and logit chunks as
    training, but keeps the activations of only one block and no gradients, so its peak is never larger.
    """
    width, stage, processes = bytes_per_value(precision), spec.zero_stage, spec.num_processes
    parameters, trained = count_parameters(spec, vocab_size).total, num_trainable_parameters(spec, vocab_size)
    gradients = _share(trained, processes if stage >= 2 else 1) * width
    optimizer = _share(_optimizer_bytes(spec, vocab_size, trained, precision), processes if stage >= 1 else 1)
    if spec.offload_optimizer:
        optimizer = 0
        gradients = 0 if stage >= 2 else gradients  # sent to the host bucket by bucket
    weight_bytes = _weight_bytes(spec, vocab_size, parameters, width)
    weights = 0 if spec.offload_parameters else _share(weight_bytes, processes if stage == 3 else 1)
    if spec.objective == "dpo" and spec.tuning == "full":
        weights += parameters * width  # the frozen reference model
    activations = spec.per_device_batch_size * (_activation_bytes(spec, width) + _mask_bytes(spec, width))
    logits = _logit_bytes(spec, vocab_size, width, kind)
    steady = weights + gradients + optimizer
    surges = (
        0 if spec.offload_optimizer else _fp32_gradient_bytes(trained, precision, stage, processes),
        parameters * 4 - steady if stage < 3 and spec.tuning == "full" else 0,  # built in fp32, whole
    )
    fragmentation = (FRAGMENTATION if spec.tuning == "full" else LORA_FRAGMENTATION)[kind]
    return MemoryEstimate(
        weights=weights,
        gradients=gradients,
        optimizer=optimizer,
        activations=activations,
        logits=logits,
        update=max(0, *(surge - activations - logits for surge in surges)),
        overhead=_overhead(spec, trained, parameters, width, kind)
        + int(fragmentation * (activations + logits))
        + min(MAX_RETAINED_BYTES[kind], activations + logits),
    )


def _weight_bytes(spec: TrainSpec, vocab_size: int, parameters: int, width: int) -> int:
    if spec.tuning == "full":
        return parameters * width
    adapters = num_adapter_parameters(spec) * width
    if spec.tuning == "lora":
        return parameters * width + adapters
    frozen = count_parameters(spec, vocab_size).block_matrix_parameters
    return int(frozen * NF4_BYTES) + (parameters - frozen) * width + adapters


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
    # In fp32 the head's gradient is one of `gradients`, but beside that of earlier micro-batches, which it is added to.
    accumulates = spec.gradient_accumulation_steps > 1 and spec.tuning == "full" and spec.zero_stage < 2
    second_gradient = 4 * vocab_size * spec.hidden_size if accumulates and width == 4 else 0
    return (rows * vocab_size + tokens * spec.hidden_size) * width + in_fp32 + second_gradient


def _share(values: int, processes: int) -> int:
    """Values of one process; DeepSpeed pads the last one's."""
    return ceil_div(values, processes)


def _optimizer_bytes(spec: TrainSpec, vocab_size: int, trained: int, precision: str) -> int:
    """AdamW's two fp32 moments, Muon's one momentum for matrices, and the fp32 weights under bf16 or any ZeRO stage."""
    master = 0 if precision == "fp32" and spec.zero_stage == 0 else 4
    no_moment = 4 * count_parameters(spec, vocab_size).block_matrix_parameters if spec.optimizer == "muon" else 0
    return trained * (8 + master) - no_moment


def _fp32_gradient_bytes(trained: int, precision: str, stage: int, processes: int) -> int:
    """The optimizer step's fp32 copy of its share of the gradients; ZeRO-3 copies at most MAX_LIVE values at a time."""
    if stage == 0:
        return 0 if precision == "fp32" else trained * 4
    share = _share(trained, processes)
    return 4 * (min(share, MAX_LIVE) if stage == 3 else share)


@lru_cache(maxsize=4096)
def _block_activation_bytes(kind: str, hidden: int, inner: int, width: int) -> int:
    of_hidden, of_inner = ACTIVATIONS[kind]
    in_fp32 = 4 * hidden * NORM_COPIES.get(kind, 0) if width == 2 else 0
    return (of_hidden * hidden + of_inner * inner) * width + in_fp32


def _activation_bytes(spec: TrainSpec, width: int) -> int:
    """Activation bytes of one sample, in the encoder and the decoder."""
    source, target = sample_lengths(spec)
    total = 0
    for kind, tokens, context in _stacks(spec, source, target):
        block = tokens * _block_activation_bytes(kind, spec.hidden_size, spec.intermediate_size, width)
        if spec.model_type == "t5":  # its position bias is kept together with the scores
            block += 4 * tokens * context * spec.num_attention_heads
        if spec.gradient_checkpointing:  # the input of each block, and one block in full
            total += spec.num_hidden_layers * tokens * spec.hidden_size * width + block
        else:
            total += spec.num_hidden_layers * block
    return total


def _mask_bytes(spec: TrainSpec, width: int) -> int:
    """Bytes of the attention mask of one packed sample: transformers expands, inverts, fills and copies it."""
    is_packed = spec.packing and spec.objective in PACKED_OBJECTIVES
    return 4 * spec.sequence_length**2 * width if is_packed else 0


def _stacks(spec: TrainSpec, source: int, target: int) -> list[tuple[str, int, int]]:
    """For each stack: the kind of block, its tokens, and how many tokens each attends to."""
    if spec.model_type == "t5":
        return [("t5", source, source), ("t5 decoder", target, target)]
    return [(spec.model_type, source + target, source + target)]


def _overhead(spec: TrainSpec, trained: int, parameters: int, width: int, kind: str) -> int:
    total = PROCESS_BYTES[kind]
    if spec.num_processes > 1 and kind == "cuda":
        total += NCCL_BYTES
    if spec.num_processes > 1 or spec.zero_stage > 0:
        total += min(BUCKET, trained) * width
    if spec.zero_stage > 0 and kind == "cpu":
        total += SHARDING_BYTES + min(BUCKET, trained) * width
    if spec.zero_stage == 3 and spec.num_processes > 1:
        total += min(MAX_LIVE, parameters) * width
    return total


def host_bytes(spec: TrainSpec, vocab_size: int, precision: str) -> int:
    """Host memory in bytes of all processes of a GPU machine, with what is offloaded."""
    total, parameters = 0, count_parameters(spec, vocab_size).total
    if spec.offload_optimizer:  # fp32 weights, two moments and gradients
        total += num_trainable_parameters(spec, vocab_size) * (12 + 4)
    if spec.offload_parameters:
        total += parameters * bytes_per_value(precision)
    # ZeRO-3 builds weights in host memory first: in fp32, or in the job's precision where adapters leave them frozen.
    building = parameters * (4 if spec.tuning == "full" else bytes_per_value(precision)) if spec.zero_stage == 3 else 0
    return spec.num_processes * HOST_BYTES_PER_GPU_PROCESS + max(total, building)


def bytes_per_value(precision: str) -> int:
    """Bytes of one value of a precision, fp32 or bf16."""
    return 4 if precision == "fp32" else 2


# ---- on the disk ----------------------------------------------------------------------------------------------------


def checkpoint_bytes(parameters: int, precision: str) -> int:
    """Bytes of the weights in a checkpoint."""
    return parameters * bytes_per_value(precision)


def resume_bytes(parameters: int, precision: str) -> int:
    """Bytes of the rest of a checkpoint, for resuming: AdamW's two fp32 moments, and the fp32 weights under bf16."""
    return parameters * (8 if precision == "fp32" else 12)


def _num_regular_saves(spec: TrainSpec) -> int:
    """Checkpoints of a whole job, every `save_steps` and after the last step."""
    return ceil_div(spec.total_steps, spec.save_steps)


def num_saves(spec: TrainSpec) -> int:
    """Checkpoints written by a whole job; at most so many, if it also saves each that is the best so far."""
    num_best = ceil_div(spec.total_steps, spec.eval_steps) if spec.early_stopping_patience is not None else 0
    return _num_regular_saves(spec) + num_best


def num_kept_checkpoints(spec: TrainSpec) -> int:
    """Checkpoints on disk at the end of a job: the newest, every `keep_every`-th, and the best."""
    most = num_saves(spec)
    if spec.save_total_limit is None:
        return most
    return min(most, spec.save_total_limit + _num_regular_saves(spec) // spec.keep_every + 1)
