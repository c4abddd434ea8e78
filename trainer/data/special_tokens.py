"""Keeps special tokens that a text merely spells apart from those that a chat template writes. Imports tokenizers."""

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

from tokenizers import Tokenizer
from tokenizers.models import Unigram


@dataclass(frozen=True)
class EncodedParts:
    """The tokens of a text, the characters that each stands for, and the character before which each part ends."""

    ids: list[int]
    offsets: list[tuple[int, int]]
    ends: list[int]


class SpecialTokens:
    """Encodes text so that only a chat template can write the special tokens of a tokenizer.

    All tokens that the tokenizer declares special count, in whichever of its files. `escape` replaces them in the
    text of users by placeholders that cannot be guessed. `encode` takes the rendered conversation: special tokens in it
    are the template's, and what a placeholder stands for is ordinary text.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        added = tokenizer.get_added_tokens_decoder().values()
        self._contents = sorted((token.content for token in added if token.special), key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, self._contents)) or r"(?!)")
        self._escaped = _names(self._contents, "\ue000", "\ue001")
        self._renamed = _names(self._contents, "\ue002", "\ue003")

    def escape(self, value: Any) -> Any:
        """The value, text or JSON, with placeholders for the special tokens that its strings spell."""
        if isinstance(value, str):
            return self._pattern.sub(lambda match: self._escaped[match[0]], value)
        if isinstance(value, Mapping):
            return {key: self.escape(item) for key, item in value.items()}
        return [self.escape(item) for item in value] if isinstance(value, list | tuple) else value

    def encode(self, parts: Sequence[str]) -> "EncodedParts":
        """Encode the parts as one text, without tokens around it."""
        text, tokenizer = "".join(parts), self._tokenizer
        if "\ue000" in text:
            parts = [self._without_placeholders(part) for part in parts]
            text, tokenizer = "".join(parts), self._other_tokenizer
        encoding = tokenizer.encode(text, add_special_tokens=False)
        offsets, last = [], 0
        for start, end in encoding.offsets:
            offsets.append((min(start, last), end))  # in some tokenizers no token covers the space before a word
            last = max(last, end)
        return EncodedParts(encoding.ids, offsets, list(accumulate(map(len, parts))))

    def encode_plain(self, text: str) -> list[int]:
        """Encode a text in which nothing is a special token, without tokens around it."""
        return self.encode([self.escape(text)]).ids

    def _without_placeholders(self, part: str) -> str:
        part = self._pattern.sub(lambda match: self._renamed[match[0]], part)
        for content, placeholder in self._escaped.items():
            part = part.replace(placeholder, content)
        return part

    @cached_property
    def _other_tokenizer(self) -> Tokenizer:
        return with_renamed_tokens(self._tokenizer, self._renamed)


def with_renamed_tokens(tokenizer: Tokenizer, names: Mapping[str, str] | None = None) -> Tokenizer:
    """The tokenizer with other spellings of its special tokens, and the same ids.

    Without `names` they are such as no text contains: then a text never becomes a special token.
    """
    special = [token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special]
    renamed = names or _names(special, "\ue002", "\ue003")
    state = json.loads(tokenizer.to_str())
    for token in state["added_tokens"]:
        token["content"] = renamed.get(token["content"], token["content"])
    model = state["model"]
    if isinstance(model["vocab"], dict):
        model["vocab"] = {renamed.get(token, token): number for token, number in model["vocab"].items()}
    else:
        model["vocab"] = [[renamed.get(token, token), score] for token, score in model["vocab"]]
    if isinstance(model.get("unk_token"), str):
        model["unk_token"] = renamed.get(model["unk_token"], model["unk_token"])
    return Tokenizer.from_str(json.dumps(state))


def _names(contents: Sequence[str], first: str, last: str) -> dict[str, str]:
    """Spellings that cannot be guessed: digits, which templates leave unchanged."""
    secret = secrets.randbelow(10**18)
    return {content: f"{first}{secret}{number}{last}" for number, content in enumerate(contents)}


def for_plain_text(tokenizer: Tokenizer) -> Tokenizer:
    """A tokenizer that encodes texts whole, and to which a special token that a text spells is plain text."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if isinstance(tokenizer.model, Unigram):  # would find it in its vocabulary all the same
        return with_renamed_tokens(tokenizer)
    tokenizer.encode_special_tokens = True
    return tokenizer
