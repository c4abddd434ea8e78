"""Strict JSON parsing by RFC 8259: Python's parser without its extensions. Standard library only."""

import json
import math
from collections import Counter
from typing import Any, NoReturn


class DuplicateKey(ValueError):
    """An object has the same `key` more than once."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


class InvalidConstant(ValueError):
    """The text contains NaN, Infinity or -Infinity, which Python's parser accepts but JSON does not allow."""

    def __init__(self, word: str) -> None:
        super().__init__(word)
        self.word = word


class InfiniteNumber(ValueError):
    """The text contains a number too large for a float, which Python's parser turns into infinity."""

    def __init__(self, word: str) -> None:
        super().__init__(word)
        self.word = word


def _finite_float(word: str) -> float:
    number = float(word)
    if math.isinf(number):
        raise InfiniteNumber(word[:40])
    return number


def _refuse_constant(word: str) -> NoReturn:
    raise InvalidConstant(word)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) != len(pairs):
        counts = Counter(key for key, _value in pairs)
        raise DuplicateKey(next(key for key, number in counts.items() if number > 1))
    return unique


_decoder = json.JSONDecoder(parse_float=_finite_float, parse_constant=_refuse_constant, object_pairs_hook=_unique_keys)


def loads(text: str | bytes) -> Any:
    """Parse a JSON text, or bytes in UTF-8, UTF-16 or UTF-32.

    Raises DuplicateKey, InvalidConstant, InfiniteNumber, json.JSONDecodeError and UnicodeDecodeError, ValueError for a
    number with thousands of digits, and RecursionError for values that are nested too deeply.
    """
    if isinstance(text, bytes):
        text = text.decode(json.detect_encoding(text), "surrogatepass")
    return _decoder.decode(text)
