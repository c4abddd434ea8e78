"""Checkpoints in the archive of a run: all that jobs write are accepted, and options that open files are not."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import save_file
from transformers import BertConfig, BertForSequenceClassification

from app.jobs.archives.reading import InvalidArchive
from tests import folders
from trainer import run_dir
from trainer.data import tokenizer as tokenizers
from trainer.modeling import lora
from trainer.run_dir import MANIFEST
from trainer.spec import TrainSpec, resolve
from worker.sandbox import run_archive
from worker.sandbox.model_import.safetensors_scan import InvalidModel

NETWORK = {
    "num_hidden_layers": 2,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "sequence_length": 32,
}


def check(directory: Path, spec: TrainSpec) -> None:
    """Check a checkpoint as it is unpacked, with a manifest that fits."""
    run_dir.write_manifest(directory, {"step": 1})
    listed = json.loads((directory / MANIFEST).read_text())["files"]
    files = {file["name"]: (file["size"], file["sha256"]) for file in listed}
    assert all(run_archive._is_expected(f"checkpoints/step-1-1/{name}") for name in files)
    run_archive._check_checkpoint(directory, {**files, MANIFEST: (0, "")}, spec, lambda num_bytes: None)
    assert {str(path.relative_to(directory)) for path in directory.rglob("*.*")} == {*files, MANIFEST}  # as it was


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "step-1-1"
    path.mkdir()
    return path


@pytest.fixture
def adapted(directory: Path) -> Path:
    """A checkpoint of a LoRA job: merged weights, and the adapter beside them."""
    folders.saved(directory)
    adapter = directory / lora.DIRECTORY
    adapter.mkdir()
    LoraConfig(r=4, lora_alpha=32, target_modules=["q_proj"], task_type="CAUSAL_LM").save_pretrained(adapter)
    save_file({"base_model.model.lora_A.weight": torch.ones(4, 32)}, adapter / lora.WEIGHTS)
    return directory


def llama(**fields: Any) -> TrainSpec:
    return resolve({"corpora": ["c"], "num_key_value_heads": 2, "tie_word_embeddings": False, **NETWORK, **fields})


def test_a_classifier_is_checked_with_its_head(directory: Path) -> None:
    config = BertConfig(**folders.SIZES, num_labels=3)
    BertForSequenceClassification(config).save_pretrained(directory)
    folders.tokenizer().save_pretrained(directory)
    own = {"recipe": "tiny-bert", "objective": "classification", "model_type": "bert", "num_key_value_heads": 4}
    spec = resolve({"corpora": ["c"], **NETWORK, **own})
    check(directory, spec)
    weights = folders.weights(directory)
    folders.rewrite(directory, {**weights, "classifier.weight": torch.zeros(2, 32)})
    with pytest.raises(InvalidModel) as error:
        check(directory, spec)
    assert error.value.problem["tensor"] == "classifier.weight"


def test_an_adapter_of_ours_is_accepted(adapted: Path) -> None:
    check(adapted, llama(base_model="b", tuning="lora"))


@pytest.mark.parametrize("options", [{"megatron_config": {"a": 1}}, {"layer_replication": [[0, 2]]}], ids=str)
def test_an_adapter_with_other_options_is_refused(adapted: Path, options: dict[str, Any]) -> None:
    path = adapted / lora.DIRECTORY / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **options}))
    with pytest.raises(InvalidArchive) as error:
        check(adapted, llama(base_model="b", tuning="lora"))
    assert error.value.problem["why"] == next(iter(options))


def test_a_tokenizer_that_names_a_file_is_refused(directory: Path) -> None:
    folders.saved(directory)
    path = directory / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "vocab": "/etc/passwd"}))
    with pytest.raises(InvalidArchive) as error:
        check(directory, llama())
    assert error.value.problem["why"] == "vocab"


def test_a_configuration_with_code_is_refused(directory: Path) -> None:
    folders.saved(directory)
    folders.change(directory, auto_map={"AutoModel": "a.B"})
    with pytest.raises(InvalidModel) as error:
        check(directory, llama())
    assert error.value.problem["code"] == "remote_code"


def test_a_tokenizer_that_jobs_train_for_qwen_2_is_accepted(directory: Path) -> None:
    folders.saved(directory, "qwen2")
    text = "In the beginning God created the heaven and the earth, in 1990. " * 20
    tokenizers.save(tokenizers.train_on(iter([text]), 300, model_type="qwen2"), directory)
    check(directory, llama(model_type="qwen2"))


def test_files_that_an_import_of_a_base_model_would_repair_are_refused(directory: Path) -> None:
    folders.saved(directory)
    path = directory / "tokenizer_config.json"
    settings = {key: value for key, value in json.loads(path.read_text()).items() if key != "eos_token"}
    path.write_text(json.dumps(settings))
    folders.change(directory, eos_token_id=0)  # which would be written into the tokenizer
    with pytest.raises(InvalidArchive) as error:
        check(directory, llama())
    assert error.value.problem["why"] == "repaired"


def test_a_configuration_that_is_loaded_as_another_is_refused(directory: Path) -> None:
    folders.saved(directory, "mistral")
    with pytest.raises(InvalidArchive) as error:
        check(directory, llama())
    assert error.value.problem["file"] == "step-1-1/config.json"


@pytest.mark.parametrize("fields", [{"hidden_act": "gelu"}, {"max_position_embeddings": 4}], ids=str)
def test_a_network_that_no_spec_describes_is_refused(directory: Path, fields: dict[str, Any]) -> None:
    folders.saved(directory)
    folders.change(directory, **fields)
    with pytest.raises(InvalidModel) as error:
        check(directory, llama())
    assert error.value.problem["field"] == next(iter(fields))


def test_a_checkpoint_that_an_import_of_a_base_model_remarks_on_is_refused(directory: Path) -> None:
    folders.saved(directory)
    run_archive._check_unrepaired(directory, directory, [{"code": "tokenizer_replaced"}])  # it is used as it is
    with pytest.raises(InvalidArchive) as error:
        run_archive._check_unrepaired(directory, directory, [{"code": "as_llama"}])
    assert error.value.problem["why"] == "as_llama"
