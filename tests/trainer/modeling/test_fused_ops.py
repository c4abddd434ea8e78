"""The faster pieces: they give the loss and the gradients of transformers' own code."""

import copy

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel

from tests.trainer.runs import small_spec
from trainer.modeling import architectures, cpu_matmul, fused_ops
from trainer.modeling.objectives import CausalLM

VOCAB_SIZE = 300
IDS = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}


@pytest.fixture(autouse=True, params=[False, True])
def both(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With torch's own products, and with the others."""
    monkeypatch.setattr(cpu_matmul, "prefers_onednn", lambda: request.param)


def plain_and_quick(model_type: str, is_tied: bool) -> tuple[PreTrainedModel, CausalLM]:
    """A network as transformers makes it, and an objective on the same weights with the faster pieces."""
    torch.manual_seed(1)
    heads = {"num_key_value_heads": 4} if model_type == "gpt2" else {}
    spec = small_spec(model_type=model_type, tie_word_embeddings=is_tied, **heads)
    plain = architectures.create_config(spec, VOCAB_SIZE, IDS, [])
    return plain.train(), CausalLM(fused_ops.use_fused_ops(copy.deepcopy(plain)), spec).train()


def batch() -> tuple[Tensor, Tensor]:
    ids = torch.randint(0, VOCAB_SIZE, (9, 33), generator=torch.Generator().manual_seed(2))
    return ids[:, :-1], ids[:, 1:].clone()


def gradients(model: PreTrainedModel) -> dict[str, Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "gpt2"])
@pytest.mark.parametrize("is_tied", [True, False])
def test_loss_and_gradients_are_those_of_transformers(model_type: str, is_tied: bool) -> None:
    plain, objective = plain_and_quick(model_type, is_tied)
    ids, labels = batch()
    assert ids.numel() > fused_ops.MIN_CHUNK_ROWS  # the logits come in several parts

    loss = plain(input_ids=ids, labels=labels, shift_labels=labels).loss
    loss.backward()
    quicker = objective(input_ids=ids, labels=labels)[0] / labels.numel()
    quicker.backward()

    assert quicker.item() == pytest.approx(loss.item(), rel=1e-5)
    expected = gradients(plain)
    found = gradients(objective.model)
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-3, atol=1e-6, msg=name)


def test_weights_of_labels_count_as_they_do_in_the_plain_sum() -> None:
    plain, objective = plain_and_quick("llama", is_tied=True)
    ids, labels = batch()
    weights = torch.rand(labels.shape) * (torch.rand(labels.shape) < 0.3)
    labels[weights == 0] = -100

    nats = F.cross_entropy(plain(input_ids=ids).logits.flatten(0, 1), labels.flatten(), reduction="none")
    (nats * weights.flatten()).sum().backward()
    quicker = objective(input_ids=ids, labels=labels, weights=weights)[0]
    quicker.backward()

    assert quicker.item() == pytest.approx((nats * weights.flatten()).sum().item(), rel=1e-5)
    for name, gradient in gradients(objective.model).items():
        torch.testing.assert_close(gradient, gradients(plain)[name], rtol=1e-3, atol=1e-4, msg=name)


def test_an_extreme_logit_gives_a_finite_loss() -> None:
    hidden, matrix = torch.full((2, 4), 100.0), torch.zeros(8, 4)
    matrix[3] = 10.0

    nats = fused_ops.fused_linear_cross_entropy(hidden, matrix, torch.tensor([0, 3]), None)

    assert nats.item() == pytest.approx(4000.0)


def test_a_frozen_matrix_gets_no_gradient() -> None:
    hidden, matrix = torch.rand(4, 8, requires_grad=True), torch.rand(16, 8)

    fused_ops.fused_linear_cross_entropy(hidden, matrix, torch.tensor([1, 2, 3, 4]), None).backward()

    assert hidden.grad is not None
    assert matrix.grad is None


def test_the_names_of_the_weights_stay() -> None:
    plain, objective = plain_and_quick("gpt2", is_tied=False)

    assert list(objective.model.state_dict()) == list(plain.state_dict())
