"""New tokens of a base model: their embeddings by hand, in the tokenizer that is saved, and trained."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

from tests.trainer.bases import make_base, random_checkpoint, start_from
from tests.trainer.gangs import GangForkServer
from tests.trainer.runs import checkpoint_of, make_run, small_spec
from trainer.data.tokenizer import import_tokenizer
from trainer.failure import Failure
from trainer.modeling.build import build_model
from trainer.run_dir import RunDir
from trainer.spec import TrainSpec
from trainer.spec_errors import SpecError

TOKENS = ["heaven and the earth", "zyxxy"]
CPU = torch.device("cpu")


def spec_of(model_type: str, **fields: Any) -> TrainSpec:
    objective = "masked" if model_type == "bert" else "causal"
    keys = 2 if model_type == "llama" else 4
    fields = {"base_model": "base", "new_tokens": TOKENS, **fields}
    return small_spec(model_type=model_type, objective=objective, num_key_value_heads=keys, **fields)


def write_base(home: Path, model_type: str, run_dir: RunDir) -> Path:
    if model_type == "bert":
        return random_checkpoint(home / "bert", "bert", "masked")[0]
    return make_base(home / "base", model_type, run_dir.tokenizer_path(1))


@pytest.mark.parametrize(("model_type", "is_tied"), [("llama", False), ("gpt2", True), ("bert", True)])
def test_new_tokens_start_as_the_means_of_their_pieces(
    trained: RunDir, tmp_path: Path, model_type: str, is_tied: bool
) -> None:
    base = write_base(tmp_path, model_type, trained)
    auto = AutoModelForMaskedLM if model_type == "bert" else AutoModelForCausalLM
    before, old = auto.from_pretrained(base, dtype=torch.float32), AutoTokenizer.from_pretrained(base)
    directory = import_tokenizer(base, tmp_path / "cache", TOKENS)
    new = AutoTokenizer.from_pretrained(directory)
    model = build_model(spec_of(model_type), base, new, (), CPU, "fp32", lambda line: None)

    count = before.get_input_embeddings().num_embeddings
    assert model.get_input_embeddings().num_embeddings == model.config.vocab_size == len(new) == len(old) + 2
    matrices = [(model.get_input_embeddings().weight, before.get_input_embeddings().weight)]
    matrices += [(model.get_output_embeddings().weight, before.get_output_embeddings().weight)]
    if model_type == "bert":
        matrices += [(model.get_output_embeddings().bias, before.get_output_embeddings().bias)]
    for weight, original in matrices:
        assert torch.equal(weight[:count], original)
        for token in TOKENS:
            pieces = old(token, add_special_tokens=False)["input_ids"]
            assert len(pieces) > 1
            expected = sum(original[piece] for piece in pieces) / len(pieces)
            torch.testing.assert_close(weight[new.convert_tokens_to_ids(token)], expected)
    assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) == is_tied
    assert new("the heaven and the earth.")["input_ids"].count(new.convert_tokens_to_ids(TOKENS[0])) == 1


def test_rows_that_the_embedding_has_left_are_used(trained: RunDir, tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", "llama", trained.tokenizer_path(1))
    model = AutoModelForCausalLM.from_pretrained(base)
    model.resize_token_embeddings(448)
    model.save_pretrained(base)
    new = AutoTokenizer.from_pretrained(import_tokenizer(base, tmp_path / "cache", TOKENS))
    built = build_model(spec_of("llama"), base, new, (), CPU, "fp32", lambda line: None)
    assert built.get_input_embeddings().num_embeddings == 448


def test_a_token_of_the_base_model_is_refused(trained: RunDir, tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", "llama", trained.tokenizer_path(1))
    with pytest.raises(Failure) as refused:
        import_tokenizer(base, tmp_path / "cache", ["a"])
    assert str(refused.value) == "new_tokens has a, which is a token of the base model already: leave it out"


@pytest.mark.parametrize(
    ("fields", "field", "why"),
    [
        ({"base_model": None}, "new_tokens", "must be empty without a base_model"),
        ({"tuning": "lora"}, "new_tokens", "neither trains nor saves embeddings"),
        ({"new_tokens": ["x", "x"]}, "new_tokens", "has x twice"),
        ({"new_tokens": [" "]}, "new_tokens", "spaces only"),
        ({"zero_stage": 3}, "zero_stage", "0, 1 or 2"),
    ],
)
def test_new_tokens_that_cannot_be_trained_are_refused(fields: dict[str, Any], field: str, why: str) -> None:
    with pytest.raises(SpecError) as refused:
        spec_of("llama", **fields)
    assert refused.value.problems[0].field == field
    assert why in str(refused.value.problems[0].message)
    assert spec_of("llama", new_tokens=[]).sha256() != spec_of("llama").sha256()


def test_new_tokens_are_trained_and_saved(
    fork_server: GangForkServer, home: Path, trained: RunDir, tmp_path: Path
) -> None:
    base = make_base(tmp_path / "base", "llama", trained.tokenizer_path(1))
    fields = {"base_model": "base", "new_tokens": TOKENS, "max_steps": 2, "warmup_steps": 0}
    run_dir = start_from(make_run(home, "new-tokens", **fields), base)
    assert fork_server.run(run_dir) == 0, run_dir.log_path.read_text()

    checkpoint = checkpoint_of(run_dir, 2)
    tokenizer, old = AutoTokenizer.from_pretrained(checkpoint), AutoTokenizer.from_pretrained(base)
    number = tokenizer.convert_tokens_to_ids(TOKENS[0])
    assert tokenizer(TOKENS[0], add_special_tokens=False)["input_ids"] == [number]
    assert tokenizer.decode([number]) == TOKENS[0]
    weight = AutoModelForCausalLM.from_pretrained(checkpoint).get_input_embeddings().weight
    before = AutoModelForCausalLM.from_pretrained(base).get_input_embeddings().weight
    assert len(weight) == len(tokenizer) == len(before) + 2
    mean = before[old(TOKENS[0], add_special_tokens=False)["input_ids"]].mean(0)
    assert 0 < (weight[number] - mean).abs().max() < 0.1  # trained for two steps from there
