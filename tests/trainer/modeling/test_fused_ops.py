"""Fused operations: they give the loss and the gradients of transformers' own code."""

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from tests.trainer.runs import small_spec
from trainer.data.batch import IGNORE_INDEX
from trainer.modeling import architectures, cpu_matmul, fused_ops
from trainer.modeling.objectives import CausalLM

VOCAB_SIZE = 300
IDS = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}


@pytest.fixture(autouse=True, params=[False, True])
def backend(request: pytest.FixtureRequest) -> Iterator[None]:
    """Matrix products by torch's default library, and by oneDNN."""
    cpu_matmul.set_onednn(request.param)
    yield
    cpu_matmul.set_onednn(False)


def reference_and_fused(model_type: str, is_tied: bool) -> tuple[PreTrainedModel, CausalLM]:
    """A model as transformers makes it, and an objective on the same weights with fused operations."""
    torch.manual_seed(1)
    heads = {"num_key_value_heads": 4} if model_type == "gpt2" else {}
    spec = small_spec(model_type=model_type, tie_word_embeddings=is_tied, **heads)
    reference = architectures.create_config(spec, VOCAB_SIZE, IDS, [])
    return reference.train(), CausalLM(fused_ops.use_fused_ops(copy.deepcopy(reference)), spec).train()


def batch() -> tuple[Tensor, Tensor]:
    ids = torch.randint(0, VOCAB_SIZE, (9, 33), generator=torch.Generator().manual_seed(2))
    return ids[:, :-1], ids[:, 1:].clone()


def gradients(model: PreTrainedModel) -> dict[str, Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "gpt2"])
@pytest.mark.parametrize("is_tied", [True, False])
def test_loss_and_gradients_are_those_of_transformers(model_type: str, is_tied: bool) -> None:
    reference, objective = reference_and_fused(model_type, is_tied)
    ids, labels = batch()
    assert ids.numel() > fused_ops.MIN_CHUNK_ROWS  # so there are several chunks

    loss = reference(input_ids=ids, labels=labels, shift_labels=labels).loss
    loss.backward()
    fused_loss = objective(input_ids=ids, labels=labels)[0] / labels.numel()
    fused_loss.backward()

    assert fused_loss.item() == pytest.approx(loss.item(), rel=1e-5)
    expected = gradients(reference)
    fused = gradients(objective.model)
    assert fused.keys() == expected.keys()
    for name, gradient in fused.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-3, atol=1e-6, msg=name)


def test_each_label_counts_by_its_weight() -> None:
    reference, objective = reference_and_fused("llama", is_tied=True)
    ids, labels = batch()
    weights = torch.rand(labels.shape) * (torch.rand(labels.shape) < 0.3)
    labels[weights == 0] = -100

    losses = F.cross_entropy(reference(input_ids=ids).logits.flatten(0, 1), labels.flatten(), reduction="none")
    (losses * weights.flatten()).sum().backward()
    fused_loss = objective(input_ids=ids, labels=labels, weights=weights)[0]
    fused_loss.backward()

    assert fused_loss.item() == pytest.approx((losses * weights.flatten()).sum().item(), rel=1e-5)
    for name, gradient in gradients(objective.model).items():
        torch.testing.assert_close(gradient, gradients(reference)[name], rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "gpt2"])
def test_evaluation_has_the_loss_of_transformers_and_skips_ignored_labels(model_type: str) -> None:
    reference, objective = reference_and_fused(model_type, is_tied=True)
    ids, labels = batch()
    labels[-1] = IGNORE_INDEX  # a row that only fills up the batch

    with torch.no_grad():
        loss = reference.eval()(input_ids=ids, labels=labels, shift_labels=labels).loss
        loss_sum = objective.eval()(input_ids=ids, labels=labels)[0]

    assert loss_sum.item() / labels[:-1].numel() == pytest.approx(loss.item(), rel=1e-5)


def test_evaluation_computes_no_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    _reference, objective = reference_and_fused("llama", is_tied=True)
    ids, labels = batch()
    products: list[tuple[int, ...]] = []
    matmul = cpu_matmul.matmul

    def count(left: Tensor, right: Tensor) -> Tensor:
        product = matmul(left, right)
        products.append(tuple(product.shape))
        return product

    monkeypatch.setattr(cpu_matmul, "matmul", count)
    with torch.no_grad():
        objective.eval()(input_ids=ids, labels=labels)

    rows = fused_ops.LOGITS_CHUNK_ELEMENTS["cpu"] // VOCAB_SIZE
    assert products == [(min(rows, labels.numel()), VOCAB_SIZE)]  # the logits and nothing else


def test_an_extreme_logit_gives_a_finite_loss() -> None:
    hidden, matrix = torch.full((2, 4), 100.0), torch.zeros(8, 4)
    matrix[3] = 10.0

    loss_sum = fused_ops.fused_linear_cross_entropy(hidden, matrix, torch.tensor([0, 3]), None)

    assert loss_sum.item() == pytest.approx(4000.0)


def test_a_frozen_matrix_gets_no_gradient() -> None:
    hidden, matrix = torch.rand(4, 8, requires_grad=True), torch.rand(16, 8)

    fused_ops.fused_linear_cross_entropy(hidden, matrix, torch.tensor([1, 2, 3, 4]), None).backward()

    assert hidden.grad is not None
    assert matrix.grad is None


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "gpt2", "bert", "roberta", "t5"])
def test_parameters_names_and_ties_are_unchanged(model_type: str) -> None:
    task = {"bert": "masked", "roberta": "masked", "t5": "seq2seq"}.get(model_type, "causal")
    heads = {} if model_type in ("llama", "qwen2") else {"num_key_value_heads": 4}
    spec = small_spec(model_type=model_type, objective=task, tie_word_embeddings=True, **heads)
    model = architectures.create_config(spec, VOCAB_SIZE, IDS, [])
    before = {name: id(parameter) for name, parameter in model.named_parameters(remove_duplicate=False)}
    names, random_state = list(model.state_dict()), torch.get_rng_state()
    is_tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight

    fused_ops.use_fused_ops(model)

    assert {name: id(parameter) for name, parameter in model.named_parameters(remove_duplicate=False)} == before
    assert list(model.state_dict()) == names
    assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) is is_tied
    assert torch.equal(torch.get_rng_state(), random_state)  # so that later weights are drawn alike
    if cpu_matmul.uses_onednn():
        assert not [name for name, module in model.named_modules() if type(module) in (nn.Linear, Conv1D)]


def test_a_module_with_two_names_remains_one_module() -> None:
    layer = nn.Linear(3, 3)
    model = nn.ModuleDict({"one": layer, "two": layer})

    cpu_matmul.set_onednn(True)
    fused_ops.use_fused_ops(model)

    assert type(model["one"]) is fused_ops.FusedLinear
    assert model["one"] is model["two"]
    assert model["one"].weight is layer.weight
