"""Decodes generated tokens one at a time, whatever the tokenizer. Imports tokenizers, never torch."""

from collections.abc import Sequence

from tokenizers import Tokenizer

from trainer.data.tokenizer import BYTE

WINDOW = 64  # tokens decoded again with each new one, at most, unless bytes that form no character fill it
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class Detokenizer:
    """Turns the tokens that follow a prompt into pieces of text.

    Together the pieces are what decoding prompt and tokens at once gives after the prompt: the space before the first
    word is kept, and bytes that form no character are U+FFFD. A piece never holds a part of a character. Special tokens
    are left out.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._special = {number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special}
        # One token of the prompt is enough for the decoder to see that the text does not start here.
        words = (number for number in reversed(prompt) if number not in self._special and self._byte(number) is None)
        self._window = [number for _, number in zip(range(1), words, strict=False)]
        self._num_shown = len(self._decode())

    def push(self, token: int) -> str:
        """Add a token. Returns the text that is certain now, which may be empty."""
        if token in self._special:
            return ""
        self._window.append(token)
        if self._byte(token) is not None:
            return ""  # one bad byte makes a decoder replace all bytes next to it, so that none is certain
        text = self._decode()
        end = len(text) - text.endswith(REPLACEMENT)  # maybe the beginning of a character
        piece, self._num_shown = text[self._num_shown : end], max(self._num_shown, end)
        if len(self._window) > WINDOW and end == len(text):
            self._window = self._window[-1:]
            self._num_shown = len(self._decode())
        return piece

    def push_all(self, tokens: Sequence[int]) -> list[str]:
        """Add tokens. Returns the text that is certain after each."""
        return list(map(self.push, tokens))

    def rest(self, *, is_cut: bool = False) -> str:
        """The text still held at the end; with `is_cut`, without a character that was only begun."""
        run = self._trailing_bytes() if is_cut else b""
        del self._window[len(self._window) - _num_incomplete(run) :]
        text = self._decode()
        is_begun = is_cut and not run and text.endswith(REPLACEMENT)
        return text[self._num_shown : len(text) - is_begun]

    def _trailing_bytes(self) -> bytes:
        run: list[int] = []
        for number in reversed(self._window):
            byte = self._byte(number)
            if byte is None:
                break
            run.append(byte)
        return bytes(reversed(run))

    def _decode(self) -> str:
        return str(self._tokenizer.decode(self._window, skip_special_tokens=True))

    def _byte(self, number: int) -> int | None:
        """The byte that a token of a byte-fallback vocabulary stands for; None for any other token."""
        token = self._tokenizer.id_to_token(number)
        return int(token[3:5], 16) if token is not None and BYTE.fullmatch(token) else None


def _num_incomplete(data: bytes) -> int:
    """How many bytes at the end are the beginning of a character."""
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return len(data) - error.start if error.reason == "unexpected end of data" else 0
    return 0
