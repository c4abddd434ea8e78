"""gigatoken gives the tokens of tokenizers, or is not used."""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, pre_tokenizers
from tokenizers.models import WordPiece

from tests.trainer.runs import english, write_corpus
from trainer.data import fast_encoding, tokenized_text, tokenizer
from trainer.data.corpus import CorpusReader
from trainer.data.fast_encoding import FastEncoder, TokenIds, fast_encoder, is_exact
from trainer.data.record_refused import RecordRefused
from trainer.data.text_process import TextProcess

FAMILIES = {"llama": [], "qwen2": [], "bert": ["<|mask|>"], "t5": ["<extra_id_0>"]}
DOCUMENTS = [english(), "天地玄黄，宇宙洪荒。日月盈昃，辰宿列张。" * 50, "", "naïve cafe\u0301 <|endoftext|> 🙂"]


def no_progress(done: int, total: int) -> None:
    """A progress callback that does nothing."""


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The directory of a tokenizer of each family."""
    home = tmp_path_factory.mktemp("families")
    source = write_corpus(home / "c", DOCUMENTS)
    for family, special in FAMILIES.items():
        tokenizer.save(tokenizer.train([source], 600, no_progress, special, family), home / family)
    return {family: home / family for family in FAMILIES}


@pytest.fixture(scope="module")
def trained(directories: dict[str, Path]) -> dict[str, Tokenizer]:
    """The tokenizers, as jobs open them."""
    return {family: tokenizer.load(directory) for family, directory in directories.items()}


@pytest.fixture(scope="module")
def encoders(trained: dict[str, Tokenizer]) -> dict[str, FastEncoder]:
    """gigatoken for each of them."""
    encoders = {family: fast_encoder(one) for family, one in trained.items()}
    return {family: encoder for family, encoder in encoders.items() if encoder is not None}


@pytest.mark.parametrize("family", FAMILIES)
@given(text=st.text(max_size=300))
def test_any_text_has_the_same_tokens(
    family: str, trained: dict[str, Tokenizer], encoders: dict[str, FastEncoder], text: str
) -> None:
    assert list(encoders[family](text)) == trained[family].encode(text, add_special_tokens=False).ids


def test_a_special_token_that_is_spelled_in_a_text_is_plain_text(encoders: dict[str, FastEncoder]) -> None:
    assert len(encoders["llama"]("<|endoftext|>")) > 1


def test_a_cache_that_grows_is_dropped_and_the_tokens_stay_the_same(
    monkeypatch: pytest.MonkeyPatch, trained: dict[str, Tokenizer]
) -> None:
    """Each run of four Chinese characters between commas is a word of its own for gigatoken."""
    encode = fast_encoder(trained["llama"])
    assert encode is not None
    load, opened = fast_encoding.load_hf_json, []
    monkeypatch.setattr(fast_encoding, "load_hf_json", lambda state: opened.append(state) or load(state))
    monkeypatch.setattr(fast_encoding, "MAX_CACHE_BYTES", 16 << 20)
    characters = [chr(number) for number in range(0x4E00, 0x9FA0)]
    draw = random.Random(1)
    for _n in range(4):
        text = "，".join("".join(draw.choices(characters, k=4)) for _word in range(50_000))
        assert np.array_equal(encode(text), trained["llama"].encode(text).ids)
    assert opened


def with_limited_words(one: Tokenizer) -> Tokenizer:
    """As tokenizers of earlier versions of ours, whose pre-tokens have at most 32 letters."""
    changed = Tokenizer.from_str(one.to_str())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    changed.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(tokenizer.SPLIT), "isolated"), byte_level]
    )
    return changed


def with_word_pieces(_one: Tokenizer) -> Tokenizer:
    return Tokenizer(WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))


@pytest.mark.parametrize("change", [with_limited_words, with_word_pieces])
def test_a_tokenizer_that_it_does_not_know_is_left_to_the_library(trained: dict[str, Tokenizer], change: Any) -> None:
    assert fast_encoder(change(trained["llama"])) is None


def test_a_token_that_takes_the_spaces_around_it_is_encoded_alike_or_not_at_all(trained: dict[str, Tokenizer]) -> None:
    changed = Tokenizer.from_str(trained["llama"].to_str())
    changed.encode_special_tokens = True
    changed.add_tokens([AddedToken("@@", lstrip=True, rstrip=True, normalized=False)])
    encode = fast_encoder(changed)
    text = "mail a  @@ \n b@@c"
    assert encode is None or list(encode(text)) == changed.encode(text).ids


def lists(texts: Sequence[str]) -> Iterator[TokenIds]:
    yield from ([len(text)] for text in texts)


def refusing(texts: Sequence[str]) -> Iterator[TokenIds | RecordRefused]:
    yield from (RecordRefused("crash", why="") if "third" in text else [len(text)] for text in texts)


def differing(texts: Sequence[str]) -> Iterator[TokenIds]:
    yield from ([len(text), *([0] if "third" in text else [])] for text in texts)


@pytest.mark.parametrize("fast", [refusing, differing])
def test_one_text_with_other_tokens_is_enough_to_leave_all_to_the_library(tmp_path: Path, fast: Any) -> None:
    corpora = [
        CorpusReader(write_corpus(tmp_path / str(n), texts)) for n, texts in enumerate([["one"], ["two", "third"]])
    ]
    assert not is_exact(fast, lists, corpora)
    assert is_exact(fast, lists, corpora[:1])


def test_samples_are_pieces_from_all_over_a_corpus(tmp_path: Path) -> None:
    corpus = CorpusReader(write_corpus(tmp_path, ["a" * 100, "天" * 100, "b" * 100]))
    pieces = list(corpus.samples(5, 10))
    assert pieces == ["a" * 10, "天" * 3, "天" * 2, "天" * 3, "b" * 10]


@pytest.mark.parametrize("is_limited", [False, True])
def test_files_are_the_same_with_either_library(
    tmp_path: Path,
    directories: dict[str, Path],
    trained: dict[str, Tokenizer],
    monkeypatch: pytest.MonkeyPatch,
    is_limited: bool,
) -> None:
    monkeypatch.setattr(tokenized_text, "BATCH_BYTES", 4000)
    source = write_corpus(tmp_path / "c", [*DOCUMENTS, *DOCUMENTS])
    contents = []
    for name, min_bytes in (("library", 1 << 60), ("fast", 0)):
        monkeypatch.setattr(fast_encoding, "MIN_BYTES", min_bytes)
        trials: list[bool] = []
        monkeypatch.setattr(tokenized_text, "is_exact", lambda *ways, log=trials: log.append(is_exact(*ways)) or log[0])
        hostile = directories["llama"] if is_limited else None
        out = tokenized_text.tokenize_cached(
            [source], trained["llama"], "same", tmp_path / name, no_progress, start_ids=[7, 8], hostile=hostile
        )
        contents.append([(out / file).read_bytes() for file in ("tokens.bin", "documents.bin", "meta.json")])
        assert trials == [True] * (name == "fast")
    assert contents[0] == contents[1]


def test_what_the_limited_process_cannot_encode_fast_it_encodes_by_the_library(
    directories: dict[str, Path], trained: dict[str, Tokenizer], monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = DOCUMENTS[1:]
    with TextProcess(directories["llama"]) as process:
        call = process._call

        def refused_when_fast(texts: Sequence[str], *, is_fast: bool) -> list[TokenIds]:
            if is_fast:
                raise RecordRefused("memory", megabytes=1)
            return call(texts, is_fast=is_fast)

        expected = [trained["llama"].encode(text).ids for text in texts]
        monkeypatch.setattr(process, "_call", refused_when_fast)
        assert [list(ids) for ids in process.fast_or_exact(texts)] == expected
        assert all(isinstance(answer, RecordRefused) for answer in process.fast(texts))
        monkeypatch.setattr(process, "_call", call)
        monkeypatch.setattr(process, "exact", None)
        assert [list(ids) for ids in process.fast_or_exact(texts)] == expected
