"""The search in the text of corpora."""

import json
import random
from pathlib import Path

import pytest

from app.core import storage
from app.core.models import Corpus
from app.corpora import search
from app.corpora.search import Match
from tests.worker.sandbox.test_corpus_statistics import stored


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(storage, "corpus", lambda corpus_id: tmp_path)
    return tmp_path


def corpus(path: Path, documents: list[str], kind: str = "text") -> Corpus:
    stored(path, documents)
    size = sum(len(document.encode()) for document in documents)
    return Corpus(id="c", kind=kind, num_documents=len(documents), num_text_bytes=size)


def places(found: search.Matches) -> list[tuple[int, str]]:
    return [(match.index, match.text) for match in found.matches]


def test_matches_have_surroundings_in_their_document_only(directory: Path) -> None:
    found = search.search(corpus(directory, ["Fire and fire", "reFIRE", "fi", "re"]), "fire")
    assert found.matches == [
        Match(0, "", "Fire", " and fire"),
        Match(0, "Fire and ", "fire", ""),
        Match(1, "re", "FIRE", ""),
    ]
    assert (found.next, found.num_searched_bytes, found.num_text_bytes) == (None, 23, 23)


def test_a_cursor_continues_after_the_last_match(directory: Path) -> None:
    documents = ["ÄÖä ä", "ää", "", "xä"]
    one = corpus(directory, documents)
    every = places(search.search(one, "ä"))
    assert [number for number, _text in every] == [0, 0, 0, 1, 1, 3]
    collected, after = [], 0
    while True:
        found = search.search(one, "ä", start=after, limit=1)
        collected += places(found)
        if found.next is None:
            break
        assert found.next > after
        after = found.next
    assert collected == every


def test_a_request_ends_after_its_time(directory: Path) -> None:
    one = corpus(directory, ["x" * 2**20])
    found = search.search(one, "y", seconds=0)
    assert found.matches == []
    assert found.next is not None
    assert 0 < found.next < 2**20


@pytest.mark.parametrize("seed", range(4))
def test_blocks_lose_and_repeat_no_match(directory: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    rng = random.Random(seed)
    documents = ["".join(rng.choices("aAbé字", k=rng.randrange(40))) for _ in range(60)]
    monkeypatch.setattr(search, "BLOCK_BYTES", 64)
    expected = []
    for number, document in enumerate(documents):  # by hand: left to right, without overlaps
        place = document.lower().find("ab")
        while place >= 0:
            expected.append((number, document[place : place + 2]))
            place = document.lower().find("ab", place + 2)
    assert places(search.search(corpus(directory, documents), "ab", limit=10_000, seconds=60)) == expected


def test_records_are_searched_in_their_values(directory: Path) -> None:
    records = [
        {"prompt": 'Say "hi"\nnow', "completion": "Hi"},
        {"prompt": "content", "completion": "prompt and prompt"},
        {"prompt": "x", "completion": "y"},
    ]
    one = corpus(directory, [json.dumps(record, ensure_ascii=False) for record in records], "completion")
    assert search.search(one, '"HI"\nn').matches == [Match(0, "Say ", '"hi"\nn', "ow")]
    assert search.search(one, "prompt").matches == [Match(1, "", "prompt", " and prompt")]
    assert search.search(one, "label").matches == []


def test_a_long_record_is_shown_as_it_is_stored(directory: Path) -> None:
    record = {"prompt": "x" * (300 << 10) + ' a needle"', "completion": "another needle"}
    one = corpus(directory, [json.dumps(record), json.dumps({"prompt": "needle", "completion": ""})], "completion")
    stored_rest = '\\"", "completion": "another needle"}'
    assert search.search(one, "needle").matches == [
        Match(0, "x" * 77 + " a ", "needle", stored_rest),
        Match(1, "", "needle", ""),
    ]
