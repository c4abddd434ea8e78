"""Answers about scores side by side."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from app.evaluations.service import CorpusComparison


class CorpusScoreAnswer(BaseModel):
    """How a model did on a corpus."""

    model: str = Field(description="ID of the checkpoint or imported base model.")
    name: str
    value: float
    low: float | None = Field(description="Lower end of the 95 % confidence interval, where there is one.")
    high: float | None = Field(description="Upper end of it.")
    num_documents: int
    was_trained_on_it: bool = Field(description="Whether the corpus is one that the checkpoint's job was trained on.")
    task: str = Field(description="ID of the evaluation, which has all metrics and examples.")
    finished_at: datetime | None


class ScoreComparison(BaseModel):
    """The newest score of each model on a corpus with the same settings, the best first."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "corpus": "06e9w1zz2b3c4d5f",
                    "corpus_name": "Capitals",
                    "kind": "questions",
                    "metric": "right",
                    "is_more_better": True,
                    "limit": 200,
                    "num_fewshot": 0,
                    "max_tokens": 128,
                    "judge": None,
                    "baseline": 0.02,
                    "scores": [
                        {
                            "model": "06e9x2m4q8r7t5vw",
                            "name": "Small talk · step 400",
                            "value": 0.61,
                            "low": 0.54,
                            "high": 0.67,
                            "num_documents": 200,
                            "was_trained_on_it": False,
                            "task": "06e9x5rr8s1t2v3w",
                            "finished_at": "2026-11-24T20:20:44Z",
                        }
                    ],
                }
            ]
        }
    )

    corpus: str
    corpus_name: str = Field(description="Empty if the corpus was deleted.")
    kind: str
    metric: str = Field(
        description="By which models are compared: bits_per_byte of text, acc of multiple_choice and classification, "
        "exact_match of completion, right of questions."
    )
    is_more_better: bool
    limit: int | None = Field(description="Documents that were evaluated on at most; null: all.")
    num_fewshot: int
    max_tokens: int | None = Field(None, description="Longest answer to a question, in tokens; null for other corpora.")
    judge: str | None = Field(None, description="ID of the model that judged answers to questions.")
    baseline: float | None = Field(
        description="What guessing reaches: chance for multiple_choice, the share of the most frequent answer for "
        "classification, completion and questions, the entropy of single bytes for text."
    )
    scores: list[CorpusScoreAnswer]


class ScoreComparisons(BaseModel):
    """Comparisons, the one with the newest evaluation first."""

    data: list[ScoreComparison]
    next: str | None = Field(description="Cursor of the evaluations before these; null: there are none.")


def comparison_answer(comparison: CorpusComparison) -> ScoreComparison:
    """A comparison as it is answered."""
    scores = [
        CorpusScoreAnswer(
            model=score.model.id,
            name=score.model.name,
            value=score.value,
            low=score.interval[0] if score.interval is not None else None,
            high=score.interval[1] if score.interval is not None else None,
            num_documents=score.num_documents,
            was_trained_on_it=comparison.corpus_id in score.model.corpora,
            task=score.task_id,
            finished_at=score.finished_at,
        )
        for score in comparison.scores
    ]
    same = ("corpus_name", "kind", "metric", "is_more_better", "limit", "num_fewshot")
    fields = {name: getattr(comparison, name) for name in (*same, "max_tokens", "judge", "baseline")}
    return ScoreComparison(corpus=comparison.corpus_id, scores=scores, **fields)
