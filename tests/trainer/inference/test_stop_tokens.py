"""The token that ends a turn: found in the template, learned, saved with the model, and obeyed by transformers too."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from tests.trainer.runs import small_spec
from tests.trainer.tokenizers_of_bases import CHAT_TOKENS, byte_level, fast
from trainer.data import tokenizer as tokenizers
from trainer.data.record_encoding import RecordEncoder
from trainer.inference import generation
from trainer.modeling.build import build_model

TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TALK = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "The old 桥."}]


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model whose files name only </s>, after a few steps on one conversation that ends with <|im_end|>."""
    base, out = tmp_path_factory.mktemp("base"), tmp_path_factory.mktemp("tuned")
    hf_tokenizer = fast(byte_level(["<s>", "</s>", *CHAT_TOKENS, "<|eom|>"]))
    hf_tokenizer.chat_template = TEMPLATE
    sizes: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    ids = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    config = LlamaConfig(
        vocab_size=len(hf_tokenizer), **sizes, num_attention_heads=4, max_position_embeddings=64, **ids
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    model.generation_config.eos_token_id = [1, 4]
    model.save_pretrained(base)
    spec = small_spec(objective="chat", base_model="base", num_key_value_heads=4, **sizes)
    trained = build_model(spec, base, hf_tokenizer, (), torch.device("cpu"), "fp32", lambda line: None)
    segment = RecordEncoder("chat", hf_tokenizer).encode_conversation(TALK)
    batch = torch.tensor([segment.ids])
    labels = torch.tensor([[i if w else -100 for i, w in zip(segment.ids, segment.weights, strict=True)]])
    optimizer = torch.optim.AdamW(trained.parameters(), lr=1e-2)
    for _step in range(40):
        trained(input_ids=batch, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    trained.save_pretrained(out)
    tokenizers.save_pretrained(hf_tokenizer, out)
    return out


def test_all_stop_tokens_are_saved_in_the_generation_config(tuned: Path) -> None:
    saved = json.loads((tuned / "generation_config.json").read_text())

    assert saved["eos_token_id"] == [1, 3, 4]  # </s> of the tokenizer, <|im_end|> of the template, <|eom|> of the base


def test_answers_end_where_they_end_in_transformers(tuned: Path) -> None:
    loaded = generation.load(tuned, "cpu")
    prompt = RecordEncoder("chat", loaded.tokenizer).prompt(TALK[:1])
    pieces = list(generation.stream(loaded, prompt, max_tokens=30, temperature=0))
    tokenizer, model = AutoTokenizer.from_pretrained(tuned), AutoModelForCausalLM.from_pretrained(tuned)
    inputs = tokenizer.apply_chat_template(TALK[:1], add_generation_prompt=True, return_tensors="pt")
    written = model.generate(**inputs, max_new_tokens=30, do_sample=False)[0, inputs["input_ids"].shape[1] :]

    assert inputs["input_ids"][0].tolist() == prompt
    assert "".join(piece.text for piece in pieces) == "The old 桥."
    assert (pieces[-1].finish_reason, pieces[-1].num_tokens) == ("stop", len(written))
    assert tokenizer.decode(written) == "The old 桥.<|im_end|>"


def test_the_playground_uses_the_stop_token_of_the_template_if_the_files_lack_it(tuned: Path) -> None:
    loaded = generation.load(tuned, "cpu")
    loaded.model.generation_config.eos_token_id = None
    loaded.model.config.eos_token_id = None

    assert loaded.stop_token_ids == {1, 3}
