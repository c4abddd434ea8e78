"""What is shared with others."""

from collections.abc import Sequence

from .shapes import Shape
from .transport import Transport, address


class SharingInfo(Shape):
    """With whom something is shared: with everyone of the installation, and with users, by their names."""

    everyone: bool
    users: list[str]


class Sharing:
    """Who else sees and uses your corpora, base models, tokenizers, jobs and checkpoints, by their IDs."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def get(self, shared_id: str) -> SharingInfo:
        """With whom you share something."""
        return self._transport.get(SharingInfo, address("shares", shared_id))

    def change(self, shared_id: str, *, users: Sequence[str] = (), everyone: bool = False) -> SharingInfo:
        """Share something with these users and no others, read-only: a job with its checkpoints, a corpus with all its
        versions. Without arguments it is no longer shared.
        """
        body = {"everyone": everyone, "users": list(users)}
        return self._transport.put(SharingInfo, address("shares", shared_id), body)
