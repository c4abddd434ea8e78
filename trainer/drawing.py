"""Opens the samples of a run, by its objective."""

from collections.abc import Callable
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from trainer.examples import Labelled, Pairs
from trainer.gaps import Masked, Spans
from trainer.samples import Answers, NextTokens, Preferences, Samples
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
