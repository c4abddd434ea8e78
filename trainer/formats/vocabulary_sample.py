"""A sample of the tokens of a vocabulary as text. Standard library only.

`python -m trainer.formats.vocabulary_sample TOKENIZER.json` prints it as {"tokens": [...]}.
"""

import json
import re
import sys
from pathlib import Path

from trainer.formats import jsonlines

NUM_TOKENS = 240
MAX_CHARACTERS = 40  # of a token
_BYTE = re.compile("<0x[0-9A-F]{2}>")


def sample(path: Path) -> list[str]:
    """Tokens of a tokenizer.json that are text, evenly spread from the first to the last."""
    state = json.loads(path.read_bytes())
    vocab = state["model"]["vocab"]
    tokens: dict[str, int] = vocab if isinstance(vocab, dict) else {token: n for n, (token, _score) in enumerate(vocab)}
    ordered = sorted((token for token in tokens if len(token) > 1), key=lambda token: tokens[token])
    step = max(1, len(ordered) // NUM_TOKENS)
    read = _readable if "ByteLevel" in json.dumps(state.get("decoder")) else _spelled
    readable = (read(token)[:MAX_CHARACTERS] for token in ordered[::step])
    return [token for token in readable if token][:NUM_TOKENS]


def _spelled(token: str) -> str:
    return "" if _BYTE.fullmatch(token) else token.replace("\u2581", " ").encode(errors="ignore").decode()


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

if __name__ == "__main__":
    jsonlines.write(sys.stdout, {"tokens": sample(Path(sys.argv[1]))})
