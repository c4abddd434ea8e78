"""Writes a checkpoint and goes on from one: weights and tokenizer in Hugging Face layout, the optimizer's state, what
the trainer knows, and a manifest over all.
"""

import json
import math
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import deepspeed
import torch
import transformers
from safetensors import SafetensorError
from torch import Tensor
from transformers.utils import logging as transformers_logging

from trainer.datasets.prepare import Prepared
from trainer.engines.base import Engine
from trainer.failure import Failure
from trainer.inference.generation import LoadedModel
from trainer.modeling import lora
from trainer.modeling.lora import MergedWeight
from trainer.run_dir import verify, write_manifest
from trainer.training import optimizer_state

MAX_SHARD_SIZE = "5GB"
ROOM = 1.2  # free space wanted, in sizes of the checkpoint
STATE = "trainer_state.json"


@dataclass
class LoopState:
    """What the loop carries from step to step beside weights and optimizer; JSON in the checkpoint."""

    metrics: dict[str, float] = field(default_factory=dict)
    recent_losses: list[float] = field(default_factory=list)
    num_leaps: int = 0  # of the loss, in a row
    num_updates: int = 0  # steps that changed the weights: AdamW counts these, and a skipped step is none


class NotSaved(Exception):
    """The checkpoint could not be written; nothing of it is left. Raised on every rank."""

    def __init__(self, free: int, needed: int, why: str) -> None:
        super().__init__(why)
        self.free, self.needed, self.why = free, needed, why


class CheckpointWriter:
    """One checkpoint to be written. All ranks take part in everything."""

    def __init__(
        self, directory: Path, step: int, engine: Engine, loaded: LoadedModel, prepared: Prepared, memory: LoopState
    ) -> None:
        self.directory, self.step, self.metrics = directory, step, finite_metrics(memory.metrics)
        self.num_bytes = num_bytes(engine)
        self._engine, self._loaded, self._prepared, self._memory = engine, loaded, prepared, memory

    def begin(self, is_full: bool) -> None:
        """Make the directory. `is_full` pretends that the disk is. Raises NotSaved."""
        needed = int(ROOM * self.num_bytes)
        free = 0 if is_full else shutil.disk_usage(self.directory.parent).free
        if self._engine.any_rank(free < needed):
            raise NotSaved(free, needed, "the disk is full")
        self._do(partial(_make, self.directory) if self._engine.rank == 0 else _nothing)

    def write(self, beat: Callable[[], None]) -> None:
        """Write everything. Raises NotSaved where the disk does not take it, and Failure, on the first rank, if a
        weight is not finite. `beat` tells of progress.
        """
        for work in self._works(optimizer_state.tensors(self._engine, beat), beat):
            self._do(work)

    def works(self, beat: Callable[[], None]) -> list[Callable[[], None]]:
        """What this rank has to write: first all that training will change, then, when all ranks did that, the rest.

        No other rank is needed for either, and no GPU. Raises Failure as `write` does.
        """
        share, close = self._works(list(optimizer_state.tensors(self._engine, beat)), _nothing)
        return [share, close] if self._engine.world_size > 1 else [partial(_one_by_one, share, close)]

    def _works(
        self, tensors: Iterable[tuple[str, Tensor]], beat: Callable[[], None]
    ) -> tuple[Callable[[], None], Callable[[], None]]:
        engine = self._engine
        weights = _gather(engine, lora.merged_weights(engine.model), self.step)
        is_adapted = lora.has_lora(engine.model)
        adapter = _gather(engine, lora.trainable_parameters(engine.model), self.step) if is_adapted else {}
        identity = _identity(self.step, engine, self._prepared)

        def share() -> None:
            optimizer_state.write(tensors, self.directory, engine.rank)
            if engine.rank == 0:
                _write(self.directory, weights, adapter, self.step, engine, self._loaded, self._prepared, self._memory)

        def close() -> None:
            write_manifest(self.directory, identity, beat)

        return share, close if engine.rank == 0 else _nothing

    def _do(self, work: Callable[[], None]) -> None:
        error = _disk_error(work)
        if self._engine.any_rank(error is not None):
            raise self.given_up(None if error is None else error_text(error))

    def given_up(self, why: str | None) -> NotSaved:
        """Leave nothing of it, and say why."""
        if self._engine.rank == 0:
            shutil.rmtree(self.directory, ignore_errors=True)
        free = shutil.disk_usage(self.directory.parent).free
        return NotSaved(free, int(ROOM * self.num_bytes), why or "another process could not write its part")


def _nothing() -> None:
    pass


def _one_by_one(*works: Callable[[], None]) -> None:
    for work in works:
        work()


def _disk_error(work: Callable[[], None]) -> Exception | None:
    """What went wrong on the disk, if anything did."""
    try:
        work()
    except (OSError, SafetensorError) as error:
        return error
    return None


def _make(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)  # a torn one of an earlier start of this attempt
    (directory / optimizer_state.DIRECTORY).mkdir(parents=True)


def num_bytes(engine: Engine) -> int:
    """About how large a checkpoint is."""
    width, master = (2, 4) if engine.holds_master else (4, 0)
    total, trained = num_parameters(engine.model)
    beside = width * trained if lora.has_lora(engine.model) else 0
    return total * width + beside + trained * (master + optimizer_state.BYTES_PER_PARAMETER)


def num_parameters(model: torch.nn.Module) -> tuple[int, int]:
    """How many there are in all, and how many of them train."""
    sizes = [(_size(p), p.requires_grad) for p in model.parameters()]
    return sum(size for size, _ in sizes), sum(size for size, is_trained in sizes if is_trained)


def _size(parameter: torch.nn.Parameter) -> int:
    """Of the whole, where ZeRO-3 holds a part or each byte two values of four bits."""
    packed = getattr(parameter, "quant_state", None)
    return int(getattr(parameter, "ds_numel", parameter.numel()) if packed is None else packed.shape.numel())


def _write(
    directory: Path,
    weights: dict[str, Tensor],
    adapter: dict[str, Tensor],
    step: int,
    engine: Engine,
    loaded: LoadedModel,
    prepared: Prepared,
    memory: LoopState,
) -> None:
    transformers_logging.disable_progress_bar()
    loaded.model.save_pretrained(directory, state_dict=weights, max_shard_size=MAX_SHARD_SIZE)
    if adapter:
        lora.save(loaded.model, adapter, directory / lora.DIRECTORY)
    shutil.copytree(prepared.tokenizer, directory, dirs_exist_ok=True)
    state = {"step": step, "num_tokens": step * engine.spec.tokens_per_step, **vars(memory)}
    state["metrics"] = finite_metrics(memory.metrics)
    (directory / STATE).write_text(json.dumps(state, indent=2))


def finite_metrics(metrics: dict[str, float]) -> dict[str, float]:
    """The metrics that are finite numbers, which is all that JSON can represent."""
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def error_text(error: BaseException) -> str:
    """What went wrong, in the words of the system where it has any."""
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)


def _gather(engine: Engine, wanted: Iterable[MergedWeight], step: int) -> dict[str, Tensor]:
    """Weights by name, on the first rank. ZeRO-3 holds them in parts: they are gathered one at a time, so that no other
    rank ever holds more than one whole. Raises Failure there if one is not finite.
    """
    weights: dict[str, Tensor] = {}
    spoiled: list[str] = []
    for weight in wanted:
        with engine.gathered_parameters(weight.parameters):
            if engine.rank == 0:
                value = weight.value()
                weights[weight.name] = value.to("cpu", copy=engine.spec.zero_stage == 3)
                spoiled += [] if torch.isfinite(value).all() else [weight.name]
    if spoiled:
        raise Failure("nan_loss", series=spoiled[0], value="nan", step=step)
    return weights


def _identity(step: int, engine: Engine, prepared: Prepared) -> dict[str, Any]:
    """What the weights were made from."""
    return {
        "step": step,
        "spec_sha256": engine.spec.sha256(),
        "data_sha256": prepared.data_sha256,
        "tokenizer_sha256": prepared.tokenizer_sha256,
        "base_sha256": prepared.base_sha256,
        **_machine(engine),
    }


def _machine(engine: Engine) -> dict[str, Any]:
    """What decides the bits of a step beside spec and data."""
    return {
        "world_size": engine.world_size,
        "zero_stage": engine.spec.zero_stage,
        "per_device_batch_size": engine.spec.per_device_batch_size,
        "num_threads": torch.get_num_threads(),
        "precision": engine.precision,
        "device": engine.device_name,
        "versions": {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "deepspeed": deepspeed.__version__,
        },
    }


# ---- going on -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A checkpoint to resume from."""

    directory: Path
    step: int
    memory: LoopState
    manifest: dict[str, Any]

    def differs(self, engine: Engine) -> list[str]:
        """What differs from when the checkpoint was written; if nothing does, results are bit-identical."""
        return [name for name, value in _machine(engine).items() if self.manifest.get(name) != value]


def find(directory: Path, prepared: Prepared, *, is_verified: bool) -> LoadedCheckpoint:
    """Open a checkpoint. Raises Failure where it was made from other text or with another tokenizer."""
    try:
        manifest = json.loads((directory / "MANIFEST.json").read_text()) if is_verified else verify(directory)
        state = json.loads((directory / STATE).read_text())
        memory = LoopState(state["metrics"], state["recent_losses"], state["num_leaps"], state["num_updates"])
    except (OSError, ValueError, KeyError) as error:
        raise Failure("checkpoint_unreadable", why=error_text(error)) from None
    if manifest["tokenizer_sha256"] != prepared.tokenizer_sha256:
        values = {"found": prepared.tokenizer_sha256[:12], "needed": manifest["tokenizer_sha256"][:12]}
        raise Failure("tokenizer_mismatch", **values)
    if manifest["data_sha256"] != prepared.data_sha256:
        raise Failure("data_changed", found=prepared.data_sha256[:12], needed=manifest["data_sha256"][:12])
    if manifest.get("base_sha256") != prepared.base_sha256:
        raise Failure("config_invalid", field="base_model", why="is not the model that the checkpoint was trained from")
    return LoadedCheckpoint(directory, int(manifest["step"]), memory, manifest)


def restore(load: Callable[..., None], *arguments: Any) -> None:
    """Load a part of a checkpoint. Raises Failure if it cannot be read."""
    try:
        load(*arguments)
    except (OSError, ValueError, SafetensorError) as error:
        raise Failure("checkpoint_unreadable", why=error_text(error)) from None
