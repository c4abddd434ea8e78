"""Opens the dataset of a run by its objective."""

from collections.abc import Callable
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from trainer.datasets.base import Dataset
from trainer.datasets.causal import CausalLMDataset, PreferenceDataset, SFTDataset
from trainer.datasets.denoising import MaskedLMDataset, SpanCorruptionDataset
from trainer.datasets.labelled import ClassificationDataset, Seq2SeqDataset
from trainer.spec import TrainSpec

DATASET_CLASSES: dict[str, Callable[[Path, TrainSpec, PreTrainedTokenizerFast], Dataset]] = {
    "causal": CausalLMDataset,
    "masked": MaskedLMDataset,
    "span_corruption": SpanCorruptionDataset,
    "seq2seq": Seq2SeqDataset,
    "chat": SFTDataset,
    "completion": SFTDataset,
    "classification": ClassificationDataset,
    "dpo": PreferenceDataset,
}


def open_dataset(
    directory: Path, spec: TrainSpec, tokenizer: PreTrainedTokenizerFast, *, is_held_out: bool = False
) -> Dataset:
    """Open the dataset in a directory of tokenized data; with `is_held_out`, all of it is for validation.

    Raises Failure if there is too little data.
    """
    if is_held_out:
        spec = spec.model_copy(update={"validation_fraction": 1.0})
    return DATASET_CLASSES[spec.objective](directory, spec, tokenizer)
