"""Tokenizers in GGUF files: the chosen pre-tokenizer of llama.cpp is the closest one."""

import json
from pathlib import Path

import pytest
from gguf import GGUFReader, GGUFWriter, TokenType
from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from tests.trainer.runs import english
from trainer.export import gguf_tokenizer


def train_with(*rounds: str) -> PreTrainedTokenizerFast:
    """A tokenizer whose pre-tokenizer applies these patterns in turn."""
    backend = Tokenizer(BPE())
    splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in rounds]
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(vocab_size=600, special_tokens=["<s>"], initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator([english(20_000), *gguf_tokenizer.TEXTS * 3], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="<s>")


def rebuild(reader: GGUFReader) -> Tokenizer:
    """The tokenizer in a GGUF file, as llama.cpp builds it."""
    fields = {name: field.contents() for name, field in reader.fields.items() if name.startswith("tokenizer.")}
    tokens, types = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    marked = (TokenType.CONTROL, TokenType.USER_DEFINED)
    special = [token for token, kind in zip(tokens, types, strict=True) if kind in marked]
    return gguf_tokenizer.rebuild(tokens, fields["tokenizer.ggml.merges"], special, fields["tokenizer.ggml.pre"])


@pytest.mark.parametrize("name", gguf_tokenizer.PRE_TOKENIZERS)
def test_each_pre_tokenizer_of_llama_cpp_is_recognized(name: str) -> None:
    choice = gguf_tokenizer.choose_pre_tokenizer(train_with(*gguf_tokenizer.PRE_TOKENIZERS[name]))

    assert (choice.name, choice.tokens_equal) == (name, 1.0)


def test_a_pre_tokenizer_that_only_partly_fits_has_a_fraction_below_1() -> None:
    choice = gguf_tokenizer.choose_pre_tokenizer(train_with(r".{1,3}"))

    assert 0 < choice.tokens_equal < 1


def test_a_vocabulary_larger_than_the_tokenizer_ends_in_unused_tokens(tmp_path: Path) -> None:
    tokenizer = train_with(*gguf_tokenizer.PRE_TOKENIZERS["smollm"])
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
    rebuilt = rebuild(reader)
    for text in (*gguf_tokenizer.TEXTS, "a furnace that feeds itself"):
        assert rebuilt.encode(text).ids == tokenizer(text)["input_ids"]


def train_spm(*, prefix: bool) -> PreTrainedTokenizerFast:
    """A tokenizer like Llama 2's: BPE over characters with visible spaces, bytes for the characters it lacks."""
    backend = Tokenizer(BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    spaces = [normalizers.Prepend("▁")] if prefix else []
    backend.normalizer = normalizers.Sequence([*spaces, normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    words = pre_tokenizers.Split(Regex("▁"), "merged_with_next")  # so that no token spans words, as SentencePiece does
    backend.pre_tokenizer = words
    trainer = BpeTrainer(vocab_size=700, special_tokens=special, show_progress=False)
    backend.train_from_iterator([english(20_000)], trainer)
    state = json.loads(backend.to_str())
    state["pre_tokenizer"] = None
    state["added_tokens"] = state["added_tokens"][:3]
    tokenizer = Tokenizer.from_str(json.dumps(state))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


@pytest.mark.parametrize("prefix", [True, False])
def test_a_tokenizer_of_sentencepiece_is_written_with_scores(tmp_path: Path, prefix: bool) -> None:
    tokenizer = train_spm(prefix=prefix)
    assert gguf_tokenizer.choose_pre_tokenizer(tokenizer) == gguf_tokenizer.PreTokenizerChoice("spm", 1.0)
    writer = GGUFWriter(tmp_path / "vocabulary.gguf", "llama")
    gguf_tokenizer.write(writer, tokenizer, len(tokenizer), "spm")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()

    fields = {name: field.contents() for name, field in GGUFReader(tmp_path / "vocabulary.gguf").fields.items()}
    assert (fields["tokenizer.ggml.model"], fields["tokenizer.ggml.add_space_prefix"]) == ("llama", prefix)
    types = dict(zip(fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"], strict=True))
    assert [types[token] for token in ("<unk>", "<s>", "<0x0A>", "▁the")] == [
        TokenType.UNKNOWN,
        TokenType.CONTROL,
        TokenType.BYTE,
        TokenType.NORMAL,
    ]
    scores, tokens = fields["tokenizer.ggml.scores"], fields["tokenizer.ggml.tokens"]
    rebuilt = gguf_tokenizer.rebuild_spm(tokens, scores, ["<unk>", "<s>", "</s>"], prefix)
    text = "And the king's daughter 山 went\nout"
    assert rebuilt.encode(text).ids == tokenizer(text)["input_ids"]
