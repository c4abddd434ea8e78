"""Tokenised text: exact, bounded in memory, cut into sequences that lead back to their documents."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tests.trainer.runs import english, small_spec, write_corpus
from trainer.data import corpus, tokenized_text, tokenizer
from trainer.data.tokenized_text import Document, TokenizedText
from trainer.failure import Failure


def nothing(done: int, total: int) -> None:
    """Progress that nobody follows."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    home = tmp_path_factory.mktemp("data-tokenizer")
    sources = [write_corpus(home / "c", [english(), "天地玄黄，宇宙洪荒。日月盈昃，辰宿列张。" * 20])]
    tokenizer.save(tokenizer.train(sources, 400, nothing), home / "t")
    return tokenizer.load(home / "t")


def tokenise(home: Path, made: Tokenizer, *corpora: list[str]) -> tuple[Path, list[int]]:
    """The directory with these corpora tokenised, and all ids."""
    sources = [write_corpus(home / f"c{number}", documents) for number, documents in enumerate(corpora)]
    directory = tokenized_text.tokenize_cached(sources, made, "made", home / "cache", nothing)
    meta = tokenized_text.read_meta(directory)
    return directory, np.fromfile(directory / "tokens.bin", dtype=meta.dtype).tolist()


def end_of_text(made: Tokenizer) -> int:
    number = made.token_to_id("<|endoftext|>")
    assert number is not None
    return number


def test_documents_are_joined_by_the_end_of_text(tmp_path: Path, made: Tokenizer) -> None:
    documents = [["In the beginning", ""], ["天地玄黄"]]
    _, ids = tokenise(tmp_path, made, *documents)

    expected = [token for part in documents for text in part for token in [*made.encode(text).ids, end_of_text(made)]]
    assert ids == expected


words = st.sampled_from(
    [
        "God",
        " said",
        "\n",
        "\n\n",
        "  ",
        " ",
        "天地",
        "玄黄",
        "。",
        "，",
        "!",
        "...",
        "12345",
        "\t",
        "it's",
        "\r\n",
        "é",
        "_",
        " a",
    ]
)


@given(parts=st.lists(words, max_size=60), size=st.integers(min_value=12, max_value=60))
def test_long_documents_are_cut_where_it_does_not_change_their_tokens(
    made: Tokenizer, parts: list[str], size: int
) -> None:
    text = "".join(parts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus, "CHUNK_BYTES", size)
        raw = text.encode()
        pieces = list(corpus.split_document(raw, 0, len(raw)))

    assert "".join(piece.text for piece in pieces) == text
    assert sum(piece.num_bytes for piece in pieces) == len(raw)
    assert [piece.ends_document for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    if all(piece.is_safe for piece in pieces):
        assert [token for piece in pieces for token in made.encode(piece.text).ids] == made.encode(text).ids


def test_real_text_in_many_pieces_gives_the_tokens_of_the_whole(
    tmp_path: Path, made: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus, "CHUNK_BYTES", 500)
    monkeypatch.setattr(tokenized_text, "BATCH_BYTES", 2_000)
    _, ids = tokenise(tmp_path, made, [english(), "x"])

    assert ids == [*made.encode(english()).ids, end_of_text(made), *made.encode("x").ids, end_of_text(made)]


def test_small_vocabularies_take_two_bytes_a_token(tmp_path: Path, made: Tokenizer) -> None:
    directory, ids = tokenise(tmp_path, made, [english()])

    assert tokenized_text.read_meta(directory).dtype == "<u2"
    assert (directory / "tokens.bin").stat().st_size == 2 * len(ids)


def test_the_cache_tokenises_once_even_for_two_at_a_time(tmp_path: Path, made: Tokenizer) -> None:
    source = write_corpus(tmp_path / "c", [english()])
    inner: list[Path] = []

    def progress(done: int, total: int) -> None:
        if not inner:  # a second run comes while the first one writes, and is done first
            inner.append(tmp_path)
            inner[0] = tokenized_text.tokenize_cached([source], made, "made", tmp_path / "cache", nothing)

    outer = tokenized_text.tokenize_cached([source], made, "made", tmp_path / "cache", progress)

    assert inner == [outer]
    assert [entry.name for entry in outer.parent.iterdir()] == [outer.name]


def test_an_empty_corpus_is_refused(tmp_path: Path, made: Tokenizer) -> None:
    for documents in ([], ["", ""]):
        with pytest.raises(Failure, match="no text") as caught:
            tokenized_text.tokenize_cached(
                [write_corpus(tmp_path / "c", documents)], made, "made", tmp_path / "cache", nothing
            )
        assert caught.value.code == "data_empty"


def open_dataset(
    home: Path, made: Tokenizer, documents: list[str], **fields: object
) -> tuple[TokenizedText, list[int]]:
    directory, ids = tokenise(home, made, documents)
    return TokenizedText(directory, small_spec(**fields), made), ids


def test_two_sequences_are_the_least(tmp_path: Path, made: Tokenizer) -> None:
    _, ids = tokenise(tmp_path, made, ["beginning " * 30])
    length = (len(ids) - 1) // 2
    directory = tokenized_text.tokenize_cached(
        [write_corpus(tmp_path / "c0", ["beginning " * 30])], made, "made", tmp_path / "cache", nothing
    )

    dataset = TokenizedText(directory, small_spec(sequence_length=length), made)
    assert (dataset.num_train, dataset.num_validation) == (1, 1)
    with pytest.raises(Failure) as caught:
        TokenizedText(directory, small_spec(sequence_length=length + 1), made)
    assert caught.value.code == "data_short"
    assert caught.value.values == {"needed": 2 * length + 3, "found": len(ids)}


def test_training_and_validation_share_no_target(tmp_path: Path, made: Tokenizer) -> None:
    dataset, ids = open_dataset(tmp_path, made, [english()], validation_fraction=0.2)
    train = dataset.train_rows(0, dataset.num_train)
    validation = dataset.validation_rows(list(range(dataset.num_validation)))

    assert dataset.num_validation == int((dataset.num_train + dataset.num_validation) * 0.2)
    split = dataset.num_train * 32
    assert validation[0].tolist() == ids[split : split + 33]
    assert sorted(map(tuple, train.tolist())) == sorted(tuple(ids[at : at + 33]) for at in range(0, split, 32))


def test_a_batch_does_not_depend_on_how_it_is_split(tmp_path: Path, made: Tokenizer) -> None:
    dataset, _ = open_dataset(tmp_path, made, [english()])
    parts = [dataset.train_rows(first, 4) for first in (0, 4, 8, 12)]

    assert np.array_equal(dataset.train_rows(0, 16), np.concatenate(parts))


def test_a_sample_leads_back_to_its_documents(tmp_path: Path, made: Tokenizer) -> None:
    corpora = [[f"alpha {number}, " * 9 for number in range(5)], [f"omega {number}. " * 9 for number in range(7)]]
    directory, ids = tokenise(tmp_path, made, *corpora)
    dataset = TokenizedText(directory, small_spec(), made)
    owners = []
    for number, documents in enumerate(corpora):
        for place, text in enumerate(documents):
            owners += [Document(number, place)] * (len(made.encode(text).ids) + 1)

    rows = [tuple(ids[at : at + 33]) for at in range(0, dataset.num_train * 32, 32)]
    for n in range(dataset.num_train):
        at = rows.index(tuple(dataset.train_rows(n, 1)[0].tolist())) * 32
        assert dataset.documents_of(n) == list(dict.fromkeys(owners[at : at + 33]))


def test_the_validation_prompt_starts_with_a_document_where_one_is_near(tmp_path: Path, made: Tokenizer) -> None:
    dataset, ids = open_dataset(tmp_path, made, ["In the beginning God. "] * 200)
    prompt = dataset.validation_prompt(6)

    assert prompt == ids[:6]
