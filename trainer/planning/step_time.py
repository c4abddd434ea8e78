"""How long a step and a whole job take on a node: computing, memory, exchange between processes, offload."""

from pydantic import BaseModel

from trainer.planning.counts import (
    ParameterCounts,
    count_parameters,
    flops,
    num_predicted,
    num_trainable_parameters,
    sample_lengths,
    tokens_per_step,
)
from trainer.planning.hardware import DISK_BANDWIDTH, Node
from trainer.planning.memory import bytes_per_value, checkpoint_bytes, resume_bytes
from trainer.spec import TrainSpec

# Share of a device's rate that matrix products of a training step reach: less, the narrower the model. Set on GPUs by
# published utilizations, 23 % for GPT-2's width and 45 % for Llama 7B's with plain attention kernels and loss.
GPU_SHARE, GPU_HALF_WIDTH = 0.5, 700
CPU_SHARE, CPU_HALF_WIDTH = 1.0, 64  # by steps of models from 128 to 512 wide
BANDWIDTH_SHARE = 0.7
LINK_SHARE = 0.5
PCIE_BANDWIDTH = 25e9
HOST_BANDWIDTH = 60e9  # of the memory of a machine with GPUs, for the optimizer that steps there
SECONDS_TO_START_A_BLOCK = {"cuda": 1.2e-3, "cpu": 0.9e-3}  # its operations forward and backward, whatever their size
SECONDS_TO_START_A_STEP = {"cuda": 4e-3, "cpu": 3e-3}
LOSS_BYTES = {"cuda": 40, "cpu": 22}  # read and written for each logit, forward and backward; a CPU's cache holds some
# Seconds of a core for each token and hidden value of a block, by all that is no matrix product, forward and backward.
CPU_SECONDS_OF_A_VALUE = 3e-8
UPDATE_BYTES = 28  # read and written for each parameter that AdamW steps
# The same for what ZeRO does beside that: it copies gradients into buckets and weights out of an fp32 copy, ZeRO-3 puts
# them together and takes them apart; and of ZeRO-3 for each block that it has to prepare.
SHARDING_BYTES = {0: 0, 1: 40, 2: 40, 3: 65}
SECONDS_TO_GATHER_A_BLOCK = {"cuda": 0.0, "cpu": 7e-3}  # a GPU does it meanwhile
SCORE_BYTES = 100  # for each score of T5's attention, whose bias no fused kernel takes
ADAPTER_BYTES = 32  # for each value that adapters are added to
SECONDS_TO_LOAD = {"cuda": 20.0, "cpu": 3.0}
EVALUATED_SEQUENCES = 64
SAMPLED_TOKENS = 80
# What the truth may be, in shares of the estimate: measured by a probe, published, of a CPU (with AVX-512 it may take a
# third of the time), or of an unknown device.
SPREAD = {"measured": (0.75, 1.35), "published": (0.6, 1.7), "cpu": (0.35, 2.5), "unknown": (0.3, 4.0)}


class StepTime(BaseModel):
    """Seconds of one step, by what takes them; what overlaps with computing counts only as far as it does not."""

    compute: float
    launch_overhead: float  # operations too small to keep the device busy
    optimizer: float
    communication: float
    offload: float

    @property
    def seconds(self) -> float:
        return self.compute + self.launch_overhead + self.optimizer + self.communication + self.offload

    @property
    def bottleneck(self) -> str:
        """What takes most."""
        return max(StepTime.model_fields, key=lambda part: float(getattr(self, part)))


def estimate_step_time(spec: TrainSpec, vocab_size: int, node: Node) -> StepTime:
    """The pace of one step."""
    precision = node.precision(spec.precision)
    sizes, trained = count_parameters(spec, vocab_size), num_trainable_parameters(spec, vocab_size)
    work = flops(spec, vocab_size).hardware_flops * tokens_per_step(spec)
    devices = spec.num_processes if node.kind == "cuda" else 1
    # Bound by memory, as it reads and writes each value several times.
    logits = 0 if spec.objective == "classification" else spec.train_batch_size * num_predicted(spec) * vocab_size
    moved = logits * LOSS_BYTES[node.kind] + _bytes_of_a_sample(spec, sizes) * spec.train_batch_size
    losing = moved / (node.device.bandwidth * BANDWIDTH_SHARE * devices)
    computing = work / (flops_rate(spec, node) * devices) + losing
    if node.kind == "cpu":  # GPUs have it in their share
        values = tokens_per_step(spec) * spec.num_hidden_layers * spec.hidden_size
        computing += values * CPU_SECONDS_OF_A_VALUE / node.num_cpus
    passes = spec.gradient_accumulation_steps * (4 / 3 if spec.gradient_checkpointing else 1)
    smallest = passes * sum(stack.num_blocks for stack in sizes.stacks) * SECONDS_TO_START_A_BLOCK[node.kind]
    share = trained / spec.num_processes if spec.zero_stage >= 1 else trained
    bandwidth = node.device.bandwidth * BANDWIDTH_SHARE
    if node.kind == "cpu":  # all processes share the one memory
        share *= spec.num_processes
    updated = share * UPDATE_BYTES + trained * SHARDING_BYTES[spec.zero_stage]
    updating = 0.0 if spec.offload_optimizer else updated / bandwidth
    if spec.zero_stage == 3:
        blocks = sum(stack.num_blocks for stack in sizes.stacks)
        updating += spec.gradient_accumulation_steps * blocks * SECONDS_TO_GATHER_A_BLOCK[node.kind]
    offloading = 0.0
    if spec.offload_optimizer:  # gradients down, weights up, and the step on the machine's own memory
        offloading = share * 2 * bytes_per_value(precision) / PCIE_BANDWIDTH + trained * UPDATE_BYTES / HOST_BANDWIDTH
    if spec.offload_parameters:
        passing = 3 * sizes.total / spec.num_processes * bytes_per_value(precision)
        offloading += passes * max(0.0, passing / PCIE_BANDWIDTH - computing / passes / 2)
    exchanging = _exchange(spec, trained, sizes.total, precision, node)
    if node.kind == "cuda":  # meanwhile the GPUs compute
        exchanging = max(0.0, exchanging - computing / 2)
    return StepTime(
        compute=computing,
        launch_overhead=max(0.0, smallest - computing) + SECONDS_TO_START_A_STEP[node.kind],
        optimizer=updating,
        communication=exchanging,
        offload=offloading,
    )


def _bytes_of_a_sample(spec: TrainSpec, sizes: ParameterCounts) -> int:
    """Read and written beside what matrix products do: scores of an attention that is not fused, sums with adapters."""
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


def flops_rate(spec: TrainSpec, node: Node) -> float:
    """Operations a second that one device reaches in a step."""
    precision = node.precision(spec.precision)
    peak = node.device.flops.get(precision) or node.device.flops["fp32"] / 2  # a GPU without bf16 emulates it
    share, half = (CPU_SHARE, CPU_HALF_WIDTH) if node.kind == "cpu" else (GPU_SHARE, GPU_HALF_WIDTH)
    return (node.gemm_flops or peak) * share * spec.hidden_size / (spec.hidden_size + half)


def _exchange(spec: TrainSpec, trained: int, held: int, precision: str, node: Node) -> float:
    """Gradients are reduced and weights gathered once a step; under ZeRO-3 weights twice for each micro-batch."""
    if spec.num_processes == 1:
        return 0.0
    part = (spec.num_processes - 1) / spec.num_processes
    values = 2 * trained
    if spec.zero_stage == 3:
        values = spec.gradient_accumulation_steps * (2 * held + trained)
    return values * part * bytes_per_value(precision) / (node.device.link * LINK_SHARE)


def total_seconds(spec: TrainSpec, vocab_size: int, node: Node, step: StepTime) -> float:
    """Of a whole job: its steps, evaluations, checkpoints and start."""
    parameters, precision = count_parameters(spec, vocab_size).total, node.precision(spec.precision)
    sequence = step.seconds / spec.train_batch_size / 3  # forward only
    sampling = SAMPLED_TOKENS * spec.num_hidden_layers * SECONDS_TO_START_A_BLOCK[node.kind] / 3
    evaluation = EVALUATED_SEQUENCES * sequence + sampling
    saving = (
        checkpoint_bytes(parameters, precision) + resume_bytes(num_trainable_parameters(spec, vocab_size), precision)
    ) / DISK_BANDWIDTH
    return (
        SECONDS_TO_LOAD[node.kind]
        + spec.max_steps * step.seconds
        + num_evaluations(spec) * evaluation
        + num_saves(spec) * saving
    )


def num_evaluations(spec: TrainSpec) -> int:
    """Of the whole job: at the start, at each so many-th step, at the end."""
    return 1 + -(-spec.max_steps // spec.eval_steps)


def num_saves(spec: TrainSpec) -> int:
    """Checkpoints written in all."""
    return -(-spec.max_steps // spec.save_steps)


def basis(node: Node) -> str:
    """Where the rate comes from: a key of SPREAD."""
    if node.gemm_flops is not None:
        return "measured"
    if node.kind == "cpu":
        return "cpu"
    return "published" if node.is_known else "unknown"
