"""Text of HTML by inscriptis, in time and memory in proportion to the page: its blocks copy their text for each element
within them, and its tables pad each cell to the widest of its column and the tallest of its row. The tree that it reads
is built here, as that of lxml looks at all attributes of an element for each further one.
"""

import sys
from collections.abc import Iterator

from inscriptis.css_profiles import CSS_PROFILES
from inscriptis.html_engine import Inscriptis
from inscriptis.html_properties import WhiteSpace
from inscriptis.model.canvas import Canvas
from inscriptis.model.canvas.block import Block
from inscriptis.model.canvas.prefix import Prefix
from inscriptis.model.config import ParserConfig
from inscriptis.model.html_document_state import HtmlDocumentState
from inscriptis.model.table import Table
from inscriptis.model.tag import CustomHtmlTagHandlerMapping
from inscriptis.model.tag.table_tag import table_start_handler, td_start_handler
from lxml import etree

ATTRIBUTES = ("style", "align", "valign")  # all that the layout depends on
MAX_DEPTH = 250  # of elements within each other
PART_CHARACTERS = 4_096  # of a block, to which text is appended
MAX_PADDING = 20  # times the characters of a table that its padded lines may have
SMALL_TABLE = 4_096  # characters that any table may have


class Element:
    """An element as inscriptis reads it."""

    __slots__ = ("attrib", "children", "tag", "tail", "text")

    def __init__(self, tag: str, attributes: dict[str, str]) -> None:
        self.tag, self.attrib = sys.intern(tag), attributes
        self.children: list[Element] = []
        self.text = self.tail = ""

    def __iter__(self) -> Iterator["Element"]:
        return iter(self.children)


class TreeBuilder:
    """Builds the tree of a page from what the parser finds, without comments. Elements beyond MAX_DEPTH become children
    of the deepest that has any, one after the other.
    """

    def __init__(self) -> None:
        self._root: Element | None = None
        self._open: list[Element] = []
        self._texts: list[str] = []
        self._closed: Element | None = None  # whose tail the text belongs to; None: it belongs to the last open one

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        """An element begins."""
        self._flush()
        element = Element(tag, {name: attributes[name] for name in ATTRIBUTES if name in attributes})
        if self._open:
            self._open[min(len(self._open), MAX_DEPTH) - 1].children.append(element)
        elif self._root is None:
            self._root = element
        self._open.append(element)
        self._closed = None

    def end(self, _tag: str) -> None:
        """The element that began last ends."""
        if self._closed is None or len(self._open) <= MAX_DEPTH:
            self._flush()
            self._closed = self._open[-1]
        self._open.pop()

    def data(self, text: str) -> None:
        """A part of a text."""
        self._texts.append(text)

    def _flush(self) -> None:
        text = "".join(self._texts)
        self._texts = []
        if self._closed is not None:
            self._closed.tail = text
        elif self._open:
            self._open[-1].text = text

    def close(self) -> Element | None:
        """The root."""
        return self._root


class PartedBlock(Block):  # type: ignore[misc]
    """A block that keeps its text in parts."""

    _content: str

    def __init__(self, idx: int, prefix: Prefix) -> None:
        super().__init__(idx, prefix)
        self._parts: list[str] = []

    def merge(self, text: str, whitespace: WhiteSpace) -> None:
        """Append a text. The prefix of the line was used by the first one."""
        super().merge(text, whitespace)
        if len(self._content) >= PART_CHARACTERS:
            self._parts.append(self._content)
            self._content = ""

    @property
    def content(self) -> str:
        """The whole text, which is asked for once, at the end of the block."""
        if self._parts:
            self._content = "".join((*self._parts, self._content))
            self._parts = []
        return str(super().content)

    def new_block(self) -> Block:
        """The block that follows."""
        self.prefix.consumed = False
        return PartedBlock(self.idx + 1, self.prefix)


class BoundedTable(Table):  # type: ignore[misc]
    """A table whose cells are padded unless that would be most of it."""

    def _set_column_width(self) -> None:
        widths = self._column_widths()
        for row in self.rows:
            for cell, width in zip(row.columns, widths, strict=False):
                cell.width = width

    def _column_widths(self) -> list[int]:
        widths: list[int] = []
        for row in self.rows:
            for column, cell in enumerate(row.columns):
                if column == len(widths):
                    widths.append(0)
                widths[column] = max(widths[column], cell.width)
        return widths

    def get_text(self) -> str:
        """The lines of the table."""
        heights = [max((cell.normalize_blocks() for cell in row.columns), default=0) for row in self.rows]
        ends = [0]  # of the columns, in a padded line
        for width in self._column_widths():
            ends.append(ends[-1] + width + len(self.cell_separator))
        num_padded = sum(height * ends[len(row)] for height, row in zip(heights, self.rows, strict=True))
        cells = [cell for row in self.rows for cell in row.columns]
        num_characters = sum(1 + len(line) - line.count(" ") for cell in cells for line in cell.blocks)
        if num_padded <= max(SMALL_TABLE, MAX_PADDING * num_characters):
            return str(super().get_text())
        lines = []
        for height, row in zip(heights, self.rows, strict=True):
            separator = self.cell_separator if height == 1 else "\n"
            lines.append(separator.join("\n".join(cell.blocks) for cell in row.columns))
        return "\n".join(lines) + "\n"


def _keep_in_parts(canvas: Canvas) -> None:
    if canvas.current_block.is_empty():
        canvas.current_block = PartedBlock(canvas.current_block.idx, canvas.current_block.prefix)


def _html(state: HtmlDocumentState, _attributes: dict[str, str]) -> None:
    _keep_in_parts(state.tags[-1].canvas)


def _table(state: HtmlDocumentState, attributes: dict[str, str]) -> None:
    table_start_handler(state, attributes)
    _keep_in_parts(state.tags[-1].canvas)
    state.current_table[-1] = BoundedTable(state.current_table[-1].left_margin_len, state.config.table_cell_separator)


def _cell(state: HtmlDocumentState, attributes: dict[str, str]) -> None:
    td_start_handler(state, attributes)
    if state.current_table:
        _keep_in_parts(state.tags[-1].canvas)


def text_of(markup: str) -> str:
    """The text of a page that begins with its markup."""
    handlers = CustomHtmlTagHandlerMapping({"html": _html, "table": _table, "td": _cell, "th": _cell}, {})
    config = ParserConfig(css=CSS_PROFILES["strict"], custom_html_tag_handler_mapping=handlers)
    root = etree.fromstring(markup, etree.HTMLParser(target=TreeBuilder()))
    return "" if root is None else str(Inscriptis(root, config).get_text())
