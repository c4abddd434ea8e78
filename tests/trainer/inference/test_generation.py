"""Generation: the same text for the same seed, complete characters, no stop strings, independent streams."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.trainer.runs import checkpoint_of
from trainer.inference import generation
from trainer.inference.generation import LoadedModel
from trainer.inference.text_pieces import StopFilter, TextPiece
from trainer.run_dir import RunDir

PROMPT = "And God said"


@pytest.fixture(scope="module")
def loaded(trained: RunDir) -> LoadedModel:
    return generation.load(checkpoint_of(trained, 150), "cpu")


def write(loaded: LoadedModel, prompt: str = PROMPT, **options: Any) -> list[TextPiece]:
    return list(generation.stream(loaded, prompt, **{"max_tokens": 15, **options}))


def text(pieces: list[TextPiece]) -> str:
    return "".join(piece.text for piece in pieces)


def test_greedy_text_equals_that_of_transformers(loaded: LoadedModel) -> None:
    inputs = loaded.tokenizer(PROMPT, return_tensors="pt")
    length = inputs["input_ids"].shape[1]
    expected = loaded.model.generate(**inputs, max_new_tokens=15, do_sample=False)[0, length:]

    assert text(write(loaded, temperature=0)) == loaded.tokenizer.decode(expected, skip_special_tokens=True)


def test_the_text_is_determined_by_the_seed(loaded: LoadedModel) -> None:
    first, second, third = (text(write(loaded, seed=seed)) for seed in (3, 3, 4))

    assert first == second
    assert first != third


def test_interleaved_streams_do_not_affect_each_other(loaded: LoadedModel) -> None:
    alone = [text(write(loaded, seed=seed)) for seed in (1, 2)]
    streams = [generation.stream(loaded, PROMPT, max_tokens=15, seed=seed) for seed in (1, 2)]
    torch.manual_seed(0)
    taken = ["", ""]
    for pieces in zip(*streams, strict=False):
        torch.rand(3)  # and neither does other randomness
        taken = [before + piece.text for before, piece in zip(taken, pieces, strict=True)]
    taken = [before + text(list(stream)) for before, stream in zip(taken, streams, strict=True)]

    # zip takes one piece more of the first stream than it hands out when the second one is done.
    assert taken[1] == alone[1]
    assert alone[0].startswith(taken[0]) or taken[0] == alone[0]


def test_the_last_chunk_has_the_stop_reason_and_the_token_count(loaded: LoadedModel) -> None:
    pieces = write(loaded, temperature=0)

    assert [piece.finish_reason for piece in pieces[:-1]] == [None] * (len(pieces) - 1)
    assert (pieces[-1].finish_reason, pieces[-1].num_tokens) == ("length", 15)


def test_a_stop_string_ends_the_text_and_is_omitted(loaded: LoadedModel) -> None:
    whole = text(write(loaded, temperature=0))
    stop = whole[5:9]
    pieces = write(loaded, temperature=0, stop=["never there", stop])

    assert text(pieces) == whole[: whole.index(stop)]
    assert pieces[-1].finish_reason == "stop"


def test_a_stream_can_be_cancelled(loaded: LoadedModel) -> None:
    asked: list[int] = []

    def is_stopped() -> bool:
        asked.append(1)
        return len(asked) > 4

    pieces = write(loaded, is_stopped=is_stopped)

    assert (pieces[-1].finish_reason, pieces[-1].num_tokens) == ("cancelled", 4)


def test_a_prompt_longer_than_the_context_is_rejected_with_both_numbers(loaded: LoadedModel) -> None:
    long = PROMPT * 20
    count = len(loaded.tokenizer(long)["input_ids"])
    with pytest.raises(ValueError, match=f"{count} tokens, .* at most 32"):
        generation.stream(loaded, long, max_tokens=5)


def test_a_text_ends_at_the_context_length(loaded: LoadedModel) -> None:
    pieces = write(loaded, max_tokens=1_000, temperature=0.5)

    assert pieces[-1].finish_reason in ("length", "stop")
    assert pieces[-1].num_tokens <= 33 - len(loaded.encode(PROMPT))


def test_the_last_token_of_a_text_may_lie_just_after_the_context(loaded: LoadedModel) -> None:
    pieces = list(generation.stream(script(loaded, "a" * 60), "a", max_tokens=1_000))

    assert (pieces[-1].finish_reason, pieces[-1].num_tokens) == ("length", 33 - len(loaded.encode("a")))


def test_an_empty_prompt_starts_a_text(loaded: LoadedModel) -> None:
    assert text(write(loaded, "", temperature=0.5, seed=1))


def test_top_k_of_one_and_a_tiny_top_p_are_greedy(loaded: LoadedModel) -> None:
    greedy = text(write(loaded, temperature=0))

    assert text(write(loaded, top_k=1, seed=9)) == greedy
    assert text(write(loaded, top_p=1e-6, seed=9)) == greedy


class Scripted(torch.nn.Module):
    """A model that says given tokens, whatever it reads."""

    def __init__(self, like: LoadedModel, ids: list[int]) -> None:
        super().__init__()
        self.config, self.device, self._ids, self._vocab = like.model.config, torch.device("cpu"), iter(ids), 384

    def forward(self, **inputs: Any) -> Any:
        logits = torch.full((1, 1, self._vocab), -50.0)
        logits[0, 0, next(self._ids)] = 50.0
        return type("Output", (), {"logits": logits})


def script(loaded: LoadedModel, said: str) -> LoadedModel:
    ids = [*loaded.tokenizer(said)["input_ids"], loaded.tokenizer.eos_token_id]
    return LoadedModel(Scripted(loaded, ids), loaded.tokenizer)  # type: ignore[arg-type]


def test_characters_of_several_tokens_are_emitted_complete(loaded: LoadedModel) -> None:
    said = "天地玄黄 😀!"  # the tokenizer knows no Chinese: each byte is a token of its own
    pieces = list(generation.stream(script(loaded, said), "", max_tokens=30))

    assert text(pieces) == said
    assert "\ufffd" not in text(pieces)
    assert len([piece for piece in pieces if piece.text]) >= 6
    assert pieces[-1].finish_reason == "stop"


def test_an_incomplete_character_is_omitted(loaded: LoadedModel) -> None:
    pieces = list(generation.stream(script(loaded, "天地"), "", max_tokens=5))

    assert text(pieces) == "天"
    assert pieces[-1].finish_reason == "length"


@given(st.lists(st.text(alphabet="ab!", max_size=4)), st.lists(st.text(alphabet="ab!", max_size=3), max_size=3))
def test_stop_strings_are_detected_across_chunks(parts: list[str], stops: list[str]) -> None:
    whole = "".join(parts)
    places = [whole.find(stop) for stop in stops if stop and stop in whole]
    stop_filter = StopFilter(stops)
    shown = ""
    for part in parts:
        shown += stop_filter.push(part)
        if stop_filter.hit:
            break
    else:
        shown += stop_filter.rest()

    if not places:
        assert shown == whole
    else:
        assert stop_filter.hit
        assert not any(stop in shown for stop in stops if stop)
        assert whole.startswith(shown)


def test_a_missing_checkpoint_is_an_error(tmp_path: Path) -> None:
    with pytest.raises((OSError, ValueError)):
        generation.load(tmp_path, "cpu")
