"""Writes a checkpoint: weights and tokenizer in Hugging Face layout, the trainer's state, and a manifest over all."""

import json
import shutil
from pathlib import Path
from typing import Any

import deepspeed
import torch
import transformers
from torch import Tensor
from transformers.utils import logging as transformers_logging

from trainer.engine import Engine
from trainer.failure import Failure
from trainer.generate import Loaded
from trainer.prepare import Prepared
from trainer.rundir import write_manifest

MAX_SHARD_SIZE = "5GB"


def save(
    directory: Path,
    step: int,
    engine: Engine,
    loaded: Loaded,
    prepared: Prepared,
    metrics: dict[str, float],
) -> None:
    """Write a whole checkpoint. All ranks take part; the first one writes.

    Raises Failure, on the first rank, if a weight is not finite.
    """
    weights = _gather(engine)
    if engine.rank == 0:
        _require_finite(weights, step)
        shutil.rmtree(directory, ignore_errors=True)  # a torn one of an earlier start of this attempt
        directory.mkdir(parents=True)
        transformers_logging.disable_progress_bar()
        loaded.model.save_pretrained(directory, state_dict=weights, max_shard_size=MAX_SHARD_SIZE)
        shutil.copytree(prepared.tokenizer, directory, dirs_exist_ok=True)
        state = {"step": step, "num_tokens": step * engine.spec.tokens_per_step, "metrics": metrics}
        (directory / "trainer_state.json").write_text(json.dumps(state, indent=2))
        write_manifest(directory, _identity(step, engine, prepared))
    engine.barrier()


def _gather(engine: Engine) -> dict[str, Tensor]:
    """The weights, on the first rank. ZeRO-3 holds them in parts: they are gathered one at a time, so that no other
    rank ever holds more than one whole.
    """
    weights = {}
    for name, parameter in engine.model.named_parameters():
        if engine.spec.zero_stage < 3:
            if engine.rank == 0:
                weights[name] = parameter.detach()
            continue
        with deepspeed.zero.GatheredParameters([parameter]):
            if engine.rank == 0:
                weights[name] = parameter.detach().to("cpu", copy=True)
    return weights


def _require_finite(weights: dict[str, Tensor], step: int) -> None:
    for name, tensor in weights.items():
        if not torch.isfinite(tensor).all():
            raise Failure("nan_loss", series=name, value="nan", step=step)


def _identity(step: int, engine: Engine, prepared: Prepared) -> dict[str, Any]:
    """What the weights were made from."""
    return {
        "step": step,
        "spec_sha256": engine.spec.sha256(),
        "data_sha256": prepared.data_sha256,
        "tokenizer_sha256": prepared.tokenizer_sha256,
        "world_size": engine.world_size,
        "num_threads": torch.get_num_threads(),
        "precision": engine.precision,
        "versions": {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "deepspeed": deepspeed.__version__,
        },
    }
