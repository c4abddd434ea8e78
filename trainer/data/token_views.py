"""Tokens for people to look at: what a text becomes, and how single tokens read. Imports transformers, never torch."""

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerFast

from trainer.data.token_bytes import TokenBytes

ANY_MASK = "[MASK]"  # stands for the mask token of any tokenizer in a text to fill


class TokenViews:
    """What one tokenizer makes of texts."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, token_bytes: TokenBytes) -> None:
        self._tokenizer = tokenizer
        self._token_bytes = token_bytes
        added = tokenizer.backend_tokenizer.get_added_tokens_decoder().items()
        self._special = {number for number, token in added if token.special}

    def encode(self, text: str, *, with_special_tokens: bool = True) -> list[dict[str, Any]]:
        """The tokens of a text as every other program encodes it: for each its id, its text, the bytes that it stands
        for, and whether it is special.
        """
        ids = self._tokenizer(text, add_special_tokens=with_special_tokens)["input_ids"]
        return [self._token(number) for number in ids]

    def _token(self, number: int) -> dict[str, Any]:
        is_special = number in self._special
        num_bytes = 0 if is_special else len(self._token_bytes[number])
        return {"id": number, "text": self._token_bytes.text(number), "num_bytes": num_bytes, "is_special": is_special}

    def texts(self, ids: Sequence[int]) -> list[str]:
        """How each token reads by itself: bytes that form no character are written as \\xe5."""
        return [self._token_bytes.text(number) for number in ids]

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
