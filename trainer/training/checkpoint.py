"""Writes checkpoints and resumes from them.

A checkpoint has the weights and the tokenizer in the Hugging Face layout, the optimizer's state, the state of the
training loop (trainer_state.json) and a manifest with the hashes of all files.
"""

import json
import math
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from torch import Tensor
from transformers.utils import logging as transformers_logging

from trainer.datasets.prepare import Prepared
from trainer.engines.base import Engine
from trainer.failure import Failure, config_invalid
from trainer.inference.generation import LoadedModel
from trainer.modeling import config_file, lora
from trainer.modeling.lora import MergedWeight
from trainer.run_dir import verify, write_manifest
from trainer.training import optimizer_state
from trainer.training.loop_state import LoopState

MAX_SHARD_SIZE = "5GB"
FREE_SPACE_FACTOR = 1.2  # free disk space that a save requires, as a multiple of the size of the checkpoint
STATE = "trainer_state.json"


class NotSaved(Exception):
    """The checkpoint could not be written, and its files were deleted. Raised on every rank.

    `free` and `needed` are bytes of disk space; `why` is the error of the system.
    """

    def __init__(self, free: int, needed: int, why: str) -> None:
        super().__init__(why)
        self.free = free
        self.needed = needed
        self.why = why


class CheckpointWriter:
    """Writes one checkpoint. All ranks must call each method."""

    def __init__(
        self, directory: Path, step: int, engine: Engine, loaded: LoadedModel, prepared: Prepared, loop_state: LoopState
    ) -> None:
        self.directory = directory
        self.step = step
        self.metrics = finite_metrics(loop_state.metrics)
        self.num_bytes = num_bytes(engine)
        self._engine = engine
        self._loaded = loaded
        self._prepared = prepared
        self._loop_state = loop_state

    def begin(self, is_full: bool) -> None:
        """Create the directory. `is_full` simulates a full disk. Raises NotSaved."""
        needed = int(FREE_SPACE_FACTOR * self.num_bytes)
        free = 0 if is_full else shutil.disk_usage(self.directory.parent).free
        if self._engine.any_rank(free < needed):
            raise NotSaved(free, needed, "the disk is full")
        self._do(partial(_make, self.directory) if self._engine.rank == 0 else _nothing)

    def write(self, beat: Callable[[], None]) -> None:
        """Write everything. Raises NotSaved if the disk fails, and Failure, on rank 0, if a weight is not finite.

        `beat` is called repeatedly to report progress.
        """
        for write in self._writers(optimizer_state.tensors(self._engine, beat), beat):
            self._do(write)

    def writers(self, beat: Callable[[], None]) -> list[Callable[[], None]]:
        """Functions that write this rank's part, each to be called after all ranks have finished the one before it.

        They need no other rank and no GPU, so a fork can call them. Raises Failure as `write` does.
        """
        share, close = self._writers(list(optimizer_state.tensors(self._engine, beat)), _nothing)
        return [share, close] if self._engine.world_size > 1 else [partial(_one_by_one, share, close)]

    def _writers(
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
                _write(
                    self.directory, weights, adapter, self.step, engine, self._loaded, self._prepared, self._loop_state
                )

        def close() -> None:
            write_manifest(self.directory, identity, beat)

        return share, close if engine.rank == 0 else _nothing

    def _do(self, write: Callable[[], None]) -> None:
        error = _disk_error(write)
        if self._engine.any_rank(error is not None):
            raise self.discard(None if error is None else error_text(error))

    def discard(self, why: str | None) -> NotSaved:
        """Delete the incomplete checkpoint. Returns the exception for `why`, this rank's error if it has one."""
        if self._engine.rank == 0:
            shutil.rmtree(self.directory, ignore_errors=True)
        free = shutil.disk_usage(self.directory.parent).free
        needed = int(FREE_SPACE_FACTOR * self.num_bytes)
        return NotSaved(free, needed, why or "another process could not write its part")


def _nothing() -> None:
    pass


def _one_by_one(*writers: Callable[[], None]) -> None:
    for write in writers:
        write()


def _disk_error(write: Callable[[], None]) -> Exception | None:
    """Call `write` and return its disk error, or None if it succeeded."""
    try:
        write()
    except (OSError, SafetensorError) as error:
        return error
    return None


def _make(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)  # an incomplete one of an earlier start of this attempt
    (directory / optimizer_state.DIRECTORY).mkdir(parents=True)


def num_bytes(engine: Engine) -> int:
    """The approximate size of a checkpoint in bytes."""
    weight_bytes, master_bytes = (2, 4) if engine.holds_master else (4, 0)
    total, trained = num_parameters(engine.model)
    adapter_bytes = weight_bytes * trained if lora.has_lora(engine.model) else 0
    state_bytes = trained * (master_bytes + optimizer_state.BYTES_PER_PARAMETER)
    return total * weight_bytes + adapter_bytes + state_bytes


def num_parameters(model: torch.nn.Module) -> tuple[int, int]:
    """The number of parameters of a model, and how many of them are trained."""
    sizes = [(_size(p), p.requires_grad) for p in model.parameters()]
    return sum(size for size, _ in sizes), sum(size for size, is_trained in sizes if is_trained)


def _size(parameter: torch.nn.Parameter) -> int:
    """The number of values of a complete parameter, of which ZeRO-3 holds a part, or 4-bit weights two in a byte."""
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
    loop_state: LoopState,
) -> None:
    transformers_logging.disable_progress_bar()
    loaded.model.save_pretrained(directory, state_dict=weights, max_shard_size=MAX_SHARD_SIZE)
    config_file.add_old_spelling(directory)
    if adapter:
        lora.save(loaded.model, adapter, directory / lora.DIRECTORY)
    shutil.copytree(prepared.tokenizer, directory, dirs_exist_ok=True)
    state = {"step": step, "num_tokens": step * engine.spec.tokens_per_step, **vars(loop_state)}
    state["metrics"] = finite_metrics(loop_state.metrics)
    (directory / STATE).write_text(json.dumps(state, indent=2))


def finite_metrics(metrics: dict[str, float]) -> dict[str, float]:
    """The metrics that are finite numbers, which is all that JSON can represent."""
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def error_text(error: BaseException) -> str:
    """The message of an error: that of the operating system if it has one."""
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)


def _gather(engine: Engine, wanted: Iterable[MergedWeight], step: int) -> dict[str, Tensor]:
    """The weights by name on rank 0, empty on the others. Raises Failure on rank 0 if one is not finite.

    Under ZeRO-3, weights are gathered one at a time, so that no other rank ever holds more than one complete weight.
    """
    weights: dict[str, Tensor] = {}
    not_finite: list[str] = []
    for weight in wanted:
        with engine.gathered_parameters(weight.parameters):
            if engine.rank == 0:
                value = weight.value()
                weights[weight.name] = value.to("cpu", copy=engine.spec.zero_stage == 3)
                if not torch.isfinite(value).all():
                    not_finite.append(weight.name)
    if not_finite:
        raise Failure("nan_loss", series=not_finite[0], value="nan", step=step)
    return weights


def _identity(step: int, engine: Engine, prepared: Prepared) -> dict[str, Any]:
    """The step, and the hashes of everything that the weights depend on, for the manifest."""
    return {
        "step": step,
        "spec_sha256": engine.spec.sha256(),
        "data_sha256": prepared.data_sha256,
        "tokenizer_sha256": prepared.tokenizer_sha256,
        "base_sha256": prepared.base_sha256,
        **_machine(engine),
    }


def _machine(engine: Engine) -> dict[str, Any]:
    """What the bits of a step depend on besides spec and data, for the manifest."""
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
            "deepspeed": version("deepspeed"),
        },
    }


# ---- resuming -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A checkpoint to resume from."""

    directory: Path
    step: int
    loop_state: LoopState
    manifest: dict[str, Any]

    def differs(self, engine: Engine) -> list[str]:
        """The names of the conditions that changed since the checkpoint was written.

        If there are none, training continues bit-identically.
        """
        return [name for name, value in _machine(engine).items() if self.manifest.get(name) != value]


def find(directory: Path, prepared: Prepared, *, is_verified: bool) -> LoadedCheckpoint:
    """Open a checkpoint. Its files are verified here unless `is_verified`.

    Raises Failure if it cannot be read, or if it was trained on other data or with another tokenizer or base model.
    """
    try:
        manifest = json.loads((directory / "MANIFEST.json").read_text()) if is_verified else verify(directory)
        state = json.loads((directory / STATE).read_text())
        loop_state = LoopState.from_json(state)
    except (OSError, ValueError, KeyError) as error:
        raise Failure("checkpoint_unreadable", why=error_text(error)) from None
    if manifest["tokenizer_sha256"] != prepared.tokenizer_sha256:
        values = {"found": prepared.tokenizer_sha256[:12], "needed": manifest["tokenizer_sha256"][:12]}
        raise Failure("tokenizer_mismatch", **values)
    if manifest["data_sha256"] != prepared.data_sha256:
        raise Failure("data_changed", found=prepared.data_sha256[:12], needed=manifest["data_sha256"][:12])
    if manifest.get("base_sha256") != prepared.base_sha256:
        raise config_invalid("base_model", "base_changed")
    return LoadedCheckpoint(directory, int(manifest["step"]), loop_state, manifest)


def restore(load: Callable[..., None], *arguments: Any) -> None:
    """Call `load` with the arguments. Raises Failure if the checkpoint cannot be read."""
    try:
        load(*arguments)
    except (OSError, ValueError, SafetensorError) as error:
        raise Failure("checkpoint_unreadable", why=error_text(error)) from None
