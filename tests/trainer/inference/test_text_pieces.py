"""Tokens become pieces of text."""

import queue
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.inference.engine import EngineStopped, Generation
from trainer.inference.sampling import SamplingSettings, TokenChoice
from trainer.inference.text_pieces import MarkedDecoder, TextPiece, text_pieces


def test_marks_that_are_special_tokens_are_written_after_the_text_before_them() -> None:
    class Holding:
        """Shows each token's letter with the next one."""

        def __init__(self) -> None:
            self.letter = ""

        def push_all(self, tokens: Sequence[int]) -> list[str]:
            letters = [self.letter, *map(chr, tokens)]
            self.letter = letters[-1]
            return letters[:-1]

        def rest(self, *, is_cut: bool = False) -> str:
            return self.letter

    decoder = MarkedDecoder(Holding, {"[TOOL_CALLS]": 1, "[ARGS]": 2})
    pieces = [*decoder.push_all([97, 98, 1]), *decoder.push_all([99, 2, 100])]
    assert "".join(pieces) + decoder.rest() == "ab[TOOL_CALLS]c[ARGS]d"


class Letters:
    """Each token is a letter, but for spaces, which are shown with the letter that follows (a TokenDecoder)."""

    def __init__(self) -> None:
        self.held = ""

    def push_all(self, tokens: Sequence[int]) -> list[str]:
        return list(map(self._push, tokens))

    def _push(self, token: int) -> str:
        text = self.held + chr(token)
        self.held = text if text.isspace() else ""
        return text.removeprefix(self.held)

    def rest(self, *, is_cut: bool = False) -> str:
        return self.held


def pieces_of(batches: Sequence[str], stop: Sequence[str]) -> list[TextPiece]:
    choices = [[TokenChoice(ord(letter)) for letter in batch] for batch in batches]
    return list(text_pieces(choices, Letters(), {ord(".")}, stop))


@given(
    st.text("abc .", max_size=12), st.lists(st.integers(0, 12), max_size=3), st.sampled_from([[], ["ab"], ["b ", "ca"]])
)
def test_the_batches_of_tokens_change_nothing_but_the_number_of_pieces(
    text: str, cuts: list[int], stop: list[str]
) -> None:
    text = text.partition(".")[0] + "." * ("." in text)  # the engine ends a text there
    places = [0, *sorted(cuts), len(text)]
    together = pieces_of([text[start:end] for start, end in pairwise(places)], stop)
    single = pieces_of(text, stop)

    for pieces in (together, single):
        assert all(piece.finish_reason is None for piece in pieces[:-1])
    assert "".join(piece.text for piece in together) == "".join(piece.text for piece in single)
    assert [(p.finish_reason, p.num_tokens) for p in together[-1:]] == [
        (p.finish_reason, p.num_tokens) for p in single[-1:]
    ]
    shown = [[one.token for piece in pieces for one in piece.choices] for pieces in (together, single)]
    assert shown[0] == shown[1]
    assert len(together) <= len(single)


class Late(queue.SimpleQueue[TokenChoice]):
    """Has a token for those only who wait for it."""

    def get_nowait(self) -> TokenChoice:
        raise queue.Empty


@pytest.mark.parametrize(("max_tokens", "tokens"), [(4, [1, 2, 3, 4]), (100, [1, 2, 9])])
def test_the_first_token_is_handed_out_at_once_and_later_ones_together(max_tokens: int, tokens: list[int]) -> None:
    late = Late()
    for token in tokens:
        late.put(TokenChoice(token))
    generation = Generation([], SamplingSettings(), max_tokens, stop_token_ids={9}, _results=late)  # type: ignore[arg-type]

    batches = generation.batches(seconds=3_600)  # which the end of a text does not wait for
    assert [[choice.token for choice in batch] for batch in batches] == [tokens[:1], tokens[1:]]


def test_tokens_that_were_chosen_before_the_engine_ended_are_handed_out_before_its_reason() -> None:
    generation = Generation([], SamplingSettings(), max_tokens=9, stop_token_ids=set())
    batches = generation.batches(seconds=3_600)
    for token in (1, 2, 3):
        generation._results.put(TokenChoice(token))
    generation.fail("the engine was closed")

    assert [choice.token for choice in next(batches)] == [1, 2, 3]
    with pytest.raises(EngineStopped, match="closed"):
        next(batches)
