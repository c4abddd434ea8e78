"""What a model in training is shown to do at every evaluation: one prompt, the same each time, and its answer."""

from abc import ABC, abstractmethod

from trainer import generate
from trainer.generate import Loaded
from trainer.samples import NextTokens, Samples
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


def showing(spec: TrainSpec, samples: Samples, loaded: Loaded) -> Showing:
    """What a run shows, by its objective."""
    assert isinstance(samples, NextTokens)
    return Continuation(spec, samples, loaded)
