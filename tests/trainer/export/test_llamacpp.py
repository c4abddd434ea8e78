"""llama.cpp itself opens our GGUF files: the same tokens and the same next tokens as transformers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from bench.proofs import llamacpp
from tests.trainer.export.test_export import SHAPE
from tests.trainer.export.test_gguf_tokenizer import train_spm
from tests.trainer.modeling.test_config_file import LLAMA_3
from trainer.export import gguf_writer

TURNS = "{% for m in messages %}{{ '<turn>' + m.content + '</turn>' }}{% endfor %}"
TEXTS = ("And the king's daughter 山 went\nout", "  two spaces,\ttabs", "a</s> b")
LINEAR = {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 4.0}


@pytest.mark.parametrize(
    ("prefix", "rope", "head_dim"), [(True, LLAMA_3, None), (False, LINEAR, None), (True, LLAMA_3, 16)]
)
def test_it_reads_sentencepiece_tokenizers_scaled_positions_and_narrow_heads(
    tmp_path: Path, prefix: bool, rope: dict[str, Any], head_dim: int | None
) -> None:
    tokenizer = train_spm(prefix=prefix)
    torch.manual_seed(0)
    sizes = {**SHAPE, "head_dim": head_dim, "initializer_range": 0.3}
    config = LlamaConfig(vocab_size=len(tokenizer), rope_parameters=rope, **sizes)
    model = LlamaForCausalLM(config).eval()
    model.config.architectures = ["LlamaForCausalLM"]
    gguf_writer.write(tmp_path / "model.gguf", model, tokenizer, "f32", "proof")

    with llamacpp.serving(tmp_path / "model.gguf") as client:
        for text in TEXTS:
            tokens = llamacpp.ask(client, "/tokenize", content=text, add_special=False, parse_special=True)["tokens"]
            assert tokens == tokenizer(text, add_special_tokens=False)["input_ids"], text
        prompt = torch.randint(3, len(tokenizer), (100,)).tolist()  # longer than the original positions of LLAMA_3
        steps = list(llamacpp.next_tokens(client, model, prompt))
    assert len(steps) > 20
    assert sum(is_same for is_same, _off in steps) >= len(steps) - 1  # two likeliest tokens may be as good as equal
    assert max(off for _is_same, off in steps) < 0.05


def test_it_stops_at_the_end_of_a_turn(tmp_path: Path) -> None:
    tokenizer = train_spm(prefix=True)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<turn>", "</turn>"]})
    tokenizer.chat_template = TURNS
    torch.manual_seed(0)
    rope = {"rope_type": "default", "rope_theta": 10_000.0}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), rope_parameters=rope, **SHAPE)).eval()
    model.config.architectures = ["LlamaForCausalLM"]
    end_of_turn = tokenizer.convert_tokens_to_ids("</turn>")
    with torch.no_grad():  # every hidden state has a large first value, which only the end of a turn looks for
        model.model.norm.weight.zero_()[0] = 50.0
        model.model.embed_tokens.weight[:, 0] = 1.0
        model.lm_head.weight[end_of_turn].zero_()[0] = 50.0
    gguf_writer.write(tmp_path / "model.gguf", model, tokenizer, "f32", "turns")

    with llamacpp.serving(tmp_path / "model.gguf") as client:
        answer = llamacpp.ask(client, "/completion", prompt="And the king", n_predict=8, temperature=0.0)
    assert (answer["stop_type"], answer["tokens_predicted"]) == ("eos", 1)
