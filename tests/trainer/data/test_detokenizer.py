"""Decoding token by token gives the text that the tokenizers library gives for all tokens at once."""

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tests.trainer.tokenizers_of_bases import KINDS
from trainer.data.detokenizer import WINDOW, Detokenizer

TEXTS = ["The old kettle holds", " 山上有 桥", "caffè 😀\n\n  x", "</s>a<s>"]


@cache
def kind(name: str) -> Tokenizer:
    return KINDS[name]()


def streamed(tokenizer: Tokenizer, ids: list[int], prompt: list[int]) -> str:
    detokenizer = Detokenizer(tokenizer, prompt)
    return "".join(detokenizer.push(number) for number in ids) + detokenizer.rest()


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_tokens_decode_to_the_text_of_the_library(name: str, data: st.DataObject) -> None:
    tokenizer = kind(name)
    ids = data.draw(st.lists(st.integers(0, tokenizer.get_vocab_size() - 1), max_size=3 * WINDOW))

    assert streamed(tokenizer, ids, []) == tokenizer.decode(ids)


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=60, deadline=None)
@given(data=st.data(), text=st.sampled_from(TEXTS))
def test_after_a_prompt_the_text_continues_as_in_the_library(name: str, data: st.DataObject, text: str) -> None:
    tokenizer = kind(name)
    prompt = tokenizer.encode("The old " + text + "gate", add_special_tokens=False).ids
    ids = data.draw(st.lists(st.integers(0, tokenizer.get_vocab_size() - 1), max_size=20))

    assert tokenizer.decode(prompt) + streamed(tokenizer, ids, prompt) == tokenizer.decode(prompt + ids)


def test_the_space_before_the_first_word_is_kept() -> None:
    tokenizer = kind("byte_fallback")
    whole, prompt = (tokenizer.encode(text).ids for text in ("The old garden", "The old"))

    assert whole[: len(prompt)] == prompt
    assert streamed(tokenizer, whole[len(prompt) :], prompt) == " garden"


@pytest.mark.parametrize("name", ["byte_fallback", "metaspace", "byte_level"])
def test_bad_bytes_become_replacement_characters_and_an_incomplete_character_is_omitted(name: str) -> None:
    tokenizer = kind(name)
    ids = tokenizer.encode("a龍", add_special_tokens=False).ids[:-1]
    detokenizer = Detokenizer(tokenizer)

    assert "".join(detokenizer.push(number) for number in ids) + detokenizer.rest(is_cut=True) == "a"
    assert streamed(tokenizer, ids, []) == tokenizer.decode(ids) == "a" + "\ufffd" * (len(tokenizer.decode(ids)) - 1)


def test_text_is_emitted_as_soon_as_it_is_certain() -> None:
    tokenizer = kind("byte_level")
    detokenizer = Detokenizer(tokenizer)
    pieces = [detokenizer.push(number) for number in tokenizer.encode("The 河 old").ids]

    assert "".join(pieces) == "The 河 old"
    assert pieces.count("") <= 2  # of the three bytes of a character, two give nothing yet
