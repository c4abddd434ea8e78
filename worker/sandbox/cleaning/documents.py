"""Documents of parsed corpora as the steps of cleaning see them, with the texts in a record."""

import json
import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import xxhash

Record = dict[str, Any]
Content = str | Record

# Fields of records, of whatever kind, that hold texts, messages or lists of texts (trainer/formats/corpus_kinds.py).
_FIELDS = frozenset(
    ("text", "messages", "prompt", "completion", "chosen", "rejected", "source", "target", "question", "choices")
)
_MESSAGE_FIELDS = ("content", "reasoning_content")
# Scripts without spaces between words: kana, ideographs, hangul, Thai and Lao. There a word is a character.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\u0e00-\u0eff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")
_INDEX_BYTES = 1 << 16


class CorpusDocument:
    """A document of the kind text, or a record of another kind. `number` is its place in the parent, from 0."""

    __slots__ = ("content", "number")

    def __init__(self, number: int, content: Content) -> None:
        self.number, self.content = number, content

    @property
    def texts(self) -> list[str]:
        """All texts of it, in their order."""
        if isinstance(self.content, str):
            return [self.content]
        texts: list[str] = []

        def collect(text: str) -> str:
            texts.append(text)
            return text

        _edited(self.content, collect)
        return texts

    @property
    def text(self) -> str:
        """All texts of it, a line each."""
        return self.content if isinstance(self.content, str) else "\n".join(self.texts)

    def edited(self, edit: Callable[[str], str]) -> "CorpusDocument":
        """The same document with each of its texts changed."""
        content = edit(self.content) if isinstance(self.content, str) else _edited(self.content, edit)
        return CorpusDocument(self.number, content)


def _edited(record: Record, edit: Callable[[str], str]) -> Record:
    return {key: _edited_value(value, edit) if key in _FIELDS else value for key, value in record.items()}


def _edited_value(value: Any, edit: Callable[[str], str]) -> Any:
    if type(value) is str:
        return edit(value)
    if type(value) is list:
        return [_edited_message(item, edit) if type(item) is dict else _edited_value(item, edit) for item in value]
    return value


def _edited_message(message: Record, edit: Callable[[str], str]) -> Record:
    edited: Record = {key: edit(message[key]) for key in _MESSAGE_FIELDS if type(message.get(key)) is str}
    if "tool_calls" in message:
        edited["tool_calls"] = [_edited_call(call, edit) for call in message["tool_calls"]]
    return {**message, **edited}


def _edited_call(call: Record, edit: Callable[[str], str]) -> Record:
    function = call.get("function", {})
    return {**call, "function": {**function, "arguments": _edited_argument(function.get("arguments"), edit)}}


def _edited_argument(value: Any, edit: Callable[[str], str]) -> Any:
    if type(value) is dict:
        return {key: _edited_argument(part, edit) for key, part in value.items()}
    if type(value) is list:
        return [_edited_argument(part, edit) for part in value]
    return edit(value) if type(value) is str else value


def text_hash(text: str) -> int:
    """64 bits of a hash (XXH3)."""
    return int(xxhash.xxh3_64_intdigest(text.encode()))


def words(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation."""
    return _WORD.findall(text.lower())


def read_documents(
    directory: Path,
    kind: str,
    progress: Callable[[int], None],
    *,
    limit: int | None = None,
    max_bytes: int | None = None,
) -> Iterator[CorpusDocument]:
    """The documents of a parsed corpus in their order; the first `limit`, or those within `max_bytes`, if given.

    Reports the bytes of each to `progress`.
    """
    with (directory / "index.bin").open("rb") as index, (directory / "text.bin").open("rb") as file:
        begin = number = 0
        while ends := index.read(_INDEX_BYTES):
            for (end,) in struct.iter_unpack("<Q", ends):
                if number == limit or (max_bytes is not None and number and end > max_bytes):
                    return
                text = file.read(end - begin).decode()
                yield CorpusDocument(number, text if kind == "text" else json.loads(text))
                progress(end - begin)
                begin, number = end, number + 1
