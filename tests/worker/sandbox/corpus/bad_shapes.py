"""Forty shapes of bad input, each of any size: what an upload may hold by accident or on purpose."""

from collections.abc import Callable

Shape = Callable[[int], bytes]  # about that many bytes

CHAT = '{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}'


def repeated(unit: str | bytes, before: str | bytes = b"", after: str | bytes = b"") -> Shape:
    """One unit over and over, between a beginning and an end."""
    start, middle, end = (part.encode() if isinstance(part, str) else part for part in (before, unit, after))
    return lambda size: start + middle * (size // len(middle)) + end


def numbered(unit: str, before: str = "", after: str = "") -> Shape:
    """A unit in which `#` is a number that grows, so that no two are the same."""

    def build(size: int) -> bytes:
        count = size // (len(unit) + 5)
        return "".join([before, *(unit.replace("#", f"{n:06}") for n in range(count)), after]).encode()

    return build


def nested(opening: str, closing: str, before: str, after: str) -> Shape:
    """As many openings as closings."""

    def build(size: int) -> bytes:
        depth = size // len(opening + closing)
        return (before + opening * depth + closing * depth + after).encode()

    return build


SHAPES: dict[str, Shape] = {
    # lines
    "bad lines": repeated("x\n"),
    "good and bad lines": repeated('{"text":"a"}\nx\n'),
    "bad lines that end in CR LF": repeated("{]\r\n"),
    "empty lines": repeated("\n"),
    "blanks": repeated(" "),
    "one endless line": repeated("a"),
    "one endless string": repeated("a", '{"text":"'),
    "lines that end in CR": repeated("text,label\r"),
    "form feeds": repeated("\f"),
    "documents of one character": repeated("a\f"),
    "records of one character": repeated('{"text":"a"}\n'),
    "half of a record": repeated('{"text":\n'),
    "lines that are too long": repeated('{"text":"' + 5_000 * "a" + '"}\n'),
    # JSON
    "brackets never closed": repeated("["),
    "braces never closed": repeated('{"a":'),
    "brackets as many as closed": nested("[", "]", '{"text":', "}"),
    "objects as many as closed": nested('{"a":', "}", '{"text":"a","b":', "1}"),
    "an array of numbers": repeated("1,", "[", "1]"),
    "an array of commas": repeated(",", "["),
    "arrays one after the other": repeated('[{"text":"a"}]'),
    "backslashes": repeated("\\", "["),
    "backslashes in a string": repeated("\\", '[{"text":"'),
    "one key again and again": repeated('"a":1,', "{", '"a":1}'),
    "a key twice after many others": numbered('"#":1,', "{", '"z":1,"z":1}'),
    "keys that no record before has": numbered('{"text":"a","#":1}\n'),
    "a long number": repeated("1", '{"text":', "}"),
    "a long fraction": repeated("1", '{"text":0.', "}"),
    "a long exponent": repeated("9", '{"text":1e', "}"),
    "escapes of lone surrogates": repeated("\\ud800", '{"text":"', '"}'),
    # kinds of records
    "labels that no record before has": numbered('{"text":"a","label":"#"}\n'),
    "a conversation without end": repeated(',{"role":"user","content":"a"}', CHAT, "]}"),
    "messages with keys of their own": numbered(',{"role":"user","content":"a","#":1}', CHAT, "]}"),
    "tools of all sorts": repeated('{"name":"a"},', CHAT + '],"tools":[', "1]}"),
    "a preference of equal texts": lambda size: (
        '{"chosen":"' + (size // 2) * "a" + '","rejected":"' + (size // 2) * "a" + 'b"}'
    ).encode(),
    "choices by number": numbered('"#",', '{"question":"a","answer":0,"choices":[', '"z","z"]}'),
    # tables
    "a first row of many columns": numbered("#,", "text,label,", "\na,b\n"),
    "a quote never closed": repeated("a,b\n", 'text,label\na,"'),
    "quotes": repeated('"', "text,label\n"),
    "cells within quotes, without an end of the row": repeated('"a\n",', "text,label\n"),
    "rows of other lengths": repeated("a\na,b,c\n", "text,label\n"),
    # bytes
    "byte-order marks": repeated("\ufeff"),
    "byte-order marks between records": repeated('{"text":"a"}\ufeff', "{}"),
    "a brace and blanks": repeated("} ", "{"),
    "NUL characters": repeated(b"\0"),
    "bytes that no encoding has": repeated(b"\xff\x81"),
    "a bad byte at the end": repeated("text,label\n", b"", b"\xff"),
    "encodings mixed": repeated("天\n".encode() + "天\n".encode("gb18030") + "é\n".encode("latin-1")),
    "UTF-16 with half a pair": repeated(b"\x00\xd8", b"\xff\xfe"),
}
