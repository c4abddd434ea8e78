"""Files that broke comparable systems: each is read as it was meant, or refused by line, field and reason.

What a file means is taken from it by `json` and `csv`, not by the reader.
"""

import csv
import io
import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.core.json_shapes import Problem
from app.corpora import problems
from worker.sandbox.corpus import parse

CASES = Path(__file__).parents[3] / "fixtures/cases/data"
HUMAN = {"human": "user", "gpt": "assistant", "tool": "tool", "system": "system"}

Record = dict[str, Any]


def read(directory: Path, name: str, **options: Any) -> tuple[dict[str, Any], list[str]]:
    """What the parser reports of a case, and the documents that it kept."""
    shutil.copy(CASES / name, directory / "upload")
    form = name.rpartition(".")[2]
    result = parse.parse(directory, form, options.pop("encoding", None), False, lambda done: None, **options)
    text = (directory / "text.bin").read_bytes()
    ends = [end for (end,) in struct.iter_unpack("<Q", (directory / "index.bin").read_bytes())]
    return result, [text[a:b].decode() for a, b in zip([0, *ends], ends, strict=False)]


def refused(directory: Path, name: str) -> list[tuple[int, str]]:
    """The lines of a case that are refused, with their sentences."""
    with pytest.raises(parse.UnreadableCorpus) as caught:
        read(directory, name)
    return [(problem["line"], problems.sentence(Problem(**problem))) for problem in caught.value.report["problems"]]


def lines(name: str) -> list[Record]:
    text = (CASES / name).read_text("utf-8")
    return [json.loads(line.lstrip("\ufeff")) for line in text.split("\n") if line.strip()]


def pair(prompt: str, completion: str) -> Record:
    return {"prompt": prompt, "completion": completion}


def alpaca(record: Record) -> Record:
    return pair(f"{record['instruction']}\n\n", record["output"])


def turns(record: Record) -> list[Record]:
    return [{"role": HUMAN[turn["from"]], "content": turn["value"]} for turn in record["conversations"]]


def called(message: Record) -> Record:
    """A message of OpenAI's API as chat templates want it: with the arguments of tool calls as an object."""
    calls = [
        {**call, "function": {**call["function"], "arguments": json.loads(call["function"]["arguments"])}}
        for call in message.get("tool_calls", [])
    ]
    return {**message, "tool_calls": calls} if calls else message


def function_called(turn: Record) -> Record:
    if turn["from"] == "function_call":
        function = {"arguments": {}, **json.loads(turn["value"])}
        return {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": function}]}
    return {"role": HUMAN.get(turn["from"], "tool"), "content": turn["value"]}


def joined(message: Record) -> Record:
    return {**message, "content": "".join(part["text"] for part in message["content"])}


def shared(record: Record) -> Record:
    """TRL's implicit prompt: what the two conversations share at their beginnings."""
    chosen, rejected = record["chosen"], record["rejected"]
    length = next(n for n, (a, b) in enumerate(zip(chosen, rejected, strict=True)) if a != b)
    rest = [
        messages[length]["content"] if length == len(messages) - 1 else messages[length:]
        for messages in (chosen, rejected)
    ]
    return {"prompt": chosen[:length], "chosen": rest[0], "rejected": rest[1]}


def sharegpt_pair(record: Record) -> Record:
    return {"prompt": turns(record), **{key: record[key]["value"] for key in ("chosen", "rejected")}}


def as_is(record: Record) -> Record:
    return record


MEANT: list[tuple[str, str, Callable[[Record], Record]]] = [
    ("D01-bom-concatenated.jsonl", "chat", as_is),
    ("D01-bom-crlf.jsonl", "chat", as_is),
    (
        "D07-sharegpt-system-column.jsonl",
        "chat",
        lambda record: {
            "messages": [{"role": "system", "content": record["system"]}, *turns(record)],
            "tools": [{"type": "function", "function": tool} for tool in json.loads(record["tools"])],
        },
    ),
    ("D08-alpaca-no-input.jsonl", "completion", alpaca),
    ("D08-alpaca-null-input.jsonl", "completion", alpaca),
    ("D09-content-parts.jsonl", "chat", lambda record: {"messages": [joined(m) for m in record["messages"]]}),
    (
        "D09-openai-tool-calls-null.jsonl",
        "chat",
        lambda record: {**record, "messages": [called(m) for m in record["messages"]]},
    ),
    (
        "D09-openai-tool-calls-text.jsonl",
        "chat",
        lambda record: {**record, "messages": [called(m) for m in record["messages"]]},
    ),
    (
        "D09-sharegpt-function-call.jsonl",
        "chat",
        lambda record: {"messages": [function_called(turn) for turn in record["conversations"]]},
    ),
    ("D09-sharegpt-tool.jsonl", "chat", lambda record: {"messages": turns(record)}),
    ("D10-dpo-implicit-prompt.jsonl", "preference", shared),
    ("D10-dpo-multiturn-lists.jsonl", "preference", shared),
    ("D10-dpo-sharegpt-multiturn.jsonl", "preference", sharegpt_pair),
    ("D10-dpo-sharegpt-single.jsonl", "preference", sharegpt_pair),
    ("D11-kto.jsonl", "unpaired", as_is),
    ("D12-long.jsonl", "chat", as_is),
    ("D13-llama3-marks.jsonl", "chat", as_is),
    ("D13-special-text.jsonl", "chat", as_is),
    ("D14-int-labels.jsonl", "classification", lambda record: {**record, "label": str(record["label"])}),
    ("D14-imbalanced.jsonl", "classification", as_is),
    ("D16-whitespace.jsonl", "completion", as_is),
    ("D17-assistant-first.jsonl", "chat", as_is),
    (
        "D17-system-only-sharegpt.jsonl",
        "chat",
        lambda record: {
            "messages": [
                {"role": role, "content": turn["value"]}
                for role, turn in zip(("system", "assistant"), record["conversations"], strict=True)
            ]
        },
    ),
    ("D17-empty-system.jsonl", "chat", lambda record: {"messages": record["messages"][1:]}),
    ("D17-two-users-last-user.jsonl", "chat", as_is),
    ("D19-one-record.jsonl", "chat", as_is),
    ("D20-weights.jsonl", "chat", as_is),
    ("D21-duplicates.jsonl", "chat", as_is),
    ("D22-unicode.jsonl", "chat", as_is),
    ("D23-input-output.jsonl", "completion", lambda record: pair(record["input"], record["output"])),
    ("D23-prompt-response.jsonl", "completion", lambda record: pair(record["prompt"], record["response"])),
    ("D29-two-paragraphs.jsonl", "completion", as_is),
]


@pytest.mark.parametrize(("name", "kind", "meant"), MEANT)
def test_every_record_is_parsed_as_intended(
    tmp_path: Path, name: str, kind: str, meant: Callable[[Record], Record]
) -> None:
    result, documents = read(tmp_path, name)

    assert (result["kind"], result["progress"]["unused_keys"], result["problems"]) == (kind, {}, [])
    assert [json.loads(document) for document in documents] == [meant(record) for record in lines(name)]


@pytest.mark.parametrize("name", ["D02-array-oneline.jsonl", "D02-array-pretty.jsonl", "D02-array-pretty.json"])
def test_an_array_is_parsed_with_any_file_extension(tmp_path: Path, name: str) -> None:
    expected = [alpaca(record) for record in json.loads((CASES / name).read_text())]
    assert [json.loads(document) for document in read(tmp_path, name)[1]] == expected


@pytest.mark.parametrize(
    ("name", "encoding", "delimiter"),
    [
        ("D03-excel-unicode.csv", "utf-16", "\t"),
        ("D03-excel-unicode.tsv", "utf-16", "\t"),
        ("D03-semicolon.csv", "utf-8", ";"),
        ("D03-quoted-newlines.csv", "utf-8", ","),
    ],
)
def test_a_table_is_parsed_with_its_own_separator(tmp_path: Path, name: str, encoding: str, delimiter: str) -> None:
    text = (CASES / name).read_bytes().decode(encoding)
    expected = list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter))
    assert expected
    assert [json.loads(document) for document in read(tmp_path, name)[1]] == expected


def test_unused_columns_are_counted(tmp_path: Path) -> None:
    progress = read(tmp_path, "D28-classification-weights.csv")[0]["progress"]
    assert progress["unused_keys"] == {"split": 8}
    assert {column["name"]: column["used"] for column in progress["columns"]} == {
        "text": True,
        "label": True,
        "split": False,
    }


@pytest.mark.parametrize("name", ["D18-two-encodings.txt", "D22-code-tabs.txt", "D22-endoftext.txt"])
def test_text_is_kept_byte_for_byte(tmp_path: Path, name: str) -> None:
    assert "".join(read(tmp_path, name)[1]).encode() == (CASES / name).read_bytes()


REFUSED = [
    (
        "D05-surrogate-content.jsonl",
        [4],
        "In message 1, the value of “content” has an unpaired surrogate at character 7.",
    ),
    ("D05-surrogate-label.jsonl", [7], "The value of “label” has an unpaired surrogate at character 7."),
    ("D05-surrogate-role.jsonl", [4], "In message 1, the value of “role” has an unpaired surrogate at character 3."),
    ("D06-nul-content.jsonl", [4], "In message 1, the value of “content” has a NUL character."),
    ("D06-nul-label.jsonl", [7], "The value of “label” has a NUL character."),
    ("D06-nul-role.jsonl", [4], "In message 1, the value of “role” has a NUL character."),
    ("D10-dpo-alpaca-output-pair.jsonl", [*range(1, 9)], "Pairs of answers need the keys “chosen” and “rejected”"),
    ("D10-dpo-last-is-user.jsonl", [*range(1, 9)], "“chosen” ends with a message of the role user."),
    ("D10-dpo-same.jsonl", [4], "“chosen” and “rejected” are the same"),
    ("D14-bool-labels.jsonl", [*range(1, 25)], "The label must be a non-empty string"),
    ("D14-label-list.jsonl", [*range(1, 25)], "The label must be a non-empty string"),
    ("D14-null-label.jsonl", [6], "The label must be a non-empty string"),
    ("D16-blank-completion.jsonl", [3, 4], "The value of “completion” is empty."),
    ("D17-empty-assistant.jsonl", [4], "In message 2, the value of “content” is empty."),
    ("D20-weight-overflow.jsonl", [9], "The number 1e400 is too large. Use a finite one."),
]


@pytest.mark.parametrize(("name", "numbers", "sentence"), REFUSED)
def test_an_invalid_record_is_rejected_with_line_and_field(
    tmp_path: Path, name: str, numbers: list[int], sentence: str
) -> None:
    bad = refused(tmp_path, name)

    assert [line for line, _sentence in bad] == numbers
    assert all(sentence in text for _line, text in bad)


def test_a_trailing_comma_is_reported_with_its_position(tmp_path: Path) -> None:
    texts = (CASES / "D02-trailing-commas.jsonl").read_text().splitlines()
    expected = [
        (number, f"There is a comma at character {len(text)} with nothing after it. Remove it.")
        for number, text in enumerate(texts, start=1)
        if text.endswith(",")
    ]
    assert expected
    assert refused(tmp_path, "D02-trailing-commas.jsonl") == expected


@pytest.mark.parametrize(
    ("name", "encoding"),
    [
        ("D04-big5.txt", "big5"),
        ("D04-cp1251.txt", "windows-1251"),
        ("D04-gbk.txt", "gb18030"),
        ("D04-gbk-chat.jsonl", "gb18030"),
        ("D04-shift-jis.txt", "cp932"),
    ],
)
def test_the_encoding_is_offered_first_and_decodes_the_file(tmp_path: Path, name: str, encoding: str) -> None:
    with pytest.raises(parse.UnreadableCorpus) as caught:
        read(tmp_path, name)
    assert caught.value.report["broken_files"][0]["candidates"][0]["encoding"] == encoding
    text = (CASES / name).read_bytes().decode(encoding)
    documents = read(tmp_path, name, encoding=encoding)[1]
    if name.endswith(".txt"):
        assert documents == [text.replace("\r\n", "\n")]
    else:
        assert [json.loads(document) for document in documents] == [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize(
    ("text", "encoding"),
    [("你好", "gb18030"), ("你好，世界。", "gb18030"), ("中文", "gb18030"), ("我", "big5"), ("안녕", "cp949")],
)
def test_a_few_characters_are_enough_to_offer_their_encoding(tmp_path: Path, text: str, encoding: str) -> None:
    line = json.dumps({"text": text}, ensure_ascii=False)
    (tmp_path / "upload").write_bytes(line.encode(encoding))
    with pytest.raises(parse.UnreadableCorpus) as caught:
        parse.parse(tmp_path, "jsonl", None, False, lambda done: None)
    (broken,) = caught.value.report["broken_files"]
    offers = {offer["encoding"]: offer["preview"] for offer in broken["candidates"]}
    assert line in offers[encoding]


def test_one_bad_byte_in_40_mb_is_shown_with_its_context(tmp_path: Path) -> None:
    line = b"the quick brown fox jumps over the lazy dog\n"
    before, after = line * 600_000 + b"the caf", b" of the town\n" + line * 310_000
    (tmp_path / "upload").write_bytes(before + b"\xe9" + after)

    with pytest.raises(parse.UnreadableCorpus) as caught:
        parse.parse(tmp_path, "txt", None, False, lambda done: None)

    report = caught.value.report
    assert report["num_bad_places"] == 1
    (problem,) = report["problems"]
    assert (problem["line"], problem["byte"]) == (600_001, len(before))
    assert "the caf\\xe9 of the town" in problem["context"]
    first = report["broken_files"][0]["candidates"][0]
    assert (first["encoding"], first["preview"]) == ("windows-1252", "the café of the town")
    for bad_bytes, replacement in (("omit", b""), ("replace", "\ufffd".encode())):
        result = parse.parse(tmp_path, "txt", None, False, lambda done: None, bad_bytes=bad_bytes)
        assert result["progress"]["num_bad_places"] == 1
        assert (tmp_path / "text.bin").read_bytes() == before + replacement + after


def test_every_case_has_a_right_result_here_or_in_a_test_of_training() -> None:
    """Each file is opened by a test of the reader, of the trainer or of jobs."""
    tests = CASES.parents[2]
    sources = [Path(__file__), *tests.glob("trainer/**/test_*.py"), *tests.glob("app/jobs/**/test_*.py")]
    text = "".join(path.read_text() for path in sources)
    assert [path.stem for path in CASES.glob("D*") if path.stem not in text] == []


def test_judged_answers_are_read_as_completions_without_the_bad_ones(tmp_path: Path) -> None:
    with pytest.raises(parse.UnreadableCorpus) as caught:
        read(tmp_path, "D11-kto.jsonl", kind="completion")
    records = lines("D11-kto.jsonl")
    bad = [number for number, record in enumerate(records, start=1) if not record["label"]]
    assert [problem["line"] for problem in caught.value.report["problems"]] == bad
    result = parse.parse(tmp_path, "jsonl", None, True, lambda done: None, kind="completion")
    assert result["num_documents"] == len(records) - len(bad)
