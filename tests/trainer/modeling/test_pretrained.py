"""Base models: opened bit for bit, with a new head where they have none, and refused in one sentence."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BertConfig, BertModel, PreTrainedModel

from tests.trainer.bases import make_base, start_from
from tests.trainer.gangs import GangForkServer
from tests.trainer.runs import checkpoint_of, make_run, of_kind, small_spec
from trainer.failure import Failure
from trainer.modeling import pretrained
from trainer.modeling.build import build_model
from trainer.modeling.pretrained import nf4_config
from trainer.run_dir import RunDir
from trainer.spec import TrainSpec, resolve

CPU = torch.device("cpu")
TEMPLATE = "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"


@pytest.fixture(scope="module")
def bases(trained: RunDir, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Base models by family, with the tokenizer of the run that trained."""

    def make(model_type: str = "llama", **options: Any) -> Path:
        return make_base(tmp_path_factory.mktemp(model_type), model_type, trained.tokenizer_path(1), **options)

    return make


def load(directory: Path, spec: TrainSpec, said: list[str] | None = None) -> PreTrainedModel:
    say = [] if said is None else said
    return pretrained.load(directory, spec, CPU, torch.float32, say.append)


def assert_same_weights(ours: PreTrainedModel, theirs: PreTrainedModel) -> None:
    expected = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        assert torch.equal(parameter, expected.pop(name)), name
    assert not expected


@pytest.mark.parametrize(
    ("model_type", "options"), [("llama", {}), ("gpt2", {}), ("llama", {"max_shard_size": "50KB"})]
)
def test_a_base_model_loads_the_same_bits_as_transformers(
    bases: Callable[..., Path], model_type: str, options: dict[str, Any]
) -> None:
    base = bases(model_type, **options)
    assert (len(list(base.glob("*.safetensors"))) > 1) == bool(options)

    model = load(base, small_spec(base_model="base", model_type=model_type, num_key_value_heads=KEYS[model_type]))

    assert_same_weights(model, AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32))
    assert model.training


KEYS = {"llama": 2, "gpt2": 4}


def test_half_precision_weights_are_converted_to_fp32(bases: Callable[..., Path], tmp_path: Path) -> None:
    base = bases()
    AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).save_pretrained(tmp_path)

    model = load(tmp_path, small_spec(base_model="base"))

    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert_same_weights(model, AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32))


def test_a_checkpoint_keeps_the_configuration_of_its_base(
    fork_server: GangForkServer, home: Path, bases: Callable[..., Path], trained: RunDir
) -> None:
    base = bases()
    (base / "chat_template.jinja").write_text(TEMPLATE)
    changed = json.loads((base / "generation_config.json").read_text()) | {"eos_token_id": [0, 7]}
    (base / "generation_config.json").write_text(json.dumps(changed))
    config = json.loads((base / "config.json").read_text()) | {
        "attention_dropout": 0.25,
        "rms_norm_eps": 1e-3,
        "pad_token_id": None,
    }
    (base / "config.json").write_text(json.dumps(config))
    run_dir = start_from(make_run(home, "keeps", base_model="base", max_steps=2, warmup_steps=0), base)

    assert fork_server.run(run_dir) == 0, run_dir.log_path.read_text()

    model = AutoModelForCausalLM.from_pretrained(checkpoint_of(run_dir, 2))
    assert (model.config.attention_dropout, model.config.rms_norm_eps) == (0.25, 1e-3)
    assert (model.config.max_position_embeddings, model.config.pad_token_id) == (64, 1)
    assert model.generation_config.eos_token_id == [0, 7]
    assert AutoTokenizer.from_pretrained(checkpoint_of(run_dir, 2)).chat_template == TEMPLATE
    (event,) = of_kind(run_dir, "tokenizer")
    assert not event.trained


def bert(**fields: Any) -> TrainSpec:
    sizes = {name: getattr(small_spec(), name) for name in ("num_hidden_layers", "hidden_size", "num_attention_heads")}
    given = {
        "recipe": "tiny-bert",
        "name": "bert",
        "corpora": ["corpus"],
        "base_model": "base",
        "num_key_value_heads": 4,
    }
    return resolve({**given, **sizes, "sequence_length": 32, **fields})


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    config = BertConfig(
        vocab_size=100,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=32,
    )
    BertModel(config).save_pretrained(tmp_path)
    return tmp_path


def test_a_missing_head_is_initialized_from_the_seed_and_reported(encoder: Path) -> None:
    said: list[str] = []
    heads = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        model = load(encoder, bert(seed=seed), said)
        heads.append(model.cls.predictions.transform.dense.weight)

    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])
    assert "cls.predictions.transform.dense.weight" in said[0]
    assert "pooler.dense.weight" in said[1]


def test_a_classifier_names_its_labels_and_has_no_dropout(encoder: Path) -> None:
    spec = bert(objective="classification", recipe="classifier")
    model = pretrained.load(encoder, spec, CPU, torch.float32, [].append, ["bad", "good", "so-so"])

    assert model.config.id2label == {0: "bad", 1: "good", 2: "so-so"}
    assert model.config.hidden_dropout_prob == 0.1  # as its config says, for who trains it elsewhere
    assert {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)} == {0.0}


def refusal(base: Path, spec: TrainSpec) -> Failure:
    tokenizer = AutoTokenizer.from_pretrained(base)
    with pytest.raises(Failure) as caught:
        build_model(spec, base, tokenizer, (), CPU, "fp32", [].append)
    return caught.value


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (
            {"sequence_length": 128},
            "sequence_length is 128, but the base model reads at most 64 tokens: lower it",
        ),
        ({"hidden_size": 128}, "hidden_size is 128, but the base model's is 64"),
        ({"num_hidden_layers": 3}, "num_hidden_layers is 3, but the base model's is 2"),
        ({"model_type": "qwen2"}, "model_type is qwen2, but the base model's is llama"),
        (
            {"tuning": "qlora"},
            "tuning is qlora, which needs an NVIDIA GPU and the package bitsandbytes: lora runs without them",
        ),
    ],
)
def test_a_spec_that_contradicts_its_base_is_rejected(
    bases: Callable[..., Path], fields: dict[str, Any], sentence: str
) -> None:
    failure = refusal(bases(), small_spec(base_model="base", **fields))

    assert str(failure) == sentence
    assert failure.code == "config_invalid"


def test_a_missing_base_model_is_an_error(fork_server: GangForkServer, home: Path) -> None:
    run_dir = make_run(home, "nameless", base_model="base")

    assert fork_server.run(run_dir) == 64

    assert of_kind(run_dir, "failure")[0].values["field"] == "base_model"


def test_pickled_weights_are_refused(bases: Callable[..., Path]) -> None:
    base = bases()
    (base / "model.safetensors").unlink()
    torch.save({}, base / "pytorch_model.bin")

    assert "base_model cannot be read" in str(refusal(base, small_spec(base_model="base")))


def test_a_base_without_a_block_is_rejected(bases: Callable[..., Path]) -> None:
    base = bases()
    config = json.loads((base / "config.json").read_text()) | {"num_hidden_layers": 3}
    (base / "config.json").write_text(json.dumps(config))

    failure = refusal(base, small_spec(base_model="base", num_hidden_layers=3))

    assert str(failure) == "base_model lacks model.layers.2.input_layernorm.weight"


def test_a_tokenizer_larger_than_the_embedding_is_rejected(bases: Callable[..., Path]) -> None:
    base = bases()
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens(["one more"])
    tokenizer.save_pretrained(base)

    assert refusal(base, small_spec(base_model="base")).code == "tokenizer_mismatch"


def test_four_bit_values_equal_those_of_the_paper() -> None:
    found = nf4_config()

    assert (found.load_in_4bit, found.bnb_4bit_quant_type, found.bnb_4bit_use_double_quant) == (True, "nf4", True)
    assert found.bnb_4bit_compute_dtype == torch.bfloat16
