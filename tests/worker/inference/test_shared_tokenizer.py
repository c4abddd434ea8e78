"""Texts that share a tokenizer process do not notice that it is started anew."""

from pathlib import Path

import pytest

from trainer.data import tokenizer
from trainer.data.server_process import CallStopped
from worker.inference.shared_tokenizer import SharedTokenizer

ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


def test_a_text_continues_when_another_stopped_call_ends_the_process(tmp_path: Path) -> None:
    hf_tokenizer = tokenizer.untrained()
    hf_tokenizer.chat_template = ENDLESS
    tokenizer.save_pretrained(hf_tokenizer, tmp_path)
    text = "In the beginning 天地"
    tokens = hf_tokenizer.encode(text, add_special_tokens=False)
    shared = SharedTokenizer(tmp_path)
    try:
        decoder = shared.decoder([], is_stopped=lambda: False)
        pieces: list[str] = []
        for place, token in enumerate(tokens):
            if place in (3, len(tokens) - 2):  # between letters, and within one
                with pytest.raises(CallStopped):
                    shared.call("chat", [{"role": "user", "content": "a" * 50_000}], is_stopped=lambda: True)
            pieces += decoder.push_all([token])
        assert "".join(pieces) + decoder.rest() == text
    finally:
        shared.close()
