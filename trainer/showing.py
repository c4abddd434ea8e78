"""What a model in training is shown to do at every evaluation: one prompt, the same each time, and its answer."""

from abc import ABC, abstractmethod

from trainer import generate
from trainer.generate import Loaded
from trainer.samples import Answers, NextTokens, Samples
from trainer.spec import TrainSpec

PROMPT_TOKENS = 20
SAMPLE_TOKENS = 80
TEMPERATURE = 0.8


class Showing(ABC):
    """A prompt, and how a model answers it. The same weights give the same answer."""

    prompt: str

    @abstractmethod
    def answer(self, loaded: Loaded) -> str:
        """What the model makes of the prompt now."""


class Continuation(Showing):
    """Goes on with the spec's prompt, or with the beginning of the validation text."""

    def __init__(self, spec: TrainSpec, samples: NextTokens, loaded: Loaded) -> None:
        self._seed = spec.seed
        room = spec.sequence_length // 2
        tokenizer = loaded.tokenizer.backend_tokenizer
        if spec.sample_prompt:
            ids = tokenizer.encode(spec.sample_prompt).ids
            self.prompt = spec.sample_prompt if len(ids) <= room else str(tokenizer.decode(ids[:room]))
        else:
            self.prompt = str(tokenizer.decode(samples.text.validation_prompt(min(PROMPT_TOKENS, room))))

    def answer(self, loaded: Loaded) -> str:
        pieces = generate.stream(
            loaded, self.prompt, max_tokens=SAMPLE_TOKENS, temperature=TEMPERATURE, seed=self._seed
        )
        return "".join(piece.text for piece in pieces)


class Answer(Showing):
    """Answers the prompt of the first held-out record, always with the likeliest tokens."""

    def __init__(self, samples: Answers, loaded: Loaded) -> None:
        ((ids, weights),) = samples.records.segments(int(samples.records.validation[0]))
        self._ids = [int(number) for number in ids[: int(weights.nonzero()[0][0])]]
        self.prompt = str(loaded.tokenizer.decode(self._ids, skip_special_tokens=True))

    def answer(self, loaded: Loaded) -> str:
        pieces = generate.stream(loaded, self._ids, max_tokens=SAMPLE_TOKENS, temperature=0.0)
        return "".join(piece.text for piece in pieces)


def showing(spec: TrainSpec, samples: Samples, loaded: Loaded) -> Showing:
    """What a run shows, by its objective."""
    if isinstance(samples, Answers):
        return Answer(samples, loaded)
    assert isinstance(samples, NextTokens)
    return Continuation(spec, samples, loaded)
