"""Text of HTML by inscriptis, in time and memory in proportion to the page: its blocks copy their text for each element
within them, and its tables pad each cell to the widest of its column and the tallest of its row.
"""

import inscriptis
from inscriptis.css_profiles import CSS_PROFILES
from inscriptis.html_properties import WhiteSpace
from inscriptis.model.canvas import Canvas
from inscriptis.model.canvas.block import Block
from inscriptis.model.canvas.prefix import Prefix
from inscriptis.model.config import ParserConfig
from inscriptis.model.html_document_state import HtmlDocumentState
from inscriptis.model.table import Table
from inscriptis.model.tag import CustomHtmlTagHandlerMapping
from inscriptis.model.tag.table_tag import table_start_handler, td_start_handler

PART_CHARACTERS = 4_096  # of a block, to which text is appended
MAX_PADDING = 20  # times the characters of a table that its padded lines may have
SMALL_TABLE = 4_096  # characters that any table may have


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
    return str(inscriptis.get_text(markup, config))
