"""Bad input of the formats that are no text: documents, tables, archives and compressed files, each of any size."""

import gzip
from collections.abc import Callable
from itertools import product
from typing import Any

import pyarrow

from tests.worker.sandbox.corpus.bad_shapes import Shape, nested, numbered, repeated
from tests.worker.sandbox.corpus.sample_files import (
    SHEET,
    WORD,
    arrow_file,
    docx_of_markup,
    epub,
    parquet_file,
    pdf,
    pdf_of_objects,
    replaced,
    tarred,
    xlsx_of_markup,
    zipped,
    zstd,
)

Text = Callable[[int], str]
PAGE = "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 9 9] /Contents 4 0 R /Resources << /Font << /F1 5 0 R >> >> >>"
FONT = "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"
PAGES = "<< /Type /Pages /Kids [3 0 R] /Count 1 >>"


def text(shape: Shape) -> Text:
    """The shape as a text."""
    return lambda size: shape(size).decode()


# ---- PDF ------------------------------------------------------------------------------------------------------------


def page_of(content: Shape) -> Shape:
    """A PDF with a page by its content stream."""

    def build(size: int) -> bytes:
        stream = content(size).decode("latin-1")
        drawn = f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream"
        return pdf_of_objects(["<< /Type /Catalog /Pages 2 0 R >>", PAGES, PAGE, drawn, FONT])

    return build


def object_of(content: Shape) -> Shape:
    """A PDF whose page tree is another object."""
    return lambda size: pdf_of_objects(["<< /Type /Catalog /Pages 2 0 R >>", content(size).decode("latin-1")])


def page_trees(size: int) -> bytes:
    """A PDF whose page lies in a tree that is as deep as it is long."""
    depth = size // 60
    trees = [f"<< /Type /Pages /Kids [{number + 3} 0 R] /Count 1 >>" for number in range(depth)]
    return pdf_of_objects(["<< /Type /Catalog /Pages 2 0 R >>", *trees, PAGE.replace("4 0 R", "1 0 R")])


def without_table(size: int) -> bytes:
    """A PDF whose table of objects is missing."""
    return pdf((size // 300) * ["a"]).partition(b"xref")[0]


SHOWN = "BT /F1 12 Tf "
PDFS: dict[str, Shape] = {
    "pages": lambda size: pdf((size // 300) * ["a"]),
    "pages without text": lambda size: pdf((size // 300) * [""]),
    "no table of objects": without_table,
    "a page tree of great depth": page_trees,
    "a cut-off end": lambda size: pdf((size // 300) * ["a"])[: -size // 4],
    "a beginning and noise": repeated("1 0 obj <<", "%PDF-1.4\n"),
    "a line of text": page_of(repeated("a", SHOWN + "(", ") Tj ET")),
    "strings never closed": page_of(repeated("(", SHOWN)),
    "moves of the cursor": page_of(repeated("(a) Tj 0 1 Td ", SHOWN, "ET")),
    "states within each other": page_of(repeated("q ")),
    "operands": page_of(repeated("1 ")),
    "arrays within each other": object_of(repeated("[")),
    "dictionaries within each other": object_of(repeated("<</A")),
    "a dictionary of many keys": object_of(numbered("/K# 1 ", "<<", ">>")),
    "filters": object_of(repeated("/AHx ", "<< /Filter [", "] /Length 1 >>\nstream\n0\nendstream")),
    "one object again and again": repeated("1 0 obj\n<< /Type /Catalog >>\nendobj\n", "%PDF-1.4\n"),
}

# ---- documents in zip files -----------------------------------------------------------------------------------------


def word(body: Shape) -> Shape:
    """A Word document by what its body holds."""
    return lambda size: docx_of_markup(f'<w:document xmlns:w="{WORD}"><w:body>{text(body)(size)}</w:body></w:document>')


RUN = "<w:r><w:t>a</w:t></w:r>"
CELL = f"<w:tc><w:p>{RUN}</w:p></w:tc>"
WORDS: dict[str, Shape] = {
    "paragraphs": word(repeated(f"<w:p>{RUN}</w:p>")),
    "empty paragraphs": word(repeated("<w:p/>")),
    "runs": word(repeated(RUN, "<w:p>", "</w:p>")),
    "a long text": word(repeated("a", "<w:p><w:r><w:t>", "</w:t></w:r></w:p>")),
    "entities": word(repeated("&amp;", "<w:p><w:r><w:t>", "</w:t></w:r></w:p>")),
    "rows": word(repeated(f"<w:tr>{CELL}</w:tr>", "<w:tbl>", "</w:tbl>")),
    "cells": word(repeated(CELL, "<w:tbl><w:tr>", "</w:tr></w:tbl>")),
    "cells that go on": word(
        repeated(f"<w:tr><w:tc><w:tcPr><w:vMerge/></w:tcPr><w:p>{RUN}</w:p></w:tc></w:tr>", "<w:tbl>", "</w:tbl>")
    ),
    "tables": word(repeated(f"<w:tbl><w:tr>{CELL}</w:tr></w:tbl>")),
    "bookmarks": word(numbered('<w:p><w:bookmarkStart w:name="b#"/></w:p>')),
    "attributes": word(numbered('a#="" ', "<w:p ", "/>")),
    "namespaces": word(numbered('xmlns:n#="a" ', "<w:p ", "/>")),
    "fields": word(repeated('<w:p><w:r><w:fldChar w:fldCharType="begin"/></w:r></w:p>')),
    "elements never closed": word(repeated("<w:p>")),
    "unknown elements": word(numbered("<w:x#/>")),
}


def book(chapter: Shape) -> Shape:
    """A book of one chapter."""
    return lambda size: epub([text(chapter)(size)])


def spine(size: int) -> bytes:
    """A book that lists one long chapter again and again."""
    chapter = epub([(size // 2) * "a"])
    return replaced(chapter, b"</spine>", (size // 60) * b'<itemref idref="ch1.xhtml"/>' + b"</spine>")


BOOKS: dict[str, Shape] = {
    "chapters": lambda size: epub((size // 200) * ["<p>a</p>"]),
    "a chapter again and again": spine,
    "items without a file": lambda size: replaced(
        epub(["a"]), b"</manifest>", numbered('<item id="#" href="#"/>')(size) + b"</manifest>"
    ),
    "elements within each other": book(nested("<div>a", "</div>", "", "")),
    "attributes of a chapter": book(numbered('a#="" ', "<p ", ">a</p>")),
    "attributes of the package": lambda size: replaced(
        epub(["a"]), b"<manifest>", b"<manifest " + numbered('a#="" ')(size) + b">"
    ),
    "paragraphs": book(repeated("<p>a</p>")),
    "encrypted parts": lambda size: epub(
        ["a"], ("META-INF/encryption.xml", text(repeated('<CipherReference URI="a.otf"/>', "<e>", "</e>"))(size))
    ),
}


def sheet(rows: Shape) -> Shape:
    """A workbook of one sheet."""
    return lambda size: xlsx_of_markup(text(rows)(size))


HEAD = '<row r="1"><c r="A1" t="inlineStr"><is><t>text</t></is></c></row>'
VALUE = '<c t="inlineStr"><is><t>a</t></is></c>'


def diagonal(size: int) -> bytes:
    """A sheet with one cell in each row and each column."""
    letters = [chr(65 + number) for number in range(26)]
    names = letters + ["".join(name) for length in (2, 3) for name in product(letters, repeat=length)]
    cells = (f'<row r="{n + 1}"><c r="{names[n]}{n + 1}"><v>1</v></c></row>' for n in range(size // 100))
    return xlsx_of_markup("".join(cells))


SHEETS: dict[str, Shape] = {
    "rows": sheet(repeated(f"<row>{VALUE}</row>", HEAD)),
    "empty rows": sheet(repeated("<row/>", HEAD)),
    "cells of a row": sheet(repeated(VALUE, "<row>", "</row>")),
    "a long cell": sheet(repeated("a", "<row><c t='inlineStr'><is><t>", "</t></is></c></row>")),
    "parts of a cell": sheet(repeated("<r><t>a</t></r>", "<row><c t='inlineStr'><is>", "</is></c></row>")),
    "numbers": sheet(repeated("<row><c><v>1e9</v></c></row>", HEAD)),
    "attributes of a cell": sheet(numbered('a#="" ', "<row><c ", "/></row>")),
    "a row that is not closed": sheet(repeated("<row><c>", HEAD)),
    "sheets": lambda size: xlsx_of_markup(*(size // 700) * [HEAD]),
    "no sheet": lambda size: zipped([("xl/workbook.xml", (size // 9) * "<sheets/>"), ("a", SHEET)]),
}

# ---- tables of columns ----------------------------------------------------------------------------------------------


def records_of(build: Callable[[int], list[dict[str, Any]]]) -> Callable[[Callable[[Any], bytes]], Shape]:
    """A shape of records, for each of the two formats."""
    return lambda write: lambda size: write(build(size))


def deep(size: int) -> list[dict[str, Any]]:
    """A record of lists within each other, at most as deep as the libraries allow."""
    value: Any = "a"
    for _number in range(20):
        value = [value]
    return (size // 40) * [{"text": "a", "deep": value}]


RECORDS = {
    "rows": records_of(lambda size: (size // 10) * [{"text": "a"}]),
    "rows without a text": records_of(lambda size: [{"text": "a"}, *(size // 10) * [{"text": None}]]),
    "rows of other kinds": records_of(lambda size: (size // 20) * [{"a": 1, "b": 2.5}]),
    "columns": records_of(lambda size: [{"text": "a", **{f"c{n}": 1 for n in range(size // 100)}}]),
    "a long text": records_of(lambda size: [{"text": size * "a"}]),
    "a long list": records_of(lambda size: [{"text": "a", "list": list(range(size // 8))}]),
    "lists within each other": records_of(deep),
    "labels": records_of(lambda size: [{"text": "a", "label": str(n)} for n in range(size // 20)]),
    "messages": records_of(lambda size: [{"messages": (size // 20) * [{"role": "user", "content": "a"}]}]),
}


def cut_off(shape: Shape) -> Shape:
    """The first half of a file, with its end."""
    return lambda size: (content := shape(size))[: len(content) // 2] + content[-8:]


def columnar(write: Callable[[Any], bytes], magic: bytes) -> dict[str, Shape]:
    """The shapes of one of the two formats."""
    shapes = {name: build(write) for name, build in RECORDS.items()}
    noise = {"noise": repeated(b"\x7f\x01", magic, magic), "zeros": repeated(b"\0", magic, magic)}
    return {**shapes, **noise, "a cut-off file": cut_off(shapes["rows"])}


def batches(size: int) -> bytes:
    """An Arrow stream of batches of one row."""
    target = pyarrow.BufferOutputStream()
    batch = pyarrow.record_batch({"text": ["a"]})
    with pyarrow.ipc.new_stream(target, batch.schema) as writer:
        for _number in range(size // 200):
            writer.write_batch(batch)
    return bytes(target.getvalue())


# ---- archives and compressed files ----------------------------------------------------------------------------------

MEMBERS: dict[str, Callable[[int], list[tuple[str, bytes]]]] = {
    "members": lambda size: [(f"{n}.txt", b"a") for n in range(size // 120)],
    "members that no format reads": lambda size: [(f"{n}.png", b"a") for n in range(size // 120)],
    "members of many folders": lambda size: [(f"{n}/" * 9 + "a.txt", b"a") for n in range(size // 200)],
    "one long member": lambda size: [("a.txt", size * b"a")],
    "a name of great length": lambda size: [(min(size, 60_000) * "a" + ".txt", b"a")],
    "archives within each other": lambda size: [(f"{n}.zip", b"PK") for n in range(size // 120)],
    "the same name": lambda size: [("a.txt", b"a"), *[("A.txt", b"a")] * (size // 120)],
    "records with bad lines": lambda size: [(f"{n}.jsonl", b"x\n" * 50) for n in range(size // 200)],
}


def archive(pack: Callable[[Any], bytes], name: str) -> Shape:
    """A shape of members in an archive."""
    return lambda size: pack(MEMBERS[name](size))


ZIPS: dict[str, Shape] = {
    **{name: archive(zipped, name) for name in MEMBERS if name != "the same name"},
    "ends of a zip file": repeated(b"PK\x05\x06" + bytes(18)),
    "heads of members": repeated(b"PK\x03\x04" + bytes(26)),
    "a cut-off file": cut_off(archive(zipped, "members")),
    "a file after noise": lambda size: size * b"a" + zipped([("a.txt", b"a")]),
}
TARS: dict[str, Shape] = {
    **{name: archive(tarred, name) for name in MEMBERS},
    "zeros": repeated(b"\0"),
    "noise": repeated(b"a"),
    "headers of headers": lambda size: (size // 1_000) * tarred([("a.txt", b"")])[:512],
    "a cut-off file": cut_off(archive(tarred, "members")),
}
PLAIN: dict[str, Shape] = {
    "zeros": repeated(b"\0"),
    "a text": repeated("a line\n"),
    "form feeds": repeated("a\f"),
}


def compressed(pack: Callable[[bytes], bytes]) -> dict[str, Shape]:
    """The shapes of a compression."""

    def packed(shape: Shape) -> Shape:
        return lambda size: pack(shape(size))

    shapes = {name: packed(shape) for name, shape in PLAIN.items()}
    return {
        **shapes,
        "empty parts one after the other": repeated(pack(b""), pack(b"a")),
        "parts one after the other": repeated(pack(b"a\n")),
        "noise after a part": repeated(b"a", pack(b"a")),
        "zeros after a part": repeated(b"\0", pack(b"a")),
        "a cut-off file": cut_off(lambda size: pack(bytes(range(256)) * (size // 256))),
    }


FILES: dict[str, dict[str, Shape]] = {
    "pdf": PDFS,
    "docx": WORDS,
    "epub": BOOKS,
    "xlsx": SHEETS,
    "parquet": columnar(parquet_file, b"PAR1"),
    "arrow": {**columnar(arrow_file, b"ARROW1\0\0"), "batches": batches},
    "zip": ZIPS,
    "tar": TARS,
    "txt.gz": compressed(gzip.compress),
    "txt.zst": compressed(zstd),
}
