"""The text of a page takes time in proportion to its bytes, and is that of inscriptis."""

from contextlib import suppress
from functools import partial
from pathlib import Path

import inscriptis
import pytest
from inscriptis.css_profiles import CSS_PROFILES
from inscriptis.html_properties import WhiteSpace
from inscriptis.model.canvas.prefix import Prefix
from inscriptis.model.config import ParserConfig

from tests.worker.sandbox.corpus.bad_shapes import Shape, nested, numbered, repeated
from tests.worker.sandbox.corpus.sample_files import epub
from tests.worker.sandbox.corpus.scaling import is_superlinear
from worker.sandbox.corpus import documents, html_layout
from worker.sandbox.corpus.fields import BadLine

SHAPES: dict[str, Shape] = {
    "blanks before a text": repeated(" ", after="x"),
    "blanks in a line": repeated(" ", "<pre>a", "x"),
    "elements in a block": repeated("<b>a</b>", "<p>"),
    "line breaks": repeated("a<br>", "<p>"),
    "items": repeated("<li>a", "<ul>"),
    "tables": repeated("<table><tr><td>a</table>"),
    "rows": repeated("<tr><td>a", "<table>"),
    "columns": repeated("<td>a", "<table><tr>"),
    "a wide cell above many": lambda size: b"<table><tr><td>" + size // 2 * b"a" + size // 18 * b"<tr><td>a",
    "a tall cell beside many": lambda size: b"<table><tr><td>" + size // 10 * b"a<br>" + size // 10 * b"<td>a",
    "a row of many columns above many": lambda size: b"<table><tr>" + size // 10 * b"<td>a" + size // 18 * b"<tr><td>a",
    "beginnings of XML": repeated("<?xml"),
    "brackets": repeated("<"),
    "attributes of a tag": numbered('a#="" ', "<p ", ">x"),
    "attributes without values": numbered("a# ", "<p ", ">x"),
    "attributes of an end": numbered("a# ", "<p>x</p ", ">y"),
    "attributes of the page": numbered('<body a#="">', "x"),
    "classes": numbered("c# ", '<p class="', '">x'),
    "styles": repeated("display:block;", '<p style="', '">x'),
    "a tag never closed": repeated("a ", "x<p "),
    "entities": repeated("&amp;", "<p>"),
    "entities that do not exist": repeated("&a", "<p>"),
    "comments never closed": repeated("<!--", "x"),
    "a comment of dashes": repeated("-", "x<!--"),
    "comments": repeated("x<!-- a -->"),
    "CDATA": repeated("<![CDATA[", "x"),
    "document types": repeated("<!DOCTYPE html>", "", "x"),
    "scripts never closed": repeated("<script>", "x"),
    "ends of scripts": repeated("</scrip", "x<script>"),
    "styles never closed": repeated("<style>", "x"),
    "choices": repeated("<option>a", "<select>"),
    "drawings": repeated("<svg><g>a"),
    "formulas": repeated("<math><mi>a"),
    "definitions": repeated("<dl><dt>a<dd>b"),
    "ends without a beginning": repeated("</b></p>", "x"),
    "ends in another order": repeated("<b><i>a</b>"),
    "tables within each other": nested("<table><tr><td>a", "</td></tr></table>", "", ""),
    "text between rows": repeated("a<tr>b", "<table>"),
    "captions": repeated("<caption>a", "<table>"),
    "lists within each other": nested("<ul><li>a", "</ul>", "", ""),
    "lines within many elements": lambda size: size // 40 * b"<div>" + size // 8 * b"a<br>",
    "names that no element before has": numbered("<n#>a"),
    "names of spaces": numbered('<p xmlns:a#="b">a'),
    "forms": repeated("<form><button>a"),
    "spaces that do not break": repeated("&nbsp;", "<p>a", "b"),
}
DEEP = ("div", "p", "span", "b", "a", "li", "blockquote", "section", "pre", "label", "font", "h1", "button", "q")
SHAPES |= {f"{tag} within each other": nested(f"<{tag}>a", f"b</{tag}>", "", "") for tag in DEEP}
PAGE = (
    "<h1>Heat</h1> <p>One <b>warm</b> <i>day</i>,<br> or two.</p><ul><li>a<li>b<ol><li>c</ol></ul>"
    "<table><tr><th>name<th>degrees<tr><td>sun<td>5,772<br>kelvin<tr><td><table><tr><td>in<td>side</table></table>"
    "<pre>x\n  y </pre>end" + "<span>word </span>" * 2_000
)


@pytest.mark.parametrize("name", SHAPES)
def test_ten_times_the_page_takes_ten_times_the_time(name: str) -> None:
    pages = [SHAPES[name](size).decode() for size in (10_000, 100_000)]
    assert not is_superlinear(*(partial(_read, page) for page in pages))


def _read(page: str) -> None:
    with suppress(BadLine):  # without text
        documents.html_text(page)


def test_the_text_of_usual_pages_is_that_of_inscriptis() -> None:
    assert html_layout.text_of(PAGE) == inscriptis.get_text(PAGE, ParserConfig(css=CSS_PROFILES["strict"]))


def test_comments_and_attributes_leave_the_text_that_of_inscriptis() -> None:
    page = (
        '<html lang="en"><body class="a"><!-- a --><p style="white-space: pre">a  b<!-- c -->d</p>e<!-- f --> g'
        '<div style="display: none">h</div><table border="1"><tr><td align="right" valign="bottom">i<td>j<br>k</table>'
    )

    assert html_layout.text_of(page) == inscriptis.get_text(page, ParserConfig(css=CSS_PROFILES["strict"]))


def test_the_text_of_elements_beyond_the_depth_stays_in_its_order() -> None:
    depth = html_layout.MAX_DEPTH + 9
    page = (
        "".join(f"<b>{n} " for n in range(depth)) + "".join(f"</b>{n} " for n in range(depth)) + "<script>no</script>"
    )
    expected = " ".join(map(str, [*range(depth), *range(depth)]))

    assert documents.html_text(page) == expected


def test_elements_in_a_block_are_kept_in_parts_of_limited_length() -> None:
    block = html_layout.PartedBlock(0, Prefix())
    for _number in range(5_000):
        block.merge("word ", WhiteSpace.normal)
        assert len(block._content) < html_layout.PART_CHARACTERS

    assert block.content == " ".join(["word"] * 5_000)


def test_cells_of_a_table_that_would_be_mostly_padding_keep_their_text() -> None:
    lines = documents.html_text("<table><tr><td>" + "a" * 9_000 + "<td>b" + "<tr><td>c<td>d" * 100).split("\n")

    assert lines == ["a" * 9_000 + "  b", *["c  d"] * 100]


def test_ten_times_the_list_of_what_is_encrypted_takes_ten_times_the_time(tmp_path: Path) -> None:
    works = []
    for size in (10_000, 100_000):
        words = "CipherReference " * (size // 16)
        path = tmp_path / str(size)
        path.write_bytes(epub(["<p>a</p>"], ("META-INF/encryption.xml", f"<encryption>{words}</encryption>")))
        works.append(partial(documents.epub_text, path))

    assert not is_superlinear(*works)
