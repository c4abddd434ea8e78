"""Tokenizers in GGUF files: the pre-tokenizer of llama.cpp that is asked for is the one that fits best."""

from pathlib import Path

import pytest
from gguf import GGUFReader, GGUFWriter
from tokenizers import AddedToken, Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from tests.trainer.runs import english
from trainer.export import gguf_tokenizer


def trained_by(*rounds: str) -> PreTrainedTokenizerFast:
    """A tokenizer that parts text by these expressions."""
    made = Tokenizer(BPE())
    splits = [pre_tokenizers.Split(Regex(expression), "isolated") for expression in rounds]
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(vocab_size=600, special_tokens=["<s>"], initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator([english(20_000), *gguf_tokenizer.TEXTS * 3], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="<s>")


@pytest.mark.parametrize("name", gguf_tokenizer.PRE_TOKENIZERS)
def test_each_known_way_of_parting_text_is_recognized(name: str) -> None:
    chosen = gguf_tokenizer.choose_pre_tokenizer(trained_by(*gguf_tokenizer.PRE_TOKENIZERS[name]))

    assert (chosen.name, chosen.tokens_equal) == (name, 1.0)


def test_what_fits_in_part_says_how_far() -> None:
    chosen = gguf_tokenizer.choose_pre_tokenizer(trained_by(r".{1,3}"))

    assert 0 < chosen.tokens_equal < 1


def test_a_vocabulary_larger_than_the_tokenizer_ends_in_unused_tokens(tmp_path: Path) -> None:
    tokenizer = trained_by(*gguf_tokenizer.PRE_TOKENIZERS["smollm"])
    tokenizer.add_tokens([AddedToken("furnace", special=False)])
    tokenizer.chat_template = "{{ messages }}"
    writer = GGUFWriter(tmp_path / "vocabulary.gguf", "llama")
    gguf_tokenizer.write(writer, tokenizer, len(tokenizer) + 7, "smollm")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()

    reader = GGUFReader(tmp_path / "vocabulary.gguf")
    assert len(reader.fields["tokenizer.ggml.tokens"].contents()) == len(tokenizer) + 7
    assert reader.fields["tokenizer.chat_template"].contents() == "{{ messages }}"
    assert not reader.fields["tokenizer.ggml.add_bos_token"].contents()
    read = gguf_tokenizer.read(reader)
    for text in (*gguf_tokenizer.TEXTS, "a furnace that feeds itself"):
        assert read.encode(text).ids == tokenizer(text)["input_ids"]
