"""Exports a checkpoint as safetensors, LoRA adapter or GGUF, and verifies the result in a fresh process. Imports torch.

The export succeeds only if its logits on fixed probe tokens equal the checkpoint's, within the tolerance of its format.
"""

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from huggingface_hub import split_state_dict_into_shards_factory
from safetensors.torch import save_file
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from transformers.configuration_utils import PretrainedConfig
from transformers.utils import logging as transformers_logging

from trainer import run_dir
from trainer.export import gguf_writer, model_card
from trainer.export.gguf_writer import UnsupportedExport
from trainer.export.verification import GGUF_MODEL, GOLDEN, load, logits, probe_tokens
from trainer.limits import Limit
from trainer.modeling import config_file, lora
from trainer.modeling.safetensors_files import opened
from trainer.run_dir import sha256_file

# Largest accepted difference of logits, relative to the largest logit: rounding, or the error of the number format with
# a margin (docs/measurements/exports.md).
TOLERANCES = {"safetensors": 1e-5, "adapter": 1e-4, "f32": 1e-4, "f16": 1e-2, "q8_0": 0.15}
BYTES = {"F32": 4, "F16": 2, "BF16": 2}
ADAPTER_CONFIG = "adapter_config.json"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")


class LogitMismatch(Exception):
    """The logits of an export differ from the checkpoint's by more than the tolerance, or it could not be loaded."""

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
    has_manifest: bool = True,
    facts: dict[str, Any] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Export a checkpoint to the new directory `out`. Returns its files and the largest difference of logits.

    `form` is safetensors, adapter or gguf, `base` the base model of an adapter, `facts` the contents of the model card.
    A folder that was not written here may have no manifest.
    `out` is removed on failure. Raises ValueError for a damaged checkpoint, UnsupportedExport, and LogitMismatch if the
    verification fails.
    """
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    if has_manifest:
        run_dir.verify(checkpoint)
    steps, facts = 5, facts or {}
    gguf_notes: dict[str, Any] = {}
    progress(0, steps)
    model, tokenizer = load(checkpoint), PreTrainedTokenizerFast.from_pretrained(checkpoint, local_files_only=True)
    config, num_parameters = model.config, model.num_parameters()
    probes = probe_tokens(model)
    golden = logits(model, probes)
    progress(1, steps)
    out.mkdir(parents=True)
    try:
        if form == "gguf":
            gguf_notes = _write_gguf(out, model, tokenizer, quantization, str(facts.get("name", checkpoint.name)))
        del model  # the verifying process loads the model, too
        if form != "gguf":
            _write_folder(checkpoint, out, form, config, max_shard_bytes, facts.get("base_model"))
        progress(2, steps)
        save_file({**probes, "logits": golden}, out / GOLDEN)
        tolerance = TOLERANCES[quantization if form == "gguf" else form]
        largest = _verify_in_fresh_process(out, form, base, tolerance)
        progress(3, steps)
        model_card.write(out, form, quantization, config, num_parameters, facts, largest, tolerance, **gguf_notes)
        progress(4, steps)
        files = [
            {"name": path.name, "size": path.stat().st_size, "sha256": sha256_file(path)}
            for path in sorted(out.iterdir())
        ]
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise
    progress(steps, steps)
    return {"files": files, "largest_difference": largest, "tolerance": tolerance, "format": form, **gguf_notes}


def _write_gguf(
    out: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, quantization: str, name: str
) -> dict[str, Any]:
    """Write the GGUF file. Returns the chosen pre-tokenizer for the model card. Raises UnsupportedExport."""
    choice = gguf_writer.write(out / GGUF_MODEL, model, tokenizer, quantization, name)
    return {"pre_tokenizer": choice.name, "tokens_equal": choice.tokens_equal}


def _write_folder(
    checkpoint: Path, out: Path, form: str, config: PretrainedConfig, max_shard_bytes: int, base_name: str | None
) -> None:
    """Write tokenizer, configuration and weights, in the checkpoint's precision. `base_name` is that of an adapter's
    base model on the hub. Raises UnsupportedExport.
    """
    for name in (*TOKENIZER_FILES, "generation_config.json"):
        if (checkpoint / name).is_file():
            shutil.copyfile(checkpoint / name, out / name)
    config.save_pretrained(out)
    config_file.add_old_spelling(out)
    if form == "safetensors":
        _write_shards(checkpoint, out, max_shard_bytes)
        return
    if not (checkpoint / lora.DIRECTORY).is_dir():
        raise UnsupportedExport(Limit(code="adapter_missing"))
    for path in (checkpoint / lora.DIRECTORY).iterdir():
        shutil.copyfile(path, out / path.name)
    adapter = json.loads((out / ADAPTER_CONFIG).read_text())
    (out / ADAPTER_CONFIG).write_text(json.dumps({**adapter, "base_model_name_or_path": base_name}, indent=2) + "\n")


def _write_shards(checkpoint: Path, out: Path, max_shard_bytes: int) -> None:
    """Write the weights in files of at most `max_shard_bytes`, with one file in memory at a time."""
    files = opened(checkpoint)
    split = split_state_dict_into_shards_factory(
        {name: file.get_slice(name) for name, file in files.items()},
        get_storage_size=lambda part: math.prod(part.get_shape()) * BYTES[part.get_dtype()],
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=max_shard_bytes,
    )
    for name, tensors in split.filename_to_tensors.items():
        save_file({tensor: files[tensor].get_tensor(tensor) for tensor in tensors}, out / name, {"format": "pt"})
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        (out / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))


def _verify_in_fresh_process(out: Path, form: str, base: Path | None, tolerance: float) -> float:
    """Run `verify-export` in a fresh process. Returns the largest difference of logits; raises LogitMismatch."""
    command = [sys.executable, "-m", "trainer", "verify-export", str(out), f"--format={form}"]
    process = subprocess.run(
        [*command, *([f"--base={base}"] if base is not None else [])],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    lines = [line for line in process.stdout.splitlines() if line.startswith("{")]
    if process.returncode or not lines:
        raise LogitMismatch(float("inf"), tolerance)
    largest = float(json.loads(lines[-1])["largest"])
    if not largest <= tolerance:
        raise LogitMismatch(largest, tolerance)
    return largest
