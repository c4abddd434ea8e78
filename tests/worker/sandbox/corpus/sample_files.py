"""A small file of each format that becomes a corpus, made by hand or by pyarrow."""

import gzip
import io
import json
import stat
import tarfile
import zipfile
from collections.abc import Iterable
from typing import Any
from xml.sax.saxutils import escape

import pyarrow
from pyarrow import parquet

from trainer.formats import corpus_formats

CONTENT_TYPES = "http://schemas.openxmlformats.org/package/2006/content-types"
RELATIONS = "http://schemas.openxmlformats.org/package/2006/relationships"
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
SHEET = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
RECORDS = [{"prompt": "How hot?", "completion": "Very.", "score": 0.5}, {"prompt": "光？", "completion": "有。"}]


def zipped(members: Iterable[tuple[str, bytes | str]], mode: int = 0) -> bytes:
    """A zip file; `mode` is the kind and the rights of its members."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in members:
            info = zipfile.ZipInfo(name)
            info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, mode << 16
            archive.writestr(info, content)
    return target.getvalue()


def replaced(content: bytes, old: bytes, new: bytes) -> bytes:
    """A zip file in whose members something is replaced."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return zipped([(info.filename, archive.read(info).replace(old, new)) for info in archive.infolist()])


def tarred(members: Iterable[tuple[str, bytes]], kind: bytes = tarfile.REGTYPE, mode: int = 0o644) -> bytes:
    """A tar file of members of one kind."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size, info.type, info.mode, info.linkname = len(content), kind, mode, "/etc/passwd"
            archive.addfile(info, io.BytesIO(content))
    return target.getvalue()


def zstd(content: bytes) -> bytes:
    """A frame of Zstandard."""
    return bytes(pyarrow.compress(content, codec="zstd", asbytes=True))


def pdf(pages: list[str]) -> bytes:
    """A PDF with a line of ASCII on each page; a page without one is empty, like a scanned one without its picture."""
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", ""]
    kids = []
    for text in pages:
        stream = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET" if text else ""
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
        font = "<< /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >>"
        number = len(objects)
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {number} 0 R "
            f"/Resources << /Font {font} >> >>"
        )
        kids.append(f"{number + 1} 0 R")
    objects[1] = f"<< /Type /Pages /Kids [{' '.join(kids)}] /Count {len(kids)} >>"
    return pdf_of_objects(objects)


def pdf_of_objects(objects: list[str]) -> bytes:
    """A PDF of objects, the first of which is the catalog."""
    text, offsets = "%PDF-1.4\n", []
    for number, content in enumerate(objects, start=1):
        offsets.append(len(text))
        text += f"{number} 0 obj\n{content}\nendobj\n"
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    end = f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}trailer << /Size {len(objects) + 1} /Root 1 0 R >>"
    return f"{text}{end}\nstartxref\n{len(text)}\n%%EOF\n".encode()


def docx(paragraphs: list[str], cells: tuple[str, ...] = ()) -> bytes:
    """A Word document of paragraphs and a table of one row."""
    body = "".join(f"<w:p><w:r><w:t>{escape(text)}</w:t></w:r></w:p>" for text in paragraphs)
    row = "".join(f"<w:tc><w:p><w:r><w:t>{escape(text)}</w:t></w:r></w:p></w:tc>" for text in cells)
    table = f"<w:tbl><w:tr>{row}</w:tr></w:tbl>" if cells else ""
    return docx_of_markup(f'<w:document xmlns:w="{WORD}"><w:body>{body}{table}</w:body></w:document>')


def docx_of_markup(markup: str) -> bytes:
    """A Word document by its XML."""
    return zipped(
        [
            (
                "[Content_Types].xml",
                f'<Types xmlns="{CONTENT_TYPES}"><Default Extension="xml" ContentType="application/vnd.openxmlformats-'
                'officedocument.wordprocessingml.document.main+xml"/></Types>',
            ),
            (
                "_rels/.rels",
                f'<Relationships xmlns="{RELATIONS}"><Relationship Id="r1" Type="{OFFICE}/officeDocument" '
                'Target="word/document.xml"/></Relationships>',
            ),
            ("word/document.xml", markup),
        ]
    )


def xlsx(*sheets: list[list[Any]]) -> bytes:
    """A workbook of strings and numbers."""
    texts = []
    for rows in sheets:
        text = ""
        for row, cells in enumerate(rows, start=1):
            text += f'<row r="{row}">'
            for column, cell in enumerate(cells):
                place = f"{chr(65 + column)}{row}"
                if isinstance(cell, str):
                    text += f'<c r="{place}" t="inlineStr"><is><t>{escape(cell)}</t></is></c>'
                elif cell is not None:
                    text += f'<c r="{place}"><v>{cell}</v></c>'
            text += "</row>"
        texts.append(text)
    return xlsx_of_markup(*texts)


def xlsx_of_markup(*sheets: str) -> bytes:
    """A workbook by the XML of the rows of its sheets."""
    members = []
    for number, text in enumerate(sheets, start=1):
        sheet = f'<worksheet xmlns="{SHEET}"><sheetData>{text}</sheetData></worksheet>'
        members.append((f"xl/worksheets/sheet{number}.xml", sheet))
    numbers = range(1, len(sheets) + 1)
    listed = "".join(f'<sheet name="Sheet{n}" sheetId="{n}" r:id="r{n}"/>' for n in numbers)
    related = "".join(
        f'<Relationship Id="r{n}" Type="{OFFICE}/worksheet" Target="worksheets/sheet{n}.xml"/>' for n in numbers
    )
    book = f'<workbook xmlns="{SHEET}" xmlns:r="{OFFICE}"><sheets>{listed}</sheets></workbook>'
    relations = f'<Relationships xmlns="{RELATIONS}">{related}</Relationships>'
    root = f'<Relationship Id="r1" Type="{OFFICE}/officeDocument" Target="xl/workbook.xml"/>'
    return zipped(
        [
            (
                "[Content_Types].xml",
                f'<Types xmlns="{CONTENT_TYPES}"><Default Extension="xml" ContentType="a/b"/></Types>',
            ),
            ("_rels/.rels", f'<Relationships xmlns="{RELATIONS}">{root}</Relationships>'),
            ("xl/workbook.xml", book),
            ("xl/_rels/workbook.xml.rels", relations),
            *members,
        ]
    )


def epub(chapters: list[str], *more: tuple[str, str]) -> bytes:
    """A book; its chapters lie in a folder, and its spine has them in reverse order of their names."""
    names = [f"ch{len(chapters) - number}.xhtml" for number in range(len(chapters))]
    items = "".join(f'<item id="{name}" href="text/{name}" media-type="application/xhtml+xml"/>' for name in names)
    spine = "".join(f'<itemref idref="{name}"/>' for name in names)
    package = (
        f'<package xmlns="http://www.idpf.org/2007/opf"><manifest>{items}</manifest><spine>{spine}</spine></package>'
    )
    container = (
        '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
        '<rootfile full-path="OEBPS/content.opf"/></rootfiles></container>'
    )
    head = '<?xml version="1.0" encoding="utf-8"?><html xmlns="http://www.w3.org/1999/xhtml"><body>'
    texts = [(f"OEBPS/text/{name}", f"{head}{text}</body></html>") for name, text in zip(names, chapters, strict=True)]
    return zipped([("META-INF/container.xml", container), ("OEBPS/content.opf", package), *texts, *more])


def parquet_file(records: list[dict[str, Any]]) -> bytes:
    """The records as Parquet."""
    target = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(records), target)
    return target.getvalue()


def arrow_file(records: list[dict[str, Any]], is_stream: bool = False) -> bytes:
    """The records as an Arrow file (Feather), or as a stream, as `datasets` writes them."""
    target = io.BytesIO()
    table = pyarrow.Table.from_pylist(records)
    with (pyarrow.ipc.new_stream if is_stream else pyarrow.ipc.new_file)(target, table.schema) as writer:
        writer.write_table(table)
    return target.getvalue()


PLAIN: dict[str, bytes] = {
    "txt": "One line.\n光。\n\fAnother document.\n".encode(),
    "md": b"# Title\n\nSome *words*.\n",
    "jsonl": "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in RECORDS).encode(),
    "json": json.dumps(RECORDS, indent=1).encode(),
    "csv": b'prompt,completion\n"How hot?","Very, very."\nHow cold?,Not at all.\n',
    "tsv": b"text\tlabel\nwarm\tgood\ncold\tbad\n",
    "html": '<html><head><meta charset="utf-8"></head><body><h1>光</h1><p>One<br>two</p></body>'.encode(),
    "pdf": pdf(["A first page.", "", "A third page."]),
    "docx": docx(["A paragraph.", "光。"], ("cell", "cell")),
    "epub": epub(["<h1>First</h1>", "<p>Second</p>"]),
    "xlsx": xlsx([["text", "label"], ["warm", 1], ["cold", 2]], [["text", "label"], ["hot", 3]]),
    "parquet": parquet_file(RECORDS),
    "arrow": arrow_file(RECORDS),
    "code": b"def f():\n\treturn 1\f\n",
}
SAMPLES = {
    **PLAIN,
    "jsonl.gz": gzip.compress(PLAIN["jsonl"]),
    "csv.zst": zstd(PLAIN["csv"]),
    "zip": zipped(
        [("a/one.txt", PLAIN["txt"]), ("two.pdf", PLAIN["pdf"]), ("x.png", b"\x89PNG")], stat.S_IFREG | 0o644
    ),
    "tar.gz": gzip.compress(tarred([("one.md", PLAIN["md"]), ("two.docx", PLAIN["docx"])])),
}
assert {corpus_formats.parts_of(form)[0] for form in SAMPLES} == {*corpus_formats.ENDINGS, *corpus_formats.ARCHIVES}
