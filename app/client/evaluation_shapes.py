"""Answers about scores side by side."""

from datetime import datetime

from .shapes import Shape


class ScoreInfo(Shape):
    """How a model did on a corpus, with the 95 % confidence interval where there is one."""

    model: str
    name: str
    value: float
    low: float | None
    high: float | None
    num_documents: int
    was_trained_on_it: bool
    task: str
    finished_at: datetime | None


class ScoreComparisonInfo(Shape):
    """The newest score of each model on a corpus with the same settings, the best first.

    `metric` is bits_per_byte, acc, exact_match or right; `baseline` is what guessing reaches. `max_tokens` and `judge`
    are those of questions.
    """

    corpus: str
    corpus_name: str
    kind: str
    metric: str
    is_more_better: bool
    limit: int | None
    num_fewshot: int
    max_tokens: int | None = None
    judge: str | None = None
    baseline: float | None
    scores: list[ScoreInfo]
