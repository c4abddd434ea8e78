"""Checks that a tokenizer stays within the budget of encoding: its rules must not multiply text, nor take long for it.

Exact where a rule says what it does, by probes where it cannot be known, such as the time of a regular expression. The
budget is enforced again whenever the tokenizer is used (trainer/data/tokenizer_process.py).
"""

import base64
import json
import struct
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from app.base_models import names
from trainer.data.encoding_budget import encoding_budget, enforced
from trainer.processes.child_limits import data_bytes
from worker.sandbox.model_import.safetensors_scan import InvalidModel

MAX_TOKENIZER_BYTES = 128 << 20  # the largest vocabularies take 40 MB
MAX_GROWTH = 100  # how many times longer rules may make a text; NFKC makes one character 18
MAX_TOKEN_CHARACTERS = 4_096
PROBE_CHARACTERS = 2_048
MAX_TOKENS_PER_BYTE = 16
ALPHABETS = (
    *("a", "A", " ", "\n", "0", ".", "-", "_", "ab ", "<|a|>", "aA1. \n"),
    *("é", "e\u0301", "山", "\u0e01", "\ufdfa", "😀"),
)
# Bytes of text per byte, at most, by Unicode's annex 15 (UTF-8).
_NORMAL_FORMS = {"NFC": 3, "NFD": 3, "NFKC": 11, "NFKD": 11, "Nmt": 1, "BertNormalizer": 3}
_CHILDREN = ("normalizers", "pretokenizers", "decoders")


def check_rules(directory: Path) -> None:
    """Check the rules and the vocabulary of tokenizer.json, if there is one. Raises InvalidModel."""
    path = directory / names.TOKENIZER
    if not path.is_file():
        return
    if path.stat().st_size > MAX_TOKENIZER_BYTES:
        raise InvalidModel("tokenizer_size", size=path.stat().st_size, limit=MAX_TOKENIZER_BYTES)
    try:
        state = json.loads(path.read_bytes())
        growths = {part: _growth(state.get(part)) for part in ("normalizer", "pre_tokenizer", "decoder")}
        longest = max(map(len, _tokens(state)), default=0)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, struct.error):
        raise InvalidModel("tokenizer_unreadable", why="tokenizer.json") from None
    for part, growth in growths.items():
        if growth > MAX_GROWTH:
            raise InvalidModel("tokenizer_growth", part=part, found=f"{min(growth, 10**9):.0f}", limit_times=MAX_GROWTH)
    if longest > MAX_TOKEN_CHARACTERS:
        raise InvalidModel("tokenizer_token_long", found=longest, limit_characters=MAX_TOKEN_CHARACTERS)


def _tokens(state: dict[str, Any]) -> list[str]:
    vocab = state["model"]["vocab"]
    tokens = list(vocab) if isinstance(vocab, dict) else [token for token, _score in vocab]
    return [*tokens, *(token["content"] for token in state.get("added_tokens") or ())]


def _growth(rule: dict[str, Any] | None) -> float:
    """How many times longer a rule makes a text at most."""
    if rule is None:
        return 1.0
    growth = 1.0
    for child in (child for key in _CHILDREN for child in rule.get(key) or ()):
        growth *= _growth(child)
    match rule["type"]:
        case "Replace":
            pattern = rule["pattern"].get("String", ".")  # a regular expression may match a single character
            return growth * max(1.0, len(rule["content"]) / len(pattern) if pattern else 1 + len(rule["content"]))
        case "Prepend":
            return growth * max(1, len(rule["prepend"]))
        case "Precompiled":
            return growth * _longest_replacement(rule.get("precompiled_charsmap"))
        case kind:
            return growth * _NORMAL_FORMS.get(kind, 1)


def _longest_replacement(charsmap: str | None) -> int:
    """The longest text that a SentencePiece character map puts in place of a character, in bytes.

    After the size of a trie and the trie, it holds them one after the other, each with a NUL at its end
    (sentencepiece, normalizer.cc).
    """
    data = base64.b64decode(charsmap or "")
    (trie_bytes,) = struct.unpack("<I", data[:4]) if data else (0,)
    return max(map(len, data[4 + trie_bytes :].split(b"\0")), default=1) or 1


def probe(tokenizer: PreTrainedTokenizerFast) -> None:
    """Encode and decode texts of many kinds, each within the budget of a prompt. Raises InvalidModel.

    A text that takes too much time ends this process by SIGPROF.
    """
    for alphabet in ALPHABETS:
        text = (alphabet * PROBE_CHARACTERS)[:PROBE_CHARACTERS]
        size = len(text.encode())
        try:
            with enforced(encoding_budget(size), data_bytes()):
                ids = tokenizer(text, add_special_tokens=False)["input_ids"]
                decoded = tokenizer.decode(ids[:PROBE_CHARACTERS])
        except MemoryError:
            raise InvalidModel("tokenizer_memory", limit=encoding_budget(size).memory_bytes) from None
        growth = max(len(ids), len(decoded)) // size
        if growth > MAX_TOKENS_PER_BYTE:
            values = {"part": "encoding", "found": str(growth), "limit_times": MAX_TOKENS_PER_BYTE}
            raise InvalidModel("tokenizer_growth", **values)
