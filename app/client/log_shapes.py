"""The answers about the log of a job."""

from .shapes import Shape


class LogInfo(Shape):
    """A piece of a job's log; `next_offset` is where the next one begins."""

    text: str
    offset: int
    next_offset: int
    size: int


class LogLineInfo(Shape):
    """A line of a job's log: the offset of its first byte, and its level: info, warning or error."""

    offset: int
    text: str
    level: str
