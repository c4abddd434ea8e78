"""The text of documents: HTML, PDF, Word and EPUB, by libraries, each imported by the first file that needs it."""

import gc
import posixpath
import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.parsers import expat

from worker.sandbox.corpus.containers import BROKEN, COPY_BYTES, check_zip
from worker.sandbox.corpus.fields import BadLine

MAX_HTML_BYTES = 64 << 20
MAX_OPEN_FIELDS = 1_000  # of a Word document, within each other; mammoth looks at all for each run of text
MAX_TAG_BYTES = 4 << 20  # of a Word document; Python's parser reads a tag from its beginning for each 16 KiB more
SHOWN_PAGES = 20  # numbers of pages without text in a remark

_OLE = bytes.fromhex("d0cf11e0a1b11ae1")  # older Office files, and encrypted ones
_ENCRYPTED = "EncryptedPackage".encode("utf-16-le")
_BROKEN_WORD = re.compile("[\x02\ufffe]\r?\n?")  # PDFium's mark of a hyphen at the end of a line
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_XML_ENCODING = re.compile(rb"""(?:encoding|charset)\s*=\s*["']?([A-Za-z0-9_.:-]{2,40})""")

_XML_HEAD = re.compile(r"<\?xml[^>]*\?>")

Remark = Callable[..., None]


def storable(text: str) -> str:
    """The text with U+FFFD for what no corpus may hold, with LF, and without white space at both ends."""
    return _UNSTORABLE.sub("\ufffd", text.replace("\r\n", "\n").replace("\r", "\n")).strip()


# ---- HTML -----------------------------------------------------------------------------------------------------------


def html_text(markup: str) -> str:
    """All visible text of a page, in lines and paragraphs as a browser shows it. Raises BadLine."""
    from lxml.etree import LxmlError

    from worker.sandbox.corpus import html_layout

    if len(markup) > MAX_HTML_BYTES:
        raise BadLine("file_too_large_to_read", limit_bytes=MAX_HTML_BYTES)
    markup = markup.strip().removeprefix("\ufeff").lstrip()
    if not markup:
        raise BadLine("file_empty")
    head = _XML_HEAD.match(markup)
    markup = markup[head.end() :] if head else markup
    try:
        text = html_layout.text_of(markup)
    except (LxmlError, RecursionError, ValueError, AttributeError, IndexError, TypeError) as error:
        raise BadLine("file_broken", why=str(error)[:200] or type(error).__name__) from None
    text = "\n".join(line.rstrip(" \t") for line in storable(text).split("\n"))  # cells of tables end in blanks
    if not text:
        raise BadLine("no_text")
    return text


def declared_encoding(start: bytes) -> str | None:
    """The encoding that the beginning of an HTML or XML file declares; None if it declares none."""
    match = _XML_ENCODING.search(start)
    return match[1].decode("ascii").lower() if match else None


# ---- PDF ------------------------------------------------------------------------------------------------------------


def pdf_text(path: Path, remark: Remark, progress: Callable[[int], None]) -> str:
    """The text of all pages, a blank line between them. `remark` is told of pages without text. Raises BadLine."""
    import pypdfium2

    try:
        pdf = pypdfium2.PdfDocument(path)
    except pypdfium2.PdfiumError as error:
        if "password" in str(error).lower():
            raise BadLine("file_encrypted") from None
        raise BadLine("file_broken", why=str(error)[:200]) from None
    pages: list[str] = []
    empty: list[int] = []
    with pdf:
        for number in range(len(pdf)):
            progress(0)
            text = _page_text(pdf, number)
            if text:
                pages.append(text)
            else:
                empty.append(number + 1)
    if not pages:
        raise BadLine("pdf_without_text", pages=len(empty))
    if empty:
        numbers = ", ".join(map(str, empty[:SHOWN_PAGES])) + (", …" if len(empty) > SHOWN_PAGES else "")
        remark("pages_without_text", pages=len(empty), numbers=numbers)
    return "\n\n".join(pages)


def _page_text(pdf: Any, number: int) -> str:
    import pypdfium2

    try:
        page = pdf[number]
        textpage = page.get_textpage()
        text = textpage.get_text_range()
        textpage.close()
        page.close()
    except pypdfium2.PdfiumError:
        return ""
    return storable(_BROKEN_WORD.sub("", text))


# ---- Word -----------------------------------------------------------------------------------------------------------


def check_office(path: Path) -> None:
    """Whether an Office file is a zip file that may be opened. Raises BadLine for encrypted and older ones."""
    with path.open("rb") as file:
        if file.read(len(_OLE)) == _OLE:
            raise BadLine("file_encrypted" if _ENCRYPTED in file.read(1 << 20) else "office_old")
    check_zip(path)


def docx_text(path: Path) -> str:
    """The text of a Word document with its tables, footnotes and lists. Raises BadLine."""
    import mammoth

    check_office(path)
    try:
        _check_word(path)
        with path.open("rb") as file, _no_collector():
            no_image = mammoth.images.img_element(lambda _image: {"src": ""})
            markup = mammoth.convert_to_html(file, convert_image=no_image, external_file_access=False).value
    except (MemoryError, BadLine):
        raise
    except Exception as error:  # whatever XML can be wrong with
        raise BadLine("file_broken", why=(str(error) or type(error).__name__)[:200]) from None
    if not markup.strip():
        raise BadLine("no_text")
    return html_text(markup)


@contextmanager
def _no_collector() -> Iterator[None]:
    """A block whose objects live until its end: the collector would look at all of them again and again."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _check_word(path: Path) -> None:
    """Refuse a Word document that mammoth would read in quadratic time. Raises BadLine."""
    num_open = 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal num_open
        if name.endswith(" fldChar"):
            kinds = [value for key, value in attributes.items() if key.endswith(" fldCharType")]
            num_open = max(0, num_open + kinds.count("begin") - kinds.count("end"))
            if num_open > MAX_OPEN_FIELDS:
                raise BadLine("file_broken", why=f"more than {MAX_OPEN_FIELDS:,} fields within each other")

    with zipfile.ZipFile(path) as document:
        for info in document.infolist():
            num_open = num_bytes = 0
            parser = expat.ParserCreate(namespace_separator=" ")
            parser.StartElementHandler = start
            with suppress(expat.ExpatError, *BROKEN), document.open(info) as part:  # mammoth names what matters
                while data := part.read(COPY_BYTES):
                    parser.Parse(data)
                    num_bytes += len(data)
                    if num_bytes - parser.CurrentByteIndex > MAX_TAG_BYTES:
                        raise BadLine("file_broken", why=f"a tag of more than {MAX_TAG_BYTES >> 20} MiB")


# ---- EPUB -----------------------------------------------------------------------------------------------------------


def epub_text(path: Path) -> str:
    """The text of all chapters in their order. Raises BadLine."""
    from lxml.etree import LxmlError

    check_zip(path)
    try:
        with zipfile.ZipFile(path) as book:
            names = set(book.namelist())
            if "META-INF/rights.xml" in names or _is_protected(book, names):
                raise BadLine("file_encrypted")
            in_order = dict.fromkeys(_chapters(book))  # each once, however often it is listed
            chapters = [_chapter(book.read(name)) for name in in_order if name in names]
    except (*BROKEN, LxmlError, KeyError, AttributeError) as error:
        raise BadLine("file_broken", why=(str(error) or type(error).__name__)[:200]) from None
    text = "\n\n".join(filter(None, chapters))
    if not text:
        raise BadLine("no_text")
    return text


def _is_protected(book: zipfile.ZipFile, names: set[str]) -> bool:
    """Whether more than fonts is encrypted."""
    if "META-INF/encryption.xml" not in names:
        return False
    references = _xml(book.read("META-INF/encryption.xml")).iter("{*}CipherReference")
    fonts = (".otf", ".ttf", ".woff", ".woff2")
    return any(not entry.get("URI", "").lower().endswith(fonts) for entry in references)


def _chapters(book: zipfile.ZipFile) -> Iterator[str]:
    package = _xml(book.read("META-INF/container.xml")).find(".//{*}rootfile").get("full-path")
    root = _xml(book.read(package))
    items = {item.get("id"): item for item in root.iterfind(".//{*}manifest/{*}item")}
    for entry in root.iterfind(".//{*}spine/{*}itemref"):
        item = items.get(entry.get("idref"))
        if item is not None and "html" in item.get("media-type", ""):
            yield posixpath.normpath(posixpath.join(posixpath.dirname(package), unquote(item.get("href", ""))))


def _xml(data: bytes) -> Any:
    from lxml import etree

    return etree.fromstring(data, etree.XMLParser(resolve_entities=False, no_network=True))


def _chapter(data: bytes) -> str:
    encoding = declared_encoding(data[:1024]) or "utf-8"
    try:
        markup = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else encoding, "replace")
        return html_text(markup)
    except LookupError:
        raise BadLine("file_broken", why=encoding) from None
    except BadLine as bad:
        if bad.problem["code"] in ("no_text", "file_empty"):  # a cover, or a page with a picture
            return ""
        raise
