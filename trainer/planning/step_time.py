"""Estimates the time of an optimizer step and of a whole job: compute, memory, communication, offload. Arithmetic only.

A roofline model: the FLOPs of a step over the rate a device reaches, plus the bytes moved over the bandwidth. The
constants were fitted to measured steps (docs/measurements, bench/accuracy.py).
"""

from pydantic import BaseModel

from trainer.families import ANSWER_OBJECTIVES
from trainer.planning.counts import (
    EVAL_SAMPLE_TOKENS,
    EVAL_SEQUENCES,
    ParameterCounts,
    count_parameters,
    flops,
    num_predicted,
    num_trainable_parameters,
    sample_lengths,
    tokens_per_step,
)
from trainer.planning.hardware import DISK_BANDWIDTH, NodeHardware
from trainer.planning.memory import bytes_per_value, checkpoint_bytes, num_saves, resume_bytes
from trainer.rounding import ceil_div
from trainer.spec import TrainSpec

# Fraction of a device's peak FLOPs that the matrix products of a training step reach, for wide models, and the hidden
# size at which they reach half of it. For GPUs from published utilizations: 23 % at GPT-2's width, 45 % at Llama 7B's.
GPU_SHARE, GPU_HALF_WIDTH = 0.5, 700
CPU_SHARE, CPU_HALF_WIDTH = 1.0, 64  # from measured steps of models with hidden sizes of 128 to 512
BANDWIDTH_SHARE = 0.7
LINK_SHARE = 0.5
PCIE_BANDWIDTH = 25e9  # bytes per second
HOST_BANDWIDTH = 60e9  # bytes per second of the host memory of a GPU machine, for an offloaded optimizer
BLOCK_LAUNCH_SECONDS = {"cuda": 1.2e-3, "cpu": 0.9e-3}  # launching a block's kernels, forward and backward
STEP_LAUNCH_SECONDS = {"cuda": 4e-3, "cpu": 3e-3}
LOSS_BYTES = {
    "cuda": 40,
    "cpu": 22,
}  # moved per logit, forward and backward; less on CPUs, whose caches hold part of it
# Core-seconds per token and hidden value of a block, for everything but matrix products, forward and backward.
CPU_ELEMENTWISE_SECONDS = 3e-8
UPDATE_BYTES = 28  # moved per parameter by an AdamW step
# Moved per parameter in addition by ZeRO, by stage: gradients into buckets and weights out of the fp32 copy; stage 3
# also gathers and partitions the weights, which takes time for each block.
SHARDING_BYTES = {0: 0, 1: 40, 2: 40, 3: 65}
BLOCK_GATHER_SECONDS = {"cuda": 0.0, "cpu": 7e-3}  # GPUs overlap it with compute
SCORE_BYTES = 100  # moved per attention score of T5, whose position bias rules out a fused kernel
ADAPTER_BYTES = 32  # moved per output value of a matrix with a LoRA adapter
# Interval of the true time, as factors of the estimate, by where the rate comes from: measured on the node, published,
# a CPU (with AVX-512 a third of the time is possible), or an unknown GPU.
SPREAD = {"measured": (0.75, 1.35), "published": (0.6, 1.7), "cpu": (0.35, 2.5), "unknown": (0.3, 4.0)}


class StepTime(BaseModel):
    """Seconds of one optimizer step, by cause. Communication and offload hidden by compute do not count."""

    compute: float
    launch_overhead: float  # kernels too small to keep the device busy
    optimizer: float
    communication: float
    offload: float

    @property
    def seconds(self) -> float:
        """The sum of all parts."""
        return self.compute + self.launch_overhead + self.optimizer + self.communication + self.offload

    @property
    def bottleneck(self) -> str:
        """The name of the largest part."""
        return max(StepTime.model_fields, key=lambda part: float(getattr(self, part)))


def estimate_step_time(spec: TrainSpec, vocab_size: int, node: NodeHardware) -> StepTime:
    """Estimate the seconds of one optimizer step of a job on a node, before the node's correction."""
    precision = node.precision(spec.precision)
    sizes, trained = count_parameters(spec, vocab_size), num_trainable_parameters(spec, vocab_size)
    work = flops(spec, vocab_size).hardware_flops * tokens_per_step(spec)
    devices = spec.num_processes if node.kind == "cuda" else 1
    # The loss is limited by bandwidth: it reads and writes each logit several times.
    logits = 0 if spec.objective == "classification" else spec.train_batch_size * num_predicted(spec) * vocab_size
    moved = logits * LOSS_BYTES[node.kind] + _unfused_bytes(spec, sizes) * spec.train_batch_size
    moving = moved / (node.device.bandwidth * BANDWIDTH_SHARE * devices)
    computing = work / (flops_rate(spec, node) * devices) + moving
    if node.kind == "cpu":  # for GPUs it is part of GPU_SHARE
        values = tokens_per_step(spec) * spec.num_hidden_layers * spec.hidden_size
        computing += values * CPU_ELEMENTWISE_SECONDS / node.num_cpus
    passes = spec.gradient_accumulation_steps * (4 / 3 if spec.gradient_checkpointing else 1)
    launching = passes * sum(stack.num_blocks for stack in sizes.stacks) * BLOCK_LAUNCH_SECONDS[node.kind]
    share = trained / spec.num_processes if spec.zero_stage >= 1 else trained
    bandwidth = node.device.bandwidth * BANDWIDTH_SHARE
    if node.kind == "cpu":  # all processes share one memory
        share *= spec.num_processes
    updated = share * UPDATE_BYTES + trained * SHARDING_BYTES[spec.zero_stage]
    updating = 0.0 if spec.offload_optimizer else updated / bandwidth
    if spec.zero_stage == 3:
        blocks = sum(stack.num_blocks for stack in sizes.stacks)
        updating += spec.gradient_accumulation_steps * blocks * BLOCK_GATHER_SECONDS[node.kind]
    offloading = 0.0
    if spec.offload_optimizer:  # gradients to the host, weights back, and the update in host memory
        offloading = share * 2 * bytes_per_value(precision) / PCIE_BANDWIDTH + trained * UPDATE_BYTES / HOST_BANDWIDTH
    if spec.offload_parameters:
        passing = 3 * sizes.total / spec.num_processes * bytes_per_value(precision)
        offloading += passes * max(0.0, passing / PCIE_BANDWIDTH - computing / passes / 2)
    communicating = _communication_seconds(spec, trained, sizes.total, precision, node)
    if node.kind == "cuda":  # overlaps with compute
        communicating = max(0.0, communicating - computing / 2)
    return StepTime(
        compute=computing,
        launch_overhead=max(0.0, launching - computing) + STEP_LAUNCH_SECONDS[node.kind],
        optimizer=updating,
        communication=communicating,
        offload=offloading,
    )


def _unfused_bytes(spec: TrainSpec, sizes: ParameterCounts) -> int:
    """Bytes moved per sample outside matrix products: unfused attention scores of T5, outputs of LoRA adapters."""
    source, target = sample_lengths(spec)
    moved = 0
    if spec.model_type == "t5":
        scores = source * source + source * target + target * target
        moved = SCORE_BYTES * spec.num_hidden_layers * spec.num_attention_heads * scores
    if spec.tuning != "full":
        stack = sizes.stacks[-1]
        values = sum(columns for _rows, columns in stack.matrices + stack.source)
        moved += ADAPTER_BYTES * stack.num_blocks * values * (source + target)
    return moved


def flops_rate(spec: TrainSpec, node: NodeHardware) -> float:
    """FLOPs per second that one device reaches in a training step."""
    precision = node.precision(spec.precision)
    peak = node.device.flops.get(precision) or node.device.flops["fp32"] / 2  # a GPU without bf16 emulates it
    share, half = (CPU_SHARE, CPU_HALF_WIDTH) if node.kind == "cpu" else (GPU_SHARE, GPU_HALF_WIDTH)
    return (node.gemm_flops or peak) * share * spec.hidden_size / (spec.hidden_size + half)


def _communication_seconds(spec: TrainSpec, trained: int, total: int, precision: str, node: NodeHardware) -> float:
    """Ring all-reduce of gradients and all-gather of weights, once a step; ZeRO-3 gathers twice per micro-batch."""
    if spec.num_processes == 1:
        return 0.0
    part = (spec.num_processes - 1) / spec.num_processes
    values = 2 * trained
    if spec.zero_stage == 3:
        values = spec.gradient_accumulation_steps * (2 * total + trained)
    return values * part * bytes_per_value(precision) / (node.device.link * LINK_SHARE)


def training_seconds(spec: TrainSpec, vocab_size: int, node: NodeHardware, step: StepTime) -> float:
    """Estimated seconds of a job from its first step to its end: steps, evaluations and checkpoints."""
    parameters, precision = count_parameters(spec, vocab_size).total, node.precision(spec.precision)
    sequence = step.seconds / spec.train_batch_size / 3  # forward only
    num_prompts = 2 if spec.objective in ANSWER_OBJECTIVES and not spec.sample_prompt else 1
    sampling = num_prompts * EVAL_SAMPLE_TOKENS * spec.num_hidden_layers * BLOCK_LAUNCH_SECONDS[node.kind] / 3
    evaluation = EVAL_SEQUENCES * sequence + sampling
    saving = (
        checkpoint_bytes(parameters, precision) + resume_bytes(num_trainable_parameters(spec, vocab_size), precision)
    ) / DISK_BANDWIDTH
    return spec.total_steps * step.seconds + num_evaluations(spec) * evaluation + num_saves(spec) * saving


def num_evaluations(spec: TrainSpec) -> int:
    """Evaluations of a whole job: before the first step, every `eval_steps`, and after the last step."""
    return 1 + ceil_div(spec.total_steps, spec.eval_steps)


def basis(node: NodeHardware) -> str:
    """Where the rate comes from, as a key of SPREAD."""
    if node.gemm_flops is not None:
        return "measured"
    if node.kind == "cpu":
        return "cpu"
    return "published" if node.has_published_rates else "unknown"
