"""Turns generated tokens into pieces of text that can be shown: whole characters, never a part of a stop string."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Literal, Protocol

from trainer.inference.sampling import TokenChoice

FinishReason = Literal["stop", "length", "cancelled"]


class TokenDecoder(Protocol):
    """Turns generated tokens into text: what each makes certain. See trainer/data/detokenizer.py."""

    def push_all(self, tokens: Sequence[int]) -> list[str]: ...
    def rest(self, *, is_cut: bool = False) -> str: ...


class MarkedDecoder:
    """A decoder that writes the marks of tool calls, which are special tokens that others leave out (a TokenDecoder).

    `start` begins a decoder of the tokens that follow others.
    """

    def __init__(self, start: Callable[[], TokenDecoder], marks: Mapping[str, int]) -> None:
        self._start = start
        self._decoder = start()
        self._marks = {number: mark for mark, number in marks.items()}

    def push_all(self, tokens: Sequence[int]) -> list[str]:
        """Add tokens. Returns the text that is certain after each."""
        return list(map(self._push, tokens))

    def _push(self, token: int) -> str:
        mark = self._marks.get(token)
        if mark is None:
            return self._decoder.push_all([token])[0]
        text = self._decoder.rest() + mark
        self._decoder = self._start()
        return text

    def rest(self, *, is_cut: bool = False) -> str:
        """The text still held at the end."""
        return self._decoder.rest(is_cut=is_cut)


@dataclass(frozen=True)
class TextPiece:
    """The next part of the text. Only the last piece has a finish reason; its text may be empty."""

    text: str
    num_tokens: int  # generated so far, with the one that ends the text
    finish_reason: FinishReason | None = None
    choices: tuple[TokenChoice, ...] = ()  # the tokens of this part


def text_pieces(
    batches: Iterable[Sequence[TokenChoice]],
    decoder: TokenDecoder,
    stop_token_ids: Set[int],
    stop: Sequence[str] = (),
    is_stopped: Callable[[], bool] = lambda: False,
) -> Iterator[TextPiece]:
    """The text of tokens as they are chosen, a piece per batch. Where they end before one of `stop_token_ids`, the text
    was too long, or `is_stopped` ended it.
    """
    stops = StopFilter(stop)
    reason: FinishReason = "length"
    count = 0
    pending: list[TokenChoice] = []  # tokens whose text is not certain yet
    for batch in batches:
        own = [choice for choice in batch if choice.token not in stop_token_ids]
        text, certain = "", list[TokenChoice]()
        for choice, decoded in zip(own, decoder.push_all([choice.token for choice in own]), strict=True):
            count += 1
            pending.append(choice)
            if part := stops.push(decoded):
                text, certain, pending = text + part, certain + pending, []
            if stops.hit:
                yield TextPiece(text, count, "stop", tuple(certain))
                return
        if text:
            yield TextPiece(text, count, choices=tuple(certain))
        if len(own) < len(batch):  # the last token ends the text
            count += 1
            reason = "stop"
            break
    if reason == "length" and is_stopped():
        reason = "cancelled"
    text = stops.push(decoder.rest(is_cut=reason != "stop"))
    text, reason = (text, "stop") if stops.hit else (text + stops.rest(), reason)
    yield TextPiece(text, count, reason, tuple(pending))


class StopFilter:
    """Holds text back while it may be the beginning of a stop string."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._pending = ""
        self.hit = False

    def push(self, text: str) -> str:
        """Add text and return what is safe to show."""
        self._pending += text
        places = [place for stop in self._stops if (place := self._pending.find(stop)) >= 0]
        if places:
            self.hit = True
            return self._pending[: min(places)]
        keep = max((_overlap(self._pending, stop) for stop in self._stops), default=0)
        end = len(self._pending) - keep
        safe = self._pending[:end]
        self._pending = self._pending[end:]
        return safe

    def rest(self) -> str:
        """The text that is still pending when the generation ends without a stop string."""
        rest = self._pending
        self._pending = ""
        return rest


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of the text that begins the stop string."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
