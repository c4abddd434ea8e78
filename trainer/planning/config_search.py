"""Searches the settings under which a job fits a node, and the cheapest change that makes it fit. Arithmetic only."""

from collections.abc import Collection, Iterator
from functools import lru_cache
from typing import Any

from pydantic import BaseModel

from trainer.planning.hardware import NodeHardware
from trainer.planning.memory import estimate_memory, host_bytes
from trainer.planning.step_time import estimate_step_time
from trainer.spec import TrainSpec

MEMORY_FRACTION = 0.95  # chosen settings use at most this fraction of the memory, unless only more of it fits
TIME_TOLERANCE = 1.1  # settings within this factor of the fastest step count as equally fast; the fewest changes win
CHANGED = (
    "num_processes",
    "per_device_batch_size",
    "gradient_checkpointing",
    "zero_stage",
    "offload_optimizer",
    "offload_parameters",
    "tuning",
)
# Fields that accept "auto", with the value that stands in until one is chosen for a machine.
AUTO_FIELDS: dict[str, Any] = {
    "per_device_batch_size": 1,
    "gradient_checkpointing": False,
    "zero_stage": 0,
    "offload_optimizer": False,
    "offload_parameters": False,
}


class Fix(BaseModel):
    """Fields to change so that a job fits in memory, with the bytes per process and seconds per step afterwards."""

    changes: dict[str, Any]
    memory_bytes: int
    step_seconds: float
    keeps_result: bool  # whether the model learns the same, up to rounding

    @property
    def text(self) -> str:
        """The changes as `field=value` pairs."""
        return ", ".join(f"{name}={str(value).lower()}" for name, value in self.changes.items())


def fits_in_memory(spec: TrainSpec, vocab_size: int, node: NodeHardware, fraction: float = 1.0) -> bool:
    """Whether each process fits in this fraction of its memory, and all of them in the host memory of a GPU machine."""
    if node.kind == "cuda" and spec.num_processes > node.count:
        return False
    available = fraction * node.memory_per_process(spec.num_processes)
    return required_bytes(spec, vocab_size, node) <= available and _fits_host(spec, vocab_size, node)


def required_bytes(spec: TrainSpec, vocab_size: int, node: NodeHardware) -> int:
    """Peak bytes of each process, corrected by the node's earlier jobs."""
    total = estimate_memory(spec, vocab_size, node.precision(spec.precision), node.kind).total
    return int(total * node.memory_correction)


def _fits_host(spec: TrainSpec, vocab_size: int, node: NodeHardware) -> bool:
    if node.kind == "cpu" or node.host_memory_bytes is None:
        return True
    return host_bytes(spec, vocab_size, node.precision(spec.precision)) <= node.host_memory_bytes


def fastest_fitting_spec(spec: TrainSpec, vocab_size: int, node: NodeHardware) -> TrainSpec | None:
    """The spec with the fastest micro-batch, checkpointing, ZeRO stage and precision that fit the node.

    The model learns the same, up to rounding. None if nothing fits.
    """
    if node.kind == "cpu" or "bf16" not in node.device.flops:
        spec = spec.model_copy(update={"precision": "auto"})
    fix = _fastest(spec, vocab_size, node, list(_settings(spec, node, is_free=True)))
    return None if fix is None else spec.model_copy(update=fix.changes)


def split_auto_fields(fields: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The fields of a spec with "auto" replaced by placeholders, and the names of the fields that were "auto"."""
    auto = [name for name in AUTO_FIELDS if fields.get(name) == "auto"]
    filled = {**fields, **{name: AUTO_FIELDS[name] for name in auto}}
    if "zero_stage" in auto and True in (fields.get("offload_optimizer"), fields.get("offload_parameters")):
        filled["zero_stage"] = 3  # offload needs it
    return filled, auto


def choose_auto_fields(spec: TrainSpec, vocab_size: int, node: NodeHardware, auto: Collection[str]) -> TrainSpec | None:
    """The spec with the fastest values of the `auto` fields that fit the node. None if nothing fits."""
    rows = spec.train_batch_size // spec.num_processes
    start = spec.model_copy(update={"per_device_batch_size": rows}) if "per_device_batch_size" in auto else spec
    starts = [start, *(_offloaded(start, node) if {"offload_optimizer", "offload_parameters"} & set(auto) else [])]
    fixed = [name for name in CHANGED if name not in auto]
    candidates = [candidate for each in starts for candidate in _settings(each, node, is_free=True)]

    def fitting(fraction: float) -> list[tuple[float, TrainSpec]]:
        timed = _timed(candidates, vocab_size, node, fraction)
        return [(s, one) for s, one in timed if all(getattr(one, name) == getattr(spec, name) for name in fixed)]

    timed = fitting(MEMORY_FRACTION) or fitting(1.0)
    if not timed:
        return None
    fastest = min(seconds for seconds, _candidate in timed)
    close = [candidate for seconds, candidate in timed if seconds <= TIME_TOLERANCE * fastest]
    return min(close, key=lambda candidate: (candidate.gradient_checkpointing, candidate.zero_stage))


def cheapest_fix(spec: TrainSpec, vocab_size: int, node: NodeHardware) -> Fix | None:
    """The change that makes a job fit at the lowest cost in time, or None.

    First settings under which the model learns the same; then, for a base model, LoRA in place of full fine-tuning;
    then shorter sequences; then fewer layers.
    """
    offloaded, lora = _offloaded(spec, node), _with_lora(spec)
    return (
        _fastest(spec, vocab_size, node, _frugal_settings(node, spec))
        or _fastest(spec, vocab_size, node, _frugal_settings(node, *offloaded))
        or _fastest(spec, vocab_size, node, _frugal_settings(node, *lora), keeps_result=False)
        or _smaller(spec, vocab_size, node)
    )


def _offloaded(spec: TrainSpec, node: NodeHardware) -> list[TrainSpec]:
    """The spec with the optimizer in host memory, and with the weights there too."""
    if node.kind == "cpu" or spec.optimizer == "muon":  # no separate host memory, or no CPU implementation
        return []
    offload = spec.model_copy(update={"offload_optimizer": True})
    return [offload, offload.model_copy(update={"offload_parameters": True})]


def _with_lora(spec: TrainSpec) -> list[TrainSpec]:
    if spec.base_model is None or spec.tuning != "full":
        return []
    return [spec.model_copy(update={"tuning": "lora", "optimizer": "adamw"})]


def _fastest(
    spec: TrainSpec,
    vocab_size: int,
    node: NodeHardware,
    candidates: list[TrainSpec],
    *,
    keeps_result: bool = True,
) -> Fix | None:
    timed = _timed(candidates, vocab_size, node, MEMORY_FRACTION) or _timed(candidates, vocab_size, node, 1.0)
    if not timed:
        return None
    fastest = min(seconds for seconds, _candidate in timed)
    close = [(_changes(spec, one), seconds, one) for seconds, one in timed if seconds <= TIME_TOLERANCE * fastest]
    changes, seconds, after = min(close, key=lambda choice: (len(choice[0]), choice[1]))
    return Fix(
        changes=changes,
        memory_bytes=required_bytes(after, vocab_size, node),
        step_seconds=seconds,
        keeps_result=keeps_result,
    )


def _frugal_settings(node: NodeHardware, *specs: TrainSpec) -> list[TrainSpec]:
    """The settings of these specs that need no more memory than each spec's own."""
    return [candidate for spec in specs for candidate in _settings(spec, node, is_free=False)]


def _settings(spec: TrainSpec, node: NodeHardware, *, is_free: bool) -> Iterator[TrainSpec]:
    """Settings under which the model learns the same: processes up to the node's GPUs, checkpointing, ZeRO stages.

    `is_free` includes those that need more memory than the spec's own.
    """
    counts = {spec.num_processes}
    if node.kind == "cuda":
        counts = {count for count in (spec.num_processes, node.count) if count <= node.count} or {node.count}
    for count in sorted(counts):
        if spec.train_batch_size % count:
            continue
        stages = _stages(spec, count)
        lowest = 0 if is_free else min(spec.zero_stage, stages[-1])
        for stage in (stage for stage in stages if stage >= lowest):
            for is_checkpointing in (False, True):
                if is_free or is_checkpointing >= spec.gradient_checkpointing:
                    update = {"num_processes": count, "zero_stage": stage, "gradient_checkpointing": is_checkpointing}
                    yield spec.model_copy(update=update)


def _stages(spec: TrainSpec, num_processes: int) -> list[int]:
    """ZeRO stages worth trying: one process has nothing to shard, but DeepSpeed offloads only from stage 2 or 3 on."""
    if spec.offload_parameters:
        return [3]
    if spec.offload_optimizer:
        return [2] if num_processes == 1 else [2, 3]
    if spec.optimizer == "muon":
        return [0]
    highest = 2 if spec.tuning == "qlora" else 3
    return sorted({0, spec.zero_stage}) if num_processes == 1 else list(range(highest + 1))


def _timed(
    candidates: list[TrainSpec], vocab_size: int, node: NodeHardware, fraction: float
) -> list[tuple[float, TrainSpec]]:
    """The candidates that fit this fraction of the memory, each with its largest micro-batch and its step's seconds."""
    timed = []
    for candidate in candidates:
        size = _largest_micro_batch(candidate, vocab_size, node, fraction)
        if size is not None:
            sized = candidate.model_copy(update={"per_device_batch_size": size})
            timed.append((estimate_step_time(sized, vocab_size, node).seconds, sized))
    return timed


def _largest_micro_batch(spec: TrainSpec, vocab_size: int, node: NodeHardware, fraction: float) -> int | None:
    """The largest micro-batch that fits, up to the spec's own, by bisection: memory grows with it."""
    sizes = _divisors(spec.train_batch_size // spec.num_processes, spec.per_device_batch_size)
    low, high = 0, len(sizes)
    while low < high:
        middle = (low + high) // 2
        if fits_in_memory(spec.model_copy(update={"per_device_batch_size": sizes[middle]}), vocab_size, node, fraction):
            low = middle + 1
        else:
            high = middle
    return sizes[low - 1] if low else None


@lru_cache(maxsize=1024)
def _divisors(number: int, largest: int) -> list[int]:
    return [size for size in range(1, min(largest, number) + 1) if number % size == 0]


def _changes(before: TrainSpec, after: TrainSpec) -> dict[str, Any]:
    return {name: getattr(after, name) for name in CHANGED if getattr(after, name) != getattr(before, name)}


def _smaller(spec: TrainSpec, vocab_size: int, node: NodeHardware) -> Fix | None:
    """Halve the sequence length up to three times, else remove layers, until the job fits under frugal settings."""
    lengths = [spec.sequence_length >> halvings for halvings in (3, 2, 1) if spec.sequence_length >> halvings >= 64]
    depths = list(range(1, spec.num_hidden_layers)) if spec.base_model is None else []
    for name, values in (("sequence_length", lengths), ("num_hidden_layers", depths)):
        low, high, best = 0, len(values), None
        while low < high:
            middle = (low + high) // 2
            smaller = spec.model_copy(update={name: values[middle]})
            candidates = _frugal_settings(node, smaller, *_offloaded(smaller, node), *_with_lora(smaller))
            fix = _fastest(smaller, vocab_size, node, candidates, keeps_result=False)
            if fix is None:
                high = middle
            else:
                low = middle + 1
                best = fix.model_copy(update={"changes": {name: values[middle], **fix.changes}})
        if best is not None:
            return best
    return None
