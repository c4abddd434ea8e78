"""The trash."""

from collections.abc import Iterator
from datetime import datetime

from .shapes import Shape
from .transport import Transport, address


class TrashedInfo(Shape):
    """Something that was deleted, and can be restored until `ends_at`. `kind` is corpus, model, tokenizer, checkpoint
    or job; the name of a checkpoint is that of its job.
    """

    id: str
    kind: str
    name: str
    step: int | None
    num_bytes: int
    deleted_at: datetime
    ends_at: datetime


class Trash:
    """What was deleted in the last seven days."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self, limit: int = 50) -> Iterator[TrashedInfo]:
        """What is in your trash, the last deleted first, read in pages of `limit`."""
        return self._transport.pages(TrashedInfo, "/trash", limit=limit)

    def restore(self, trashed_id: str) -> None:
        """Take a corpus, base model, tokenizer, checkpoint or job out of the trash."""
        self._transport.command(address("trash", trashed_id, "restore"))

    def delete(self, trashed_id: str) -> None:
        """Delete something in the trash for good, with its files."""
        self._transport.delete(address("trash", trashed_id))

    def empty(self) -> None:
        """Delete everything in your trash for good."""
        self._transport.delete("/trash")
