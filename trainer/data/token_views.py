"""Tokens for people to look at: what a text becomes, and how single tokens read. Imports tokenizers and transformers,
never torch.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from tokenizers import decoders
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from trainer.data.tokenizer import token_bytes

ANY_MASK = "[MASK]"  # stands for the mask token of any tokenizer in a text to fill
BYTE_OF = {character: byte for byte, character in bytes_to_unicode().items()}


class TokenViews:
    """What one tokenizer makes of texts."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        self._backend = tokenizer.backend_tokenizer
        added = self._backend.get_added_tokens_decoder().items()
        self._special = {number for number, token in added if token.special}

    def encode(self, text: str, *, with_special_tokens: bool = True) -> list[dict[str, Any]]:
        """The tokens of a text as every other program encodes it: for each its id, its text, the bytes that it stands
        for, and whether it is special.
        """
        ids = self._tokenizer(text, add_special_tokens=with_special_tokens)["input_ids"]
        return [
            {"id": number, "text": text, "num_bytes": int(self._num_bytes[number]), "is_special": is_special}
            for number, text, is_special in zip(ids, self.texts(ids), map(self._special.__contains__, ids), strict=True)
        ]

    def texts(self, ids: Sequence[int]) -> list[str]:
        """How each token reads by itself: bytes that form no character are written as \\xe5."""
        return [self._text(number) for number in ids]

    def masked(self, text: str) -> dict[str, Any]:
        """The tokens of a text with masks, written as the tokenizer spells its own or as ANY_MASK, and the id of the
        mask token: None if the tokenizer has none.
        """
        mask = self._tokenizer.mask_token
        tokens = self.encode(text.replace(ANY_MASK, str(mask)) if mask else text)
        return {"tokens": tokens, "mask_id": self._tokenizer.mask_token_id}

    @property
    def size(self) -> int:
        """The number of tokens."""
        return len(self._tokenizer)

    def _text(self, number: int) -> str:
        token = str(self._backend.id_to_token(number) or "")
        if number in self._special:
            return token
        if not isinstance(self._backend.decoder, decoders.ByteLevel):
            return token.replace("\u2581", " ")
        if not all(character in BYTE_OF for character in token):
            return token  # an added token, which is plain text
        return bytes(BYTE_OF[character] for character in token).decode(errors="backslashreplace")

    @cached_property
    def _num_bytes(self) -> Any:
        return token_bytes(self._backend)
