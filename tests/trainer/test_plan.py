"""The plan's arithmetic against the models themselves."""

from typing import Any

import pytest
import torch

from tests.trainer.runs import small_spec
from trainer.model import NextToken, build
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
    memories = [
        plan(resolve({**fields, "zero_stage": stage}), 32_000, 80 << 30, None, "cuda").memory for stage in range(4)
    ]

    assert memories[0].optimizer == 8 * memories[1].optimizer
    assert memories[1].gradients == 8 * memories[2].gradients
    assert memories[2].weights == 8 * memories[3].weights
    assert memories[0].activations == memories[3].activations


@pytest.mark.parametrize("shape", [{}, {"model_type": "gpt2", "num_key_value_heads": 4}], ids=["llama", "gpt2"])
def test_activations_are_about_what_autograd_keeps(shape: dict[str, Any]) -> None:
    fields = {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 6, "num_key_value_heads": 4}
    spec = small_spec(**{**fields, **shape})
    model = NextToken(build(spec, 300, 0, 1, torch.device("cpu")).train())
    of_weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in of_weights:
            kept[storage.data_ptr()] = storage
        return tensor

    tokens = torch.zeros(spec.per_device_batch_size, spec.sequence_length, dtype=torch.long)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(tokens, tokens)
    logits = tokens.numel() * 300 * 4
    measured = sum(storage.nbytes() for storage in kept.values()) - logits

    assert plan(spec, 300, None, None).memory.activations == pytest.approx(measured, rel=0.15)


def test_it_says_whether_a_job_fits() -> None:
    spec = resolve({"recipe": "llama-7b", "corpora": ["c"]})
    roomy, tight = plan(spec, 32_000, 80 << 30, None, "cuda"), plan(spec, 32_000, 8 << 30, None, "cuda")

    assert (roomy.fits, tight.fits, plan(spec, 32_000, None, None).fits) == (True, False, None)
    assert "Lower per_device_batch_size" in tight.reason
    assert tight.values["available"] == 8 << 30


def test_checkpoints_take_the_bytes_of_the_weights() -> None:
    assert (
        plan(small_spec(precision="fp32"), 384, None, None).checkpoint_bytes
        == 4 * plan(small_spec(), 384, None, None).num_parameters
    )


def test_to_go_on_from_a_checkpoint_takes_the_moments_and_under_bf16_the_master_copy_too() -> None:
    whole, half = (plan(small_spec(precision=precision), 384, None, None) for precision in ("fp32", "bf16"))

    assert whole.resume_bytes == 8 * whole.num_parameters
    assert half.resume_bytes == 12 * half.num_parameters
