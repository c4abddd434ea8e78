"""Tokenized text: exact, bounded in memory, cut into sequences that can be traced to their documents."""

import multiprocessing
import os
import signal
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tests.trainer.runs import english, small_spec, write_corpus
from tests.trainer.tokenizers_of_bases import KINDS, byte_fallback, fast
from trainer.data import cache, corpus, tokenized_text, tokenizer
from trainer.data.tokenized_text import Document, TokenizedText, text_start
from trainer.data.tokenizer import Progress
from trainer.failure import Failure


def no_progress(done: int, total: int) -> None:
    """A progress callback that does nothing."""


@pytest.fixture(scope="module")
def bpe(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    home = tmp_path_factory.mktemp("data-tokenizer")
    sources = [write_corpus(home / "c", [english(), "天地玄黄，宇宙洪荒。日月盈昃，辰宿列张。" * 20])]
    tokenizer.save(tokenizer.train(sources, 400, no_progress), home / "t")
    return tokenizer.load(home / "t")


def tokenize(home: Path, bpe: Tokenizer, *corpora: list[str]) -> tuple[Path, list[int]]:
    """The directory with these corpora tokenized, and all token ids."""
    sources = [write_corpus(home / f"c{number}", documents) for number, documents in enumerate(corpora)]
    directory = tokenized_text.tokenize_cached(sources, bpe, "made", home / "cache", no_progress)
    meta = tokenized_text.read_meta(directory)
    return directory, np.fromfile(directory / "tokens.bin", dtype=meta.dtype).tolist()


def end_of_text(bpe: Tokenizer) -> int:
    number = bpe.token_to_id("<|endoftext|>")
    assert number is not None
    return number


def test_an_end_of_text_token_follows_each_document(tmp_path: Path, bpe: Tokenizer) -> None:
    documents = [["In the beginning", ""], ["天地玄黄"]]
    _, ids = tokenize(tmp_path, bpe, *documents)

    expected = [token for part in documents for text in part for token in [*bpe.encode(text).ids, end_of_text(bpe)]]
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


def test_each_document_starts_as_a_prompt_does(tmp_path: Path) -> None:
    hf_tokenizer = fast(byte_fallback())  # which adds <s>
    sources = [write_corpus(tmp_path / "c", ["The old", "kettle"])]
    start = tokenizer.start_ids(hf_tokenizer)
    args = (sources, hf_tokenizer.backend_tokenizer, "made", tmp_path / "cache", no_progress, hf_tokenizer.eos_token_id)
    directory = tokenized_text.tokenize_cached(*args, start)
    ids = np.fromfile(directory / "tokens.bin", dtype="<u2").tolist()

    expected = [number for text in ("The old", "kettle") for number in hf_tokenizer(text + "</s>")["input_ids"]]
    assert ids == expected
    assert np.fromfile(directory / "documents.bin", dtype="<u8")[-1] == len(ids)
    assert directory != tokenized_text.tokenize_cached(*args)


@pytest.mark.parametrize("kind", KINDS)
def test_no_text_of_a_corpus_becomes_a_special_token(tmp_path: Path, kind: str) -> None:
    original = KINDS[kind]()
    fast(original).save_pretrained(tmp_path)
    loaded = tokenizer.load(tmp_path)
    special = {number for number, token in loaded.get_added_tokens_decoder().items() if token.special}
    unknown = {original.token_to_id(token) for token in ("<unk>", "[UNK]")}
    ids = loaded.encode("a <s> b</s> [SEP][MASK] [CLS]", add_special_tokens=False).ids

    assert (set(ids) & special) - unknown == set()


@given(parts=st.lists(words, max_size=60), size=st.integers(min_value=12, max_value=60))
def test_splitting_long_documents_does_not_change_their_tokens(bpe: Tokenizer, parts: list[str], size: int) -> None:
    text = "".join(parts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus, "CHUNK_BYTES", size)
        raw = text.encode()
        chunks = list(corpus.split_document(raw, 0, len(raw)))

    assert "".join(chunk.text for chunk in chunks) == text
    assert sum(chunk.num_bytes for chunk in chunks) == len(raw)
    assert [chunk.ends_document for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    if all(chunk.is_safe for chunk in chunks):
        assert [token for chunk in chunks for token in bpe.encode(chunk.text).ids] == bpe.encode(text).ids


def test_real_text_in_many_chunks_gives_the_same_tokens_as_in_one(
    tmp_path: Path, bpe: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus, "CHUNK_BYTES", 500)
    monkeypatch.setattr(tokenized_text, "BATCH_BYTES", 2_000)
    _, ids = tokenize(tmp_path, bpe, [english(), "x"])

    assert ids == [*bpe.encode(english()).ids, end_of_text(bpe), *bpe.encode("x").ids, end_of_text(bpe)]


def test_small_vocabularies_take_two_bytes_per_token(tmp_path: Path, bpe: Tokenizer) -> None:
    directory, ids = tokenize(tmp_path, bpe, [english()])

    assert tokenized_text.read_meta(directory).dtype == "<u2"
    assert (directory / "tokens.bin").stat().st_size == 2 * len(ids)


def test_a_run_waits_for_another_one_that_makes_the_same_entry(
    tmp_path: Path, bpe: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "WAIT_SECONDS", 0.01)
    source = write_corpus(tmp_path / "c", [english()])
    made: list[int] = []
    tokenize = tokenized_text.tokenize
    monkeypatch.setattr(tokenized_text, "tokenize", lambda *args: made.append(1) or tokenize(*args))
    is_waiting = Event()

    def run(progress: Progress) -> Path:
        return tokenized_text.tokenize_cached([source], bpe, "made", tmp_path / "cache", progress)

    with ThreadPoolExecutor(1) as thread:
        others: list[Future[Path]] = []

        def progress(done: int, total: int) -> None:
            others.append(thread.submit(run, lambda _done, _total: is_waiting.set()))
            assert is_waiting.wait(60)

        entry = run(progress)
        assert [other.result(60) for other in others] == [entry]
    assert made == [1]
    assert {path.name for path in entry.parent.iterdir()} == {entry.name, f"{entry.name}.corpora.json"}


def test_a_run_that_is_killed_leaves_no_entry_and_the_next_one_starts_again(tmp_path: Path, bpe: Tokenizer) -> None:
    source = write_corpus(tmp_path / "c", [english()])

    def run(cache_path: Path, progress: Progress) -> Path:
        return tokenized_text.tokenize_cached([source], bpe, "made", cache_path, progress)

    killed = multiprocessing.get_context("fork").Process(
        target=run, args=(tmp_path / "cache", lambda _done, _total: os.kill(os.getpid(), signal.SIGKILL))
    )
    killed.start()
    killed.join()
    expected = run(tmp_path / "other", no_progress)
    left = {path.name for path in (tmp_path / "cache" / "tokens").iterdir()}
    assert killed.exitcode == -signal.SIGKILL
    assert expected.name not in left
    assert [name for name in left if name.startswith(f"making-{expected.name}-")]

    entry = run(tmp_path / "cache", no_progress)
    files = [{path.name: path.read_bytes() for path in each.iterdir()} for each in (entry, expected)]
    assert files[0] == files[1]
    assert {path.name for path in entry.parent.iterdir()} - left == {entry.name}


def test_an_empty_corpus_is_rejected(tmp_path: Path, bpe: Tokenizer) -> None:
    for documents in ([], ["", ""]):
        with pytest.raises(Failure, match="no text") as caught:
            tokenized_text.tokenize_cached(
                [write_corpus(tmp_path / "c", documents)], bpe, "made", tmp_path / "cache", no_progress
            )
        assert caught.value.code == "data_empty"


def open_dataset(home: Path, bpe: Tokenizer, documents: list[str], **fields: object) -> tuple[TokenizedText, list[int]]:
    directory, ids = tokenize(home, bpe, documents)
    return TokenizedText(directory, small_spec(**fields), bpe), ids


def test_fewer_than_two_sequences_are_rejected(tmp_path: Path, bpe: Tokenizer) -> None:
    _, ids = tokenize(tmp_path, bpe, ["beginning " * 30])
    length = (len(ids) - 1) // 2
    directory = tokenized_text.tokenize_cached(
        [write_corpus(tmp_path / "c0", ["beginning " * 30])], bpe, "made", tmp_path / "cache", no_progress
    )

    dataset = TokenizedText(directory, small_spec(sequence_length=length), bpe)
    assert (dataset.num_train, dataset.num_validation) == (1, 1)
    with pytest.raises(Failure) as caught:
        TokenizedText(directory, small_spec(sequence_length=length + 1), bpe)
    assert caught.value.code == "data_short"
    assert caught.value.values == {"needed": 2 * length + 3, "found": len(ids)}


def test_training_and_validation_share_no_target(tmp_path: Path, bpe: Tokenizer) -> None:
    dataset, ids = open_dataset(tmp_path, bpe, [english()], validation_fraction=0.2)
    train = dataset.train_rows(0, dataset.num_train)
    validation = dataset.validation_rows(list(range(dataset.num_validation)))

    assert dataset.num_validation == int((dataset.num_train + dataset.num_validation) * 0.2)
    split = dataset.num_train * 32
    assert validation[0].tolist() == ids[split : split + 33]
    assert sorted(map(tuple, train.tolist())) == sorted(tuple(ids[at : at + 33]) for at in range(0, split, 32))


def test_a_batch_does_not_depend_on_how_it_is_split(tmp_path: Path, bpe: Tokenizer) -> None:
    dataset, _ = open_dataset(tmp_path, bpe, [english()])
    parts = [dataset.train_rows(first, 4) for first in (0, 4, 8, 12)]

    assert np.array_equal(dataset.train_rows(0, 16), np.concatenate(parts))


def test_a_sample_names_its_documents(tmp_path: Path, bpe: Tokenizer) -> None:
    corpora = [[f"alpha {number}, " * 9 for number in range(5)], [f"omega {number}. " * 9 for number in range(7)]]
    directory, ids = tokenize(tmp_path, bpe, *corpora)
    dataset = TokenizedText(directory, small_spec(), bpe)
    owners = []
    for number, documents in enumerate(corpora):
        for place, text in enumerate(documents):
            owners += [Document(number, place)] * (len(bpe.encode(text).ids) + 1)

    rows = [tuple(ids[at : at + 33]) for at in range(0, dataset.num_train * 32, 32)]
    for n in range(dataset.num_train):
        at = rows.index(tuple(dataset.train_rows(n, 1)[0].tolist())) * 32
        assert dataset.documents_of(n) == list(dict.fromkeys(owners[at : at + 33]))


def test_the_validation_prompt_starts_at_a_nearby_document(tmp_path: Path, bpe: Tokenizer) -> None:
    dataset, ids = open_dataset(tmp_path, bpe, ["In the beginning God. "] * 200)
    prompt = dataset.validation_prompt(6)

    assert prompt == ids[:6]


@pytest.mark.parametrize(
    ("text", "opening"),
    [
        (
            ", they also went up\nagainst Bethel. And the house of Joseph sent spies.",
            "And the house of Joseph sent spies.",
        ),
        ("e. g. oxen. (Of a hundred.) “Go!” “Nay,” said he", "(Of a hundred.) “Go!” “Nay,” said he"),
        ("ther, and\nThe moon was low\nand the wind", "The moon was low\nand the wind"),
        ("宙洪荒。日月盈昃，辰宿列张。", "日月盈昃，辰宿列张。"),
        ("return x\n\n\ndef f(y):", "def f(y):"),
        ("tle ducks and geese", "ducks and geese"),
        ("GATTACA", "GATTACA"),
        ("", ""),
    ],
)
def test_a_text_is_cut_where_a_sentence_line_or_word_starts(text: str, opening: str) -> None:
    assert text[text_start(text) :] == opening


def test_samples_open_with_a_sentence_of_the_validation_text(tmp_path: Path, bpe: Tokenizer) -> None:
    tails = set()
    for count in range(300, 304):
        sentences = "".join(f"Psalm {number} is about the sea, and of its waves. " for number in range(count))
        dataset, ids = open_dataset(tmp_path / str(count), bpe, [sentences])
        cut = dataset.num_train * dataset.length
        opening = dataset.validation_opening(bpe, 12)
        assert opening.startswith("Psalm")
        assert opening in bpe.decode(ids[cut : cut + 60])
        assert 10 <= len(bpe.encode(opening).ids) <= 14
        tails.add(bpe.decode(dataset.validation_prompt(12)).lstrip().startswith("Psalm"))

    assert False in tails, "the validation text begins in the middle of a sentence"


def test_samples_open_with_a_document_that_starts_nearby(tmp_path: Path, bpe: Tokenizer) -> None:
    dataset, _ = open_dataset(tmp_path, bpe, ["in the beginning. God "] * 200)

    assert dataset.validation_opening(bpe, 6).startswith("in the")
