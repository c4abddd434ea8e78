"""The preview of a chat template shows what training reads, and which parts of it are learned."""

from pathlib import Path

import pytest

from tests.trainer.tokenizers_of_bases import CHAT_TOKENS, byte_level, fast
from trainer.data.chat_preview import preview
from trainer.data.record_refused import RecordRefused
from trainer.families import CHAT_TEMPLATES

TALK = [
    {"role": "user", "content": "What is gold?"},
    {"role": "assistant", "content": "A metal."},
    {"role": "user", "content": "And 铅?"},
    {"role": "assistant", "content": "Softer."},
]


@pytest.mark.parametrize("name", CHAT_TEMPLATES)
def test_without_a_base_model_the_special_tokens_are_those_of_new_tokenizers(name: str) -> None:
    shown = preview(None, name, TALK)

    learned = [part.text.strip() for part in shown.parts if part.is_learned]
    assert learned == ["A metal.<|endoftext|>", "Softer.<|endoftext|>"]
    assert shown.end_of_turn == "<|endoftext|>"
    assert "".join(part.text for part in shown.parts).startswith(shown.prompt)


def test_a_base_model_brings_its_template_and_its_tokens(tmp_path: Path) -> None:
    base = fast(byte_level(["<s>", "</s>", *CHAT_TOKENS]))
    base.chat_template = "{% for m in messages %}{{ m.content + '<|im_end|>' }}{% endfor %}"
    base.save_pretrained(tmp_path)
    shown = preview(tmp_path, None, TALK)

    assert "".join(part.text for part in shown.parts) == base.apply_chat_template(TALK, tokenize=False)
    assert shown.end_of_turn == "<|im_end|>"
    assert preview(tmp_path, "chatml", TALK).parts[-2].text == "Softer.<|im_end|>"


def test_the_error_of_a_template_for_a_conversation_is_reported() -> None:
    with pytest.raises(RecordRefused, match="roles must alternate"):
        preview(None, "{{ raise_exception('roles must alternate') }}", TALK)
