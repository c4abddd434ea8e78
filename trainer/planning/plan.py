"""Plans a job before it runs: parameters, FLOPs, memory, disk, time, energy and cost on a node. Arithmetic only."""

from typing import Any, Literal

from pydantic import BaseModel

from trainer.families import PACKED_OBJECTIVES, TEXT_OBJECTIVES
from trainer.formats.messages import Message, message
from trainer.planning import step_time
from trainer.planning.config_search import Fix, cheapest_fix, fits_in_memory
from trainer.planning.counts import (
    Flops,
    count_parameters,
    flops,
    num_trainable_parameters,
    tokens_per_step,
)
from trainer.planning.estimates import Estimate, estimate
from trainer.planning.hardware import NodeHardware
from trainer.planning.memory import (
    MemoryEstimate,
    checkpoint_bytes,
    estimate_memory,
    host_bytes,
    num_kept_checkpoints,
    num_saves,
    resume_bytes,
)
from trainer.planning.mixture import CorpusShare
from trainer.planning.scaling_laws import MAX_EPOCHS
from trainer.planning.startup_time import StartupTime, estimate_startup
from trainer.planning.training_data import BYTES_PER_TOKEN, TrainingData, estimate_samples, estimate_shares
from trainer.spec import TrainSpec

# Intervals of the parts of memory, as factors: states are exact, the transient buffers of kernels are not.
STATES_SPREAD, ACTIVATIONS_SPREAD, OVERHEAD_SPREAD = (1.0, 1.02), (0.75, 1.15), (0.5, 1.4)

MESSAGES = {
    "memory": "Each process needs about {needed_bytes} of memory.",
    "fits": "Each process needs about {needed_bytes} of memory and has {available_bytes}.",
    "tight": (
        "Each process needs about {needed_bytes} of memory and has {available_bytes}, so it may only just fit. If it "
        "does not, the job continues with a smaller micro-batch."
    ),
    "remedy": (
        "Each process needs about {needed_bytes} of memory, but has {available_bytes}. With {changes} it would need "
        "{fitting_bytes}, with the least slowdown."
    ),
    "remedy_smaller": (
        "Each process needs about {needed_bytes} of memory, but has {available_bytes}. No setting with the same "
        "training result fits; with {changes} it would need {fitting_bytes}."
    ),
    "no_remedy": (
        "Each process needs about {needed_bytes} of memory, but has {available_bytes}, and no setting makes it fit. "
        "Lower hidden_size, intermediate_size or vocab_size, or use devices with more memory."
    ),
    "devices": (
        "num_processes is {num_processes}, but the number of GPUs is {num_devices}. Choose from 1 to {num_devices}. "
        "Each process needs about {needed_bytes} of memory."
    ),
    "host": (
        "The processes need {host_bytes} of host memory, but the machine has {available_bytes}. Use fewer processes "
        "or a smaller model."
    ),
    "flops": "{num_tokens} tokens at {token_flops} each: six operations per multiplied weight, plus attention.",
    "flops_recomputed": (
        "{num_tokens} tokens at {token_flops} each: six operations per multiplied weight, plus attention and the "
        "second forward pass of gradient_checkpointing."
    ),
    "disk": (
        "Checkpoints: {num_checkpoints} of {each_bytes} each, and one more while it is being written; tokenized text: "
        "{text_bytes}."
    ),
    "compute": "Mostly compute: {work_flops} per step at {rate_flops} per second.",
    "launch_overhead": (
        "Mostly launching small operations: a larger micro-batch or fewer layers would use the device better."
    ),
    "optimizer": (
        "Mostly the optimizer, which reads and writes all weights and moments: a larger batch needs fewer steps."
    ),
    "communication": "Mostly exchanging weights and gradients between {num_processes} processes.",
    "offload": "Mostly moving weights and gradients between GPU and host memory, and the optimizer step on the CPU.",
    "startup": (
        "Training the tokenizer: {tokenizer_seconds}, tokenizing: {tokenizing_seconds}, starting and loading: "
        "{loading_seconds}."
    ),
    "startup_prepared": "Starting and loading; these data are tokenized already.",
    "total": "Steps: {max_steps}, evaluations: {num_evaluations}, checkpoints: {num_saves}, and startup.",
    "energy": "Devices under load: {num_devices}, at {watts} watts each.",
    "cost": "The machine's hourly price and the price of energy for this time.",
    "learned": (
        "Corrected by the last jobs of this machine ({num_jobs}), which took {time_ratio} times the estimated time and "
        "{memory_ratio} times the estimated memory."
    ),
    "measured": "Based on the speed measured on this machine.",
    "published": "Based on the published specs of {device}; this machine has not been measured yet.",
    "cpu": "Based on the usual speed of CPU cores ({num_cpus} here); other load on the machine slows the job down.",
    "unknown": "No published specs for {device}; the estimate assumes a mid-range GPU.",
    "zero_not_needed": (
        "zero_stage {zero_stage} is not needed: the job fits without sharding, which costs 4 to 10 % of the speed."
    ),
    "bf16_emulated": "This device only emulates bf16, which is many times slower. Choose precision auto or fp32.",
    "label_rare": "Only one record has the label {label}, so it is trained on but not validated.",
    "vocab_counted": "The vocabulary has {largest} tokens: an earlier job has counted that this text yields no more.",
    "vocab_doubtful": (
        "The vocabulary has at most {asked} tokens, and fewer if the text ({text_bytes}) yields no more: repetitive "
        "text of this size yields about {usual}."
    ),
    "text_doubtful": (
        "The text ({text_bytes}) may have fewer tokens than the job needs ({needed}). If so, the job ends before "
        "training. A smaller sequence_length needs fewer."
    ),
    "text_short": (
        "The text has fewer tokens ({found}) than the job needs ({needed}), so the job would end before training. A "
        "smaller sequence_length needs fewer."
    ),
    "many_epochs": (
        "Training goes over the data {epochs} times; beyond about {many} times, repetition helps little. Add data or "
        "lower max_steps."
    ),
}


class Plan(BaseModel):
    """The estimated cost of a job.

    `figures` are flops, memory_bytes, disk_bytes and, if the node is given, step_seconds, total_seconds, energy_kwh and
    cost; with the size of the data, num_epochs and max_steps. `notes` are further remarks; the first says where the
    rates come from. `corpora` are what the job sees of each corpus, if their sizes are known.
    """

    num_parameters: int
    num_tokens: int
    memory: MemoryEstimate
    memory_bytes: int
    checkpoint_bytes: int  # of the weights
    resume_bytes: int  # of the rest of a checkpoint, for resuming
    host_bytes: int | None  # host memory of all processes, on GPU machines
    max_steps: int
    num_epochs: float | None
    flops_per_token: Flops
    fits: bool | None
    verdict: Message  # whether it fits, and what would
    remedy: Fix | None
    figures: dict[str, Estimate]
    notes: list[Message]
    corpora: list[CorpusShare] = []

    @property
    def is_impossible(self) -> bool:
        """Whether even the lower end of the memory estimate exceeds what is available."""
        available = self.verdict.values.get("available_bytes")
        return self.fits is False and available is not None and self.figures["memory_bytes"].low > available

    @property
    def fit(self) -> Literal["fits", "tight", "no"] | None:
        """Whether it fits the memory, closely or not; None without a machine."""
        if self.fits is None:
            return None
        return "no" if not self.fits else "tight" if self.verdict.code == "tight" else "fits"

    @property
    def field(self) -> str:
        """The field to change if the job does not fit."""
        return next(iter(self.remedy.changes)) if self.remedy is not None else "hidden_size"


def plan(
    spec: TrainSpec,
    vocab_size: int,
    node: NodeHardware | None = None,
    data: TrainingData | None = None,
    first_step: int = 0,
) -> Plan:
    """Estimate the cost of a job on a node. Without a node, whether it fits and how long it takes stay open.

    Operations, time, energy and cost are those of the steps after `first_step`, the one of the checkpoint that it
    resumes from.

    `data` is the size of the corpora, to estimate epochs, or the steps that they take, and disk. Raises ValueError if
    the spec sets epochs and the size of the corpora is unknown.
    """
    data = data or TrainingData()
    samples = estimate_samples(spec, vocab_size, data)
    original = spec
    if spec.max_steps is None:
        if samples is None:
            raise ValueError("the steps of num_train_epochs depend on the size of the corpora")
        spec = spec.model_copy(update={"max_steps": spec.steps_for_epochs(samples.value), "num_train_epochs": None})
    assumed = node or NodeHardware(kind="cuda" if spec.num_processes > 2 else "cpu", memory_bytes=0)
    precision, parameters = assumed.precision(spec.precision), count_parameters(spec, vocab_size).total
    memory = estimate_memory(spec, vocab_size, precision, assumed.kind)
    fits = None if node is None else fits_in_memory(spec, vocab_size, node)
    remedy = cheapest_fix(spec, vocab_size, node) if node is not None and not fits else None
    on_host = host_bytes(spec, vocab_size, precision) if assumed.kind == "cuda" else None
    verdict = _verdict(spec, node, int(memory.total * assumed.memory_correction), on_host, fits, remedy)
    epochs = _epochs(original, spec, samples)
    weights = checkpoint_bytes(parameters, precision)
    resuming = resume_bytes(num_trainable_parameters(spec, vocab_size), precision)
    token_flops = flops(spec, vocab_size)
    remaining = spec.model_copy(update={"max_steps": max(1, spec.total_steps - first_step)})
    return Plan(
        num_parameters=parameters,
        num_tokens=spec.total_steps * tokens_per_step(spec),
        memory=memory,
        memory_bytes=memory.total,
        checkpoint_bytes=weights,
        resume_bytes=resuming,
        host_bytes=on_host,
        max_steps=spec.total_steps,
        num_epochs=epochs.value if epochs else None,
        flops_per_token=token_flops,
        fits=fits,
        verdict=verdict,
        remedy=remedy,
        figures={
            "memory_bytes": _memory_figure(spec, memory, assumed, verdict),
            "flops": _flops_figure(remaining, token_flops),
            "disk_bytes": _disk_figure(spec, vocab_size, weights + resuming, data.num_bytes),
            **_lengths(original, samples, epochs),
            **({} if node is None else _times(remaining, vocab_size, node, token_flops, data)),
        },
        notes=[] if node is None else _notes(spec, vocab_size, node, epochs.value if epochs else None),
        corpora=estimate_shares(spec, vocab_size, data),
    )


# ---- memory ---------------------------------------------------------------------------------------------------------


def _verdict(
    spec: TrainSpec, node: NodeHardware | None, needed: int, on_host: int | None, fits: bool | None, remedy: Fix | None
) -> Message:
    values: dict[str, Any] = {"needed_bytes": needed}
    if node is None:
        return message(MESSAGES, "memory", **values)
    available = node.memory_per_process(spec.num_processes)
    values["available_bytes"] = available
    if fits:
        return message(MESSAGES, "tight" if needed * 1.1 > available else "fits", **values)
    if node.kind == "cuda" and spec.num_processes > node.count:
        return message(MESSAGES, "devices", **values, num_processes=spec.num_processes, num_devices=node.count)
    if needed <= available:
        return message(MESSAGES, "host", host_bytes=on_host, available_bytes=node.host_memory_bytes)
    if remedy is None:
        return message(MESSAGES, "no_remedy", **values)
    code = "remedy" if remedy.keeps_result else "remedy_smaller"
    return message(MESSAGES, code, **values, changes=remedy.text, fitting_bytes=remedy.memory_bytes)


def _memory_figure(spec: TrainSpec, memory: MemoryEstimate, node: NodeHardware, reason: Message) -> Estimate:
    # Records that are not packed are padded to the longest of their batch, which may be much shorter than a sequence.
    is_padded = spec.objective not in TEXT_OBJECTIVES and not (spec.packing and spec.objective in PACKED_OBJECTIVES)
    transient_spread = (0.0 if is_padded else ACTIVATIONS_SPREAD[0], ACTIVATIONS_SPREAD[1])
    transient = memory.activations + memory.logits + memory.update
    low, high = (
        (
            memory.states * STATES_SPREAD[end]
            + transient * transient_spread[end]
            + memory.overhead * OVERHEAD_SPREAD[end]
        )
        * node.memory_correction
        for end in (0, 1)
    )
    value = memory.total * node.memory_correction
    return Estimate(low=low, value=value, high=high, unit="bytes", reason=reason)


# ---- steps and epochs -----------------------------------------------------------------------------------------------


def _epochs(original: TrainSpec, spec: TrainSpec, samples: Estimate | None) -> Estimate | None:
    """How often the run goes over its training samples; as the spec sets it, or as its steps come to."""
    if samples is None:
        return None
    if original.num_train_epochs is not None:
        value = original.num_train_epochs
        return Estimate(low=value, value=value, high=value, unit="epochs", reason=samples.reason)
    low, value, high = (
        spec.total_steps * spec.train_batch_size / count for count in (samples.high, samples.value, samples.low)
    )
    return Estimate(low=low, value=value, high=high, unit="epochs", reason=samples.reason)


def _lengths(original: TrainSpec, samples: Estimate | None, epochs: Estimate | None) -> dict[str, Estimate]:
    """The figures of epochs and, where the spec sets those, of the steps that they take."""
    figures = {} if epochs is None else {"num_epochs": epochs}
    if original.max_steps is None and samples is not None:
        low, value, high = (original.steps_for_epochs(count) for count in (samples.low, samples.value, samples.high))
        figures["max_steps"] = Estimate(low=low, value=value, high=high, unit="steps", reason=samples.reason)
    return figures


# ---- work, disk and time --------------------------------------------------------------------------------------------


def _flops_figure(spec: TrainSpec, token_flops: Flops) -> Estimate:
    tokens = spec.total_steps * tokens_per_step(spec)
    code = "flops_recomputed" if spec.gradient_checkpointing else "flops"
    reason = message(MESSAGES, code, num_tokens=tokens, token_flops=token_flops.hardware_flops)
    return estimate(token_flops.hardware_flops * tokens, (1.0, 1.05), "flops", reason)


def _disk_figure(spec: TrainSpec, vocab_size: int, each: int, num_bytes_of_text: int) -> Estimate:
    count = num_kept_checkpoints(spec)
    tokenized = int(num_bytes_of_text / BYTES_PER_TOKEN * (2 if vocab_size <= 1 << 16 else 4))
    reason = message(MESSAGES, "disk", num_checkpoints=count, each_bytes=each, text_bytes=tokenized)
    total = (count + 1) * each + tokenized
    return Estimate(low=count * each, value=total, high=total * 1.02 + tokenized, unit="bytes", reason=reason)


def _times(
    spec: TrainSpec, vocab_size: int, node: NodeHardware, token_flops: Flops, data: TrainingData
) -> dict[str, Estimate]:
    step = step_time.estimate_step_time(spec, vocab_size, node)
    startup = estimate_startup(spec, node, data)
    training = step_time.training_seconds(spec, vocab_size, node, step)
    seconds = (startup.seconds + training) * node.time_correction
    spread = step_time.SPREAD[step_time.basis(node)]
    step_reason = message(
        MESSAGES,
        step.bottleneck,
        work_flops=token_flops.hardware_flops * tokens_per_step(spec),
        rate_flops=step_time.flops_rate(spec, node) * (spec.num_processes if node.kind == "cuda" else 1),
        num_processes=spec.num_processes,
    )
    total_reason = message(
        MESSAGES,
        "total",
        max_steps=spec.total_steps,
        num_evaluations=step_time.num_evaluations(spec),
        num_saves=num_saves(spec),
    )
    return {
        "step_seconds": estimate(step.seconds * node.time_correction, spread, "seconds", step_reason),
        "startup_seconds": _startup_figure(startup, node, data, spread),
        "total_seconds": estimate(seconds, spread, "seconds", total_reason),
        **_expenses(spec, node, seconds, spread),
    }


def _startup_figure(
    startup: StartupTime, node: NodeHardware, data: TrainingData, spread: tuple[float, float]
) -> Estimate:
    """What passes before the first step."""
    code = "startup" if data.num_tokens is None else "startup_prepared"
    parts = {f"{name}_seconds": value * node.time_correction for name, value in startup.model_dump().items()}
    reason = message(MESSAGES, code, **(parts if code == "startup" else {}))
    return estimate(startup.seconds * node.time_correction, spread, "seconds", reason)


def _expenses(spec: TrainSpec, node: NodeHardware, seconds: float, spread: tuple[float, float]) -> dict[str, Estimate]:
    """Energy if the power is known, and cost if a price is set."""
    figures: dict[str, Estimate] = {}
    devices = spec.num_processes if node.kind == "cuda" else 1
    watts = node.watts or (node.device.watts if node.has_published_rates else 0)
    energy = watts * devices * seconds / 3.6e6  # kWh
    if watts:
        reason = message(MESSAGES, "energy", num_devices=devices, watts=watts)
        figures["energy_kwh"] = estimate(energy, (0.6 * spread[0], spread[1]), "kWh", reason)
    cost = (node.price_per_hour or 0) * seconds / 3600 + (node.price_per_kwh or 0) * energy
    if cost:
        figures["cost"] = estimate(cost, spread, "price", message(MESSAGES, "cost"))
    return figures


def _notes(spec: TrainSpec, vocab_size: int, node: NodeHardware, epochs: float | None) -> list[Message]:
    notes = [message(MESSAGES, step_time.basis(node), device=node.name or "this device", num_cpus=node.num_cpus)]
    if node.num_earlier_jobs:
        ratios = {"time_ratio": round(node.time_correction, 2), "memory_ratio": round(node.memory_correction, 2)}
        notes.append(message(MESSAGES, "learned", num_jobs=node.num_earlier_jobs, **ratios))
    if node.precision(spec.precision) == "bf16" and (node.kind == "cpu" or "bf16" not in node.device.flops):
        notes.append(message(MESSAGES, "bf16_emulated"))
    if spec.zero_stage > 0 and not (spec.offload_optimizer or spec.offload_parameters):
        unsharded = spec.model_copy(update={"zero_stage": 0})
        if fits_in_memory(unsharded, vocab_size, node):
            notes.append(message(MESSAGES, "zero_not_needed", zero_stage=spec.zero_stage))
    if epochs is not None and epochs > 1.25 * MAX_EPOCHS:  # proposals go up to it, by an estimate
        notes.append(message(MESSAGES, "many_epochs", epochs=round(epochs, 1), many=MAX_EPOCHS))
    return notes
