"""Base models as they are found: good ones of every family with their facts, wrong ones refused with the place."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from tests import folders
from tests.worker.sandbox.corpus.scaling import is_superlinear
from trainer.run_dir import sha256_file
from worker.sandbox.model_import import hf_config, validate

KINDS = ["llama", "qwen2", "gpt2", "bert", "roberta", "t5"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    for kind in KINDS:
        folders.saved(root / kind, kind)
    return root


@pytest.fixture
def copy(models: Path, tmp_path: Path) -> Callable[[str], Path]:
    return lambda kind="llama": Path(shutil.copytree(models / kind, tmp_path / kind))


def result(directory: Path) -> dict[str, Any]:
    closing = validate.report_result(directory, 1 << 30, 1 << 40)
    assert "result" in closing, closing
    report: dict[str, Any] = closing["result"]
    return report


def problem(directory: Path) -> dict[str, Any]:
    closing = validate.report_result(directory, 1 << 30, 1 << 40)
    assert "failed" in closing, closing
    (report,) = closing["failed"]["problems"]
    return dict(report)


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_of_each_family_is_accepted_with_its_facts(models: Path, kind: str) -> None:
    report = result(models / kind)
    facts = report["facts"]
    expected = {"model_type": kind, "num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4}
    assert expected.items() <= facts.items()
    assert facts["intermediate_size"] == (128 if kind == "gpt2" else 48)
    assert facts["num_key_value_heads"] == (2 if kind in ("llama", "qwen2") else 4)
    assert facts["context"] == (None if kind == "t5" else 64)
    assert (facts["vocab_size"], facts["dtype"], facts["license"]) == (300, "F32", "apache-2.0")
    assert facts["has_chat_template"] is False
    codes = [remark["code"] for remark in report["problems"]]
    remarks = {
        "bert": ["head_missing", "tensors_unused"],
        "qwen2": ["tokenizer_replaced"],
        "t5": ["decoder_start"],
    }
    assert codes == remarks.get(kind, [])
    assert {file["name"]: file["sha256"] for file in report["files"]} == {
        path.name: sha256_file(path) for path in (models / kind).iterdir()
    }
    if kind != "bert":
        assert facts["num_parameters"] == sum(p.numel() for p in folders.network(kind).parameters())


def test_the_hash_covers_names_and_contents(copy: Any) -> None:
    directory = copy()
    before = result(directory)["sha256"]
    assert result(directory)["sha256"] == before
    (directory / "README.md").write_text("another")
    assert result(directory)["sha256"] != before


def test_shards_are_joined_by_their_index(tmp_path: Path) -> None:
    folders.saved(tmp_path, max_shard_size="60KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert result(tmp_path)["facts"]["num_parameters"] == 34_720
    part = sorted(tmp_path.glob("*.safetensors"))[0]
    aside = tmp_path.parent / part.name
    part.rename(aside)
    assert problem(tmp_path) == {"code": "index_missing", "file": "model.safetensors.index.json", "part": part.name}
    aside.rename(part)
    path = tmp_path / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["model.norm.weight"] = part.name
    path.write_text(json.dumps(index))
    assert {"code": "index_tensor", "tensor": "model.norm.weight"}.items() <= problem(tmp_path).items()
    path.unlink()
    assert problem(tmp_path)["code"] == "index_needed"


def test_a_mistral_without_a_window_is_stored_as_llama(tmp_path: Path) -> None:
    folders.saved(tmp_path, "mistral")
    expected = folders.network("mistral")(torch.arange(12)[None]).logits
    report = result(tmp_path)
    assert (report["facts"]["model_type"], report["problems"]) == ("llama", [{"code": "as_llama"}])
    opened = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(opened).__name__ == "LlamaForCausalLM"
    assert torch.equal(opened(torch.arange(12)[None]).logits, expected)


# ---- what is refused ------------------------------------------------------------------------------------------------

CONFIGS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"auto_map": {"AutoConfig": "x.Y"}}, {"code": "remote_code", "file": "config.json", "field": "auto_map"}),
    ({"_attn_implementation": "somebody/kernel"}, {"code": "remote_code", "field": "_attn_implementation"}),
    ({"model_type": "mamba"}, {"code": "model_type_unknown", "found": "mamba"}),
    ({"model_type": None}, {"code": "model_type_unknown"}),
    ({"model_type": 7}, {"code": "model_type_unknown"}),
    ({"model_type": "mistral"}, {"code": "as_llama"}),
    ({"model_type": "mistral", "sliding_window": 32}, {"code": "mistral_differs", "window": 32}),
    ({"quantization_config": {"quant_method": "gptq"}}, {"code": "quantized"}),
    ({"hidden_size": "wide"}, {"code": "config_invalid"}),
    ({"head_dim": 16}, {"code": "tensor_shape", "expected": "32 x 32"}),
    ({"hidden_act": "relu"}, {"code": "network_unusual", "field": "hidden_act"}),
    ({"num_attention_heads": 0}, {"code": "config_invalid"}),
    ({"max_position_embeddings": 4}, {"code": "network_unusual", "field": "max_position_embeddings"}),
    ({"num_hidden_layers": 3}, {"code": "tensor_missing"}),
    ({"num_hidden_layers": 1}, {"code": "tensor_unexpected", "file": "model.safetensors"}),
    ({"num_hidden_layers": 10_000}, {"code": "spec_field", "field": "num_hidden_layers"}),
    ({"intermediate_size": 64}, {"code": "tensor_shape", "expected": "32 x 64"}),
    ({"vocab_size": 290}, {"code": "tensor_shape"}),
]


@pytest.mark.parametrize(("change", "expected"), CONFIGS, ids=[str(change) for change, _expected in CONFIGS])
def test_an_unsupported_configuration_is_rejected(copy: Any, change: dict[str, Any], expected: dict[str, Any]) -> None:
    directory = copy()
    folders.change(directory, **change)
    if expected["code"] == "as_llama":
        assert expected in result(directory)["problems"]
    else:
        assert expected.items() <= problem(directory).items()


STRANGE = [None, 0, -1, 1, 10**9, 10**30, 1.5, "", "x", [], [1], {}, {"a": 1}, True, {"rope_type": "yarn"}]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(KINDS), field=st.integers(0, 60), value=st.sampled_from(STRANGE))
def test_strange_values_are_rejected_without_a_crash(
    models: Path, tmp_path: Path, kind: str, field: int, value: Any
) -> None:
    directory = tmp_path / kind
    if not directory.exists():
        shutil.copytree(models / kind, directory)
    config = json.loads((models / kind / "config.json").read_text())
    names = sorted(config)
    (directory / "config.json").write_text(json.dumps({**config, names[field % len(names)]: value}))
    closing = validate.report_result(directory, 1 << 30, 1 << 40)
    assert "result" in closing or closing["failed"]["problems"][0]["code"] != "unforeseen"


def test_values_that_would_divide_by_zero_are_rejected(copy: Any) -> None:
    directory = copy("gpt2")
    folders.change(directory, n_head=0)
    assert {"code": "spec_field", "field": "num_attention_heads"}.items() <= problem(directory).items()
    directory = copy("roberta")
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, "pad_token_id": None}))
    assert {"code": "network_unusual", "field": "pad_token_id", "found": "None"}.items() <= problem(directory).items()


def test_a_license_is_found_in_time_in_proportion_to_the_model_card(tmp_path: Path) -> None:
    works = []
    for num_lines in (6_000, 60_000):
        directory = tmp_path / str(num_lines)
        directory.mkdir()
        (directory / "README.md").write_text("---" + num_lines * "\n" + "license: mit\n")
        works.append(partial(validate.license_of, directory))

    assert not is_superlinear(*works)


def test_an_unexpected_error_is_not_a_crash(copy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(directory: Path) -> None:
        raise KeyError("/secret/path")

    monkeypatch.setattr(validate, "license_of", broken)
    assert problem(copy()) == {"code": "unforeseen", "why": "KeyError"}


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "generation_config.json"])
def test_invalid_json_and_custom_code_are_rejected(copy: Any, name: str) -> None:
    directory = copy()
    (directory / name).write_text('{"a": 1,}')
    assert problem(directory) == {"code": "not_json", "file": name, "byte": 8}
    (directory / name).write_text('{"auto_map": {}}')
    assert problem(directory) == {"code": "remote_code", "file": name, "field": "auto_map"}
    (directory / name).write_text("[]")
    assert problem(directory) == {"code": "not_object", "file": name}


def test_weights_must_be_complete_and_finite(copy: Any) -> None:
    directory = copy()
    tensors = folders.weights(directory)
    name = "model.layers.1.mlp.up_proj.weight"
    folders.rewrite(directory, {**tensors, name: torch.full((48, 32), torch.nan)})
    report = problem(directory)
    assert (report["code"], report["file"], report["tensor"]) == ("nonfinite", "model.safetensors", name)
    folders.rewrite(directory, {key: value for key, value in tensors.items() if key != name})
    assert problem(directory) == {"code": "tensor_missing", "tensor": name, "model_type": "llama"}
    folders.rewrite(directory, {**tensors, name: torch.zeros(48, 31)})
    values = {"found": "48 x 31", "expected": "48 x 32"}
    assert problem(directory) == {"code": "tensor_shape", "file": "model.safetensors", "tensor": name, **values}
    folders.rewrite(directory, {**tensors, "model.layers.0.self_attn.q_proj.bias": torch.zeros(32)})
    assert problem(directory)["code"] == "tensor_unexpected"
    folders.rewrite(directory, {**tensors, name: torch.zeros(48, 32, dtype=torch.int8)})
    assert {"code": "dtype", "tensor": name, "found": "I8"}.items() <= problem(directory).items()
    (directory / "model.safetensors").unlink()
    assert problem(directory) == {"code": "weights_missing"}


def test_a_decoder_without_a_head_is_rejected_unless_tied(copy: Any) -> None:
    directory = copy()
    headless = {name: value for name, value in folders.weights(directory).items() if name != "lm_head.weight"}
    folders.rewrite(directory, headless)
    assert problem(directory) == {"code": "tensor_missing", "tensor": "lm_head.weight", "model_type": "llama"}
    folders.change(directory, tie_word_embeddings=True)
    assert result(directory)["facts"]["tie_word_embeddings"] is True


def test_the_tokenizer_must_fit_the_embedding(copy: Any) -> None:
    directory = copy()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(directory)
    tokenizer.add_tokens([f"<{n}>" for n in range(folders.VOCAB_SIZE + 1 - len(tokenizer))])
    tokenizer.save_pretrained(directory)
    assert problem(directory) == {"code": "tokenizer_large", "found": 300, "expected": 299}
    (directory / "tokenizer.json").write_text('{"model": 1}')
    assert problem(directory)["code"] == "tokenizer_unreadable"
    (directory / "tokenizer.json").unlink()
    assert problem(directory) == {"code": "tokenizer_missing"}


@pytest.mark.parametrize("field", ["vocab", "vocab_file", "tokenizer_file", "merges", "merges_file"])
def test_a_tokenizer_reads_only_its_own_files(copy: Any, tmp_path: Path, field: str) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "topsecret"]))
    directory = copy("bert")
    (directory / "tokenizer.json").unlink()
    (directory / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "plain"]))
    (directory / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer", field: str(secret), "name_or_path": str(secret)})
    )
    result(directory)
    written = "".join(path.read_text() for path in directory.glob("*.json"))
    assert '"plain"' in written
    assert "secret" not in written


def test_a_tokenizer_gets_the_end_of_text_token_of_the_configuration_or_is_rejected(copy: Any) -> None:
    directory = copy()
    config = json.loads((directory / "tokenizer_config.json").read_text())
    del config["eos_token"], config["bos_token"]
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    folders.change(directory, eos_token_id=[250, 0])
    report = result(directory)
    assert {"code": "end_from_config", "token": "<|endoftext|>"} in report["problems"]
    assert PreTrainedTokenizerFast.from_pretrained(directory).eos_token_id == 0
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    folders.change(directory, eos_token_id=250)  # an ordinary token, as the defaults of a family name one
    assert problem(directory) == {"code": "tokenizer_no_end"}


def test_a_sentencepiece_tokenizer_needs_its_package(copy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hf_config, "_has_sentencepiece", lambda: False)
    directory = copy()
    (directory / "tokenizer.json").rename(directory / "tokenizer.model")
    assert problem(directory) == {"code": "tokenizer_sentencepiece", "file": "tokenizer.model"}


def test_a_tokenizer_that_transformers_replaces_is_noted(copy: Any) -> None:
    replaced = {"code": "tokenizer_replaced", "tokenizer": "Qwen2Tokenizer"}
    assert replaced in result(copy("qwen2"))["problems"]  # whose folder has the pre-tokenizer of GPT-2
    assert replaced not in result(copy("llama"))["problems"]


@pytest.mark.parametrize("shards", ["5GB", "20KB"])
def test_weights_in_other_formats_are_skipped(tmp_path: Path, shards: str) -> None:
    directory = folders.saved(tmp_path / "llama", max_shard_size=shards)
    (directory / "consolidated.safetensors").write_bytes(b"anything")
    report = result(directory)
    assert {"code": "weights_skipped", "file": "consolidated.safetensors"} in report["problems"]
    assert "consolidated.safetensors" not in [file["name"] for file in report["files"]]


def test_a_separate_head_is_used_even_if_configured_as_tied(copy: Any) -> None:
    directory = copy()
    folders.change(directory, tie_word_embeddings=True)
    report = result(directory)
    assert {"code": "head_untied"} in report["problems"]
    assert report["facts"]["tie_word_embeddings"] is False
    model = AutoModelForCausalLM.from_pretrained(directory)
    assert torch.equal(model.lm_head.weight, folders.weights(directory)["lm_head.weight"])


def test_a_copied_head_stays_tied(copy: Any) -> None:
    directory = copy()
    tensors = folders.weights(directory)
    folders.rewrite(directory, {**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"].clone()})
    folders.change(directory, tie_word_embeddings=True)
    report = result(directory)
    assert {"code": "head_untied"} not in report["problems"]
    assert report["facts"]["tie_word_embeddings"] is True


@pytest.mark.parametrize(
    ("config", "network"),
    [
        (T5Config(vocab_size=300, d_model=64, d_kv=16, d_ff=48, num_layers=2, num_heads=6), T5ForConditionalGeneration),
        (LlamaConfig(**folders.SIZES, num_key_value_heads=2, head_dim=16), LlamaForCausalLM),
    ],
)
def test_a_separate_head_dimension_is_accepted(tmp_path: Path, config: Any, network: Any) -> None:
    network(config).save_pretrained(tmp_path)
    folders.tokenizer().save_pretrained(tmp_path)
    report = result(tmp_path)
    assert report["facts"]["head_dim"] == 16
    assert report["facts"]["num_parameters"] == network(config).num_parameters()


def test_older_tokenizer_files_are_converted(copy: Any) -> None:
    directory = copy("gpt2")
    folders.tokenizer().backend_tokenizer.model.save(str(directory))
    (directory / "tokenizer.json").unlink()
    (directory / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')
    assert {"code": "tokenizer_converted"} in result(directory)["problems"]
    assert (directory / "tokenizer.json").is_file()


def test_half_precision_is_noted(copy: Any) -> None:
    directory = copy()
    folders.rewrite(directory, {name: value.bfloat16() for name, value in folders.weights(directory).items()})
    report = result(directory)
    assert (report["facts"]["dtype"], report["problems"]) == ("BF16", [{"code": "weights_16_bit"}])


def test_a_child_at_its_limits_never_approves_a_model(models: Path) -> None:
    limits = ["--budget=1000000000", f"--memory={64 << 20}"]
    command = [sys.executable, "-m", "worker.sandbox.model_import.validate", str(models / "gpt2"), *limits]
    env = {"PYTHONUTF8": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert '"result"' not in done.stdout
    closing = json.loads((done.stdout.splitlines() or ["null"])[-1])
    assert closing is None or closing["failed"]["problems"][0]["code"] == "out_of_memory", done.stdout + done.stderr
