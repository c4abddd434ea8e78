"""The bytes that the tokens of a vocabulary stand for. Imports tokenizers and transformers, never torch."""

from tokenizers import Tokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from trainer.data.tokenizer import BYTE

BYTE_OF_CHARACTER = {character: byte for byte, character in bytes_to_unicode().items()}


class TokenBytes:
    """The bytes of each token: maybe a part of a character only."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._added = {number: str(token.content) for number, token in tokenizer.get_added_tokens_decoder().items()}
        self._is_byte_level = "ByteLevel" in repr(tokenizer.decoder)

    def __getitem__(self, number: int) -> bytes:
        """The bytes of a token. A special token is its own name; an unknown one is empty."""
        token = self._added.get(number, self._tokenizer.id_to_token(number))
        if token is None or number in self._added:
            return (token or "").encode()
        if BYTE.fullmatch(token):
            return bytes([int(token[3:5], 16)])
        if self._is_byte_level:
            return bytes(BYTE_OF_CHARACTER[character] for character in token if character in BYTE_OF_CHARACTER)
        # After another token, a decoder does not take the space of a word for the beginning of the text.
        alone, twice = (self._tokenizer.decode([number] * times) for times in (1, 2))
        return str(twice[len(alone) :]).encode()

    def hex(self, number: int) -> str:
        """The bytes of a token in hexadecimal if they are no text by themselves, else an empty string."""
        raw = self[number]
        try:
            raw.decode()
        except UnicodeDecodeError:
            return raw.hex()
        return ""

    def text(self, number: int) -> str:
        """How a token reads by itself: bytes that form no character are written as \\xe5."""
        return self[number].decode(errors="backslashreplace")
