"""Reads the vocabulary of a tokenizer for display. Standard library only."""

import json
import re
from functools import lru_cache
from pathlib import Path

from app.core import storage

VOCABULARY_SAMPLE = 240
MAX_CHARACTERS = 40  # of a token that is shown
MAX_FILE_BYTES = 16 << 20  # a larger file takes the web process too much time and memory
_BYTE = re.compile("<0x[0-9A-F]{2}>")


def sample(tokenizer_id: str) -> list[str] | None:
    """A sample of the tokens of a vocabulary as text, evenly spread from the first to the last.

    None if the file is larger than MAX_FILE_BYTES.
    """
    path = storage.tokenizer(tokenizer_id) / "tokenizer.json"
    if not path.exists():
        return []
    return _sample(path) if path.stat().st_size <= MAX_FILE_BYTES else None


@lru_cache(maxsize=16)
def _sample(path: Path) -> list[str]:
    state = json.loads(path.read_text(encoding="utf-8"))
    vocab = state["model"]["vocab"]
    tokens: dict[str, int] = vocab if isinstance(vocab, dict) else {token: n for n, (token, _score) in enumerate(vocab)}
    ordered = sorted((token for token in tokens if len(token) > 1), key=lambda token: tokens[token])
    step = max(1, len(ordered) // VOCABULARY_SAMPLE)
    read = _readable if "ByteLevel" in json.dumps(state.get("decoder")) else _spelled
    readable = (read(token)[:MAX_CHARACTERS] for token in ordered[::step])
    return [token for token in readable if token][:VOCABULARY_SAMPLE]


def _spelled(token: str) -> str:
    return "" if _BYTE.fullmatch(token) else token.replace("\u2581", " ")


def _readable(token: str) -> str:
    # Byte-level BPE writes each byte as one character; a token may hold only part of a Chinese one.
    try:
        return bytes(_BYTES[character] for character in token).decode()
    except (KeyError, UnicodeDecodeError):
        return ""


def _byte_of_character() -> dict[str, int]:
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return {chr(byte): byte for byte in visible} | {chr(256 + n): byte for n, byte in enumerate(hidden)}


_BYTES = _byte_of_character()
