"""Statistics of parsed corpora, against figures counted by hand."""

import json
import struct
from collections.abc import Sequence
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from trainer.formats.corpus_kinds import GROUPS_FILE, group_hash
from worker.sandbox import corpus_statistics
from worker.sandbox.corpus_statistics import CUT_LENGTHS, count

WORDS = {"a": 0, "b": 1, "c": 2, "?": 3}


def stored(path: Path, documents: Sequence[str]) -> Path:
    data = [document.encode() for document in documents]
    (path / "text.bin").write_bytes(b"".join(data))
    ends = [sum(map(len, data[: n + 1])) for n in range(len(data))]
    (path / "index.bin").write_bytes(struct.pack(f"<{len(ends)}Q", *ends))
    return path


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    """One token for each of three words."""
    words = Tokenizer(models.WordLevel(WORDS, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    path = tmp_path / "tokenizer.json"
    words.save(str(path))
    return path


def nothing(done: int) -> None:
    pass


def test_duplicates_are_equal_byte_by_byte(tmp_path: Path) -> None:
    documents = ["b", "a a", "b", "a a ", "b", "a a", "ß"]
    counted = count(stored(tmp_path, documents), "text", None, nothing)
    assert (counted["num_documents"], counted["num_duplicates"], counted["num_repeated"]) == (7, 3, 2)
    assert [(row["index"], row["count"], row["text"]) for row in counted["repeated"]] == [(0, 3, "b"), (1, 2, "a a")]
    assert [(row["index"], row["num_bytes"]) for row in counted["longest"]][:4] == [(3, 4), (1, 3), (5, 3), (6, 2)]
    assert counted["tokens"] is None


ENGLISH = "The committee will meet again on Thursday to discuss the proposal for the new library."
CHINESE = "委员会将于星期四再次开会，讨论新图书馆的建设方案，欢迎各位代表参加会议。"
GERMAN = "Der Ausschuss wird am Donnerstag erneut zusammentreten, um über die neue Bibliothek zu beraten."


def test_languages_are_those_of_texts(tmp_path: Path) -> None:
    counted = count(
        stored(tmp_path, [ENGLISH, CHINESE, "a b", ENGLISH + " It was late.", GERMAN]), "text", None, nothing
    )
    rows = [(row["language"], row["num_documents"]) for row in counted["languages"]]
    assert (rows, counted["num_identified"]) == ([("en", 2), (None, 1), ("de", 1), ("zh", 1)], 5)


def test_languages_of_records_are_those_of_their_texts(tmp_path: Path) -> None:
    records = [
        {"messages": [{"role": "user", "content": CHINESE}]},
        {"messages": [{"role": "user", "content": GERMAN}]},
    ]
    counted = count(stored(tmp_path, [json.dumps(record) for record in records]), "chat", None, nothing)
    assert [row["language"] for row in counted["languages"]] == ["de", "zh"]


def test_long_records_have_a_language_and_too_long_ones_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus_statistics, "MAX_IDENTIFIED_BYTES", 200_000)
    records = [{"text": GERMAN * size, "label": "a"} for size in (1_000, 3_000)]
    counted = count(stored(tmp_path, [json.dumps(record) for record in records]), "classification", None, nothing)
    assert (counted["languages"], counted["num_identified"]) == ([{"language": "de", "num_documents": 1}], 1)


def test_languages_are_counted_at_even_distances(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus_statistics, "MAX_IDENTIFIED", 4)
    counted = count(stored(tmp_path, [ENGLISH, GERMAN, GERMAN] * 4), "text", None, nothing)
    assert (counted["languages"], counted["num_identified"]) == ([{"language": "en", "num_documents": 4}], 4)


def test_tokens_lengths_and_what_a_sequence_cuts(tmp_path: Path, tokenizer: Path) -> None:
    documents = ["a " * 9, "b", "c " * 20, "a b c " * 4, "x"]  # 9, 1, 20, 12 and 1 tokens
    tokens = count(stored(tmp_path, documents), "text", tokenizer, nothing)["tokens"]
    assert (tokens["num_tokens"], tokens["num_documents"], tokens["is_complete"]) == (43, 5, True)
    assert (tokens["num_bytes"], tokens["num_stored_bytes"]) == (18 + 1 + 40 + 24 + 1, 84)
    assert (tokens["median_length"], tokens["max_length"]) == (9, 20)
    cuts = {cut["length"]: (cut["num_longer"], cut["num_cut_tokens"]) for cut in tokens["cuts"]}
    assert cuts[8] == (3, 1 + 12 + 4)
    assert cuts[12] == (1, 8)
    assert cuts[16] == (1, 4)
    assert cuts[24] == (0, 0)
    assert {token["text"]: token["count"] for token in tokens["frequent"]} == {"c": 24, "a": 13, "b": 5, "?": 1}
    longest = [(row["index"], row["num_tokens"]) for row in tokens["longest"]]
    assert longest == [(2, 20), (3, 12), (0, 9), (1, 1), (4, 1)]
    assert tokens["num_used_tokens"] == tokens["vocab_size"] == 4


def test_records_count_the_tokens_of_their_texts(tmp_path: Path, tokenizer: Path) -> None:
    records = [{"messages": [{"role": "user", "content": "a b"}]}, {"text": "c", "label": "a"}]
    tokens = count(stored(tmp_path, [json.dumps(record) for record in records]), "chat", tokenizer, nothing)["tokens"]
    assert (tokens["num_tokens"], tokens["num_bytes"]) == (3, 4)  # neither roles nor labels


def test_a_large_corpus_is_sampled_at_even_distances(
    tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus_statistics, "SAMPLE_BYTES", 10)
    documents = ["a a a", "b b b", "c c c", "a b c", "a a b", "c c a", "b"]  # 31 bytes: every fourth
    tokens = count(stored(tmp_path, documents), "text", tokenizer, nothing)["tokens"]
    assert (tokens["stride"], tokens["num_documents"], tokens["is_complete"]) == (4, 2, False)
    assert {token["text"]: token["count"] for token in tokens["frequent"]} == {"a": 5, "b": 1}
    assert (tokens["num_tokens"], tokens["num_stored_bytes"]) == (6, 10)


def test_a_long_document_is_read_in_bounded_parts(
    tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus_statistics, "SAMPLE_BYTES", 10)
    monkeypatch.setattr(corpus_statistics, "MAX_SAMPLE_BYTES", 20)
    counted = count(stored(tmp_path, ["a " * 500, "b"]), "text", tokenizer, nothing)
    assert counted["tokens"]["num_tokens"] == 10
    assert not counted["tokens"]["is_complete"]


def test_lengths_rise_by_half_powers_of_two() -> None:
    assert CUT_LENGTHS[:6] == [8, 12, 16, 24, 32, 48]
    assert CUT_LENGTHS[-1] == 131_072


def test_splits_are_previewed_as_the_trainer_makes_them(tmp_path: Path) -> None:
    documents = [f"document {n % 150}" for n in range(200)]
    hashes = [group_hash([document.encode()]) for document in documents]
    groups = [group_hash([b"train" if n % 4 else b"test"]) for n in range(200)]
    (stored(tmp_path, documents) / GROUPS_FILE).write_bytes(struct.pack("<200Q", *groups))
    rows = {(row["split"], row["fraction"]): row for row in count(tmp_path, "text", None, nothing)["splits"]}
    below = [document for document, number in zip(documents, hashes, strict=True) if number < 0.1 * 2**64]
    assert rows["document", 0.1]["num_held_out"] == len(below) > 0
    assert rows["document", 0.1]["num_held_out_bytes"] == sum(map(len, below))
    assert rows["document", 0.1]["num_repeated"] == 0
    trained = {documents[n] for n in range(200) if n % 4}
    assert rows["column", None]["num_held_out"] == 50
    assert rows["column", None]["num_repeated"] == sum(documents[n] in trained for n in range(0, 200, 4)) > 0
    assert rows["group", 0.2]["num_held_out"] in (0, 50, 150, 200)  # two groups, each on one side
    assert ("label", 0.1) not in rows
