"""Opens the samples of a run, by its objective."""

from collections.abc import Callable
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from trainer.datasets.base import Samples
from trainer.datasets.causal import Answers, NextTokens, Preferences
from trainer.datasets.denoising import Masked, Spans
from trainer.datasets.labelled import Labelled, Pairs
from trainer.spec import TrainSpec

SAMPLES: dict[str, Callable[[Path, TrainSpec, PreTrainedTokenizerFast], Samples]] = {
    "causal": NextTokens,
    "masked": Masked,
    "span_corruption": Spans,
    "seq2seq": Pairs,
    "chat": Answers,
    "completion": Answers,
    "classification": Labelled,
    "dpo": Preferences,
}


def open_samples(
    directory: Path, spec: TrainSpec, tokenizer: PreTrainedTokenizerFast, *, is_held_out: bool = False
) -> Samples:
    """The samples of a run whose tokenised data lies in a directory, all for validation where it is held out whole.

    Raises Failure where there are too few.
    """
    if is_held_out:
        spec = spec.model_copy(update={"validation_fraction": 1.0})
    return SAMPLES[spec.objective](directory, spec, tokenizer)
