"""The step that removes the documents that a model of reference text finds the most, or the least, surprising."""

from array import array
from collections.abc import Iterator

import numpy as np

from app.corpora.cleaning.recipe import Perplexity
from worker.sandbox.cleaning.documents import CorpusDocument, words
from worker.sandbox.cleaning.duplicates import references
from worker.sandbox.cleaning.ngram_model import NgramModel
from worker.sandbox.cleaning.steps import CleaningRefused, Context, Filter, Reason, read_twice

MIN_WORDS = 10  # of a document that is scored
MIN_REFERENCE_WORDS = 1_000
SCORED_WORDS = 20_000  # of a document, from its beginning


class PerplexityStep(Filter):
    """Removes documents beyond percentiles of perplexity. Reads all documents twice."""

    def __init__(self, settings: Perplexity, context: Context, seed: int) -> None:
        super().__init__(seed)
        self._settings, self._context = settings, context
        every = references(context, settings.corpora)
        texts = (words(document.text) for reference in every for document in reference.read())
        self._model = NgramModel(texts, settings.order)
        if self._model.num_words < MIN_REFERENCE_WORDS:
            raise CleaningRefused("reference_short")
        self._scores = array("d")  # of the documents in their order; NaN for a short one
        self._next = 0
        self._limits = (0.0, np.inf)

    def run(self, documents: Iterator[CorpusDocument]) -> Iterator[CorpusDocument]:
        """The documents between the percentiles."""
        return super().run(read_twice(self._context, documents, self._score, self._set_limits))

    def _score(self, document: CorpusDocument) -> None:
        tokens = words(document.text)
        score = self._model.perplexity(tokens[:SCORED_WORDS]) if len(tokens) >= MIN_WORDS else np.nan
        self._scores.append(score)

    def _set_limits(self) -> None:
        scores = np.asarray(self._scores)
        scores = scores[~np.isnan(scores)]
        settings = self._settings
        if len(scores):
            low = np.percentile(scores, settings.min_percentile) if settings.min_percentile > 0 else 0.0
            high = np.percentile(scores, settings.max_percentile) if settings.max_percentile < 100 else np.inf
            self._limits = (float(low), float(high))

    def reason(self, document: CorpusDocument) -> Reason | None:
        """The percentile that it is beyond."""
        score = self._scores[self._next]
        self._next += 1
        low, high = self._limits
        if score < low:
            return Reason("perplexity_low", {"perplexity": _rounded(score), "limit": _rounded(low)})
        if score > high:
            return Reason("perplexity_high", {"perplexity": _rounded(score), "limit": _rounded(high)})
        return None


def _rounded(value: float) -> float:
    return round(value) if value >= 100 else round(value, 1)
