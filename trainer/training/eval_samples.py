"""The samples of each evaluation: prompts, the same every time, and the answers of the model in training."""

from abc import ABC, abstractmethod
from typing import Self

import torch

from trainer.data.record_encoding import RecordEncoder
from trainer.datasets.base import Dataset
from trainer.datasets.causal import CausalLMDataset, SFTDataset
from trainer.datasets.denoising import MaskedLMDataset, SpanCorruptionDataset
from trainer.datasets.labelled import ClassificationDataset, Seq2SeqDataset
from trainer.datasets.prepare import SamplePrompt
from trainer.events import SampleSplit
from trainer.inference import generation
from trainer.inference.generation import LoadedModel
from trainer.planning.counts import EVAL_SAMPLE_TOKENS
from trainer.spec import TrainSpec

PROMPT_TOKENS = 20
TEMPERATURE = 0.8


class EvalSample(ABC):
    """A prompt, and the way a model answers it. The same weights give the same answer."""

    prompt: str
    split: SampleSplit = "validation"  # which data the prompt is from

    @abstractmethod
    def answer(self, loaded: LoadedModel) -> str:
        """The model's answer to the prompt."""


class Continuation(EvalSample):
    """Continues the spec's prompt, or the opening of the validation text."""

    def __init__(self, spec: TrainSpec, samples: CausalLMDataset, loaded: LoadedModel, prompt: SamplePrompt) -> None:
        self._seed = spec.seed
        max_tokens = spec.sequence_length // 2
        tokenizer = loaded.tokenizer.backend_tokenizer
        self._prompt: str | list[int]
        if spec.sample_prompt:
            prompt_ids = _usable(prompt)
            self._prompt = prompt_ids[:max_tokens]
            is_whole = len(prompt_ids) <= max_tokens
            self.prompt = spec.sample_prompt if is_whole else str(tokenizer.decode(self._prompt))
        else:
            text, count = samples.text, min(PROMPT_TOKENS, max_tokens)
            if prompt == "opening":
                self.prompt = text.validation_opening(tokenizer, count)
            else:
                self.prompt = str(tokenizer.decode(text.validation_prompt(count)))
            self._prompt = self.prompt

    def answer(self, loaded: LoadedModel) -> str:
        pieces = generation.stream(
            loaded, self._prompt, max_tokens=EVAL_SAMPLE_TOKENS, temperature=TEMPERATURE, seed=self._seed
        )
        return "".join(piece.text for piece in pieces)


class AnswerSample(EvalSample):
    """Answers a prompt by greedy decoding."""

    def __init__(self, ids: list[int], prompt: str, split: SampleSplit = "validation") -> None:
        self._ids = ids
        self.prompt = prompt
        self.split = split

    @classmethod
    def of_record(
        cls, spec: TrainSpec, samples: SFTDataset, record: int, split: SampleSplit, loaded: LoadedModel
    ) -> Self:
        """Answers what comes before the first answer of a record."""
        ids, weights = samples.records.segments(record)[0]
        prompt_ids = [int(number) for number in ids[: int(weights.nonzero()[0][0])]]
        return cls(prompt_ids, RecordEncoder(spec.objective, loaded.tokenizer).prompt_text(prompt_ids), split)

    def answer(self, loaded: LoadedModel) -> str:
        pieces = generation.stream(loaded, self._ids, max_tokens=EVAL_SAMPLE_TOKENS, temperature=0.0)
        return "".join(piece.text for piece in pieces)


def _answer_samples(
    spec: TrainSpec, train: SFTDataset, validation: SFTDataset, loaded: LoadedModel, prompt: SamplePrompt
) -> list[EvalSample]:
    """The answer to the spec's prompt, or to that of the first record of the validation and of the training data."""
    if spec.sample_prompt:
        return [AnswerSample(_usable(prompt)[-spec.sequence_length // 2 :], spec.sample_prompt)]
    held_out, learned = int(validation.records.validation[0]), int(train.records.train[0])
    return [
        AnswerSample.of_record(spec, validation, held_out, "validation", loaded),
        AnswerSample.of_record(spec, train, learned, "train", loaded),
    ]


def _usable(prompt: SamplePrompt) -> list[int]:
    if not isinstance(prompt, list):
        raise ValueError("the sample prompt was refused")
    return prompt


class FillMaskSample(EvalSample):
    """Replaces the masks of the first validation sample by the most likely tokens."""

    def __init__(self, samples: MaskedLMDataset, loaded: LoadedModel) -> None:
        self._ids = torch.from_numpy(samples.validation_batch([0])["input_ids"])
        self._mask = loaded.tokenizer.mask_token_id
        self.prompt = str(loaded.tokenizer.decode(self._ids[0, 1:-1]))

    @torch.no_grad()
    def answer(self, loaded: LoadedModel) -> str:
        predicted = loaded.model(input_ids=self._ids.to(loaded.model.device)).logits.argmax(-1).cpu()
        ids = torch.where(self._ids == self._mask, predicted, self._ids)
        return str(loaded.tokenizer.decode(ids[0, 1:-1]))


class Seq2SeqSample(EvalSample):
    """Generates a target for the first validation source, by greedy decoding."""

    def __init__(self, samples: SpanCorruptionDataset | Seq2SeqDataset, loaded: LoadedModel) -> None:
        self._ids = torch.from_numpy(samples.validation_batch([0])["input_ids"])
        self.prompt = str(loaded.tokenizer.decode(self._ids[0, :-1]))

    def answer(self, loaded: LoadedModel) -> str:
        ids = self._ids.to(loaded.model.device)
        output = loaded.model.generate(input_ids=ids, max_new_tokens=EVAL_SAMPLE_TOKENS, do_sample=False)
        has_sentinels = "<extra_id_0>" in self.prompt  # they mark which gap each part of the target fills
        text = str(loaded.tokenizer.decode(output[0, 1:], skip_special_tokens=not has_sentinels))
        return text.removesuffix(str(loaded.tokenizer.eos_token)) if has_sentinels else text


class ClassificationSample(EvalSample):
    """Classifies the first validation text; the answer is the label and its probability."""

    def __init__(self, samples: ClassificationDataset, loaded: LoadedModel) -> None:
        batch = samples.validation_batch([0])
        self._ids = torch.from_numpy(batch["input_ids"])
        self._names = samples.labels
        text = str(loaded.tokenizer.decode(self._ids[0], skip_special_tokens=True))
        self.prompt = f"{text}\n[{self._names[int(batch['labels'][0])]}]"

    @torch.no_grad()
    def answer(self, loaded: LoadedModel) -> str:
        logits = loaded.model(input_ids=self._ids.to(loaded.model.device)).logits[0]
        probabilities = logits.float().softmax(-1)
        return f"{self._names[int(probabilities.argmax())]} ({float(probabilities.max()):.0%})"


def make_eval_samples(
    spec: TrainSpec, train: Dataset, validation: Dataset, loaded: LoadedModel, prompt: SamplePrompt
) -> list[EvalSample]:
    """The evaluation samples for the objective of a run.

    The ranks never encode it: templates and tokenizers are programs, which the preparation limits. Raises ValueError if
    they refused it.
    """
    match validation:
        case SFTDataset():
            assert isinstance(train, SFTDataset)
            return _answer_samples(spec, train, validation, loaded, prompt)
        case MaskedLMDataset():
            return [FillMaskSample(validation, loaded)]
        case SpanCorruptionDataset() | Seq2SeqDataset():
            return [Seq2SeqSample(validation, loaded)]
        case ClassificationDataset():
            return [ClassificationSample(validation, loaded)]
        case CausalLMDataset():
            return [Continuation(spec, validation, loaded, prompt)]
    raise AssertionError(spec.objective)
