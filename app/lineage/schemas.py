"""Response bodies of lineage."""

from typing import Literal

from pydantic import BaseModel, Field

ItemKind = Literal["corpus", "tokenizer", "model", "job", "checkpoint", "evaluation", "export", "deployment"]


class LineageItem(BaseModel):
    """A corpus, model or other thing that came of others, or that others came of."""

    id: str
    kind: ItemKind
    name: str
    detail: str = Field(description="What tells it from others of its name, such as its version or step.")
    href: str = Field(description="Path of its page.")


class LineageLink(BaseModel):
    """`target` came of `source`; both are ids of items."""

    source: str
    target: str


class LineageAnswer(BaseModel):
    """What a subject comes from and what came of it, sources before what came of them."""

    subject: str
    items: list[LineageItem]
    links: list[LineageLink]
    num_left_out: int = Field(description="Items that came of these directly, beyond the limit.")
