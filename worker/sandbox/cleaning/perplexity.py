"""The step that removes the documents that a model finds the most, or the least, surprising."""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib import import_module
from typing import Any, Protocol

import numpy as np

from app.corpora.cleaning.recipe import Perplexity
from worker.sandbox.cleaning.documents import CorpusDocument, words
from worker.sandbox.cleaning.duplicates import references
from worker.sandbox.cleaning.ngram_model import NgramModel
from worker.sandbox.cleaning.steps import CleaningRefused, Context, Filter, Reason, read_twice

MIN_WORDS = 10  # of a document that an n-gram model scores
MIN_REFERENCE_WORDS = 1_000
SCORED_WORDS = 20_000  # of a document, from its beginning
CHARACTERS_AT_ONCE = 1 << 15  # of the documents that are scored together
NUM_BINS = 20
BINNED_PERCENTILE = 99  # that the bins end at; the last one has all beyond it


class Scorer(Protocol):
    """A model that scores documents: the more surprising a document, the higher its score."""

    unit: str  # of the scores

    def score(self, texts: Sequence[str]) -> Sequence[float]:
        """A score for each text; NaN for one that is too short."""
        ...


class NgramScorer:
    """An n-gram model of the text of reference corpora."""

    unit = "perplexity"

    def __init__(self, settings: Perplexity, context: Context) -> None:
        every = references(context, settings.corpora)
        texts = (words(document.text) for reference in every for document in reference.read())
        self._model = NgramModel(texts, settings.order)
        if self._model.num_words < MIN_REFERENCE_WORDS:
            raise CleaningRefused("reference_short")

    def score(self, texts: Sequence[str]) -> list[float]:
        """The perplexity of each text; NaN for one of fewer than MIN_WORDS words."""
        return [self._perplexity(words(text)) for text in texts]

    def _perplexity(self, tokens: Sequence[str]) -> float:
        return self._model.perplexity(tokens[:SCORED_WORDS]) if len(tokens) >= MIN_WORDS else float("nan")


class PerplexityStep(Filter):
    """Removes documents beyond percentiles of their scores, or beyond a limit. Reads all documents twice."""

    def __init__(self, settings: Perplexity, context: Context, seed: int) -> None:
        super().__init__(seed)
        self._settings, self._context = settings, context
        self._scorer: Scorer | None = _make_scorer(settings, context)
        self._unit = self._scorer.unit
        self._pending: list[str] = []
        self._num_pending = 0  # characters
        self._scores = array("d")  # of the documents in their order; NaN for a short one
        self._next = 0
        self._limits = (0.0, np.inf)

    def run(self, documents: Iterator[CorpusDocument]) -> Iterator[CorpusDocument]:
        """The documents within the limits."""
        # A model takes so much longer than reading that only its pass counts as progress.
        context = replace(self._context, progress=lambda done: None) if self._settings.model else self._context
        return super().run(read_twice(context, documents, self._add, self._finish))

    def _add(self, document: CorpusDocument) -> None:
        text = document.text
        self._pending.append(text)
        self._num_pending += len(text)
        if self._num_pending >= CHARACTERS_AT_ONCE:
            self._score()

    def _score(self) -> None:
        assert self._scorer is not None, "all documents are scored before the first is filtered"
        self._scores.extend(self._scorer.score(self._pending))
        self._pending, self._num_pending = [], 0

    def _finish(self) -> None:
        self._score()
        self._scorer = None  # frees its memory
        scores = np.asarray(self._scores)
        scored = scores[~np.isnan(scores)]
        settings = self._settings
        low, high = 0.0, np.inf
        if len(scored):
            low = np.percentile(scored, settings.min_percentile) if settings.min_percentile > 0 else 0.0
            high = np.percentile(scored, settings.max_percentile) if settings.max_percentile < 100 else np.inf
        self._limits = (float(low), float(min(high, settings.max_bits_per_byte or np.inf)))
        self.counts.scores = self._histogram(scored, len(scores))

    def _histogram(self, scored: "np.ndarray[Any, np.dtype[np.float64]]", num_documents: int) -> dict[str, Any]:
        """The distribution of the scores, as app/core/json_shapes.py keeps it."""
        low, high = self._limits
        edges = counts = np.empty(0)
        if len(scored):
            start, end = float(scored.min()), float(np.percentile(scored, BINNED_PERCENTILE))
            edges = np.linspace(start, max(end, start + 1e-6), NUM_BINS + 1)
            counts, _edges = np.histogram(np.minimum(scored, edges[-1]), edges)
            edges[-1] = max(edges[-1], scored.max())
        return {
            "unit": self._unit,
            "num_unscored": num_documents - len(scored),
            "low": _rounded(low) if low > 0 else None,
            "high": _rounded(high) if np.isfinite(high) else None,
            "edges": [round(float(edge), 4) for edge in edges],
            "counts": [int(count) for count in counts],
        }

    def reason(self, document: CorpusDocument) -> Reason | None:
        """The limit that it is beyond."""
        score = self._scores[self._next]
        self._next += 1
        low, high = self._limits
        is_low = score < low
        if not is_low and not score > high:
            return None
        code = f"{self._unit}_{'low' if is_low else 'high'}"
        return Reason(code, {self._unit: _rounded(score), "limit": _rounded(low if is_low else high)})


def _make_scorer(settings: Perplexity, context: Context) -> Scorer:
    if settings.model is None:
        return NgramScorer(settings, context)
    module = import_module("worker.sandbox.cleaning.model_scorer")  # imports torch
    scorer: Scorer = module.ModelScorer(context.models[settings.model])
    return scorer


def _rounded(value: float) -> float:
    return round(value) if value >= 100 else round(value, 1 if value >= 10 else 3)
