"""Byte-level BPE tokenizers: lossless, deterministic, cached."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import Unigram, WordPiece
from transformers import AutoTokenizer

from tests.trainer.runs import SAMPLES, english, write_corpus
from trainer.data import tokenizer
from trainer.failure import Failure


def no_progress(done: int, total: int) -> None:
    """A progress callback that does nothing."""


@pytest.fixture(scope="module")
def verses() -> list[str]:
    lines = (SAMPLES / "song-lyrics.jsonl").read_text(encoding="utf-8").splitlines()[:500]
    return [json.loads(line)["text"] for line in lines]


@pytest.fixture(scope="module")
def bpe(tmp_path_factory: pytest.TempPathFactory, verses: list[str]) -> Tokenizer:
    home = tmp_path_factory.mktemp("tokenizer")
    sources = [write_corpus(home / "a", [english()]), write_corpus(home / "b", verses)]
    return tokenizer.train(sources, 2000, no_progress)


@given(text=st.text())
def test_decoding_restores_any_text(bpe: Tokenizer, text: str) -> None:
    assert bpe.decode(bpe.encode(text).ids, skip_special_tokens=False) == text


@given(text=st.text())
def test_the_bytes_of_the_tokens_are_the_bytes_of_the_text(bpe: Tokenizer, text: str) -> None:
    assert tokenizer.token_bytes(bpe)[bpe.encode(text).ids].sum() == len(text.encode())


def test_chinese_words_become_tokens(bpe: Tokenizer, verses: list[str]) -> None:
    ids = bpe.encode("".join(verses)).ids

    assert len("".join(verses).encode()) / len(ids) > 2.5  # a character has 3 bytes and without merges 3 tokens
    assert any(len(bpe.decode([number])) > 1 for number in set(ids))


def test_merges_are_learned_from_short_pieces_of_text_without_spaces(tmp_path: Path, verses: list[str]) -> None:
    solid = "".join(character for verse in verses for character in verse if character.isalpha())
    bpe = tokenizer.train([write_corpus(tmp_path, [solid, "a" * 100_000, " " * 100_000])], 1000, no_progress)

    longest = max(len(token.encode()) for token in (bpe.decode([number]) for number in range(1000)))
    assert 8 < longest <= 32


def test_text_is_split_as_by_llama_3(bpe: Tokenizer) -> None:
    text = "I've 12345 naïve\n\n  words,他说：好。"
    pieces = [text[start:end] for _piece, (start, end) in bpe.pre_tokenizer.pre_tokenize_str(text)]  # type: ignore[union-attr]
    assert pieces == ["I", "'ve", " ", "123", "45", " naïve", "\n\n", " ", " words", ",他说", "：好", "。"]


def test_special_tokens_spelled_in_a_text_are_plain_text(tmp_path: Path) -> None:
    tokenizer.save(tokenizer.train([write_corpus(tmp_path / "c", [english()])], 300, no_progress), tmp_path / "t")
    loaded = tokenizer.load(tmp_path / "t")

    assert loaded.token_to_id("<|endoftext|>") not in loaded.encode("a<|endoftext|>b").ids


def test_transformers_loads_it(tmp_path: Path, bpe: Tokenizer) -> None:
    tokenizer.save(bpe, tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)

    assert (loaded.eos_token, loaded.bos_token, loaded.pad_token) == ("<|endoftext|>", "<|endoftext|>", "<|padding|>")
    assert loaded("天地玄黄 hello").input_ids == bpe.encode("天地玄黄 hello").ids


def test_the_same_text_gives_the_same_tokenizer(tmp_path: Path) -> None:
    source = write_corpus(tmp_path, [english()])

    first, second = (tokenizer.train([source], 500, no_progress).to_str() for _ in range(2))
    assert first == second


def test_the_cache_trains_once_for_each_vocabulary_size(tmp_path: Path) -> None:
    sources = [write_corpus(tmp_path / "c", [english(20_000)])]
    seen: list[int] = []

    def progress(done: int, total: int) -> None:
        seen.append(done)

    first = tokenizer.train_cached(sources, 300, tmp_path / "cache", progress)
    assert seen[-1] == 20_000
    seen.clear()

    assert tokenizer.train_cached(sources, 300, tmp_path / "cache", progress) == first
    assert not seen
    assert tokenizer.train_cached(sources, 301, tmp_path / "cache", progress) != first


def test_of_a_vocabulary_larger_than_the_text_yields_there_is_what_it_yields(tmp_path: Path) -> None:
    source = write_corpus(tmp_path, ["so short a text, so short"])
    found = tokenizer.train([source], 1000, no_progress)

    assert 258 < found.get_vocab_size() < 300
    assert found.to_str() == tokenizer.train([source], found.get_vocab_size(), no_progress).to_str()


def test_without_a_size_a_short_text_gets_a_small_vocabulary(tmp_path: Path) -> None:
    assert 258 <= tokenizer.train([write_corpus(tmp_path, ["so short"])], None, no_progress).get_vocab_size() < 300


@pytest.mark.parametrize(("num_bytes", "size"), [(1, 2048), (4_300_000, 2048), (10**9, 31_616), (10**12, 65_536)])
def test_the_vocabulary_grows_with_the_root_of_the_text(num_bytes: int, size: int) -> None:
    assert tokenizer.choose_vocab_size(num_bytes) == size


@pytest.mark.parametrize(
    "content", ["not json", '{"model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}}']
)
def test_a_file_that_is_not_a_usable_tokenizer_is_rejected(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(Failure) as caught:
        tokenizer.load(tmp_path)

    assert caught.value.code == "tokenizer_mismatch"


@pytest.mark.parametrize(
    ("model_type", "around"), [("bert", ("<|endoftext|>", "<|endoftext|>")), ("t5", ("", "<|endoftext|>"))]
)
def test_encoders_get_a_mask_token_and_encoder_decoders_get_sentinels(
    tmp_path: Path, model_type: str, around: tuple[str, str]
) -> None:
    source = write_corpus(tmp_path / "c", [english(20_000)])
    bpe = tokenizer.train_cached([source], 400, tmp_path / "cache", no_progress, model_type)
    loaded = AutoTokenizer.from_pretrained(bpe)

    assert loaded.decode(loaded("In the beginning").input_ids) == around[0] + "In the beginning" + around[1]
    assert len(loaded) == 400
    assert loaded.mask_token == ("<|mask|>" if model_type == "bert" else None)
    assert ("<extra_id_99>" in loaded.all_special_tokens) == (model_type == "t5")
    assert bpe != tokenizer.train_cached([source], 400, tmp_path / "cache", no_progress)


@pytest.mark.parametrize(
    ("objective", "lacks"), [("masked", "mask_token and cls_token and sep_token"), ("span_corruption", "<extra_id_0>")]
)
def test_a_tokenizer_without_the_special_tokens_of_an_objective_is_rejected(
    tmp_path: Path, bpe: Tokenizer, objective: str, lacks: str
) -> None:
    tokenizer.save(bpe, tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)

    tokenizer.require_special_tokens(loaded, "causal")
    tokenizer.require_special_tokens(loaded, "seq2seq")
    with pytest.raises(Failure, match=lacks) as caught:
        tokenizer.require_special_tokens(loaded, objective)
    assert caught.value.code == "tokenizer_mismatch"


def test_token_bytes_of_other_tokenizers_are_those_of_their_text() -> None:
    pieces = {"[UNK]": 0, "[SEP]": 1, "light": 2, "##ning": 3, "\u5929": 4}
    words = Tokenizer(WordPiece(pieces, unk_token="[UNK]"))
    words.add_special_tokens(["[UNK]", "[SEP]"])
    units = Tokenizer(Unigram([("<unk>", 0.0), ("\u2581the", -1.0), ("<0x0A>", -2.0)], unk_id=0))
    units.add_special_tokens(["<unk>"])

    assert tokenizer.token_bytes(words).tolist() == [0, 0, 5, 4, 3]
    assert tokenizer.token_bytes(units).tolist() == [0, 4, 1]
