"""Lineage: what comes of what."""

from .shapes import Shape
from .transport import Transport, address


class LineageItemInfo(Shape):
    """A corpus, model or other thing; `detail` tells it from others of its name."""

    id: str
    kind: str
    name: str
    detail: str
    href: str


class LineageLinkInfo(Shape):
    """`target` came of `source`; both are ids of items."""

    source: str
    target: str


class LineageInfo(Shape):
    """What a subject comes from and what came of it, sources before what came of them."""

    subject: str
    items: list[LineageItemInfo]
    links: list[LineageLinkInfo]
    num_left_out: int


class Lineage:
    """What corpora, models and other things come from, and what came of them."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def get(self, item_id: str) -> LineageInfo:
        """What a corpus, tokenizer, model, job, checkpoint, evaluation, export or deployment comes from, and what came
        of it.
        """
        return self._transport.get(LineageInfo, address("lineage", item_id))
