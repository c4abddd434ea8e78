"""Encodes plain text by gigatoken, some tens of times as fast as tokenizers, where both give the same tokens.

gigatoken knows the pre-tokenizers of common byte-level tokenizers, ours among them, and BPE of SentencePiece. Whether
it gives the same tokens is tried with texts in which tokenizers differ, then with texts of the very corpora. Never
imports torch.
"""

import json
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from gigatoken.gigatoken_rs import load_hf_json
from tokenizers import Tokenizer

from trainer.data.corpus import CorpusReader
from trainer.data.record_refused import RecordRefused
from trainer.processes.child_limits import data_bytes

TokenIds = Sequence[int] | np.ndarray[tuple[int], np.dtype[np.uint32]]
Encode = Callable[[Sequence[str]], Iterable[TokenIds | RecordRefused]]  # of texts: the tokens of each

MIN_BYTES = 2 << 20
NUM_TRIALS, TRIAL_BYTES = 64, 4096  # pieces of each corpus, and bytes of each
# gigatoken keeps what it makes of each word that it meets: little for most text, but a text may repeat no word.
MAX_CACHE_BYTES = 96 << 20
CHECKED_LENGTH = 128 << 10  # characters between two looks at the memory; they add at most 20 MiB
# Spaces, line breaks, digits, contractions, marks, scripts with and without spaces, characters of several bytes.
PROBES = (
    "  Tabs\tand   spaces,\r\n\r\n \n quotes “so”, don't, WE'LL, ₁½²3 1234567.8e-9, naïve cafe\u0301, ½, 🙂👩‍🚀.",
    "天地玄黄，宇宙洪荒。日月盈昃\u3000カタカナとひらがな ไทย हिन्दी עִבְרִית العَرَبِيَّة 한국어",
    "<|endoftext|><|padding|><s></s>[MASK]<unk>▁<0x0A>\u0000\u200b\ufeff\u2028x",
    " ",
    "\n",
    "",
)


class FastEncoder:
    """Encodes texts without special tokens, in bounded memory: a cache that has grown too large is dropped."""

    def __init__(self, state: str) -> None:
        self._state = state
        self._open()

    def _open(self) -> None:
        self._tokenizer = load_hf_json(self._state)
        self._base_bytes = data_bytes()
        self._length = 0

    def __call__(self, text: str) -> TokenIds:
        if self._length >= CHECKED_LENGTH:
            self._length = 0
            if data_bytes() - self._base_bytes > MAX_CACHE_BYTES:
                self._open()
        self._length += len(text)
        ids: TokenIds = self._tokenizer.encode(text)
        return ids


def fast_encoder(tokenizer: Tokenizer) -> FastEncoder | None:
    """What encodes a text as this tokenizer does; None if gigatoken does not know its kind, or differs from it."""
    state = json.loads(tokenizer.to_str())
    state |= {"truncation": None, "padding": None, "post_processor": None}
    added = state["added_tokens"]
    if tokenizer.encode_special_tokens:  # a special token that is spelled in a text is plain text
        state["added_tokens"] = [token for token in added if not token["special"]]
    try:
        encode = FastEncoder(json.dumps(state))
        probes = [*PROBES, *(f"a{token['content']} {token['content']}\n{token['content']}b" for token in added)]
        exact = tokenizer.encode_batch_fast(probes, add_special_tokens=False)
        is_equal = all(np.array_equal(encode(text), one.ids) for text, one in zip(probes, exact, strict=True))
    except (RuntimeError, ValueError):  # of gigatoken, for an unknown kind
        return None
    return encode if is_equal else None


def is_worthwhile(corpora: Sequence[CorpusReader]) -> bool:
    """Whether there is so much text that trying gigatoken takes less time than it saves."""
    return sum(corpus.num_bytes for corpus in corpora) >= MIN_BYTES


def is_exact(fast: Encode, exact: Encode, corpora: Sequence[CorpusReader]) -> bool:
    """Whether `fast` gives the same tokens as `exact` for pieces from all over the corpora."""
    texts = [text for corpus in corpora for text in corpus.samples(NUM_TRIALS, TRIAL_BYTES)]
    candidates = list(fast(texts))  # before the others: both may be calls of one process
    return not any(
        isinstance(one, RecordRefused) or isinstance(other, RecordRefused) or not np.array_equal(one, other)
        for one, other in zip(candidates, exact(texts), strict=True)
    )
