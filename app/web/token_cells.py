"""How tokens are drawn: those that only together make whole characters stand in one cell, beside these characters."""

import codecs
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

_ESCAPED_BYTE = re.compile(r"\\x([89a-f][0-9a-f])")


class ShownToken(Protocol):
    """A token with its bytes, in hexadecimal, if they are no text by themselves."""

    @property
    def bytes(self) -> str: ...


T = TypeVar("T", bound=ShownToken)


@dataclass(frozen=True)
class Cell(Generic[T]):
    """Tokens that are drawn together. `characters` are what they make; empty for one that is drawn by itself."""

    tokens: list[T]
    characters: str = ""


def token_cells(tokens: Iterable[T]) -> Iterator[Cell[T]]:
    """The cells of tokens, in their order."""
    group: list[T] = []
    for token in tokens:
        if token.bytes and _characters([*group, token]) is not None:
            group.append(token)
        else:
            yield from (Cell([one]) for one in group)
            group = [token] if token.bytes and _characters([token]) is not None else []
            if not group:
                yield Cell([token])
        characters = _characters(group) if group else ""
        if characters:
            yield Cell(group, characters)
            group = []
    yield from (Cell([one]) for one in group)


def _characters(tokens: Iterable[ShownToken]) -> str | None:
    """The characters that tokens make; empty if the last one is not whole yet, None if they can make none."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        text = decoder.decode(b"".join(bytes.fromhex(token.bytes) for token in tokens))
    except UnicodeDecodeError:
        return None
    return "" if decoder.getstate()[0] else text


def spaced_hex(text: str) -> str:
    """Bytes in hexadecimal for people: E5 BA 8A."""
    return bytes.fromhex(text).hex(" ").upper()


def named_bytes(text: str) -> str:
    """The text of a token, with bytes that form no character as vocabularies of single bytes name them: <0xE5>."""
    return _ESCAPED_BYTE.sub(lambda byte: f"<0x{byte[1].upper()}>", text)
