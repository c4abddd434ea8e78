import pytest
import torch
from transformers import RobertaConfig, RobertaForCausalLM

from trainer.planning.context_length import context_length, max_context_length


def test_a_roberta_reads_exactly_its_context_length() -> None:
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    config = RobertaConfig(vocab_size=16, max_position_embeddings=20, pad_token_id=3, is_decoder=True, **sizes)
    model = RobertaForCausalLM(config)
    length = context_length(config)
    assert length == 16
    model(torch.full((1, length), 5))
    with pytest.raises((IndexError, RuntimeError)):
        model(torch.full((1, length + 1), 5))


def test_the_context_length_of_other_models_is_their_number_of_positions() -> None:
    assert max_context_length("gpt2", 1024, None) == 1024


def test_relative_positions_have_no_limit() -> None:
    assert max_context_length("t5", 512, 0) is None
    assert max_context_length("llama", None, None) is None


def test_a_roberta_without_a_padding_token_is_rejected() -> None:
    with pytest.raises(ValueError, match="pad_token_id"):
        max_context_length("roberta", 514, None)
