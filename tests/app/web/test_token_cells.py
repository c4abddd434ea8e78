"""Cells of tokens: those that only together make whole characters are drawn together."""

from dataclasses import dataclass

import pytest

from app.web.token_cells import spaced_hex, token_cells


@dataclass(frozen=True)
class ShownBytes:
    bytes: str


WHOLE = ""  # a token that is text by itself


@pytest.mark.parametrize(
    ("tokens", "cells"),
    [
        ([], []),
        ([WHOLE, WHOLE], [("", 1), ("", 1)]),
        (["e5ba", "8a", WHOLE], [("床", 2), ("", 1)]),
        (["e5", "ba", "8a", "e5ba8ae5", "ba8a"], [("床", 3), ("床床", 2)]),
        (["e5ba", WHOLE, "8a"], [("", 1), ("", 1), ("", 1)]),  # cut off, and what is left of another character
        (["8a", "e5", "ba8a2c"], [("", 1), ("床,", 2)]),
        (["e5", "e5ba", "8a"], [("", 1), ("床", 2)]),
        (["e5ba"], [("", 1)]),  # where a sample ends
        (["ff", "f09f", "9982"], [("", 1), ("🙂", 2)]),
    ],
)
def test_parts_of_a_character_are_drawn_in_one_cell(tokens: list[str], cells: list[tuple[str, int]]) -> None:
    all_tokens = [ShownBytes(text) for text in tokens]
    drawn = list(token_cells(all_tokens))
    assert [token for cell in drawn for token in cell.tokens] == all_tokens
    assert [(cell.characters, len(cell.tokens)) for cell in drawn] == cells


def test_bytes_are_written_in_pairs() -> None:
    assert spaced_hex("e5ba8a") == "E5 BA 8A"
