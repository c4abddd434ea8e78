"""What a spec costs on a node before anything runs: parameters, operations, memory, disk, time, energy.

Where the numbers come from is in counts.py, memory.py, pace.py and devices.py; fit.py finds what makes a job fit, and
dial.py proposes a model for a text and a time.
"""

from typing import Any

from pydantic import BaseModel

from trainer.planning import step_time as paces
from trainer.planning.config_search import (
    Fix,
    cheapest_fix,
)
from trainer.planning.config_search import fits_in_memory as fits_node
from trainer.planning.counts import (
    Flops,
    count_parameters,
    flops,
    num_trainable_parameters,
    tokens_per_step,
)
from trainer.planning.estimates import Estimate, Message, estimate, message
from trainer.planning.hardware import Node
from trainer.planning.memory import (
    MemoryEstimate,
    checkpoint_bytes,
    estimate_memory,
    host_bytes,
    num_kept_checkpoints,
    resume_bytes,
)
from trainer.planning.scaling_laws import BYTES_PER_TOKEN
from trainer.spec import TrainSpec

MANY_EPOCHS = 4
BYTES_PER_TOKEN_ON_DISK = {True: 2, False: 4}  # whether the vocabulary has at most 65,536 tokens
# Of memory: states are counted to the byte, what kernels keep for a moment is not.
SPREAD_OF_STATES, SPREAD_OF_ACTIVATIONS, SPREAD_OF_OVERHEAD = (1.0, 1.02), (0.75, 1.15), (0.5, 1.4)

MESSAGES = {
    "memory": "Each process needs about {needed_bytes} of memory.",
    "fits": "Each process needs about {needed_bytes} of memory and has {available_bytes}.",
    "tight": (
        "Each process needs about {needed_bytes} of memory and has {available_bytes}: it may just fit. If it does not, "
        "the job goes on with a smaller micro-batch."
    ),
    "remedy": (
        "Each process needs about {needed_bytes} of memory, but has {available_bytes}. With {changes} it would need "
        "{fitting_bytes}, at the least cost in time."
    ),
    "remedy_smaller": (
        "Each process needs about {needed_bytes} of memory, but has {available_bytes}. Nothing that trains the same "
        "makes it fit; with {changes} it would need {fitting_bytes}."
    ),
    "no_remedy": (
        "Each process needs about {needed_bytes} of memory, but has {available_bytes}, and no setting makes it fit: "
        "lower hidden_size, intermediate_size or vocab_size, or use devices with more memory."
    ),
    "devices": (
        "num_processes is {num_processes}, but the machine has {num_devices} GPUs: choose from 1 to {num_devices}. "
        "Each process needs about {needed_bytes} of memory."
    ),
    "host": (
        "What is moved off the GPUs needs {host_bytes} of the machine's own memory, but it has {available_bytes}: "
        "choose fewer processes or a smaller model."
    ),
    "flops": (
        "Each of {num_tokens} tokens takes {token_flops}: six operations for each weight that it is multiplied with, "
        "and attention."
    ),
    "flops_recomputed": (
        "Each of {num_tokens} tokens takes {token_flops}: six operations for each weight that it is multiplied with, "
        "attention, and a second forward pass for gradient_checkpointing."
    ),
    "disk": (
        "{num_checkpoints} checkpoints of {each_bytes}, one more while it is written, and {text_bytes} of tokenised "
        "text."
    ),
    "compute": "Mostly computing: {work_flops} a step, at {rate_flops} a second.",
    "launch_overhead": (
        "Mostly starting small operations: a larger micro-batch or fewer layers would use the device better."
    ),
    "optimizer": (
        "Mostly the optimizer, which reads and writes all weights and moments: a larger batch has fewer steps."
    ),
    "communication": "Mostly exchanging weights and gradients between {num_processes} processes.",
    "offload": "Mostly moving weights and gradients between GPU and machine, and the optimizer on its processors.",
    "total": "{max_steps} steps, {num_evaluations} evaluations, {num_saves} checkpoints, and the start.",
    "energy": "{num_devices} devices under load, with {watts} watts each.",
    "cost": "The machine's price by the hour and the price of energy, for that time.",
    "learned": (
        "This machine's last {num_jobs} jobs took {time_ratio} times the estimated time and {memory_ratio} times the "
        "memory, which is counted in."
    ),
    "measured": "Rates are those that this machine was measured at.",
    "published": "Rates are those published for {device}; this machine has not been measured yet.",
    "cpu": "Rates are those usual for {num_cpus} processor cores; other work on the machine makes it slower.",
    "unknown": "Nothing is known about {device}: rates are those of a GPU of the middle.",
    "zero_for_nothing": (
        "zero_stage {zero_stage} buys nothing here: it fits without, and zero_stage 0 spares the 4 to 10 % that "
        "sharding costs."
    ),
    "bf16_emulated": "precision bf16 is emulated on this device and many times slower: choose auto or fp32.",
    "many_epochs": (
        "The text is gone through {epochs} times; beyond about {many} times repeating it teaches little more. More "
        "text, or fewer max_steps, would be better."
    ),
}


class Plan(BaseModel):
    """The cost of a job. `reason` is an English sentence whose numbers are in `values`, for translation.

    `figures` are flops, memory_bytes, disk_bytes and, where the node is known, step_seconds, total_seconds,
    energy_kwh and cost. `notes` is what else is good to know; the first says where the rates come from.
    """

    num_parameters: int
    num_tokens: int
    memory: MemoryEstimate
    memory_bytes: int
    checkpoint_bytes: int  # of the weights
    resume_bytes: int  # of what a checkpoint holds beside them, to go on from it
    host_bytes: int | None  # of the machine's own memory, where it has GPUs
    num_epochs: float | None
    flops_per_token: Flops
    fits: bool | None
    reason: str
    values: dict[str, Any]
    remedy: Fix | None
    figures: dict[str, Estimate]
    notes: list[Message]

    @property
    def verdict(self) -> Message:
        """The reason with its values."""
        return Message(text=self.reason, values=self.values)

    @property
    def is_impossible(self) -> bool:
        """Whether even the least that it may need is more than there is."""
        available = self.values.get("available_bytes")
        return self.fits is False and available is not None and self.figures["memory_bytes"].low > available

    @property
    def field(self) -> str:
        """The field to change where it does not fit."""
        return next(iter(self.remedy.changes)) if self.remedy is not None else "hidden_size"


def plan(
    spec: TrainSpec,
    vocab_size: int,
    node: Node | None = None,
    num_bytes_of_text: int | None = None,
) -> Plan:
    """Estimate a job on a node; without one, whether it fits and how long it takes stay open."""
    on = node or Node(kind="cuda" if spec.num_processes > 2 else "cpu", memory_bytes=0)
    precision, parameters = on.precision(spec.precision), count_parameters(spec, vocab_size).total
    parts = estimate_memory(spec, vocab_size, precision, on.kind)
    each = int(parts.total * on.memory_correction)
    is_fitting = None if node is None else fits_node(spec, vocab_size, node)
    remedy = None
    if node is not None and not is_fitting:
        remedy = cheapest_fix(spec, vocab_size, node)
    on_host = host_bytes(spec, vocab_size, precision) if on.kind == "cuda" else None
    verdict = _verdict(spec, node, each, on_host, is_fitting, remedy)
    epochs = _epochs(spec, num_bytes_of_text)
    return Plan(
        num_parameters=parameters,
        num_tokens=spec.max_steps * tokens_per_step(spec),
        memory=parts,
        memory_bytes=parts.total,
        checkpoint_bytes=checkpoint_bytes(parameters, precision),
        resume_bytes=resume_bytes(num_trainable_parameters(spec, vocab_size), precision),
        host_bytes=on_host,
        num_epochs=epochs,
        flops_per_token=flops(spec, vocab_size),
        fits=is_fitting,
        reason=verdict.text,
        values=verdict.values,
        remedy=remedy,
        figures={
            "memory_bytes": _memory_figure(parts, on, verdict),
            **_work(spec, vocab_size, precision, num_bytes_of_text),
            **({} if node is None else _times(spec, vocab_size, node)),
        },
        notes=[] if node is None else _notes(spec, vocab_size, node, epochs),
    )


# ---- memory ---------------------------------------------------------------------------------------------------------


def _verdict(
    spec: TrainSpec, node: Node | None, each: int, on_host: int | None, is_fitting: bool | None, remedy: Fix | None
) -> Message:
    values: dict[str, Any] = {"needed_bytes": each}
    if node is None:
        return message(MESSAGES, "memory", **values)
    available = node.memory_per_process(spec.num_processes)
    values["available_bytes"] = available
    if is_fitting:
        return message(MESSAGES, "tight" if each * 1.1 > available else "fits", **values)
    if node.kind == "cuda" and spec.num_processes > node.count:
        return message(MESSAGES, "devices", **values, num_processes=spec.num_processes, num_devices=node.count)
    if each <= available:
        return message(MESSAGES, "host", host_bytes=on_host, available_bytes=node.host_memory_bytes)
    if remedy is None:
        return message(MESSAGES, "no_remedy", **values)
    code = "remedy" if remedy.keeps_result else "remedy_smaller"
    return message(MESSAGES, code, **values, changes=remedy.said, fitting_bytes=remedy.memory_bytes)


def _memory_figure(parts: MemoryEstimate, node: Node, reason: Message) -> Estimate:
    moving = parts.activations + parts.logits + parts.update
    low, high = (
        (
            parts.states * SPREAD_OF_STATES[end]
            + moving * SPREAD_OF_ACTIVATIONS[end]
            + parts.overhead * SPREAD_OF_OVERHEAD[end]
        )
        * node.memory_correction
        for end in (0, 1)
    )
    value = parts.total * node.memory_correction
    return Estimate(low=low, value=value, high=high, unit="bytes", reason=reason)


# ---- work, disk and time --------------------------------------------------------------------------------------------


def _work(spec: TrainSpec, vocab_size: int, precision: str, num_bytes_of_text: int | None) -> dict[str, Estimate]:
    token, tokens = flops(spec, vocab_size), spec.max_steps * tokens_per_step(spec)
    code = "flops_recomputed" if spec.gradient_checkpointing else "flops"
    of_work = message(MESSAGES, code, num_tokens=tokens, token_flops=token.hardware_flops)
    parameters, kept = count_parameters(spec, vocab_size).total, num_kept_checkpoints(spec)
    each = checkpoint_bytes(parameters, precision) + resume_bytes(num_trainable_parameters(spec, vocab_size), precision)
    tokenised = int((num_bytes_of_text or 0) / BYTES_PER_TOKEN * BYTES_PER_TOKEN_ON_DISK[vocab_size <= 65_536])
    of_disk = message(MESSAGES, "disk", num_checkpoints=kept, each_bytes=each, text_bytes=tokenised)
    disk = (kept + 1) * each + tokenised
    return {
        "flops": estimate(token.hardware_flops * tokens, (1.0, 1.05), "flops", of_work),
        "disk_bytes": Estimate(low=kept * each, value=disk, high=disk * 1.02 + tokenised, unit="bytes", reason=of_disk),
    }


def _times(spec: TrainSpec, vocab_size: int, node: Node) -> dict[str, Estimate]:
    step = paces.estimate_step_time(spec, vocab_size, node)
    seconds = paces.total_seconds(spec, vocab_size, node, step) * node.time_correction
    spread = paces.SPREAD[paces.basis(node)]
    work = flops(spec, vocab_size).hardware_flops * tokens_per_step(spec)
    of_step = message(
        MESSAGES,
        step.bottleneck,
        work_flops=work,
        rate_flops=paces.flops_rate(spec, node) * (spec.num_processes if node.kind == "cuda" else 1),
        num_processes=spec.num_processes,
    )
    of_total = message(
        MESSAGES,
        "total",
        max_steps=spec.max_steps,
        num_evaluations=paces.num_evaluations(spec),
        num_saves=paces.num_saves(spec),
    )
    return {
        "step_seconds": estimate(step.seconds * node.time_correction, spread, "seconds", of_step),
        "total_seconds": estimate(seconds, spread, "seconds", of_total),
        **_expenses(spec, node, seconds, spread),
    }


def _expenses(spec: TrainSpec, node: Node, seconds: float, spread: tuple[float, float]) -> dict[str, Estimate]:
    """Energy where the power is known, and what it all costs where a price is set."""
    found: dict[str, Estimate] = {}
    devices = spec.num_processes if node.kind == "cuda" else 1
    watts = node.watts or (node.device.watts if node.is_known else 0)
    energy = watts * devices * seconds / 3.6e6
    if watts:
        reason = message(MESSAGES, "energy", num_devices=devices, watts=watts)
        found["energy_kwh"] = estimate(energy, (0.6 * spread[0], spread[1]), "kWh", reason)
    cost = (node.price_per_hour or 0) * seconds / 3600 + (node.price_per_kwh or 0) * energy
    if cost:
        found["cost"] = estimate(cost, spread, "price", message(MESSAGES, "cost"))
    return found


def _notes(spec: TrainSpec, vocab_size: int, node: Node, epochs: float | None) -> list[Message]:
    notes = [message(MESSAGES, paces.basis(node), device=node.name or "this device", num_cpus=node.num_cpus)]
    if node.num_earlier_jobs:
        ratios = {"time_ratio": round(node.time_correction, 2), "memory_ratio": round(node.memory_correction, 2)}
        notes.append(message(MESSAGES, "learned", num_jobs=node.num_earlier_jobs, **ratios))
    if node.precision(spec.precision) == "bf16" and (node.kind == "cpu" or "bf16" not in node.device.flops):
        notes.append(message(MESSAGES, "bf16_emulated"))
    if spec.zero_stage > 0 and not (spec.offload_optimizer or spec.offload_parameters):
        without = spec.model_copy(update={"zero_stage": 0})
        if fits_node(without, vocab_size, node):
            notes.append(message(MESSAGES, "zero_for_nothing", zero_stage=spec.zero_stage))
    if epochs is not None and epochs > MANY_EPOCHS:
        notes.append(message(MESSAGES, "many_epochs", epochs=round(epochs, 1), many=MANY_EPOCHS))
    return notes


def _epochs(spec: TrainSpec, num_bytes_of_text: int | None) -> float | None:
    if not num_bytes_of_text:
        return None
    train_tokens = num_bytes_of_text / BYTES_PER_TOKEN * (1 - spec.validation_fraction)
    return spec.max_steps * tokens_per_step(spec) / train_tokens
