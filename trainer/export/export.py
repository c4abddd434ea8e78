"""Writes a checkpoint so that other programs open it, and proves that what they open is the checkpoint. Imports torch.

An export is done when its artefact, opened in a process that has seen nothing else, gives on fixed probes the logits
that the checkpoint gives.
"""

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from huggingface_hub import split_state_dict_into_shards_factory
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerFast
from transformers.configuration_utils import PretrainedConfig
from transformers.utils import logging as transformers_logging

from trainer import run_dir
from trainer.export import gguf_writer, model_card
from trainer.modeling import lora
from trainer.modeling.safetensors_files import opened
from trainer.run_dir import sha256_file

GOLDEN = "golden.safetensors"
MODEL = "model.gguf"
# How far logits may be off, as a share of their largest: rounding only, or what the number format costs, with room
# (docs/measurements/exports.md).
TOLERANCES = {"safetensors": 1e-5, "adapter": 1e-4, "f32": 1e-4, "f16": 1e-2, "q8_0": 0.15}
PROBES, PROBE_TOKENS = 4, 32
BYTES = {"F32": 4, "F16": 2, "BF16": 2}
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")


class UnsupportedExport(ValueError):
    """A checkpoint that cannot be exported as asked."""


class LogitMismatch(Exception):
    """The artefact is not the checkpoint."""

    def __init__(self, largest: float, tolerance: float) -> None:
        super().__init__(f"logits differ by {largest:.3g}, {tolerance:.3g} is allowed")
        self.largest, self.tolerance = largest, tolerance


def export(
    checkpoint: Path,
    out: Path,
    form: str,
    *,
    quantization: str = "f16",
    max_shard_bytes: int = 5 * 10**9,
    base: Path | None = None,
    facts: dict[str, Any] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Write an artefact and return its files, and by how much its logits are off. Nothing is left where it fails.

    `base` is the model that an adapter stands beside. Raises ValueError for a damaged checkpoint,
    Impossible, and Differs where the proof fails.
    """
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    run_dir.verify(checkpoint)  # golden logits of damaged weights would prove nothing
    steps, facts, said = 5, facts or {}, {}
    progress(0, steps)
    model, tokenizer = load(checkpoint), PreTrainedTokenizerFast.from_pretrained(checkpoint, local_files_only=True)
    config, num_parameters = model.config, model.num_parameters()
    probes = probe_tokens(model)
    golden = logits(model, probes)
    progress(1, steps)
    out.mkdir(parents=True)
    try:
        if form == "gguf":
            said = _write_gguf(out, model, tokenizer, quantization, str(facts.get("name", checkpoint.name)))
        del model  # whatever comes now has no need of it, and the process that proves the artefact holds one, too
        if form != "gguf":
            _write_folder(checkpoint, out, form, config, max_shard_bytes)
        progress(2, steps)
        save_file({**probes, "logits": golden}, out / GOLDEN)
        kind = quantization if form == "gguf" else form
        largest = _proven(out, form, base, TOLERANCES[kind])
        progress(3, steps)
        model_card.write(out, form, quantization, config, num_parameters, facts, largest, TOLERANCES[kind], **said)
        progress(4, steps)
        files = [
            {"name": path.name, "size": path.stat().st_size, "sha256": sha256_file(path)}
            for path in sorted(out.iterdir())
        ]
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise
    progress(steps, steps)
    return {"files": files, "largest_difference": largest, "tolerance": TOLERANCES[kind], "format": form, **said}


def load(directory: Path) -> PreTrainedModel:
    """A checkpoint in fp32 with the head that it was trained with."""
    config = AutoConfig.from_pretrained(directory, local_files_only=True)
    made: PreTrainedModel = getattr(transformers, config.architectures[0]).from_pretrained(
        directory, dtype=torch.float32, local_files_only=True, use_safetensors=True
    )
    return made.eval()


def probe_tokens(model: PreTrainedModel) -> dict[str, Tensor]:
    """Fixed inputs: tokens drawn from the whole vocabulary, the same for every model of its size."""
    drawn = np.random.default_rng(0).integers(0, model.config.vocab_size, (PROBES, PROBE_TOKENS))
    positions = getattr(model.config, "max_position_embeddings", None) or PROBE_TOKENS
    ids = torch.from_numpy(drawn[:, : min(PROBE_TOKENS, max(1, positions - 4))]).contiguous()
    return (
        {"input_ids": ids, "decoder_input_ids": ids.clone()} if model.config.is_encoder_decoder else {"input_ids": ids}
    )


@torch.no_grad()
def logits(model: nn.Module, probes: dict[str, Tensor]) -> Tensor:
    """What a model answers, whole, in fp32."""
    found: Tensor = model(**probes, attention_mask=torch.ones_like(probes["input_ids"])).logits
    return found.float().contiguous()


def _write_gguf(
    out: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, quantization: str, name: str
) -> dict[str, Any]:
    """Write the one file, and return what has to be said of it."""
    try:
        chosen = gguf_writer.write(out / MODEL, model, tokenizer, quantization, name)
    except ValueError as error:
        raise UnsupportedExport(str(error)) from error
    return {"pre_tokenizer": chosen.name, "tokens_equal": chosen.tokens_equal}


def _write_folder(checkpoint: Path, out: Path, form: str, config: PretrainedConfig, max_shard_bytes: int) -> None:
    """Write all but the proof and the card: weights in the precision that the checkpoint has."""
    for name in (*TOKENIZER_FILES, "generation_config.json"):
        if (checkpoint / name).is_file():
            shutil.copyfile(checkpoint / name, out / name)
    config.save_pretrained(out)
    if form == "safetensors":
        _shard(checkpoint, out, max_shard_bytes)
        return
    if not (checkpoint / lora.DIRECTORY).is_dir():
        raise UnsupportedExport("the checkpoint has no adapter: its job trained all weights")
    for path in (checkpoint / lora.DIRECTORY).iterdir():
        shutil.copyfile(path, out / path.name)


def _shard(checkpoint: Path, out: Path, max_shard_bytes: int) -> None:
    """Write the weights anew in files of at most so many bytes, one of them in memory at a time."""
    where = opened(checkpoint)
    split = split_state_dict_into_shards_factory(
        {name: file.get_slice(name) for name, file in where.items()},
        get_storage_size=lambda part: math.prod(part.get_shape()) * BYTES[part.get_dtype()],
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=max_shard_bytes,
    )
    for name, tensors in split.filename_to_tensors.items():
        save_file({tensor: where[tensor].get_tensor(tensor) for tensor in tensors}, out / name, {"format": "pt"})
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        (out / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))


def _proven(out: Path, form: str, base: Path | None, tolerance: float) -> float:
    """Have a fresh process open the artefact, and return by how much its logits are off."""
    command = [sys.executable, "-m", "trainer", "verify-export", str(out), f"--format={form}"]
    done = subprocess.run(
        [*command, *([f"--base={base}"] if base is not None else [])],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        raise LogitMismatch(float("inf"), tolerance)
    largest = float(json.loads(lines[-1])["largest"])
    if not largest <= tolerance:
        raise LogitMismatch(largest, tolerance)
    return largest


def verify(out: Path, form: str, base: Path | None) -> float:
    """By how much the logits of an artefact are off those of its checkpoint, as a share of the largest."""
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    held = load_file(out / GOLDEN)
    golden = held.pop("logits")
    if form == "gguf":
        model: nn.Module = gguf_writer.read(out, MODEL)
    elif form == "adapter":
        if base is None:
            raise ValueError("an adapter is opened beside its base model: give --base")
        model = lora.load_with_adapter(base, out)
    else:
        model = load(out)
    return float((logits(model, held) - golden).abs().max() / golden.abs().max())
