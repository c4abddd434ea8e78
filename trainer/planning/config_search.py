"""Finds settings under which a job fits a node, and the cheapest change that makes it fit. Arithmetic only."""

from collections.abc import Collection, Iterator
from functools import lru_cache
from typing import Any

from pydantic import BaseModel

from trainer.planning.hardware import Node
from trainer.planning.memory import estimate_memory, host_bytes
from trainer.planning.step_time import estimate_step_time
from trainer.spec import TrainSpec

MEMORY_FRACTION = 0.95  # of the memory is used by settings that are chosen, where any such fit
TIME_TOLERANCE = 1.1  # settings whose steps take so little longer than the fastest are as good, and fewer changes win
CHANGED = (
    "num_processes",
    "per_device_batch_size",
    "gradient_checkpointing",
    "zero_stage",
    "offload_optimizer",
    "offload_parameters",
    "tuning",
)
# What may be given as the word auto, and stands for it until it is chosen for a machine.
AUTO_FIELDS: dict[str, Any] = {
    "per_device_batch_size": 1,
    "gradient_checkpointing": False,
    "zero_stage": 0,
    "offload_optimizer": False,
    "offload_parameters": False,
}


class Fix(BaseModel):
    """Fields to change so that a job fits, and what it then needs and takes."""

    changes: dict[str, Any]
    memory_bytes: int
    step_seconds: float
    keeps_result: bool  # whether it computes the same, up to rounding

    @property
    def said(self) -> str:
        """The changes as one would type them."""
        return ", ".join(f"{name}={str(value).lower()}" for name, value in self.changes.items())


def fits_in_memory(spec: TrainSpec, vocab_size: int, node: Node, room: float = 1.0) -> bool:
    """Whether each process finds what it needs in this share of its memory, and the machine has that of all."""
    if node.kind == "cuda" and spec.num_processes > node.count:
        return False
    available = room * node.memory_per_process(spec.num_processes)
    return required_bytes(spec, vocab_size, node) <= available and _fits_host(spec, vocab_size, node)


def required_bytes(spec: TrainSpec, vocab_size: int, node: Node) -> int:
    """Bytes of each process, as this node's earlier jobs correct the arithmetic."""
    total = estimate_memory(spec, vocab_size, node.precision(spec.precision), node.kind).total
    return int(total * node.memory_correction)


def _fits_host(spec: TrainSpec, vocab_size: int, node: Node) -> bool:
    if node.kind == "cpu" or node.host_memory_bytes is None:
        return True
    return host_bytes(spec, vocab_size, node.precision(spec.precision)) <= node.host_memory_bytes


def fastest_fitting_spec(spec: TrainSpec, vocab_size: int, node: Node) -> TrainSpec | None:
    """The spec with micro-batch, checkpointing, ZeRO stage and precision chosen anew: the fastest that fits the node.

    What is computed stays the same, up to rounding. None where nothing fits.
    """
    if node.kind == "cpu" or "bf16" not in node.device.flops:
        spec = spec.model_copy(update={"precision": "auto"})
    found = _fastest(spec, vocab_size, node, list(_settings(spec, node, is_free=True)))
    return None if found is None else spec.model_copy(update=found.changes)


def split_auto_fields(given: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The spec without the fields that are to be chosen, and their names."""
    free = [name for name in AUTO_FIELDS if given.get(name) == "auto"]
    filled = {**given, **{name: AUTO_FIELDS[name] for name in free}}
    if "zero_stage" in free and True in (given.get("offload_optimizer"), given.get("offload_parameters")):
        filled["zero_stage"] = 3  # without which nothing is offloaded
    return filled, free


def choose_auto_fields(spec: TrainSpec, vocab_size: int, node: Node, free: Collection[str]) -> TrainSpec | None:
    """The spec with the `free` fields chosen anew: the fastest that fits the node. None where nothing fits."""
    rows = spec.train_batch_size // spec.num_processes
    start = spec.model_copy(update={"per_device_batch_size": rows}) if "per_device_batch_size" in free else spec
    specs = [start, *(_off_gpu(start, node) if {"offload_optimizer", "offload_parameters"} & set(free) else [])]
    fixed = [name for name in CHANGED if name not in free]
    ways = [way for each in specs for way in _settings(each, node, is_free=True)]

    def fitting(room: float) -> list[tuple[float, TrainSpec]]:
        every = _fitting(ways, vocab_size, node, room)
        return [(s, way) for s, way in every if all(getattr(way, name) == getattr(spec, name) for name in fixed)]

    found = fitting(MEMORY_FRACTION) or fitting(1.0)
    if not found:
        return None
    fastest = min(seconds for seconds, _chosen in found)
    close = [chosen for seconds, chosen in found if seconds <= TIME_TOLERANCE * fastest]
    return min(close, key=lambda chosen: (chosen.gradient_checkpointing, chosen.zero_stage))


def cheapest_fix(spec: TrainSpec, vocab_size: int, node: Node) -> Fix | None:
    """The change that makes a job fit at the least cost in time: first what computes the same, then, where it starts
    from a base model, a LoRA adapter in place of all weights, then shorter sequences, then fewer layers.
    """
    off_gpu, adapter = _off_gpu(spec, node), _with_adapter(spec)
    return (
        _fastest(spec, vocab_size, node, _ways(node, spec))
        or _fastest(spec, vocab_size, node, _ways(node, *off_gpu))
        or _fastest(spec, vocab_size, node, _ways(node, *adapter), keeps_result=False)
        or _smaller(spec, vocab_size, node)
    )


def _off_gpu(spec: TrainSpec, node: Node) -> list[TrainSpec]:
    """The spec with optimizer, and with weights too, in the machine's memory."""
    if node.kind == "cpu" or spec.optimizer == "muon":  # there is no other memory, or no optimizer for it
        return []
    offload = spec.model_copy(update={"offload_optimizer": True})
    return [offload, offload.model_copy(update={"offload_parameters": True})]


def _with_adapter(spec: TrainSpec) -> list[TrainSpec]:
    if spec.base_model is None or spec.tuning != "full":
        return []
    return [spec.model_copy(update={"tuning": "lora", "optimizer": "adamw"})]


def _fastest(
    spec: TrainSpec,
    vocab_size: int,
    node: Node,
    candidates: list[TrainSpec],
    *,
    keeps_result: bool = True,
) -> Fix | None:
    found = _fitting(candidates, vocab_size, node, MEMORY_FRACTION) or _fitting(candidates, vocab_size, node, 1.0)
    if not found:
        return None
    fastest = min(seconds for seconds, _chosen in found)
    close = [
        (_changes(spec, chosen), seconds, chosen) for seconds, chosen in found if seconds <= TIME_TOLERANCE * fastest
    ]
    changes, seconds, after = min(close, key=lambda choice: (len(choice[0]), choice[1]))
    return Fix(
        changes=changes,
        memory_bytes=required_bytes(after, vocab_size, node),
        step_seconds=seconds,
        keeps_result=keeps_result,
    )


def _ways(node: Node, *specs: TrainSpec) -> list[TrainSpec]:
    """All settings that save memory beside those of each of some specs."""
    return [candidate for spec in specs for candidate in _settings(spec, node, is_free=False)]


def _settings(spec: TrainSpec, node: Node, *, is_free: bool) -> Iterator[TrainSpec]:
    """All that computes the same: more processes where the node has them, checkpointing, ZeRO. `is_free`: those that
    need more memory than the spec's own, too.
    """
    counts = {spec.num_processes}
    if node.kind == "cuda":
        counts = {count for count in (spec.num_processes, node.count) if count <= node.count} or {node.count}
    for count in sorted(counts):
        if spec.train_batch_size % count:
            continue
        stages = _stages(spec, count)
        least = 0 if is_free else min(spec.zero_stage, stages[-1])
        for stage in (stage for stage in stages if stage >= least):
            for is_checkpointing in (False, True):
                if is_free or is_checkpointing >= spec.gradient_checkpointing:
                    update = {"num_processes": count, "zero_stage": stage, "gradient_checkpointing": is_checkpointing}
                    yield spec.model_copy(update=update)


def _stages(spec: TrainSpec, num_processes: int) -> list[int]:
    """Those that save something: one process has nothing to shard, but DeepSpeed offloads only from stage 2 or 3 on."""
    if spec.offload_parameters:
        return [3]
    if spec.offload_optimizer:
        return [2] if num_processes == 1 else [2, 3]
    if spec.optimizer == "muon":
        return [0]
    most = 2 if spec.tuning == "qlora" else 3
    return sorted({0, spec.zero_stage}) if num_processes == 1 else list(range(most + 1))


def _fitting(candidates: list[TrainSpec], vocab_size: int, node: Node, room: float) -> list[tuple[float, TrainSpec]]:
    """Those that fit this share of the memory, each with its largest micro-batch and the seconds of a step."""
    found = []
    for candidate in candidates:
        size = _largest_micro_batch(candidate, vocab_size, node, room)
        if size is not None:
            chosen = candidate.model_copy(update={"per_device_batch_size": size})
            found.append((estimate_step_time(chosen, vocab_size, node).seconds, chosen))
    return found


def _largest_micro_batch(spec: TrainSpec, vocab_size: int, node: Node, room: float) -> int | None:
    """The largest micro-batch that fits, not above the one asked for: memory grows with it."""
    sizes = _divisors(spec.train_batch_size // spec.num_processes, spec.per_device_batch_size)
    low, high = 0, len(sizes)
    while low < high:
        middle = (low + high) // 2
        if fits_in_memory(spec.model_copy(update={"per_device_batch_size": sizes[middle]}), vocab_size, node, room):
            low = middle + 1
        else:
            high = middle
    return sizes[low - 1] if low else None


@lru_cache(maxsize=1024)
def _divisors(whole: int, most: int) -> list[int]:
    return [size for size in range(1, min(most, whole) + 1) if whole % size == 0]


def _changes(before: TrainSpec, after: TrainSpec) -> dict[str, Any]:
    return {name: getattr(after, name) for name in CHANGED if getattr(after, name) != getattr(before, name)}


def _smaller(spec: TrainSpec, vocab_size: int, node: Node) -> Fix | None:
    """The longest sequences, down to an eighth, that fit under the most frugal settings, else the deepest model."""
    lengths = [spec.sequence_length >> halvings for halvings in (3, 2, 1) if spec.sequence_length >> halvings >= 64]
    depths = list(range(1, spec.num_hidden_layers)) if spec.base_model is None else []
    for name, values in (("sequence_length", lengths), ("num_hidden_layers", depths)):
        low, high, best = 0, len(values), None
        while low < high:
            middle = (low + high) // 2
            smaller = spec.model_copy(update={name: values[middle]})
            candidates = _ways(node, smaller, *_off_gpu(smaller, node), *_with_adapter(smaller))
            found = _fastest(smaller, vocab_size, node, candidates, keeps_result=False)
            if found is None:
                high = middle
            else:
                low = middle + 1
                best = found.model_copy(update={"changes": {name: values[middle], **found.changes}})
        if best is not None:
            return best
    return None
