"""The child that parses uploads: what becomes a document, what is wrong and where, and that its memory stays flat."""

import hashlib
import itertools
import json
import random
import re
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.i18n import use_locale
from app.core.json_shapes import Problem
from app.corpora import problems
from trainer.processes.child_limits import ChildLimits, limited_command
from worker.sandbox.corpus import decoding, json_records, parse, parse_files
from worker.sandbox.corpus.fields import BadLine, BadLines
from worker.sandbox.corpus.record_schema import RecordReader

MIB = 1 << 20


def nothing(done: int) -> None:
    """A progress callback that does nothing."""


def parsed(
    directory: Path, content: bytes, form: str = "txt", encoding: str | None = None, skip_bad: bool = False
) -> dict[str, Any]:
    """Parse in this process; the answer gains `documents`."""
    (directory / "upload").write_bytes(content)
    result = parse.parse(directory, form, encoding, skip_bad, nothing)
    text = (directory / "text.bin").read_bytes()
    ends = [end for (end,) in struct.iter_unpack("<Q", (directory / "index.bin").read_bytes())]
    starts = [0, *ends[:-1]]
    result["documents"] = [text[a:b].decode() for a, b in zip(starts, ends, strict=True)]
    assert ends[-1] == len(text) == result["num_text_bytes"]
    assert result["num_documents"] == len(ends)
    assert result["num_characters"] == len(text.decode())
    assert sorted(path.name for path in directory.iterdir()) == ["index.bin", "text.bin", "upload"]
    return result


def refused(directory: Path, content: bytes, form: str = "txt", encoding: str | None = None) -> dict[str, Any]:
    """The report of a failing parse, after checking that no files are left."""
    (directory / "upload").write_bytes(content)
    with pytest.raises(parse.UnreadableCorpus) as caught:
        parse.parse(directory, form, encoding, False, nothing)
    assert [path.name for path in directory.iterdir()] == ["upload"]
    return caught.value.report


# ---- plain text -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "documents"),
    [
        (b"one\r\ntwo\r\n", ["one\ntwo\n"]),
        (b"lone \r stays \n \t ", ["lone \r stays \n \t "]),
        (b"\xef\xbb\xbfmarked", ["marked"]),
        (b"one\fsecond\f", ["one", "second"]),
        (b"\f \f\n\fonly this\f\t\f", ["only this"]),
        (b"  indented\f  too", ["  indented", "  too"]),
        ("\ufeff大端".encode("utf-16-be"), ["大端"]),
        ("\ufeff小端".encode("utf-16-le"), ["小端"]),
        ("emoji 🜍 ends".encode(), ["emoji 🜍 ends"]),
        (b"ends in return\r", ["ends in return\r"]),
        ("\ufeffone\r\n\ufefftwo\n".encode(), ["one\ntwo\n"]),
        ("one\f\ufefftwo \ufeff three".encode(), ["one", "two \ufeff three"]),
    ],
)
def test_text_becomes_documents(tmp_path: Path, content: bytes, documents: list[str]) -> None:
    assert parsed(tmp_path, content)["documents"] == documents


@given(text=st.text(st.sampled_from("ab字 \r\n\f\ufeff"), max_size=60), seed=st.integers())
def test_chunk_boundaries_do_not_matter(text: str, seed: int) -> None:
    class Kept(list[str]):
        part = ""

        def begin_document(self) -> None:
            assert not self.part

        def write(self, text: str) -> None:
            self.part += text

        def end_document(self) -> None:
            self.append(self.part)
            self.part = ""

    def pieces() -> Iterator[str]:
        chance = random.Random(seed)
        at = 0
        while at < len(text):
            step = chance.randint(1, 5)
            yield text[at : at + step]
            at += step

    cut, whole = Kept(), Kept()
    parse.parse_text(pieces(), cut, BadLines())  # type: ignore[arg-type]
    parse.parse_text(iter([text]), whole, BadLines())  # type: ignore[arg-type]
    unmarked = re.sub("(?<=[\n\f])\ufeff", "", text.replace("\r\n", "\n"))
    expected = [part for part in unmarked.split("\f") if part and not part.isspace()]
    assert cut == whole == expected


@pytest.mark.parametrize("encoding", ["utf-8", "gb18030", "big5", "utf-16-le", "utf-16-be"])
def test_characters_across_two_reads_are_kept(tmp_path: Path, encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "CHUNK_BYTES", 7)
    text = "床前明月光，疑是地上霜。\n舉頭望明月" if encoding == "big5" else "床前明月光，疑是地上霜。\n🜍 café"
    assert parsed(tmp_path, text.encode(encoding), encoding=encoding)["documents"] == [text]


@pytest.mark.parametrize("content", [b" \n\t\r\n", b"\f\f\f", "\u3000\u3000\n".encode(), b"\xef\xbb\xbf"])
@pytest.mark.parametrize("form", ["txt", "jsonl"])
def test_white_space_alone_is_an_empty_corpus(tmp_path: Path, content: bytes, form: str) -> None:
    if form == "jsonl":
        content = content.replace(b"\f", b"\n")
    assert refused(tmp_path, content, form)["problems"] == [{"code": "empty"}]


def test_a_million_empty_lines_are_an_empty_corpus(tmp_path: Path) -> None:
    assert refused(tmp_path, b"\n" * 1_000_000, "jsonl")["problems"] == [{"code": "empty"}]


# ---- encodings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [1 << 20, 5])
def test_the_first_bad_byte_is_reported_with_line_and_position(
    tmp_path: Path, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "CHUNK_BYTES", chunk)
    content = "first\n第二\nthird ".encode() + b"\xff\xfe" + b" rest"
    problem = refused(tmp_path, content)["problems"][0]
    assert problem == {
        "code": "undecodable",
        "encoding": "utf-8",
        "line": 3,
        "byte": 19,
        "context": "first\n第二\nthird \\xff\\xfe rest",
    }


def test_an_incomplete_character_at_the_end_is_rejected(tmp_path: Path) -> None:
    assert refused(tmp_path, "光".encode()[:2])["problems"][0]["byte"] == 0


@pytest.mark.parametrize("chunk", [1 << 20, 5])
def test_nul_is_rejected_with_its_position(tmp_path: Path, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "CHUNK_BYTES", chunk)
    problem = refused(tmp_path, "字\nab\0c".encode())["problems"][0]
    assert (problem["code"], problem["line"], problem["byte"]) == ("nul", 2, 6)


POEM = "国破山河在，城春草木深。感时花溅泪，恨别鸟惊心。烽火连三月，家书抵万金。白头搔更短，浑欲不胜簪。\n"
OLD_POEM = "國破山河在，城春草木深。感時花濺淚，恨別鳥驚心。烽火連三月，家書抵萬金。白頭搔更短，渾欲不勝簪。\n"
FRENCH = "Il était une fois, à l’orée d’une forêt où naît la sève, une fée très âgée.\n"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (POEM * 5, "gb18030"),
        (OLD_POEM * 5, "big5"),
        (POEM * 5, "utf-16-le"),
        (POEM * 5, "utf-16-be"),
        ("Plain English in wide characters.\n" * 5, "utf-16-le"),
        (FRENCH * 5, "windows-1252"),
    ],
)
def test_the_likeliest_encoding_is_offered_first_with_a_preview(tmp_path: Path, text: str, encoding: str) -> None:
    offers = refused(tmp_path, text.encode(encoding))["broken_files"][0]["candidates"]
    assert offers[0]["encoding"] == encoding
    assert offers[0]["preview"] in text
    assert parsed(tmp_path, text.encode(encoding), encoding=encoding)["documents"] == [text]


SENTENCES = {
    "ru": "Каждый охотник желает знать, где сидит фазан. Мой дядя самых честных правил, когда не в шутку занемог.\n",
    "ja": "これは日本語の文章です。東京は日本の首都であり、世界で最も人口の多い都市の一つです。\n",
    "ko": "이것은 한국어 문장입니다. 서울은 대한민국의 수도이며 세계에서 가장 큰 도시 중 하나입니다.\n",
    "pl": "Litwo, ojczyzno moja, ty jesteś jak zdrowie; ile cię trzeba cenić, ten tylko się dowie, kto cię stracił.\n",
    "el": "Η γρήγορη αλεπού πηδάει πάνω από τον τεμπέλη σκύλο. Η Αθήνα είναι η πρωτεύουσα της Ελλάδας.\n",
    "tr": "Pijamalı hasta yağız şoföre çabucak güvendi. İstanbul Türkiye'nin en kalabalık şehridir.\n",
    "he": "דג סקרן שט בים מאוכזב ולפתע מצא חברה. ירושלים היא עיר הבירה של מדינת ישראל.\n",
    "ar": "نص حكيم له سر قاطع وذو شأن عظيم مكتوب على ثوب أخضر. القاهرة هي عاصمة جمهورية مصر العربية.\n",
    "lt": "Įlinkdama fechtuotojo špaga sublykčiojusi pragręžė apvalų arbūzą. Vilnius yra Lietuvos sostinė.\n",
    "uk": "Щастям б'єш жук їх глицю в фон й ґедзь пріч. Київ є столицею України та найбільшим містом країни.\n",
    "de": "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich. Die Straße führt nach München.\n",
    "zh": POEM,
}
ENCODED = [
    *(("ru", "windows-1251"), ("ru", "koi8-r"), ("uk", "koi8-u"), ("ja", "cp932"), ("ja", "euc-jp"), ("ko", "cp949")),
    *(("pl", "windows-1250"), ("el", "windows-1253"), ("tr", "windows-1254"), ("he", "windows-1255")),
    *(("ar", "windows-1256"), ("lt", "windows-1257"), ("de", "windows-1252"), ("ru", "utf-16-be")),
    *(("zh", "utf-32-le"), ("ru", "utf-32-be")),
]


@pytest.mark.parametrize(("language", "encoding"), ENCODED)
def test_encodings_of_other_scripts_are_offered_first(tmp_path: Path, language: str, encoding: str) -> None:
    text = SENTENCES[language] * 4
    offers = refused(tmp_path, text.encode(encoding))["broken_files"][0]["candidates"]
    assert (offers[0]["encoding"], offers[0]["num_bad_places"]) == (encoding, 0)
    assert offers[0]["preview"] in text


def test_an_encoding_is_judged_by_the_whole_file(tmp_path: Path) -> None:
    content = b"plain\n" * 300_000 + (POEM * 300).encode("gb18030") + b"\xff\xff\n" + (POEM * 9).encode("gb18030")
    offers = refused(tmp_path, content)["broken_files"][0]["candidates"]
    assert (offers[0]["encoding"], offers[0]["num_bad_places"]) == ("gb18030", 2)
    assert [offer for offer in offers if offer["encoding"] == "big5"] == []


@pytest.mark.parametrize(
    ("num_bad_places", "num_foreign", "num_bytes", "is_right"),
    [
        (10, 0, 100, True),
        (11, 0, 11_001, True),
        (11, 0, 11_000, False),
        (11, 110, 500, True),
        (decoding.MAX_BAD_PLACES, 0, 100_000_000, False),  # it counted no further: all of a text in another encoding
        (decoding.MAX_BAD_PLACES, 10 * decoding.MAX_BAD_PLACES, 100_000_000, True),
    ],
)
def test_an_encoding_is_right_where_few_places_are_broken(
    num_bad_places: int, num_foreign: int, num_bytes: int, is_right: bool
) -> None:
    assert decoding.is_encoding_right(num_bad_places, num_foreign, num_bytes) == is_right


def test_utf_8_stays_right_where_most_of_it_is_valid(tmp_path: Path) -> None:
    content = (FRENCH * 300).encode() + b"caf\xe9\n" + (FRENCH * 300).encode() + b"\xff\n"
    report = refused(tmp_path, content)
    (broken,) = report["broken_files"]
    assert (broken["num_bad_places"], broken["num_foreign"]) == (2, 600 * sum(c > "\x7f" for c in FRENCH))
    assert (report["num_bad_places"], broken["is_encoding_right"]) == (2, True)
    assert [(problem["line"], content[problem["byte"]]) for problem in report["problems"]] == [
        (301, 0xE9),
        (602, 0xFF),
    ]
    assert report["problems"][1]["context"].endswith("\\xff\n")


def test_every_language_of_an_encoding_has_a_name_in_chinese() -> None:
    from chardet.metadata.languages import LANGUAGES

    with use_locale("zh-CN"):
        assert [name for name in LANGUAGES if problems.language_name(name).isascii()] == []


def broken_file(num_bad_places: int, *, is_counted_in_part: bool) -> dict[str, Any]:
    facts = {"encoding": "utf-8", "is_encoding_right": True, "candidates": [], "num_bytes": 10**8, "num_foreign": 0}
    return {**facts, "num_bad_places": num_bad_places, "is_counted_in_part": is_counted_in_part}


def test_only_counts_that_were_ended_are_called_incomplete() -> None:
    groups = parse_files.BrokenFileGroups()
    for name in ("0.txt", "1.txt"):
        groups.add(name, broken_file(6000, is_counted_in_part=False))
    (group,) = groups.report()
    assert (group["num_bad_places"], group["is_counted_in_part"]) == (12_000, False)
    groups.add("2.txt", broken_file(decoding.MAX_BAD_PLACES, is_counted_in_part=True))
    (group,) = groups.report()
    assert (group["num_files"], group["is_counted_in_part"]) == (3, True)


def test_places_are_counted_in_part_where_there_are_too_many(tmp_path: Path) -> None:
    for number, is_counted_in_part in ((decoding.MAX_BAD_PLACES - 1, False), (decoding.MAX_BAD_PLACES + 1, True)):
        (broken,) = refused(tmp_path, b"a\xff\n" * number)["broken_files"]
        assert broken["is_counted_in_part"] == is_counted_in_part


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_mark_decides_and_is_the_reason(tmp_path: Path, encoding: str) -> None:
    result = parsed(tmp_path, POEM.encode(encoding))
    assert (result["documents"], result["progress"]["encoding_reason"]) == ([POEM], "mark")
    assert parsed(tmp_path, POEM.encode())["progress"]["encoding_reason"] == "valid"


@pytest.mark.parametrize("chunk", [1 << 20, 3])
@pytest.mark.parametrize(
    ("form", "content", "documents"),
    [
        ("txt", b"one\fsecond \xe9 with more\fthird\f\xff\ffifth", ["one", "third", "fifth"]),
        ("txt", b"a" * 30 + b"\xe9" + b"b" * 30 + b"\f \f" + "光".encode(), ["光"]),
        ("jsonl", b'{"text": "a"}\n{"text": "\xe9"}\n{"\xe9": 1}\n{"text": "b"}', ["a", "b"]),
        ("json", b'[{"text": "a"}, {"text": "\xe9"}, {"\0": 1}, {"text": "b"}]', ["a", "b"]),
        ("csv", b"text\na\n\xe9,\0\nb\n\xff\n", ["a", "b"]),
    ],
)
def test_documents_with_bad_bytes_are_left_out_and_counted(
    tmp_path: Path, form: str, content: bytes, documents: list[str], chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "CHUNK_BYTES", chunk)
    (tmp_path / "upload").write_bytes(content)
    result = parse.parse(tmp_path, form, None, False, nothing, bad_bytes="skip_document")
    ends = [0, *(end for (end,) in struct.iter_unpack("<Q", (tmp_path / "index.bin").read_bytes()))]
    text = (tmp_path / "text.bin").read_bytes()
    assert [text[a:b].decode() for a, b in itertools.pairwise(ends)] == documents
    assert (result["num_characters"], result["num_text_bytes"]) == (len("".join(documents)), len(text))
    left_out = {"txt": content.count(b"\xe9") + content.count(b"\xff"), "csv": 2}.get(form, 2)
    assert result["progress"]["num_skipped_documents"] == left_out
    digests = (hashlib.sha256((tmp_path / name).read_bytes()).digest() for name in ("text.bin", "index.bin"))
    assert result["text_sha256"] == hashlib.sha256(b"".join(digests)).hexdigest()


def test_random_bytes_get_no_encoding_offered(tmp_path: Path) -> None:
    noise = random.Random(1).randbytes(100_000)
    assert refused(tmp_path, noise)["broken_files"][0]["candidates"] == []


def test_a_wrong_encoding_is_rejected_too(tmp_path: Path) -> None:
    report = refused(tmp_path, b"abc\xff\xff\xff", encoding="gb18030")
    assert report["problems"][0]["encoding"] == "gb18030"


# ---- JSON lines -----------------------------------------------------------------------------------------------------

BAD_LINES = [
    ('{"text": "half', "half_line"),
    ('{"text": "half"', "half_line"),
    ('{"text":', "half_line"),
    ("{text: 1}", "not_json"),
    ('{"text": "a"} {"text": "b"}', "not_json"),
    ("plain words", "not_json"),
    ('["text"]', "not_object"),
    ('"text"', "not_object"),
    ("null", "not_object"),
    ("{}", "text_missing"),
    ('{"Text": "a"}', "text_missing"),
    ('{"text": null}', "text_not_string"),
    ('{"text": 3}', "text_not_string"),
    ('{"text": ["a"]}', "text_not_string"),
    ('{"text": ""}', "text_empty"),
    ('{"text": " \\n\\u3000"}', "text_empty"),
    ('{"text": "a", "score": NaN}', "constant"),
    ('{"text": "a", "score": -Infinity}', "constant"),
    ('{"text": "a", "score": 1e400}', "number_infinite"),
    ('{"text": "a", "meta": [{"score": -1E+999}]}', "number_infinite"),
    ('{"text": "a", "text": "b"}', "duplicate_key"),
    ('{"text": "a\\ud800b"}', "surrogate"),
    ('{"text": "a\\u0000b"}', "text_nul"),
    ('{"text": ' + "[" * 10_000 + "]" * 10_000 + "}", "too_deep"),
    ('{"text": "a", "n": ' + "9" * 5_000 + "}", "not_json"),
]


@pytest.mark.parametrize(("line", "code"), BAD_LINES)
def test_a_bad_line_is_reported_with_number_byte_and_reason(tmp_path: Path, line: str, code: str) -> None:
    content = f'{{"text": "字"}}\n\n{line}\n{{"text": "last"}}\n'.encode()
    problem = refused(tmp_path, content, "jsonl")["problems"][0]
    assert (problem["code"], problem["line"], problem["byte"]) == (code, 3, 17)
    assert parsed(tmp_path, content, "jsonl", skip_bad=True)["documents"] == ["字", "last"]


NOT_FINITE = ("1e400", "-1e400", "NaN", "Infinity", "-Infinity")
# Where a record of each kind may hold a number that is kept, or is passed over.
PLACES = (
    '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": %s}]}',
    '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "seen": %s}]}',
    '{"messages": [{"role": "assistant", "tool_calls": [{"name": "f", "arguments": {"x": %s}}]}]}',
    '{"messages": [{"role": "assistant", "tool_calls": [{"name": "f", "arguments": "{\\"x\\": %s}"}]}]}',
    '{"messages": [{"role": "assistant", "content": "a"}], "tools": [{"name": "f", "parameters": {"maximum": %s}}]}',
    '{"prompt": "a", "completion": "b", "score": %s}',
    '{"text": "a", "label": %s}',
    '{"prompt": "a", "chosen": "b", "rejected": "c", "margin": %s}',
    '{"question": "a", "choices": ["b", "c"], "answer": %s}',
)


@pytest.mark.parametrize("number", NOT_FINITE)
@pytest.mark.parametrize("record", PLACES)
def test_a_number_that_is_not_finite_is_a_bad_line_and_never_stored(tmp_path: Path, record: str, number: str) -> None:
    report = refused(tmp_path, f"\n{record % number}\n".encode(), "jsonl")
    assert [problem["line"] for problem in report["problems"]] == [2]
    assert problems.sentence(Problem(**report["problems"][0]))
    assert list(tmp_path.glob("*.bin*")) == []


def test_every_problem_has_a_message() -> None:
    for line, _code in BAD_LINES:
        with pytest.raises(BadLine) as caught:
            RecordReader(None).document(json_records.parse_record(line))
        assert "{" not in problems.sentence(Problem(**caught.value.problem, line=1)).replace('{"text"', "")


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ('{"text": "a\\nb", "url": "x", "n": 1e308}', "a\nb"),
        ('  {"text": "\\ud83d\\ude00"}\r', "😀"),
        ('{"meta": {"text": "no"}, "text": "yes"}', "yes"),
        ('{"text": "a\u2028b"}', "a\u2028b"),
    ],
)
def test_a_good_line_is_a_document(tmp_path: Path, line: str, text: str) -> None:
    assert parsed(tmp_path, line.encode(), "jsonl")["documents"] == [text]


STORABLE = st.characters(codec="utf-8", exclude_characters="\0")


@given(texts=st.lists(st.text(STORABLE, min_size=1).filter(lambda t: not t.isspace())))
def test_any_documents_survive_a_round_trip(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    texts = [*texts, "at least one"]
    content = "".join(json.dumps({"text": text}, ensure_ascii=len(text) % 2 == 0) + "\n" for text in texts)
    assert parsed(tmp_path_factory.mktemp("any"), content.encode(), "jsonl")["documents"] == texts


def test_a_hundred_problems_are_stored_and_all_are_counted(tmp_path: Path) -> None:
    report = refused(tmp_path, b"bad\n" * 250, "jsonl")
    assert report["num_bad_lines"] == 250
    assert [problem["line"] for problem in report["problems"]] == list(range(1, 101))


@pytest.mark.parametrize("chunk", [1 << 20, 64])
def test_a_too_long_line_is_skipped_and_later_positions_are_right(
    tmp_path: Path, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "CHUNK_BYTES", chunk)
    monkeypatch.setattr(json_records, "MAX_LINE_CHARACTERS", 1000)
    content = b'{"text": "a"}\n{"text": "' + b"x" * 3000 + b'"}\n{"text": "b"}\nbad\n{"text": "c"}'
    problems = refused(tmp_path, content, "jsonl")["problems"]
    assert [(p["code"], p["line"], p["byte"]) for p in problems] == [
        ("line_too_long", 2, 14),
        ("not_json", 4, content.index(b"bad")),
    ]
    assert parsed(tmp_path, content, "jsonl", skip_bad=True)["documents"] == ["a", "b", "c"]


ARRAYS = [
    ("[]", []),
    ('[{"text": "a"}]', ["a"]),
    ('\ufeff [\n{"text": "a"}\n,{"text": "b, ] } \\\\\\" ["}]\n', ["a", 'b, ] } \\" [']),
    ('[{"text": "a", "x": [1, {"y": []}]}]\n\ufeff[{"text": "b"}]', ["a", "b"]),
    ('{"text": "a"}\ufeff{"text": "b"}', ["a", "b"]),
    ('{"text": "a"}\n\ufeff{"text": "}\ufeff{"}\n\ufeff\n', ["a", "}\ufeff{"]),
]


@pytest.mark.parametrize("chunk", [1 << 20, 1, 3])
@pytest.mark.parametrize(("content", "documents"), ARRAYS[1:])
def test_arrays_and_joined_files_are_read(
    tmp_path: Path, content: str, documents: list[str], chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "CHUNK_BYTES", chunk)
    assert parsed(tmp_path, content.encode(), "json")["documents"] == documents


BAD_ARRAYS = [
    ('[\n{"text": "a"},\n  {"text": 1}\n]', ("text_not_string", 3, None, 19)),
    ('[{"text": "a"},]', ("trailing_comma", 1, 15, 14)),
    ('[\n{"text": "a"},\n]', ("trailing_comma", 2, 14, 15)),
    ('[{"text": "a"},\n{"text": "b",}]', ("trailing_comma", 2, 13, 16)),
    ('[{"text": "a"},\n {\n  "text": b}]', ("not_json", 3, 11, 17)),
    ('[{"text": "a"}, {"text": b}]', ("not_json", 1, 26, 16)),
    ('[{"text": "a"}, {"text": "b"} {"text": "c"}]', ("not_json", 1, 31, 16)),
    ('[{"text": "a"}, ["b"]]', ("not_object", 1, None, 16)),
    ('[{"text": "a"},\n{"text": "b"', ("array_unclosed", 1, None, 15)),
    ('[{"text": "a"}]\n{"text": "b"}', ("array_rest", 1, None, 15)),
    ('{\n  "text": "a"\n}', ("json_object", 1, None, 0)),
]


@pytest.mark.parametrize("chunk", [1 << 20, 1])
@pytest.mark.parametrize(("content", "expected"), BAD_ARRAYS)
def test_errors_in_an_array_are_reported_with_their_position(
    tmp_path: Path, content: str, expected: tuple[Any, ...], chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "CHUNK_BYTES", chunk)
    (problem,) = refused(tmp_path, content.encode(), "jsonl")["problems"]
    assert (problem["code"], problem["line"], problem.get("character"), problem["byte"]) == expected
    assert problems.sentence(Problem(**problem))
    character = expected[2]
    if character is not None:
        line = content.split("\n")[expected[1] - 1]
        assert character <= len(line)


def test_an_element_that_is_too_long_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "CHUNK_BYTES", 64)
    monkeypatch.setattr(json_records, "MAX_LINE_CHARACTERS", 1000)
    content = '[{"text": "a"},\n{"text": "' + "x" * 3000 + '"},\n{"text": "b"}]'
    (problem,) = refused(tmp_path, content.encode(), "json")["problems"]
    assert (problem["code"], problem["byte"]) == ("line_too_long", 15)
    assert parsed(tmp_path, content.encode(), "json", skip_bad=True)["documents"] == ["a", "b"]


@given(records=st.lists(st.dictionaries(st.text(), st.recursive(st.text(), st.lists), max_size=3), min_size=1))
def test_any_array_survives_a_round_trip(
    tmp_path_factory: pytest.TempPathFactory, records: list[dict[str, Any]]
) -> None:
    texts = [
        {"text": f"{number} text", **{f"{key}_": value for key, value in record.items()}}
        for number, record in enumerate(records)
    ]
    for indent in (None, 1):
        content = json.dumps(texts, indent=indent).encode()
        documents = parsed(tmp_path_factory.mktemp("array"), content, "json")["documents"]
        assert documents == [text["text"] for text in texts]


@pytest.mark.parametrize("chunk", [1 << 20, 2])
@pytest.mark.parametrize(("way", "replacement"), [("omit", ""), ("replace", "\ufffd")])
def test_bad_bytes_and_nul_characters_are_fixed_and_counted(
    tmp_path: Path, way: str, replacement: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "CHUNK_BYTES", chunk)
    (tmp_path / "upload").write_bytes("光".encode() + b"a\xe9b\0c" + "天".encode()[:2])
    report = parse.parse(tmp_path, "txt", None, False, nothing, bad_bytes=way)
    assert report["progress"]["num_bad_places"] == 3
    assert (tmp_path / "text.bin").read_text() == f"光a{replacement}b{replacement}c{replacement}"
    with pytest.raises(parse.UnreadableCorpus) as caught:
        parse.parse(tmp_path, "txt", None, False, nothing)
    assert caught.value.report["num_bad_places"] == 3


# ---- the child ------------------------------------------------------------------------------------------------------


def run(directory: Path, form: str = "txt", memory: int = 128 * MIB, cpu: int = 60) -> tuple[dict[str, Any], int]:
    """Run the child as the worker does; its closing report and its exit code."""
    command = [
        sys.executable,
        "-m",
        "worker.sandbox.corpus.parse",
        str(directory),
        form,
        f"--memory={memory}",
    ]
    limits = ChildLimits(
        memory_bytes=memory, cpu_seconds=cpu, file_bytes=8 * (directory / "upload").stat().st_size + MIB
    )
    child = subprocess.run(limited_command(limits, command), env={"PYTHONUTF8": "1"}, capture_output=True, check=False)
    lines = child.stdout.splitlines()
    return json.loads(lines[-1]) if lines else {}, child.returncode


@pytest.mark.parametrize("form", ["txt", "jsonl"])
def test_a_file_larger_than_the_memory_is_parsed(tmp_path: Path, form: str) -> None:
    piece = b"Visita interiora terrae.\n" * 4000 if form == "txt" else (b'{"text": "' + b"fire " * 200 + b'"}\n') * 100
    size = 128 * MIB
    with (tmp_path / "upload").open("wb") as file:
        for _n in range(size // len(piece)):
            file.write(piece)
    closing, code = run(tmp_path, form, memory=64 * MIB)
    assert code == 0
    assert closing["result"]["num_text_bytes"] > size * 0.9


def test_an_endless_line_is_rejected_in_constant_memory(tmp_path: Path) -> None:
    (tmp_path / "upload").write_bytes(b'{"text": "' + b"x" * (128 * MIB))
    closing, _code = run(tmp_path, "jsonl", memory=112 * MIB)
    assert closing["failed"]["problems"] == [{"code": "line_too_long", "line": 1, "byte": 0}]


def test_too_little_memory_is_reported(tmp_path: Path) -> None:
    (tmp_path / "upload").write_bytes(b'{"text": "' + b"x" * (15 * MIB) + b'"}')
    closing, _code = run(tmp_path, "jsonl", memory=40 * MIB)
    assert closing["failed"]["problems"][0]["code"] == "out_of_memory"


def test_the_time_limit_stops_the_child(tmp_path: Path) -> None:
    (tmp_path / "upload").write_bytes(b'{"a": [1, 2, 3, {"b": 4}]}\n' * 3_000_000)
    closing, code = run(tmp_path, "jsonl", cpu=1)
    assert code != 0
    assert "result" not in closing


def test_the_child_reports_its_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    (tmp_path / "upload").write_bytes(b"x" * (3 * MIB))
    parse.parse(tmp_path, "txt", None, False, told.append)
    assert told == [MIB, 2 * MIB, 3 * MIB]


def test_the_child_imports_nothing_but_the_standard_library(tmp_path: Path) -> None:
    (tmp_path / "upload").write_bytes(b"x")
    heavy = "[m for m in sys.modules if m.split('.')[0] in ('app', 'sqlalchemy')]"
    command = f"import sys, worker.sandbox.corpus.parse; print({heavy})"
    output = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert output.stdout.strip() == "[]"
