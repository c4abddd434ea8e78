"""Trains a tokenizer on a sample of corpora, and measures its bytes per token by vocabulary size. Never imports torch.

A byte-level BPE tokenizer of a size contains those of all smaller sizes: leaving out its last merges is what training
with fewer tokens would have given. So one training is enough for the whole curve.
"""

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence

from pydantic import BaseModel
from tokenizers import Tokenizer

from trainer.data.corpus import TOKEN_BOUNDARY, open_all
from trainer.data.tokenizer import Progress, train_on
from trainer.failure import Failure
from trainer.planning.scaling_laws import choose_vocab_size
from trainer.run_dir import CorpusInput

HELD_OUT_EVERY = 20  # one of so many pieces of text is not trained on, but measured
MAX_HELD_OUT_BYTES = 4 << 20
PIECE_BYTES = (64, 4_096)  # the least and the most
MIN_PIECES = 100  # of a small corpus or sample, as far as its pieces stay long enough
SIZES_PER_OCTAVE = 4  # points of the curve


class TrainedTokenizer(BaseModel):
    """What a training gave besides the tokenizer: bytes of text, and (vocabulary size, bytes per token) by size.

    `curve` ends with the whole vocabulary. It is measured on text that was not trained on; on all of it where that is
    too short to be divided, and `num_held_out_bytes` is then 0.
    """

    num_training_bytes: int
    num_held_out_bytes: int
    curve: list[tuple[int, float]]


def train_on_sample(
    sources: list[CorpusInput],
    vocab_size: int | None,
    special: Sequence[str],
    sample_bytes: int,
    progress: Progress,
) -> tuple[Tokenizer, TrainedTokenizer]:
    """Train a tokenizer with these special tokens on at most `sample_bytes` of the corpora, evenly spread.

    Without `vocab_size`, the size of the sample determines it. A text that yields fewer tokens gives a smaller
    vocabulary. Raises Failure if the corpora have no text.
    """
    corpora = open_all(sources)
    total = sum(corpus.num_bytes for corpus in corpora)
    held_out: list[str] = []
    num_training_bytes = 0

    def training_text() -> Iterator[str]:
        nonlocal num_training_bytes
        for text, is_held_out in _pieces(sources, total, sample_bytes, progress):
            if is_held_out:
                held_out.append(text)
            else:
                num_training_bytes += len(text.encode())
                yield text

    size = vocab_size or choose_vocab_size(min(total, sample_bytes))
    tokenizer = train_on(training_text(), size, special)
    if not num_training_bytes:
        raise Failure("data_empty")
    measured = held_out or [text for text, _is_held_out in _pieces(sources, total, sample_bytes, progress)]
    facts = TrainedTokenizer(
        num_training_bytes=num_training_bytes,
        num_held_out_bytes=sum(len(text.encode()) for text in held_out),
        curve=curve(tokenizer, measured),
    )
    return tokenizer, facts


def _pieces(
    sources: list[CorpusInput], total: int, sample_bytes: int, progress: Progress
) -> Iterator[tuple[str, bool]]:
    """The sampled text in pieces that tokens do not cross, each with whether it is held out."""
    least, most = PIECE_BYTES
    size = min(most, max(least, min(total, sample_bytes) // MIN_PIECES))
    shares = {False: min(1.0, sample_bytes / total), True: min(1.0, MAX_HELD_OUT_BYTES * HELD_OUT_EVERY / total)}
    counts = {False: 0, True: 0}
    done = 0
    for corpus in open_all(sources):
        for chunk in corpus.chunks():
            for text in _split(chunk.text, size):
                is_held_out = sum(counts.values()) % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
                number, share = counts[is_held_out], shares[is_held_out]
                counts[is_held_out] += 1
                if math.floor((number + 1) * share) > math.floor(number * share):
                    yield text, is_held_out
            done += chunk.num_bytes
            progress(done, total)


def _split(text: str, size: int) -> Iterator[str]:
    """A text in pieces of at least `size` characters that end where a token may end."""
    start = 0
    while start < len(text):
        match = TOKEN_BOUNDARY.search(text, start + size)
        end = match.start() if match else len(text)
        yield text[start:end]
        start = end


def curve(tokenizer: Tokenizer, texts: Sequence[str]) -> list[tuple[int, float]]:
    """Bytes per token by vocabulary size, from the smallest that training allows to the whole vocabulary.

    Without a merge, each of its tokens becomes the two that it was made of. So the number of tokens at every size
    follows from how often each token occurs in one encoding with all of them.
    """
    state = json.loads(tokenizer.to_str())["model"]
    vocab: dict[str, int] = state["vocab"]
    parts: dict[int, tuple[int, int]] = {}
    for left, right in state["merges"]:
        parts.setdefault(vocab[left + right], (vocab[left], vocab[right]))
    counts: Counter[int] = Counter()
    for encoding in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False):
        counts.update(encoding.ids)
    num_bytes = sum(len(text.encode()) for text in texts)
    num_tokens = sum(counts.values())
    points = []
    sizes = curve_sizes(len(vocab) - len(parts), len(vocab))
    for size in range(len(vocab), 0, -1):
        if size in sizes:
            points.append((size, num_bytes / num_tokens))
        last = size - 1  # the token that the next smaller vocabulary lacks
        if size <= min(sizes):
            break
        if last in parts:
            count = counts.pop(last, 0)
            for part in parts[last]:
                counts[part] += count
            num_tokens += count
    return points[::-1]


def curve_sizes(smallest: int, largest: int) -> set[int]:
    """The vocabulary sizes at which the curve has points, evenly spread over the logarithm."""
    steps = math.floor(SIZES_PER_OCTAVE * math.log2(largest / smallest))
    return {round(smallest * 2 ** (n / SIZES_PER_OCTAVE)) for n in range(steps + 1)} | {largest}


def with_fewer_tokens(tokenizer: Tokenizer, vocab_size: int) -> Tokenizer:
    """A trained tokenizer without its last merges: the one that training with `vocab_size` tokens would have given."""
    state = json.loads(tokenizer.to_str())
    model = state["model"]
    model["vocab"] = {token: number for token, number in model["vocab"].items() if number < vocab_size}
    model["merges"] = [pair for pair in model["merges"] if "".join(pair) in model["vocab"]]
    return Tokenizer.from_str(json.dumps(state))
