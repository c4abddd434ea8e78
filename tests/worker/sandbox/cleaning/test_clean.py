"""The file of a cleaned version: its lines are short enough to be read again."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from trainer.events import EXIT_BAD_INPUT
from worker.sandbox.cleaning import clean
from worker.sandbox.corpus import json_records, parse

LIMIT = 40


def nothing(done: int) -> None:
    """A progress callback that does nothing."""


@pytest.fixture(autouse=True)
def _limit(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (clean, json_records):
        monkeypatch.setattr(module, "MAX_LINE_CHARACTERS", LIMIT)


def cleaned(directory: Path, kind: str, documents: list[str]) -> dict[str, Any]:
    """Clean documents of a corpus by a recipe that changes nothing; the answer gains `again`, its file parsed."""
    parent, child = directory / "parent", directory / "child"
    parent.mkdir()
    child.mkdir()
    output = parse.CorpusWriter(parent)
    output.documents(documents)
    output.finish()
    steps = [{"name": "length", "min_characters": 0}]
    result = clean.clean(child, {"path": str(parent), "kind": kind, "steps": steps, "corpora": []}, nothing)
    result["texts"] = [json.loads(line)["text"] for line in (child / "upload").read_text().split("\n") if line]
    text = (child / "text.bin").read_bytes()
    result["again"] = parse.parse(child, "jsonl", None, False, nothing, kind)
    assert (child / "text.bin").read_bytes() == text
    assert all(result["again"][name] == result[name] for name in ("num_documents", "text_sha256"))
    return result


def test_a_recipe_may_remove_boilerplate_twice_and_leaves_no_file_when_it_is_killed(tmp_path: Path) -> None:
    parent, child = tmp_path / "parent", tmp_path / "child"
    parent.mkdir()
    child.mkdir()
    output = parse.CorpusWriter(parent)
    output.documents([f"header\ntext {n}\nseldom" if n < 3 else f"header\ntext {n}" for n in range(6)])
    output.finish()
    steps = [{"name": "boilerplate", "min_share": 0.01, "min_documents": count} for count in (6, 3)]
    recipe = {"path": str(parent), "kind": "text", "steps": steps, "corpora": []}
    documents = clean.Pipeline(recipe, child, nothing).documents()
    first = next(documents)
    assert list(child.iterdir()) == []
    assert [document.content for document in (first, *documents)] == [f"text {n}" for n in range(6)]


def test_a_preview_that_is_refused_prints_the_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = parse.CorpusWriter(tmp_path)
    output.documents([" ".join(map(str, range(100)))])
    output.finish()
    place = {"path": str(tmp_path), "kind": "text"}
    recipe = {**place, "steps": [{"name": "contamination", "corpora": ["exam"]}]}
    recipe["corpora"] = [{"id": "exam", "name": "Exam", **place}]
    monkeypatch.setattr("worker.sandbox.cleaning.duplicates.MAX_NGRAM_HASHES", 5)
    monkeypatch.setattr("sys.argv", ["clean", "--preview=10"])
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(recipe)))
    with pytest.raises(SystemExit) as ended:
        clean.main()
    assert (ended.value.code, capsys.readouterr()) == (EXIT_BAD_INPUT, ("", "ngrams_many\n"))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a" * (LIMIT - 11), ["a" * (LIMIT - 11)]),  # {"text":""} has 11 characters
        ("a" * (LIMIT - 10), ["a" * 15, "a" * 15]),
        ("one line\nand another line\nand a third", ["one line\n", "and another line\nand a third"]),
        ("words of a line without an end in it", ["words of a line ", "without an end in it"]),
        ('"' * 20, ['"' * 10, '"' * 10]),  # two characters each in JSON
        ("\n" * 60 + "text", ["\n" * 12 + "text"]),  # parts that are blank are no documents
    ],
    ids=["fits", "one character more", "lines", "words", "escapes", "blank"],
)
def test_a_text_is_cut_into_lines_that_can_be_read_again(tmp_path: Path, text: str, parts: list[str]) -> None:
    result = cleaned(tmp_path, "text", ["short", text])
    assert result["texts"] == ["short", *parts]
    split = [{"code": "document_split", "document": 2, "parts": len(parts)}] if len(parts) > 1 else []
    assert (result["progress"]["remarks"], result["problems"]) == (split, [])


def test_a_record_that_no_line_can_hold_is_left_out_and_listed(tmp_path: Path) -> None:
    records = [json.dumps({"text": text, "label": "a"}, separators=(",", ":")) for text in ("short", "long" * 10)]
    result = cleaned(tmp_path, "classification", records)
    assert (result["texts"], result["problems"]) == (["short"], [{"code": "line_too_long", "line": 2}])
