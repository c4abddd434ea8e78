"""The lines that web, scheduler and supervisors write to their logs: each of bounded length, and never forged."""

import logging
import re
from types import TracebackType

MAX_MESSAGE = 1_000  # characters
MAX_TRACEBACK = 6_000
_CONTROLS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")


class BoundedFormatter(logging.Formatter):
    """Messages may hold what a client sent: they are cut, and a line end in one begins no line that looks like ours."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The first line of an entry."""
        record.message = _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", record.message[:MAX_MESSAGE])
        return super().formatMessage(record)

    def formatException(
        self, ei: tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
    ) -> str:
        """The traceback of an entry, without its middle if it is long."""
        text = super().formatException(ei)
        half = MAX_TRACEBACK // 2
        return text if len(text) <= MAX_TRACEBACK else f"{text[:half]}\n  [...]\n{text[-half:]}"


def configure() -> None:
    """Log to standard error from level INFO on."""
    handler = logging.StreamHandler()
    handler.setFormatter(BoundedFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
