"""Limits a text to a grammar, such as the JSON of a schema. Imports torch and llguidance."""

from collections.abc import Sequence, Set

import numpy as np
import torch
from llguidance import LLTokenizer
from torch import Tensor

from trainer.inference.grammar_check import ByteTokens, compiled, reason


class Vocabulary:
    """The tokens of a model for grammars: the bytes of each, none for those that are no text."""

    def __init__(self, tokens: Sequence[bytes]) -> None:
        self.size = len(tokens)
        self.without_text = [number for number, token in enumerate(tokens) if not token]
        self.tokenizer = LLTokenizer(ByteTokens(list(tokens)), slices=LLTokenizer.json_slices())  # type: ignore[arg-type]


class GrammarConstraint:
    """The grammar of one text (a TokenConstraint), for one thread. Only a complete text may end."""

    def __init__(self, vocabulary: Vocabulary, grammar: str, stop_token_ids: Set[int]) -> None:
        self._size = vocabulary.size
        self._stop_token_ids = sorted(stop_token_ids)
        self._matcher = compiled(grammar, vocabulary.tokenizer)
        self.error = reason(self._matcher.get_error())  # why it cannot be used any further; empty if it can

    def mask(self, scores: Tensor) -> None:
        """Set the scores (vocab_size) of tokens that may not follow to minus infinity. After an error, only those that
        end the text stay.
        """
        ends = scores[self._stop_token_ids]
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        is_allowed = torch.from_numpy(np.unpackbits(bits, count=self._size, bitorder="little").astype(bool))
        is_allowed = is_allowed[: len(scores)]  # a model may have fewer rows than its tokenizer has tokens
        is_allowed[self._stop_token_ids] = False
        may_end = self._matcher.is_accepting() or self._matcher.is_stopped()
        is_stuck = not may_end and not bool(is_allowed.any())
        self._note_error("the model has no token that may follow" if is_stuck else "")
        scores[self._size :] = -torch.inf
        scores[: self._size][~is_allowed] = -torch.inf
        scores[self._stop_token_ids] = ends if may_end or is_stuck else -torch.inf

    def accept(self, token: int) -> None:
        """Continue with a token."""
        if token not in self._stop_token_ids:
            self._matcher.consume_token(token)
            self._note_error()

    def _note_error(self, otherwise: str = "") -> None:
        """Note the first error. Only the thread that generates may ask the matcher; others read the attribute."""
        self.error = self.error or reason(self._matcher.get_error()) or otherwise
