"""Exports: every format has the checkpoint's logits in a fresh process, and one that differs is removed."""

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from gguf import GGUFReader
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tests import folders
from tests.trainer.gangs import GangForkServer
from tests.trainer.modeling.test_config_file import LLAMA_3
from tests.trainer.runs import checkpoint_of, make_run, small_spec
from trainer.export import export, gguf_writer, verification
from trainer.export.export import LogitMismatch
from trainer.export.gguf_writer import UnsupportedExport
from trainer.inference import generation
from trainer.modeling import lora
from trainer.modeling.build import build_model
from trainer.run_dir import RunDir, write_manifest

FACTS: dict[str, Any] = {
    "name": "Furnace | one",
    "step": 150,
    "license": "apache-2.0",
    "spec": {
        "objective": "causal",
        "base_model": "06e9x2m4q8r7t5vw",
        "learning_rate": 0.01,
        "num_train_epochs": None,
        "dpo_beta": 0.1,
        "tuning": "full",
        "lora_rank": 8,
    },
    "base_model": "somebody/furnace",
    "metrics": {"eval_loss": 3.5},
    "corpora": [{"name": "King James", "kind": "text", "num_documents": 1, "num_text_bytes": 9, "text_sha256": "ab"}],
    "curves": {"loss": [[1, 5.0], [50, 4.0], [150, 3.0]], "eval_loss": [[50, 4.2], [150, 3.5]]},
}


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Verify in this process instead of a fresh one, to save its imports."""
    monkeypatch.setattr(export, "_verify_in_fresh_process", verify)


def verify(out: Path, form: str, base: Path | None, tolerance: float) -> float:
    largest = verification.verify(out, form, base)
    if not largest <= tolerance:
        raise LogitMismatch(largest, tolerance)
    return largest


def test_a_fresh_process_detects_a_damaged_export(
    trained: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    verify_in_fresh_process = export._verify_in_fresh_process
    monkeypatch.setattr(export, "_verify_in_fresh_process", verify)
    result = export.export(checkpoint_of(trained, 150), out, "safetensors", max_shard_bytes=200_000, facts=FACTS)

    assert result["largest_difference"] <= 1e-6
    names = [file["name"] for file in result["files"]]
    assert sum(name.startswith("model-0000") for name in names) > 1
    assert {"README.md", "config.json", "curves.svg", "golden.safetensors", "tokenizer.json"} <= set(names)
    shard = next(out / name for name in names if name.startswith("model-00001"))
    weights = load_file(shard)
    name = max(weights, key=lambda key: weights[key].numel())
    weights[name][0] += 1.0
    save_file(weights, shard, {"format": "pt"})
    with pytest.raises(LogitMismatch, match="logits differ by"):
        verify_in_fresh_process(out, "safetensors", None, 1e-5)


def test_the_model_card_states_data_metrics_and_spec(trained: RunDir, tmp_path: Path, in_process: None) -> None:
    export.export(checkpoint_of(trained, 150), tmp_path / "out", "safetensors", facts=FACTS)
    _, front, body = (tmp_path / "out/README.md").read_text().split("---\n", 2)

    assert yaml.safe_load(front) == {
        "license": "apache-2.0",
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "base_model": "somebody/furnace",
        "datasets": ["King James"],
        "metrics": ["eval_loss"],
    }
    assert "| King James | text | 1 | 9 | ab |" in body
    assert "| learning_rate | 0.01 |" in body
    assert '| tuning | "full" |' in body
    assert not re.search("dpo_beta|lora_rank|num_train_epochs|null", body), "what the run did not use is left out"
    assert "06e9x2m4q8r7t5vw" not in body  # an identifier of the panel
    assert "LlamaForCausalLM.from_pretrained" in body
    assert (tmp_path / "out/curves.svg").read_text().count("<polyline") == 2


@pytest.mark.parametrize("quantization", ["f32", "f16", "q8_0"])
def test_a_gguf_file_has_the_checkpoints_logits_up_to_its_precision(
    trained: RunDir, tmp_path: Path, in_process: None, quantization: str
) -> None:
    out = tmp_path / "out"
    result = export.export(checkpoint_of(trained, 150), out, "gguf", quantization=quantization)

    assert result["largest_difference"] <= {"f32": 1e-4, "f16": 1e-2, "q8_0": 5e-2}[quantization]
    reader = GGUFReader(out / "model.gguf")
    tokenizer = AutoTokenizer.from_pretrained(checkpoint_of(trained, 150))
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    assert tokens == tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    assert reader.fields["tokenizer.ggml.eos_token_id"].contents() == tokenizer.eos_token_id
    reloaded = AutoTokenizer.from_pretrained(out, gguf_file="model.gguf")
    assert (
        reloaded("In the beginning God created 天地").input_ids
        == tokenizer("In the beginning God created 天地").input_ids
    )


@pytest.mark.parametrize("model_type", ["gpt2", "qwen2"])
def test_other_decoders_can_be_exported_as_gguf(
    fork_server: GangForkServer, home: Path, tmp_path: Path, in_process: None, model_type: str
) -> None:
    run_dir = make_run(
        home, f"gguf-{model_type}", model_type=model_type, num_key_value_heads=4, max_steps=2, warmup_steps=1
    )
    assert fork_server.run(run_dir) == 0, run_dir.log_path.read_text()

    result = export.export(checkpoint_of(run_dir, 2), tmp_path / "out", "gguf", quantization="f32")
    assert result["largest_difference"] <= 1e-4
    # Tokenizers trained here split numbers into groups of three, as Llama 3's does; those of Qwen2 into digits.
    name = "qwen2" if model_type == "qwen2" else "llama-bpe"
    assert (result["pre_tokenizer"], result["tokens_equal"]) == (name, 1.0)
    assert f"`{name}`, which keeps 100.00%" in (tmp_path / "out/README.md").read_text()
    own = PreTrainedTokenizerFast.from_pretrained(checkpoint_of(run_dir, 2))
    loaded = generation.load(checkpoint_of(run_dir, 2), "cpu").tokenizer
    assert str(loaded.backend_tokenizer.pre_tokenizer) == str(own.backend_tokenizer.pre_tokenizer)


@pytest.fixture(scope="module")
def encoder(fork_server: GangForkServer, home: Path) -> Path:
    """The checkpoint of a BERT after two steps."""
    fields = {"objective": "masked", "model_type": "bert", "num_key_value_heads": 4, "max_steps": 2, "warmup_steps": 1}
    run_dir = make_run(home, "export-bert", **fields)
    assert fork_server.run(run_dir) == 0, run_dir.log_path.read_text()
    return checkpoint_of(run_dir, 2)


def test_an_unsupported_export_is_rejected_and_leaves_nothing(encoder: Path, tmp_path: Path, trained: RunDir) -> None:
    with pytest.raises(UnsupportedExport, match=r"GGUF supports generative decoders only .*this is a bert"):
        export.export(encoder, tmp_path / "out", "gguf")
    with pytest.raises(UnsupportedExport, match="has no adapter"):
        export.export(checkpoint_of(trained, 150), tmp_path / "out", "adapter")
    assert not (tmp_path / "out").exists()


def test_an_encoder_is_exported_with_its_head(encoder: Path, tmp_path: Path, in_process: None) -> None:
    result = export.export(encoder, tmp_path / "out", "safetensors")

    assert result["largest_difference"] <= 1e-6
    assert "BertForMaskedLM" in (tmp_path / "out/README.md").read_text()


@pytest.mark.parametrize("objective", ["causal", "masked", "classification"])
def test_an_adapter_on_its_base_model_equals_the_merged_checkpoint(
    trained: RunDir, encoder: Path, tmp_path: Path, in_process: None, objective: str
) -> None:
    base = encoder if objective == "masked" else checkpoint_of(trained, 150)
    checkpoint = lora_checkpoint(base, tmp_path / "checkpoint", objective)

    result = export.export(checkpoint, tmp_path / "out", "adapter", base=base, facts=FACTS)
    adapter = json.loads((tmp_path / "out/adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == "somebody/furnace"
    assert result["largest_difference"] <= 1e-4
    names = {file["name"] for file in result["files"]}
    assert {"adapter_config.json", "adapter_model.safetensors", "config.json"} <= names
    assert "model.safetensors" not in names
    with pytest.raises(LogitMismatch):
        export.export(checkpoint, tmp_path / "other", "adapter", base=checkpoint)  # it would be added twice
    assert not (tmp_path / "other").exists()


def lora_checkpoint(base: Path, checkpoint: Path, objective: str) -> Path:
    """A checkpoint as a LoRA job writes it: merged weights and the adapter, with a new head for a classifier."""
    family = {"model_type": "bert", "num_key_value_heads": 4} if objective == "masked" else {}
    spec = small_spec(base_model="base", tuning="lora", lora_rank=4, objective=objective, **family)
    labels = ("human", "divine", "neither") if objective == "classification" else ()
    model = build_model(spec, base, AutoTokenizer.from_pretrained(base), labels, torch.device("cpu"), "fp32", [].append)
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    shutil.copytree(base, checkpoint)
    merged_model = type(model)(model.config)
    merged = {weight.name: weight.value() for weight in lora.merged_weights(model)}
    merged_model.save_pretrained(checkpoint, state_dict=merged)
    lora.save(
        model, {weight.name: weight.value() for weight in lora.trainable_parameters(model)}, checkpoint / "adapter"
    )
    write_manifest(checkpoint, {"step": 150})
    return checkpoint


def test_a_damaged_checkpoint_is_not_exported(trained: RunDir, tmp_path: Path, in_process: None) -> None:
    shutil.copytree(checkpoint_of(trained, 150), tmp_path / "checkpoint")
    (tmp_path / "checkpoint/config.json").write_text("{}")

    with pytest.raises(ValueError, match=r"config\.json differs"):
        export.export(tmp_path / "checkpoint", tmp_path / "out", "safetensors")


def test_heads_in_the_wrong_order_are_detected(
    trained: RunDir, tmp_path: Path, in_process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf_writer, "_interleave_rotary", lambda tensor, _heads: tensor.contiguous())

    with pytest.raises(LogitMismatch) as caught:
        export.export(checkpoint_of(trained, 150), tmp_path / "out", "gguf", quantization="q8_0")
    assert caught.value.largest > 2 * caught.value.tolerance
    assert not (tmp_path / "out").exists()


def test_rotary_halves_are_interleaved_into_pairs() -> None:
    rows = torch.arange(8).reshape(8, 1)

    assert gguf_writer._interleave_rotary(rows, 2).flatten().tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def test_transformers_loads_an_export(trained: RunDir, tmp_path: Path, in_process: None) -> None:
    export.export(checkpoint_of(trained, 150), tmp_path / "out", "safetensors")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")

    assert json.loads((tmp_path / "out/config.json").read_text())["model_type"] == "llama"
    assert model.num_parameters() > 90_000


SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}


@pytest.mark.parametrize("rope", [LLAMA_3, {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 4.0}])
def test_scaled_positions_are_written_to_gguf(trained: RunDir, tmp_path: Path, rope: dict[str, Any]) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(checkpoint_of(trained, 150))
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), rope_parameters=rope, **SHAPE)).eval()
    model.config.architectures = ["LlamaForCausalLM"]
    probes = verification.probe_tokens(model)
    gguf_writer.write(tmp_path / "model.gguf", model, tokenizer, "f32", "scaled")
    save_file({**probes, "logits": verification.logits(model, probes)}, tmp_path / "golden.safetensors")
    assert verification.verify(tmp_path, "gguf", None) < 1e-5

    reader = GGUFReader(tmp_path / "model.gguf")
    factors = [tensor.data for tensor in reader.tensors if tensor.name == "rope_freqs.weight"]
    if rope is LLAMA_3:
        assert factors[0].tolist() == pytest.approx([llama_3_factor(n) for n in range(16)])
    else:
        assert factors == []
        assert reader.fields["llama.rope.scaling.factor"].contents() == 4.0


def llama_3_factor(n: int) -> float:
    """By what Llama 3.1 divides frequency n of 16: 8 for long waves, 1 for short ones, between them a mean."""
    wavelength = 2 * math.pi * 500_000 ** (2 * n / 32)
    rounds = 64 / wavelength
    if rounds < 1 or rounds > 4:
        return 8.0 if rounds < 1 else 1.0
    share = (rounds - 1) / (4 - 1)
    return 1 / ((1 - share) / 8 + share)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"architectures": ["LlamaForSequenceClassification"]}, "this is a llama classifier"),
        ({"attention_bias": True}, "its attention_bias is True"),
        ({"head_dim": 16}, None),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}, "scaled by dynamic"),
        ({}, None),
    ],
)
def test_settings_that_gguf_cannot_express_are_named(fields: dict[str, Any], sentence: str | None) -> None:
    tokenizer = folders.tokenizer()
    reason = gguf_writer.limit(LlamaConfig(**{"architectures": ["LlamaForCausalLM"], **fields}), tokenizer)

    assert reason == sentence or sentence in str(reason)
