"""Parameters and operations against the models themselves and against arithmetic by hand."""

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.trainer.runs import small_spec
from trainer.modeling.build import init_model
from trainer.planning.counts import count_parameters, flops, num_adapter_parameters, num_parameters
from trainer.spec import resolve

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {},
    "gpt2": {"num_key_value_heads": 4},
    "bert": {"objective": "masked", "num_key_value_heads": 4},
    "roberta": {"objective": "masked", "num_key_value_heads": 4},
    "t5": {"objective": "seq2seq", "num_key_value_heads": 4, "vocab_size": None},
    "wide-llama": {"model_type": "llama", "head_dim": 24},
    "wide-qwen2": {"model_type": "qwen2", "head_dim": 24},
    "wide-t5": {
        "model_type": "t5",
        "objective": "seq2seq",
        "num_attention_heads": 6,
        "num_key_value_heads": 6,
        "head_dim": 24,
        "vocab_size": None,
    },
}
SHAPES = pytest.mark.parametrize(
    "shape", [{"model_type": name, **fields} for name, fields in FAMILIES.items()], ids=list(FAMILIES)
)


@pytest.mark.parametrize("tied", [True, False])
@SHAPES
def test_parameters_are_counted_exactly(shape: dict[str, Any], tied: bool) -> None:
    spec = small_spec(**shape, tie_word_embeddings=tied or shape["model_type"] == "t5")
    model = init_model(spec, 777, 0, 1, torch.device("cpu"))

    assert num_parameters(spec, 777) == model.num_parameters()


@SHAPES
def test_the_parts_sum_to_the_total(shape: dict[str, Any]) -> None:
    is_tied = shape["model_type"] == "t5"  # always
    sizes = count_parameters(small_spec(**shape, tie_word_embeddings=is_tied), 777)
    own_head = 0 if is_tied else sizes.head
    assert sizes.total == sizes.embedding + sizes.blocks + sizes.norm + own_head


@pytest.mark.parametrize("model_type", ["bert", "roberta", "llama", "gpt2", "qwen2"])
def test_a_classifier_is_counted_exactly(model_type: str) -> None:
    spec = small_spec(objective="classification", model_type=model_type, num_key_value_heads=4)
    model = init_model(spec, 777, 0, 1, torch.device("cpu"), ("no", "yes"))

    assert num_parameters(spec, 777) == model.num_parameters()


def test_llama_7b_by_hand() -> None:
    spec = resolve({"recipe": "llama-7b", "corpora": ["c"]})
    attention, feed_forward, norms = 4 * 4096 * 4096, 3 * 4096 * 11008, 2 * 4096
    block = attention + feed_forward + norms
    head = 32_000 * 4096
    assert num_parameters(spec, 32_000) == 2 * head + 32 * block + 4096 == 6_738_415_616

    token = flops(spec, 32_000)
    assert token.matmuls == 6 * (head + 32 * block + 4096)
    assert token.attention == 6 * 32 * 4096 * 4096  # layers x width x length, forward and backward, half masked
    assert token.recomputed == 2 * 32 * block + 2 * 32 * 4096 * 4096
    assert token.published == 6 * 6_738_415_616 + 12 * 32 * 4096 * 4096
    assert token.hardware_flops == token.model_flops + token.recomputed


def test_gpt2_124m_by_hand() -> None:
    spec = resolve({"recipe": "gpt2-124m", "corpora": ["c"]})
    attention = 768 * 3 * 768 + 3 * 768 + 768 * 768 + 768
    feed_forward = 768 * 3072 + 3072 + 3072 * 768 + 768
    block = attention + feed_forward + 2 * 2 * 768
    assert num_parameters(spec, 50_257) == (50_257 + 1024) * 768 + 12 * block + 2 * 768 == 124_439_808

    token = flops(spec, 50_257)
    assert token.matmuls == 6 * (50_257 * 768 + 12 * block + 2 * 768)  # the tied head multiplies, positions do not
    assert token.recomputed == 0


def test_flops_agree_with_torchs_flop_counter() -> None:
    spec = small_spec(num_hidden_layers=3)
    model = init_model(spec, 777, 0, 1, torch.device("cpu"))
    tokens = torch.zeros(2, spec.sequence_length, dtype=torch.long)
    counter = FlopCounterMode(display=False)
    with counter, torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        model(input_ids=tokens, use_cache=False).logits.float().sum().backward()
    token = flops(spec, 777)
    expected = token.matmuls + 2 * token.attention  # torch counts masked scores, too
    assert counter.get_total_flops() / tokens.numel() == pytest.approx(expected, rel=0.03)


@SHAPES
def test_adapter_parameters_are_rank_times_rows_plus_columns_of_every_matrix(shape: dict[str, Any]) -> None:
    spec = small_spec(**shape, lora_rank=8)
    model = init_model(spec, 777, 0, 1, torch.device("cpu"))
    marks = (".layers.", ".h.", ".layer.", ".block.")
    blocks = [
        parameter
        for name, parameter in model.named_parameters()
        if any(mark in name for mark in marks) and "relative_attention_bias" not in name
    ]

    assert num_adapter_parameters(spec) == 8 * sum(sum(p.shape) for p in blocks if p.dim() == 2)
