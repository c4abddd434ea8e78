"""Tokens become pieces of text."""

from trainer.inference.text_pieces import MarkedDecoder


def test_marks_that_are_special_tokens_are_written_after_the_text_before_them() -> None:
    class Holding:
        """Shows each token's letter with the next one."""

        def __init__(self) -> None:
            self.letter = ""

        def push(self, token: int) -> str:
            text, self.letter = self.letter, chr(token)
            return text

        def rest(self, *, is_cut: bool = False) -> str:
            return self.letter

    decoder = MarkedDecoder(Holding, {"[TOOL_CALLS]": 1, "[ARGS]": 2})
    pieces = [decoder.push(token) for token in (97, 98, 1, 99, 2, 100)]
    assert "".join(pieces) + decoder.rest() == "ab[TOOL_CALLS]c[ARGS]d"
