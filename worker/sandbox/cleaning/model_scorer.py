"""Scores documents with a checkpoint or a base model. Imports torch and transformers."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch

from trainer.inference import generation
from trainer.inference.generation import LoadedModel, is_memory_error, pick_device
from trainer.inference.text_scores import MAX_CHARACTERS, TextScorer
from worker.sandbox.cleaning.score_cache import ScoreCache
from worker.sandbox.cleaning.steps import CleaningRefused, ScoringModel

VERSION = 2  # increase when the same text would get another score


class ModelScorer:
    """A decoder on the GPU with the most memory free, on the CPU where its memory does not suffice.

    What it has scored is kept in a file beside the corpus, by the hashes of model and text, the kind of device and the
    data type, as each computes a little differently.
    """

    unit = "bits_per_byte"

    def __init__(self, model: ScoringModel) -> None:
        """Open the model. Raises CleaningRefused."""
        self._model = model
        self._use(_load(model.path))

    def _use(self, loaded: LoadedModel) -> None:
        self._device = loaded.model.device.type
        kind = f"{self._device}-{str(loaded.model.dtype).removeprefix('torch.')}"
        path = self._model.cache_directory / f"scores-{self._model.sha256[:32]}-{kind}-{VERSION}.cache"
        self._cache = ScoreCache(path, is_read_only=self._model.is_cache_read_only)
        self._scorer = TextScorer(loaded)

    def score(self, texts: Sequence[str]) -> list[float]:
        """The bits per byte of the beginning of each text; NaN for one of fewer than two tokens. Raises
        CleaningRefused if they need too much memory.
        """
        texts = [text[:MAX_CHARACTERS] for text in texts]
        try:
            return self._score(texts)
        except (MemoryError, RuntimeError) as error:
            if not is_memory_error(error):
                raise
            if self._device == "cpu":
                raise CleaningRefused("scoring_memory") from error
        del self._scorer  # and with it the model on the GPU, now that the error no longer refers to it
        torch.cuda.empty_cache()
        self._use(_load_on(self._model.path, "cpu"))
        return self.score(texts)

    def _score(self, texts: Sequence[str]) -> list[float]:
        scores = {text: score for text in texts if (score := self._cache.get(text)) is not None}
        missing = [text for text in dict.fromkeys(texts) if text not in scores]
        pairs = zip(missing, self._scorer.score(missing), strict=True)
        added = {text: math.nan if score is None else score.bits_per_byte for text, score in pairs}
        self._cache.add(added)
        return [(scores | added)[text] for text in texts]


def _load(path: Path) -> LoadedModel:
    """The model on the GPU with the most memory free, on the CPU if it does not fit there. Raises CleaningRefused."""
    if not path.is_dir():
        raise CleaningRefused("scoring_model_gone")
    device = pick_device()
    try:
        return _load_on(path, device)
    except CleaningRefused as refused:
        if device == "cpu" or str(refused) != "scoring_memory":
            raise
        torch.cuda.empty_cache()
        return _load_on(path, "cpu")


def _load_on(path: Path, device: str) -> LoadedModel:
    try:
        return generation.load(path, device)
    except Exception as error:  # whatever a library makes of a strange model
        code = "scoring_memory" if is_memory_error(error) else "scoring_model_unreadable"
        raise CleaningRefused(code) from error
