"""Formats beside text and JSON: what each becomes, and how files that cannot be read are named and counted."""

import gzip
import io
import itertools
import random
import stat
import struct
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.worker.sandbox.corpus import sample_files
from tests.worker.sandbox.corpus.bad_files import WORDS, diagonal
from tests.worker.sandbox.corpus.sample_files import (
    PLAIN,
    RECORDS,
    docx,
    docx_of_markup,
    epub,
    pdf,
    replaced,
    tarred,
    xlsx,
    zipped,
    zstd,
)
from trainer.formats import corpus_formats
from worker.sandbox.corpus import containers, parse

FIXTURES = Path(__file__).parents[3] / "fixtures/corpora"
OLE = bytes.fromhex("d0cf11e0a1b11ae1")
PAIRS = ['{"prompt":"How hot?","completion":"Very."}', '{"prompt":"光？","completion":"有。"}']


def read(directory: Path, content: bytes, form: str, **options: Any) -> tuple[list[str], dict[str, Any]]:
    """The documents of a file, and the report."""
    (directory / "upload").write_bytes(content)
    result = parse.parse(directory, form, None, options.pop("skip_bad", False), lambda done: None, **options)
    text = (directory / "text.bin").read_bytes()
    ends = [0, *(end for (end,) in struct.iter_unpack("<Q", (directory / "index.bin").read_bytes()))]
    assert sorted(path.name for path in directory.iterdir()) == ["index.bin", "text.bin", "upload"]
    return [text[a:b].decode() for a, b in itertools.pairwise(ends)], result


def refused(directory: Path, content: bytes, form: str) -> list[dict[str, Any]]:
    """The problems of a file, after checking that it left nothing."""
    (directory / "upload").write_bytes(content)
    with pytest.raises(parse.UnreadableCorpus) as caught:
        parse.parse(directory, form, None, False, lambda done: None)
    assert [path.name for path in directory.iterdir()] == ["upload"]
    problems: list[dict[str, Any]] = caught.value.report["problems"]
    return problems


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("a.txt", "txt"),
        ("A.B.JSONL.GZ", "jsonl.gz"),
        ("a.ndjson", "jsonl"),
        ("notes.tar.zst", "tar.zst"),
        ("notes.tgz", "tar.gz"),
        ("main.rs", "code"),
        ("Makefile", "code"),
        ("a.htm", "html"),
        ("a.feather", "arrow"),
        ("a.ods", "xlsx"),
        ("a.zip.gz", None),
        ("a.gz", None),
        ("a.png", None),
        ("", None),
        (".gz", None),
    ],
)
def test_the_format_is_that_of_the_name(name: str, form: str | None) -> None:
    assert corpus_formats.format_of(name) == form


CONTENTS: list[tuple[str, bytes, list[str]]] = [
    ("html", PLAIN["html"], ["光\n\nOne\ntwo"]),
    ("html", b"<p>a</p><script>b</script><style>c</style><table><tr><td>d<td>e</table>", ["a\n\nd  e"]),
    ("pdf", pdf(["First page.", "Second page."]), ["First page.\n\nSecond page."]),
    ("docx", docx(["First.", "光 & more."], ("a", "b")), ["First.\n\n光 & more.\n\na  b"]),
    ("epub", epub(["<h1>One</h1><p>A.</p>", "<p>光</p>"]), ["One\n\nA.\n\n光"]),
    ("epub", replaced(epub(["<p>A.</p>"]), b"</spine>", b'<itemref idref="ch1.xhtml"/></spine>'), ["A."]),
    ("html", b"<div>" * 10_000 + b"deep", ["deep"]),
    (
        "xlsx",
        PLAIN["xlsx"],
        [f'{{"text":"{text}","label":"{n}"}}' for n, text in ((1, "warm"), (2, "cold"), (3, "hot"))],
    ),
    ("parquet", PLAIN["parquet"], PAIRS),
    ("arrow", PLAIN["arrow"], PAIRS),
    ("arrow", sample_files.arrow_file(RECORDS, is_stream=True), PAIRS),
    ("code", PLAIN["code"], ["def f():\n\treturn 1\f\n"]),
    ("jsonl.gz", gzip.compress(PLAIN["jsonl"]), PAIRS),
    ("jsonl.gz", gzip.compress(PLAIN["jsonl"][:40]) + gzip.compress(PLAIN["jsonl"][40:]), PAIRS),
    ("json.zst", zstd(PLAIN["json"]), PAIRS),
    ("txt.zst", zstd(b"one ") + zstd(b"two"), ["one two"]),
    ("parquet.gz", gzip.compress(PLAIN["parquet"]), PAIRS),
    ("tar", tarred([("b/one.txt", b"one\ftwo"), ("three.md", b"three")]), ["one", "two", "three"]),
    ("tar.gz", gzip.compress(tarred([("one.txt", b"one")])), ["one"]),
    ("tar.zst", zstd(tarred([("one.txt", b"one")])), ["one"]),
    ("zip", zipped([("a.jsonl", PLAIN["jsonl"]), ("b.parquet", PLAIN["parquet"])]), PAIRS + PAIRS),
]


@pytest.mark.parametrize(("form", "content", "documents"), CONTENTS, ids=[form for form, *_rest in CONTENTS])
def test_a_file_becomes_its_documents(tmp_path: Path, form: str, content: bytes, documents: list[str]) -> None:
    read_documents, result = read(tmp_path, content, form)
    assert (read_documents, result["problems"]) == (documents, [])


@pytest.mark.parametrize("separator", [",", ";", "\t", "|", "^", "~", "\x1f", "\x01", ":"])
def test_any_separator_of_a_table_is_found(tmp_path: Path, separator: str) -> None:
    rows = [("text", "label"), ("warm, dry", "good"), ("cold; wet", "bad")]
    content = "".join(separator.join(f'"{cell}"' for cell in row) + "\n" for row in rows).encode()
    documents, _result = read(tmp_path, content, "csv")
    assert documents == ['{"text":"warm, dry","label":"good"}', '{"text":"cold; wet","label":"bad"}']


def test_html_is_read_in_the_encoding_that_it_declares(tmp_path: Path) -> None:
    page = '<meta http-equiv="Content-Type" content="text/html; charset=gb2312"><p>国破山河在</p>'.encode("gb18030")
    documents, result = read(tmp_path, page, "html")
    assert (documents, result["encoding"], result["progress"]["encoding_reason"]) == (
        ["国破山河在"],
        "gb18030",
        "declared",
    )


def test_pages_without_text_are_named(tmp_path: Path) -> None:
    documents, result = read(tmp_path, pdf(["One.", "", "Three.", ""]), "pdf")
    assert documents == ["One.\n\nThree."]
    assert result["progress"]["remarks"] == [{"code": "pages_without_text", "pages": 2, "numbers": "2, 4"}]


def repeated_text() -> bytes:
    """A Parquet file of one text a hundred times, which its dictionary stores once."""
    return sample_files.parquet_file([{"text": "light " * 50_000}] * 100)


BROKEN: list[tuple[str, bytes, str]] = [
    ("pdf", pdf(["", ""]), "pdf_without_text"),
    ("pdf", (FIXTURES / "encrypted.pdf").read_bytes(), "file_encrypted"),
    ("pdf", b"%PDF-1.4 nothing", "file_broken"),
    ("docx", OLE + "EncryptedPackage".encode("utf-16-le"), "file_encrypted"),
    ("docx", OLE + b"WordDocument", "office_old"),
    ("docx", docx([]), "no_text"),
    ("docx", WORDS["fields"](100_000), "file_broken"),
    ("docx", docx_of_markup(f'<a b="{(6 << 20) * " "}"/>'), "file_broken"),
    ("docx", zipped([("a.xml", b" " * (40 << 20))]), "file_expands_too_much"),
    ("xlsx", OLE + "EncryptedPackage".encode("utf-16-le"), "file_broken"),
    ("xlsx", xlsx([["color", "shade"], ["red", "dark"]]), "columns"),
    ("xlsx", b"", "file_broken"),
    (
        "epub",
        epub(["<p>a</p>"], ("META-INF/encryption.xml", '<CipherReference URI="OEBPS/text/ch1.xhtml"/>')),
        "file_encrypted",
    ),
    ("epub", epub(["<img src='cover.png'/>"]), "no_text"),
    ("xlsx", diagonal(200_000), "file_expands_too_much"),
    ("parquet", PLAIN["parquet"][:-9], "file_broken"),
    ("parquet", b"PAR1" + b"\0" * 50 + b"PAR1", "file_broken"),
    ("parquet", repeated_text(), "expands_too_much"),
    ("arrow", PLAIN["arrow"][:60], "file_broken"),
    ("html", b"<p> </p>", "no_text"),
    ("code", b" \n", "file_empty"),
    ("txt.gz", gzip.compress(b"text" * 99)[:-4], "archive_broken"),
    ("txt.gz", b"text", "archive_broken"),
    ("txt.zst", zstd(b"text" * 99)[:-4], "archive_broken"),
    ("txt.gz", gzip.compress(bytes(40 << 20)), "expands_too_much"),
    ("zip", zipped([("a.txt", bytes(40 << 20))]), "expands_too_much"),
    ("tar.gz", gzip.compress(tarred([("a.txt", bytes(40 << 20))])), "expands_too_much"),
    ("zip", zipped([(f"{number}.txt", b"a") for number in range(containers.MAX_MEMBERS + 1)]), "archive_many"),
    ("zip", zipped([("a.txt", b"a"), ("A.TXT", b"b")]), "archive_twice"),
    ("zip", zipped([("a.zip", zipped([("b.txt", b"b")]))]), "archive_nested"),
    ("zip", zipped([("a.txt", b"/etc/passwd")], stat.S_IFLNK | 0o777), "archive_special"),
    ("zip", zipped([("a.txt", b"a")], stat.S_IFREG | stat.S_ISUID | 0o755), "archive_special"),
    *(
        ("tar", tarred([("a.txt", b"")], kind), "archive_special")
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)
    ),
    ("tar", tarred([("a.txt", b"a")], mode=0o4755), "archive_special"),
    *(
        ("zip", zipped([(name, b"a")]), "archive_unsafe")
        for name in ("../a.txt", "/a.txt", "C:\\a.txt", "a/../../b.txt", "..\\a.txt", "a\nb.txt", "a" * 5_000 + ".txt")
    ),
    ("zip", zipped([("a.txt", b"a")])[:-10], "archive_broken"),
    ("zip", zipped([("a.png", b"a")]), "empty"),
]


@pytest.mark.parametrize(("form", "content", "code"), BROKEN, ids=[f"{form}-{code}" for form, _content, code in BROKEN])
def test_a_file_that_cannot_be_read_is_refused_with_the_reason(
    tmp_path: Path, form: str, content: bytes, code: str
) -> None:
    assert refused(tmp_path, content, form)[0]["code"] == code


def test_members_that_cannot_be_read_are_named_and_counted(tmp_path: Path) -> None:
    members = [
        ("a/one.txt", b"one"),
        ("scan.pdf", pdf([""])),
        ("gbk.txt", "one\n国破".encode("gb18030")),
        ("locked.pdf", (FIXTURES / "encrypted.pdf").read_bytes()),
        ("part.pdf", pdf(["two", ""])),
        ("half.jsonl", b'{"text": "three"}\n{"text":'),
        ("inner.gz", b""),
        ("inner.txt.gz", b""),
        ("photo.png", b"\x89PNG"),
        ("photo.PNG ", b"\x89PNG"),
        (".DS_Store", b"a"),
        ("__MACOSX/one.txt", b"a"),
    ]
    bad = [
        *(("pdf_without_text", "scan.pdf"), ("undecodable", "gbk.txt"), ("file_encrypted", "locked.pdf")),
        *(("half_line", "half.jsonl"), ("archive_nested", "inner.txt.gz")),
    ]
    assert [(problem["code"], problem["file"]) for problem in refused(tmp_path, zipped(members), "zip")] == bad

    documents, result = read(tmp_path, zipped(members), "zip", skip_bad=True)

    assert documents == ["one", "two", "three"]
    progress = result["progress"]
    assert (progress["num_bad_lines"], progress["num_files"]) == (5, 7)
    assert progress["skipped_files"] == {".png": 1, ".png ": 1, ".gz": 1, ".DS_Store": 1, ".txt": 1}
    assert [(remark["code"], remark["file"]) for remark in progress["remarks"]] == [("pages_without_text", "part.pdf")]


def test_records_and_texts_in_one_archive_are_refused_by_file(tmp_path: Path) -> None:
    problems = refused(tmp_path, zipped([("a.jsonl", PLAIN["jsonl"]), ("readme.txt", b"Read me.")]), "zip")
    assert problems == [{"code": "record_mixed", "found": "text", "kind": "completion", "file": "readme.txt"}]


def test_wrong_values_of_columns_are_bad_rows(tmp_path: Path) -> None:
    rows = [{"text": "a", "label": 1.5}, {"text": None, "label": 1.0}, {"text": "b", "label": float("nan")}]
    problems = refused(tmp_path, sample_files.parquet_file(rows), "parquet")
    assert [(problem["code"], problem["line"]) for problem in problems] == [
        ("label_invalid", 1),
        ("label_invalid", 2),
        ("label_invalid", 3),
    ]


def test_nothing_of_an_archive_is_written_by_its_name(tmp_path: Path) -> None:
    home = tmp_path / "corpus"
    home.mkdir()
    noise = io.BytesIO(random.Random(1).randbytes(1000)).getvalue()
    for name in ("upload", "text.bin", "../out.txt", "index.bin.txt"):
        (home / "upload").write_bytes(zipped([(name, noise), ("a.txt", b"a")]))
        try:
            parse.parse(home, "zip", None, True, lambda done: None)
        except parse.UnreadableCorpus:
            assert name == "../out.txt"
        assert {path.name for path in home.iterdir()} <= {"upload", "text.bin", "index.bin"}
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]
