"""Forms with files (multipart/form-data), read as a stream: of a file never more than one piece is in memory."""

from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.core.errors import PanelError
from app.core.i18n import _

MAX_PARTS = 100
MAX_FIELD_BYTES = 4096  # of a part that is no file
MAX_HEADERS = 8  # of a part
MAX_HEADER_BYTES = 4096


@dataclass(frozen=True)
class FormPart:
    """A field of a form, or a file if it has a `filename`. Its `pieces` are to be read before the next part."""

    name: str
    filename: str | None
    pieces: AsyncIterator[bytes]

    async def text(self) -> str:
        """The value of a field. Raises PanelError (413) if it is longer than MAX_FIELD_BYTES."""
        value = b""
        async for piece in self.pieces:
            value += piece
            if len(value) > MAX_FIELD_BYTES:
                raise _too_large()
        return value.decode(errors="replace")


async def parts(request: Request, max_bytes: int) -> AsyncIterator[FormPart]:
    """The parts of a form in the order they are sent; none of a body of another type.

    Raises PanelError: 413 for a body over `max_bytes`, whatever length was declared, and for too many parts or too long
    fields and headers; 400 for a body that is no form or ends before its end.
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data":
        return
    events = _Events(request.stream(), options.get(b"boundary", b""), max_bytes)
    while not await events.is_at_end():
        part = FormPart(*await events.heading(), events.pieces())
        yield part
        async for _piece in part.pieces:  # what the reader left
            pass


def _too_large() -> PanelError:
    return PanelError(413, "form_too_large", _("The form is too large. Upload fewer files at once."))


def _broken() -> PanelError:
    return PanelError(400, "form_broken", _("The form arrived incomplete; nothing was saved. Send it again."))


class _Events:
    """What a parser of the library finds in a body, in order: ("part", headers), ("data", piece), ("end", …)."""

    def __init__(self, body: AsyncIterator[bytes], boundary: bytes, max_bytes: int) -> None:
        self._body, self._max_bytes = body, max_bytes
        self._queue: deque[tuple[str, bytes]] = deque()
        self._num_bytes = self._num_parts = 0
        self._name = self._value = b""  # of the header that is being read
        self._disposition = b""
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin_part,
                    "on_header_field": self._add_to_name,
                    "on_header_value": self._add_to_value,
                    "on_header_end": self._end_header,
                    "on_headers_finished": lambda: self._queue.append(("part", self._disposition)),
                    "on_part_data": lambda data, start, end: self._queue.append(("data", data[start:end])),
                    "on_part_end": lambda: self._queue.append(("part_end", b"")),
                    "on_end": lambda: self._queue.append(("end", b"")),
                },
                max_header_count=MAX_HEADERS,
                max_header_size=MAX_HEADER_BYTES,
            )
        except FormParserError:  # a boundary that is too long
            raise _broken() from None

    def _begin_part(self) -> None:
        self._num_parts += 1
        self._disposition = b""

    def _add_to_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _add_to_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._disposition = self._value
        self._name = self._value = b""

    async def is_at_end(self) -> bool:
        """Whether the last part has ended."""
        return (await self._peek())[0] == "end"

    async def heading(self) -> tuple[str, str | None]:
        """The name of the next part, and that of its file."""
        await self._peek()
        _kind, disposition = self._queue.popleft()
        options = parse_options_header(disposition)[1]
        if b"name" not in options:
            raise _broken()
        name, filename = options[b"name"].decode(errors="replace"), options.get(b"filename")
        return name, None if filename is None else filename.decode(errors="replace")

    async def pieces(self) -> AsyncIterator[bytes]:
        """The data of a part up to its end."""
        while (await self._peek())[0] == "data":
            yield self._queue.popleft()[1]
        if self._queue[0][0] == "part_end":
            self._queue.popleft()

    async def _peek(self) -> tuple[str, bytes]:
        """The next event, after as much of the body as it takes."""
        while not self._queue:
            chunk = await anext(self._body, None)
            if chunk is None:  # before the last boundary
                raise _broken()
            self._num_bytes += len(chunk)
            try:
                self._parser.write(chunk)
            except FormParserError:
                raise _broken() from None
            if self._num_bytes > self._max_bytes or self._num_parts > MAX_PARTS:
                raise _too_large()
        return self._queue[0]
