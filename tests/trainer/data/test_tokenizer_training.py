"""The curve of bytes per token, against tokenizers that the library trains with each size."""

import json
from pathlib import Path

import numpy as np
import pytest

from trainer.data import tokenizer_training
from trainer.data.tokenizer import train_on
from trainer.failure import Failure
from trainer.run_dir import CorpusInput

SAMPLES = Path(tokenizer_training.__file__).parents[2] / "app" / "corpora" / "samples"
EVERYTHING = 1 << 40


def corpus(directory: Path, documents: list[str]) -> CorpusInput:
    encoded = [document.encode() for document in documents]
    (directory / "text.bin").write_bytes(b"".join(encoded))
    np.cumsum([len(document) for document in encoded]).astype("<u8").tofile(directory / "index.bin")
    return CorpusInput(id="c", path=str(directory), sha256="s")


def nothing(_done: int, _total: int) -> None:
    return


@pytest.mark.parametrize("name", ["king-james-bible.txt", "small-talk-chinese.jsonl"], ids=["english", "chinese"])
def test_the_curve_is_that_of_tokenizers_trained_with_each_size(name: str, tmp_path: Path) -> None:
    text = (SAMPLES / name).read_text()
    source = corpus(tmp_path, text.split("\n\n"))
    trained, facts = tokenizer_training.train_on_sample([source], 1500, ["<|x|>"], EVERYTHING, nothing)
    total = len("".join(text.split("\n\n")).encode())
    pieces = list(tokenizer_training._pieces([source], total, EVERYTHING, nothing))
    training = [piece for piece, is_held_out in pieces if not is_held_out]
    held_out = [piece for piece, is_held_out in pieces if is_held_out]
    assert "".join(piece for piece, _is_held_out in pieces) == text.replace("\n\n", "")
    assert facts.num_held_out_bytes == sum(len(piece.encode()) for piece in held_out) > 0
    sizes = [size for size, _value in facts.curve]
    assert sizes[0] == 259
    for size, value in facts.curve[1::4]:
        own = train_on(iter(training), size, ["<|x|>"])
        cut = tokenizer_training.with_fewer_tokens(trained, size)
        assert json.loads(cut.to_str()) == json.loads(own.to_str())
        num_tokens = sum(len(encoding.ids) for encoding in own.encode_batch(held_out))
        assert value == facts.num_held_out_bytes / num_tokens


def test_a_sample_is_spread_over_the_text_and_no_larger_than_asked(tmp_path: Path) -> None:
    source = corpus(tmp_path, [f"word{n} " * 50 + "\n" for n in range(2000)])
    _trained, facts = tokenizer_training.train_on_sample([source], None, [], 100_000, nothing)
    assert 60_000 < facts.num_training_bytes <= 101_000
    numbers = {piece[4:8] for piece, _held in tokenizer_training._pieces([source], 800_000, 100_000, nothing)}
    assert {number[0] for number in numbers} >= {"1"}


def test_the_smallest_sample_of_a_large_text_has_text(tmp_path: Path) -> None:
    source = corpus(tmp_path, [f"word{n} " * 50 + "\n" for n in range(2000)])
    _trained, facts = tokenizer_training.train_on_sample([source], 300, [], 1 << 10, nothing)
    assert 512 < facts.num_training_bytes <= 1 << 11


def test_a_short_text_is_measured_on_itself_and_none_is_refused(tmp_path: Path) -> None:
    _trained, facts = tokenizer_training.train_on_sample([corpus(tmp_path, ["short"])], 300, [], EVERYTHING, nothing)
    assert (facts.num_held_out_bytes, facts.curve[-1][1]) == (0, 1.0)
    with pytest.raises(Failure, match="contain no text"):
        tokenizer_training.train_on_sample([corpus(tmp_path, [""])], 300, [], EVERYTHING, nothing)
