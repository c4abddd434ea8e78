"""What the import accepts works: whatever a model's limits leave is done here, and what they forbid fails.

Each model is laid out as its authors publish theirs, or lacks what transformers does not need.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from bench.support.published_models import CHATML, LLAMA_3_ROPE, MODELS
from tests import folders
from tests.trainer.runs import write_corpus
from tests.trainer.tokenizers_of_bases import unigram
from trainer.data.tokenizer import open_base, require_special_tokens
from trainer.export import export, verification
from trainer.export.gguf_writer import UnsupportedExport
from trainer.failure import Failure
from trainer.families import FAMILIES
from trainer.inference import evaluation, generation
from trainer.inference.engine import create_engine
from trainer.inference.sampling import SamplingSettings
from trainer.limits import Traits, limit, limits
from trainer.modeling import architectures
from worker.sandbox.model_import import validate

QUESTION = [{"role": "user", "content": "What is the color of 山?"}]
WITH_DEFAULT_TOKENS = ("GPT-2", "BERT", "T5")  # special tokens that transformers' classes name
TEXT = "The old kettle holds the quiet garden."


def published(name: str) -> Callable[[Path], Path]:
    return lambda directory: MODELS[name].write(directory)


def saved(kind: str, **changes: Any) -> Callable[[Path], Path]:
    """A folder with other fields in its config.json; None takes one away."""

    def write(directory: Path) -> Path:
        folders.saved(directory, kind)
        folders.change(directory, **changes)
        return directory

    return write


def wide_heads(config: Any, network: Any) -> Callable[[Path], Path]:
    def write(directory: Path) -> Path:
        network(config(**folders.SIZES, num_key_value_heads=2, head_dim=16)).save_pretrained(directory)
        folders.tokenizer().save_pretrained(directory)
        return directory

    return write


def with_unigram(directory: Path) -> Path:
    folders.saved(directory, "llama")
    unigram().save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}))
    return directory


def named_templates(directory: Path) -> Path:
    MODELS["Qwen2"].write(directory)
    path = directory / "tokenizer_config.json"
    named = [{"name": "tool_use", "template": "{{ tools }}"}, {"name": "default", "template": CHATML}]
    path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": named}))
    return directory


def without_settings(name: str) -> Callable[[Path], Path]:
    """A published model whose settings name no special tokens, as those of gpt2 and bert-base-uncased."""

    def write(directory: Path) -> Path:
        MODELS[name].write(directory)
        (directory / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 128}))
        return directory

    return write


FOLDERS: dict[str, Callable[[Path], Path]] = {
    **{name: published(name) for name in MODELS},
    **{f"{name} without settings": without_settings(name) for name in WITH_DEFAULT_TOKENS},
    "wide heads": wide_heads(LlamaConfig, LlamaForCausalLM),
    "wide heads of a Qwen2": wide_heads(Qwen2Config, Qwen2ForCausalLM),
    "another head than the configuration says": saved("llama", tie_word_embeddings=True),
    "no class named": saved("gpt2", architectures=None),
    "no head": saved("bert"),
    "no start of the decoder": saved("t5"),
    "positions of no GGUF": saved("llama", rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}),
    "a tokenizer of no GGUF": with_unigram,
    "named templates": named_templates,
}


@pytest.fixture(scope="module", params=FOLDERS)
def accepted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Traits]:
    """The folder of an imported model, and its traits."""
    directory = FOLDERS[request.param](tmp_path_factory.mktemp("model") / "folder")
    before = logits(directory)
    closing = validate.report_result(directory, 1 << 30, 1 << 40)
    assert "result" in closing, closing
    if before is not None:
        assert torch.equal(before, logits(directory))
    return directory, Traits.model_validate(closing["result"]["facts"])


def logits(directory: Path) -> torch.Tensor | None:
    """The logits of a folder; None of a family of which the import makes another one, or which it completes."""
    if AutoConfig.from_pretrained(directory).model_type in ("mistral", "t5"):
        return None
    model = verification.load(directory)
    return verification.logits(model, verification.probe_tokens(model))


def test_scaled_positions_in_the_format_of_transformers_4_are_kept(tmp_path: Path) -> None:
    directory = MODELS["Llama 3"].write(tmp_path / "folder")
    assert "rope_parameters" not in json.loads((directory / "config.json").read_text())
    validate.report_result(directory, 1 << 30, 1 << 40)

    assert AutoConfig.from_pretrained(directory).rope_parameters == LLAMA_3_ROPE


@pytest.mark.parametrize("name", WITH_DEFAULT_TOKENS)
def test_special_tokens_that_only_the_class_of_transformers_names_are_used(tmp_path: Path, name: str) -> None:
    directory = without_settings(name)(tmp_path / "folder")
    tokens = AutoTokenizer.from_pretrained(directory).special_tokens_map
    assert "result" in validate.report_result(directory, 1 << 30, 1 << 40)
    assert PreTrainedTokenizerFast.from_pretrained(directory).special_tokens_map == tokens


def test_text_is_generated_within_the_limits(accepted: tuple[Path, Traits]) -> None:
    directory, traits = accepted
    if limit(traits, "generate") is not None:
        return
    if traits.turns_text:
        write_with_the_engine(directory)
        return
    loaded = generation.load(directory, "cpu")
    for seed in range(5):
        *_pieces, last = generation.stream(loaded, "The old 山", max_tokens=40, temperature=1.5, seed=seed)
        assert last.finish_reason in ("stop", "length")
    if limit(traits, "messages") is not None:
        with pytest.raises(generation.NoChatTemplate):
            loaded.encode_chat(QUESTION)
        return
    assert loaded.encode_chat(QUESTION) == loaded.tokenizer.apply_chat_template(
        QUESTION, chat_template=open_base(directory).chat_template, add_generation_prompt=True, return_dict=False
    )


def write_with_the_engine(directory: Path) -> None:
    engine = create_engine(generation.load_model(directory, "cpu"))
    settings = SamplingSettings(temperature=1.5)
    tokens = list(engine.submit([5, 6], settings, max_tokens=40, stop_token_ids=frozenset()))
    engine.close()
    assert len(tokens) == 40


def test_evaluations_succeed_within_the_limits(accepted: tuple[Path, Traits], tmp_path: Path) -> None:
    directory, traits = accepted
    if limit(traits, "evaluate") is not None:
        return
    corpus = write_corpus(tmp_path / "corpus", [TEXT])
    settings: dict[str, Any] = {"limit": None, "num_fewshot": 0, "batch_size": 1}
    loaded = generation.load(directory, "cpu")
    result = evaluation.evaluate(loaded, [corpus], progress=lambda done, total: None, **settings)
    assert result.corpora[0].metrics["bits_per_byte"] > 0


@pytest.mark.parametrize("form", ["safetensors", "gguf"])
def test_exports_succeed_within_the_limits(
    accepted: tuple[Path, Traits], tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, traits = accepted
    monkeypatch.setattr(
        export, "_verify_in_fresh_process", lambda out, kind, base, _most: verification.verify(out, kind, base)
    )

    def write() -> dict[str, Any]:
        return export.export(directory, tmp_path / "out", form, quantization="f32", has_manifest=False)

    reason = limit(traits, "gguf") if form == "gguf" else None
    if reason is not None:
        with pytest.raises(UnsupportedExport) as caught:
            write()
        assert caught.value.limit == reason
        return
    result = write()
    assert result["largest_difference"] <= result["tolerance"]
    assert "{" not in (tmp_path / "out/README.md").read_text().partition("## Usage")[0]


@pytest.mark.parametrize("objective", FAMILIES)
def test_objectives_have_their_tokens_within_the_limits(accepted: tuple[Path, Traits], objective: str) -> None:
    directory, traits = accepted
    if traits.model_type not in FAMILIES[objective]:
        return
    tokenizer: PreTrainedTokenizerFast = open_base(directory)
    if limit(traits, objective) is not None:
        with pytest.raises(Failure):
            require_special_tokens(tokenizer, objective)
        return
    require_special_tokens(tokenizer, objective)
    ids = torch.tensor([[1, 2, 3, 4]])
    labels = torch.tensor([0]) if objective == "classification" else ids
    model = architectures.model_class(objective).from_pretrained(directory)
    model.config.pad_token_id = tokenizer.pad_token_id
    assert model(input_ids=ids, labels=labels).loss.isfinite()


def test_the_limit_of_a_classifier_is_not_that_of_what_is_trained_from_it(tmp_path: Path) -> None:
    directory = folders.saved(tmp_path / "folder", "qwen2")
    folders.change(directory, architectures=["Qwen2ForSequenceClassification"], tie_word_embeddings=True)
    closing = validate.report_result(directory, 1 << 30, 1 << 40)
    traits = Traits.model_validate(closing["result"]["facts"])
    assert [limits(traits)[use].code for use in ("generate", "gguf")] == ["checkpoint_mute", "gguf_family"]
    assert limit(traits.model_copy(update={"is_classifier": False}), "gguf") is None
