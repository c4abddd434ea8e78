"""LoRA: only the adapters train, they resume bit-identically, and merged weights are base plus adapter."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from tests.trainer.bases import make_base, start_from
from tests.trainer.gangs import GangForkServer
from tests.trainer.runs import SAMPLES, checkpoint_of, english, make_run, of_kind, series, small_spec
from trainer.inference import generation
from trainer.modeling import architectures, lora
from trainer.modeling.build import build_model, init_model
from trainer.planning.counts import num_adapter_parameters
from trainer.run_dir import RunDir, verify

STEPS, SAVED = 20, 10
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def base(trained: RunDir) -> Path:
    """A checkpoint of ours, which has read the Bible."""
    return checkpoint_of(trained, 150)


def adapt(home: Path, name: str, base: Path, **fields: Any) -> RunDir:
    """A run that adapts the base to song lyrics."""
    lyrics = [(SAMPLES / "song-lyrics.jsonl").read_text(encoding="utf-8")[:20_000]]
    given = {"base_model": "base", "tuning": "lora", "lora_rank": 4, "lora_alpha": 8.0, "lora_dropout": 0.1}
    shape = {"max_steps": STEPS, "save_steps": SAVED, "eval_steps": SAVED, "learning_rate": 0.01}
    return start_from(make_run(home, name, lyrics, **{**given, **shape, **fields}), base)


@pytest.fixture(scope="module")
def undisturbed(fork_server: GangForkServer, home: Path, base: Path) -> dict[tuple[int, int], RunDir]:
    """Undisturbed runs by world size and ZeRO stage, made when they are first asked for."""

    class AdaptedRuns(dict[tuple[int, int], RunDir]):
        def __missing__(self, key: tuple[int, int]) -> RunDir:
            # What is dropped out depends on the rank, so runs that are compared with others drop nothing.
            shape = {"num_processes": key[0], "zero_stage": key[1], "lora_dropout": 0.1 if key == (1, 0) else 0.0}
            run_dir = adapt(home, f"adapted-{key[0]}-{key[1]}", base, **shape)
            assert fork_server.run(run_dir, key[0]) == 0, run_dir.log_path.read_text()
            self[key] = run_dir
            return run_dir

    return AdaptedRuns()


Runs = dict[tuple[int, int], RunDir]


def test_adapters_learn_new_text(undisturbed: Runs) -> None:
    losses = series(undisturbed[1, 0], "eval_loss")

    assert losses[STEPS] < 0.75 * losses[0]


def test_only_matrices_of_blocks_change(undisturbed: Runs, base: Path) -> None:
    before = load_file(base / "model.safetensors")
    after = load_file(checkpoint_of(undisturbed[1, 0], STEPS) / "model.safetensors")

    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if ".layers." in name and before[name].dim() == 2}
    verify(base)


def test_checkpoints_for_resuming_adapters_are_small(undisturbed: Runs) -> None:
    directory = checkpoint_of(undisturbed[1, 0], STEPS)
    count = num_adapter_parameters(undisturbed[1, 0].spec())

    adapter = load_file(directory / "adapter" / "adapter_model.safetensors")
    state = load_file(directory / "resume" / "optimizer-0-1.safetensors")
    assert sum(tensor.numel() for tensor in adapter.values()) == count
    assert sum(tensor.numel() for tensor in state.values()) == 2 * count
    assert len(verify(directory)["base_sha256"]) == 64


def logits(model: torch.nn.Module) -> torch.Tensor:
    ids = torch.arange(32).reshape(1, -1)
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=ids).logits
    return found


def test_merged_weights_equal_peft_with_base_and_adapter(undisturbed: Runs, base: Path) -> None:
    directory = checkpoint_of(undisturbed[1, 0], STEPS)
    beside = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), directory / "adapter").eval()

    merged = logits(AutoModelForCausalLM.from_pretrained(directory).eval())

    assert torch.allclose(merged, logits(beside), atol=1e-5)
    assert not torch.allclose(merged, logits(AutoModelForCausalLM.from_pretrained(base).eval()), atol=0.1)


def test_a_checkpoint_of_adapters_generates_and_can_be_a_base_model(
    fork_server: GangForkServer, home: Path, undisturbed: Runs
) -> None:
    directory = checkpoint_of(undisturbed[1, 0], STEPS)
    loaded = generation.load(directory, "cpu")
    assert list(generation.stream(loaded, "And", max_tokens=5, temperature=0))

    run_dir = adapt(home, "adapted-again", directory, max_steps=1, warmup_steps=0)
    assert fork_server.run(run_dir) == 0, run_dir.log_path.read_text()

    assert series(run_dir, "eval_loss")[0] == pytest.approx(series(undisturbed[1, 0], "eval_loss")[STEPS], abs=1e-4)


@pytest.mark.parametrize("key", [(1, 0), (2, 2)])
def test_resumed_adapters_have_the_same_bits(
    fork_server: GangForkServer, home: Path, base: Path, undisturbed: Runs, key: tuple[int, int]
) -> None:
    whole = undisturbed[key]
    shape = whole.spec().model_dump(include={"num_processes", "zero_stage", "lora_dropout"})
    again = adapt(home, f"adapted-on-{key[0]}-{key[1]}", base, **shape)
    start_from(again, base, resume=str(checkpoint_of(whole, SAVED)))

    assert fork_server.run(again, key[0]) == 0, again.log_path.read_text()

    assert of_kind(again, "resumed")[0].differs == []
    for name in ("loss", "grad_norm", "eval_loss"):
        assert series(again, name) == {step: at for step, at in series(whole, name).items() if step > SAVED}
    same = [load_file(checkpoint_of(run, STEPS) / "adapter" / "adapter_model.safetensors") for run in (whole, again)]
    assert all(torch.equal(same[0][name], same[1][name]) for name in same[0])


def test_adapters_learn_the_same_on_any_ranks_stages_and_with_checkpointing(
    fork_server: GangForkServer, home: Path, base: Path, undisturbed: Runs
) -> None:
    alone = adapt(home, "adapted-alone", base, lora_dropout=0.0, gradient_checkpointing=True)
    assert fork_server.run(alone) == 0, alone.log_path.read_text()

    for key in ((2, 2), (1, 3)):
        assert series(undisturbed[key], "loss") == pytest.approx(series(alone, "loss"), rel=1e-4), key


def test_adapters_do_not_resume_on_another_base(
    fork_server: GangForkServer, home: Path, base: Path, trained: RunDir, undisturbed: Runs, tmp_path: Path
) -> None:
    other = make_base(tmp_path, "llama", trained.tokenizer_path(1))
    for path in base.glob("tokenizer*"):
        (other / path.name).write_bytes(path.read_bytes())
    again = start_from(adapt(home, "other-base", other), other, resume=str(checkpoint_of(undisturbed[1, 0], SAVED)))

    assert fork_server.run(again) == 64

    (failure,) = of_kind(again, "failure")
    assert (failure.code, failure.values["field"]) == ("config_invalid", "base_model")


@pytest.mark.parametrize("model_type", ["llama", "gpt2"])
def test_a_model_without_its_adapters_equals_its_base(tmp_path: Path, trained: RunDir, model_type: str) -> None:
    made = make_base(tmp_path, model_type, trained.tokenizer_path(1))
    heads = {"llama": 2, "gpt2": 4}[model_type]
    spec = small_spec(base_model="base", tuning="lora", model_type=model_type, num_key_value_heads=heads)
    model = build_model(spec, made, AutoTokenizer.from_pretrained(made), (), CPU, "fp32", [].append).eval()
    own = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert sum(parameter.numel() for parameter in own.values()) == num_adapter_parameters(spec)
    with torch.no_grad():
        for parameter in own.values():
            parameter.normal_()
    expected = logits(AutoModelForCausalLM.from_pretrained(made).eval())

    with lora.disabled(model):
        without = logits(model)

    assert torch.allclose(without, expected, atol=1e-6)
    assert not torch.allclose(logits(model), expected, atol=0.1)
    assert all(parameter.requires_grad for parameter in own.values())


def test_a_new_head_is_fully_trained_and_saved_with_the_adapter(
    fork_server: GangForkServer, home: Path, base: Path
) -> None:
    verses = [{"text": line, "label": "verse"} for line in english(4000).splitlines()[2:30]]
    lyrics = (SAMPLES / "song-lyrics.jsonl").read_text(encoding="utf-8").splitlines()[:28]
    songs = [{"text": json.loads(line)["text"][:60], "label": "song"} for line in lyrics]
    documents = [json.dumps(record) for pair in zip(verses, songs, strict=True) for record in pair]
    fields = {"objective": "classification", "base_model": "base", "tuning": "lora", "learning_rate": 0.01}
    run_dir = make_run(home, "sorted", documents, **fields)
    (corpus,) = run_dir.inputs(1).corpora
    start_from(run_dir, base, corpora=[corpus.model_copy(update={"kind": "classification"})])

    assert fork_server.run(run_dir) == 0, run_dir.log_path.read_text()

    directory = checkpoint_of(run_dir, 20)
    merged = AutoModelForSequenceClassification.from_pretrained(directory).eval()
    bare = AutoModelForSequenceClassification.from_pretrained(base, num_labels=2, pad_token_id=1)
    beside = PeftModel.from_pretrained(bare, directory / "adapter").eval()
    assert merged.config.id2label == {0: "song", 1: "verse"}
    assert torch.allclose(logits(merged), logits(beside), atol=1e-5)
    assert series(run_dir, "loss")[20] < 0.5 * series(run_dir, "loss")[1]


FAMILIES = [
    ("qwen2", "causal", 2),
    ("gpt2", "causal", 4),
    ("bert", "masked", 4),
    ("roberta", "masked", 4),
    ("t5", "seq2seq", 4),
]


@pytest.mark.parametrize(("model_type", "objective", "heads"), FAMILIES)
@torch.no_grad()
def test_merged_weights_of_every_family_equal_those_with_adapters(
    tmp_path: Path, trained: RunDir, model_type: str, objective: str, heads: int
) -> None:
    fields = {"model_type": model_type, "objective": objective, "num_key_value_heads": heads, "vocab_size": 512}
    init_model(small_spec(**fields), 512, 0, 1, CPU).save_pretrained(tmp_path)
    spec = small_spec(**fields, base_model="base", tuning="lora")
    tokenizer = AutoTokenizer.from_pretrained(trained.tokenizer_path(1))
    model = build_model(spec, tmp_path, tokenizer, (), CPU, "fp32", [].append).eval()
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.normal_(std=0.02)
    adapted = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}

    merged = {weight.name: weight.value() for weight in lora.merged_weights(model)}
    model.save_pretrained(tmp_path / "merged", state_dict=merged)

    opened = architectures.model_class(objective).from_pretrained(tmp_path / "merged").eval()
    ids = {"input_ids": torch.arange(2, 32).reshape(1, -1)}
    if model_type == "t5":
        ids["decoder_input_ids"] = ids["input_ids"]
    assert torch.allclose(opened(**ids).logits, model(**ids).logits, atol=1e-5)
    assert all(".lora_" in name for name in adapted)
    assert sum(parameter.numel() for parameter in adapted.values()) == num_adapter_parameters(spec)
