"""The plan's arithmetic against the models themselves."""

from typing import Any

import pytest
import torch

from tests.trainer.runs import small_spec
from trainer.model import build
from trainer.plan import plan
from trainer.spec import recipe, resolve


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    "shape", [{"model_type": "llama"}, {"model_type": "gpt2", "num_key_value_heads": 4}], ids=["llama", "gpt2"]
)
def test_parameters_are_counted_exactly(shape: dict[str, Any], tied: bool) -> None:
    spec = small_spec(**shape, tie_word_embeddings=tied)
    model = build(spec, 777, 0, 1, torch.device("cpu"))

    assert plan(spec, 777, None, None).num_parameters == model.num_parameters()


@pytest.mark.parametrize(("name", "millions"), [("gpt2-124m", 124.4), ("llama-7b", 6738.4)])
def test_the_recipes_have_the_sizes_they_are_named_after(name: str, millions: float) -> None:
    fields = recipe(name)
    spec = resolve({"recipe": name, "corpora": ["c"]})

    assert plan(spec, fields["vocab_size"], None, None).num_parameters / 1e6 == pytest.approx(millions, abs=0.1)


def test_tokens_and_epochs_follow_from_steps() -> None:
    made = plan(small_spec(max_steps=100), 384, None, 33_000)

    assert made.num_tokens == 100 * 8 * 32
    assert made.num_epochs == pytest.approx(made.num_tokens / (10_000 * 0.95))


def test_each_zero_stage_shards_one_thing_more() -> None:
    fields = {"recipe": "llama-7b", "corpora": ["c"]}
    memories = [plan(resolve({**fields, "zero_stage": stage}), 32_000, 80 << 30, None).memory for stage in range(4)]

    assert memories[0].optimizer == 8 * memories[1].optimizer
    assert memories[1].gradients == 8 * memories[2].gradients
    assert memories[2].weights == 8 * memories[3].weights
    assert memories[0].activations == memories[3].activations


def test_it_says_whether_a_job_fits() -> None:
    spec = resolve({"recipe": "llama-7b", "corpora": ["c"]})
    roomy, tight = plan(spec, 32_000, 80 << 30, None), plan(spec, 32_000, 8 << 30, None)

    assert (roomy.fits, tight.fits, plan(spec, 32_000, None, None).fits) == (True, False, None)
    assert "Lower per_device_batch_size" in tight.reason
    assert tight.values["available"] == 8 << 30


def test_checkpoints_take_the_bytes_of_the_weights() -> None:
    assert (
        plan(small_spec(precision="fp32"), 384, None, None).checkpoint_bytes
        == 4 * plan(small_spec(), 384, None, None).num_parameters
    )
