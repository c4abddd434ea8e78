"""What a model in training is shown to do at every evaluation: one prompt, the same each time, and its answer."""

from abc import ABC, abstractmethod

import torch

from trainer.data.record_encoding import RecordEncoder
from trainer.datasets.base import Dataset
from trainer.datasets.causal import CausalLMDataset, SFTDataset
from trainer.datasets.denoising import MaskedLMDataset, SpanCorruptionDataset
from trainer.datasets.labelled import ClassificationDataset, Seq2SeqDataset
from trainer.inference import generation
from trainer.inference.generation import LoadedModel
from trainer.planning.counts import EVAL_SAMPLE_TOKENS
from trainer.spec import TrainSpec

PROMPT_TOKENS = 20
TEMPERATURE = 0.8


class EvalSample(ABC):
    """A prompt, and how a model answers it. The same weights give the same answer."""

    prompt: str

    @abstractmethod
    def answer(self, loaded: LoadedModel) -> str:
        """What the model makes of the prompt now."""


class Continuation(EvalSample):
    """Goes on with the spec's prompt, or with the beginning of the validation text."""

    def __init__(self, spec: TrainSpec, samples: CausalLMDataset, loaded: LoadedModel) -> None:
        self._seed = spec.seed
        room = spec.sequence_length // 2
        tokenizer = loaded.tokenizer.backend_tokenizer
        if spec.sample_prompt:
            ids = tokenizer.encode(spec.sample_prompt).ids
            self.prompt = spec.sample_prompt if len(ids) <= room else str(tokenizer.decode(ids[:room]))
        else:
            self.prompt = str(tokenizer.decode(samples.text.validation_prompt(min(PROMPT_TOKENS, room))))

    def answer(self, loaded: LoadedModel) -> str:
        pieces = generation.stream(
            loaded, self.prompt, max_tokens=EVAL_SAMPLE_TOKENS, temperature=TEMPERATURE, seed=self._seed
        )
        return "".join(piece.text for piece in pieces)


class AnswerSample(EvalSample):
    """Answers the spec's prompt, or that of the first held-out record, always with the likeliest tokens."""

    def __init__(self, spec: TrainSpec, samples: SFTDataset, loaded: LoadedModel) -> None:
        encoder = RecordEncoder(spec.objective, loaded.tokenizer)
        if spec.sample_prompt:
            self._ids = encoder.encode_prompt(spec.sample_prompt)[-spec.sequence_length // 2 :]
            self.prompt = spec.sample_prompt
        else:
            ids, weights = samples.records.segments(int(samples.records.validation[0]))[0]
            self._ids = [int(number) for number in ids[: int(weights.nonzero()[0][0])]]
            self.prompt = encoder.prompt_text(self._ids)

    def answer(self, loaded: LoadedModel) -> str:
        pieces = generation.stream(loaded, self._ids, max_tokens=EVAL_SAMPLE_TOKENS, temperature=0.0)
        return "".join(piece.text for piece in pieces)


class FillMaskSample(EvalSample):
    """Puts the likeliest words in place of the masks of the first held-out text."""

    def __init__(self, samples: MaskedLMDataset, loaded: LoadedModel) -> None:
        self._ids = torch.from_numpy(samples.validation_batch([0])["input_ids"])
        self._mask = loaded.tokenizer.mask_token_id
        self.prompt = str(loaded.tokenizer.decode(self._ids[0, 1:-1]))

    @torch.no_grad()
    def answer(self, loaded: LoadedModel) -> str:
        predicted = loaded.model(input_ids=self._ids.to(loaded.model.device)).logits.argmax(-1).cpu()
        filled = torch.where(self._ids == self._mask, predicted, self._ids)
        return str(loaded.tokenizer.decode(filled[0, 1:-1]))


class Seq2SeqSample(EvalSample):
    """Writes the likeliest target of the first held-out source."""

    def __init__(self, samples: SpanCorruptionDataset | Seq2SeqDataset, loaded: LoadedModel) -> None:
        self._ids = torch.from_numpy(samples.validation_batch([0])["input_ids"])
        self.prompt = str(loaded.tokenizer.decode(self._ids[0, :-1]))

    def answer(self, loaded: LoadedModel) -> str:
        ids = self._ids.to(loaded.model.device)
        written = loaded.model.generate(input_ids=ids, max_new_tokens=EVAL_SAMPLE_TOKENS, do_sample=False)
        keeps = "<extra_id_0>" in self.prompt  # the sentinels say which gap is filled
        text = str(loaded.tokenizer.decode(written[0, 1:], skip_special_tokens=not keeps))
        return text.removesuffix(str(loaded.tokenizer.eos_token)) if keeps else text


class ClassificationSample(EvalSample):
    """Gives the first held-out text a label, and says how sure it is."""

    def __init__(self, samples: ClassificationDataset, loaded: LoadedModel) -> None:
        batch = samples.validation_batch([0])
        self._ids, self._names = torch.from_numpy(batch["input_ids"]), samples.labels
        text = str(loaded.tokenizer.decode(self._ids[0], skip_special_tokens=True))
        self.prompt = f"{text}\n[{self._names[int(batch['labels'][0])]}]"

    @torch.no_grad()
    def answer(self, loaded: LoadedModel) -> str:
        chances = loaded.model(input_ids=self._ids.to(loaded.model.device)).logits[0].float().softmax(-1)
        return f"{self._names[int(chances.argmax())]} ({float(chances.max()):.0%})"


def make_eval_sample(spec: TrainSpec, samples: Dataset, loaded: LoadedModel) -> EvalSample:
    """What a run shows, by its objective."""
    match samples:
        case SFTDataset():
            return AnswerSample(spec, samples, loaded)
        case MaskedLMDataset():
            return FillMaskSample(samples, loaded)
        case SpanCorruptionDataset() | Seq2SeqDataset():
            return Seq2SeqSample(samples, loaded)
        case ClassificationDataset():
            return ClassificationSample(samples, loaded)
        case CausalLMDataset():
            return Continuation(spec, samples, loaded)
    raise AssertionError(spec.objective)
