"""Evaluates a checkpoint on corpora: by lm-evaluation-harness, or by asking questions. Imports torch and lm_eval."""

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any

from pydantic import BaseModel

from trainer.data.corpus import CorpusReader
from trainer.data.tokenized_records import label_order
from trainer.formats.corpus_kinds import EVALUATION_KINDS
from trainer.inference import lm_eval_harness, question_answering
from trainer.inference.generation import LoadedModel
from trainer.inference.lm_eval_harness import MAX_CHARACTERS, MAX_EXAMPLES, Scores
from trainer.run_dir import CorpusInput

Z_95 = 1.959964  # of a normal distribution: 95 % lie within as many standard deviations
SHARES = ("acc", "acc_norm", "exact_match", "right")  # metrics that are shares of documents

MESSAGES = {
    "questions_unjudged": "there are questions for a judge; choose a model that judges",
    "kind_unevaluated": "corpora of the kind {kind} cannot be evaluated on; choose one of {kinds}",
    "examples_few": "documents of a corpus: {found}, too few to show {shown} and ask about others",
}

Documents = list[dict[str, Any]]


class EvaluationRefused(ValueError):
    """Corpora or settings that do not allow the evaluation: a code of MESSAGES and its values."""

    def __init__(self, code: str, **values: str | int) -> None:
        super().__init__(MESSAGES[code].format(**values))
        self.code = code
        self.values = values


class CorpusResult(BaseModel):
    """How a checkpoint did on one corpus.

    `errors` are standard errors and `intervals` 95 % confidence intervals, of those metrics that have them;
    `baselines` what one reaches by guessing (see `baselines`). `examples` are documents with what the model made of
    them, its score by the first metric among it.
    """

    corpus: str
    kind: str
    num_documents: int
    num_cut: int = 0  # documents of which a prompt or an answer was longer than the model, or its judge, can read
    metrics: dict[str, float]
    errors: dict[str, float]
    intervals: dict[str, tuple[float, float]] = {}
    baselines: dict[str, float] = {}
    examples: list[dict[str, Any]]


class EvaluationResult(BaseModel):
    """What an evaluation measured, and what made it."""

    harness: str
    num_fewshot: int
    corpora: list[CorpusResult]


def evaluate(
    loaded: LoadedModel,
    corpora: Sequence[CorpusInput],
    *,
    limit: int | None,
    num_fewshot: int,
    batch_size: int,
    progress: Callable[[int, int], None],
    max_tokens: int = 128,
    load_judge: Callable[[], LoadedModel] | None = None,
) -> EvaluationResult:
    """Evaluate a causal model on the first `limit` documents of each corpus, each preceded by `num_fewshot` others.

    Answers to questions have at most `max_tokens` tokens; those for a judge are shown to a second model, which is
    loaded when all others are done. `progress` gets the number of sequences done and of all.
    Raises EvaluationRefused for a kind of corpus that has no evaluation, for too few documents to show some of them,
    and for questions for a judge without one.
    """
    documents = {corpus.id: _documents(corpus, limit, num_fewshot) for corpus in corpora}
    total = sum(_num_sequences(loaded, corpus.kind, documents[corpus.id][1]) for corpus in corpora)
    done = 0

    def read(count: int) -> None:
        nonlocal done
        done = min(total, done + count)
        progress(done, total)

    by_harness = [corpus for corpus in corpora if corpus.kind != "questions"]
    results = lm_eval_harness.measure(
        loaded, by_harness, documents, num_fewshot=num_fewshot, batch_size=batch_size, read=read
    )
    answered = {
        corpus.id: question_answering.ask(
            loaded, documents[corpus.id][1], documents[corpus.id][0], max_tokens=max_tokens, read=read
        )
        for corpus in corpora
        if corpus.kind == "questions"
    }
    if any(one.question["check"] == "judge" for ones in answered.values() for one in ones):
        if load_judge is None:
            raise EvaluationRefused("questions_unjudged")
        judge = load_judge()
        answered = {name: question_answering.judge(judge, ones, read) for name, ones in answered.items()}
    results |= {corpus.id: _question_scores(answered[corpus.id]) for corpus in corpora if corpus.id in answered}
    progress(total, total)
    return EvaluationResult(
        harness=lm_eval_harness.VERSION,
        num_fewshot=num_fewshot,
        corpora=[_corpus_result(corpus, documents[corpus.id][1], results[corpus.id]) for corpus in corpora],
    )


def _documents(source: CorpusInput, limit: int | None, num_fewshot: int) -> tuple[Documents, Documents]:
    """The examples to be shown, and the documents to be evaluated on. Raises EvaluationRefused."""
    if source.kind not in EVALUATION_KINDS:
        raise EvaluationRefused("kind_unevaluated", kind=source.kind, kinds=", ".join(EVALUATION_KINDS))
    few = 0 if source.kind == "text" else num_fewshot
    corpus = CorpusReader(source)
    # The labels of a classification are those of all its records.
    most = None if source.kind == "classification" or limit is None else limit + few
    texts = list(islice(corpus.texts(), most))
    corpus.close()
    if source.kind == "text":
        documents: Documents = [{"text": text} for text in texts]
    else:
        documents = [json.loads(text) for text in texts]
    if source.kind == "classification":
        labels = label_order(str(record["label"]) for record in documents)
        documents = [
            {"text": record["text"], "choices": labels, "answer": labels.index(str(record["label"]))}
            for record in documents[: None if limit is None else limit + few]
        ]
    if len(documents) <= few:
        raise EvaluationRefused("examples_few", found=len(documents), shown=few)
    return documents[:few], documents[few:]


def _num_sequences(loaded: LoadedModel, kind: str, documents: Documents) -> int:
    """How many sequences the model reads: windows of a text, choices, or prompts."""
    if kind == "text":
        lengths = [len(loaded.tokenizer.encode(document["text"], add_special_tokens=False)) for document in documents]
        return sum(math.ceil(length / loaded.context) for length in lengths)
    num_judged = len([document for document in documents if document.get("check") == "judge"])
    return sum(len(document.get("choices", [0])) for document in documents) + num_judged


def _question_scores(answered: Sequence[question_answering.Answered]) -> Scores:
    share = sum(one.is_right for one in answered) / max(1, len(answered))
    examples = [
        {
            "question": one.question["question"][:MAX_CHARACTERS],
            "expected": " / ".join(map(str, one.question["answers"]))[:MAX_CHARACTERS],
            "answer": one.answer[:MAX_CHARACTERS],
            "is_right": one.is_right,
        }
        for one in answered[:MAX_EXAMPLES]
    ]
    return Scores(
        num_documents=len(answered),
        num_cut=sum(one.is_cut for one in answered),
        metrics={"right": share},
        errors={"right": math.sqrt(share * (1 - share) / max(1, len(answered) - 1))},
        examples=examples,
    )


def _corpus_result(source: CorpusInput, documents: Documents, scores: Scores) -> CorpusResult:
    intervals = {
        name: confidence_interval(name, value, scores.errors.get(name), scores.num_documents)
        for name, value in scores.metrics.items()
    }
    guessed = baselines(source.kind, documents)
    return CorpusResult(
        corpus=source.id,
        kind=source.kind,
        intervals={name: interval for name, interval in intervals.items() if interval is not None},
        baselines={name: value for name, value in guessed.items() if name in scores.metrics},
        **vars(scores),
    )


def confidence_interval(metric: str, value: float, error: float | None, number: int) -> tuple[float, float] | None:
    """The 95 % confidence interval of a metric over a number of documents; None where nothing is known of it.

    Of a share it is Wilson's score interval (Wilson 1927), which also holds for few documents and near 0 and 1.
    """
    if metric in SHARES and number:
        spread = Z_95**2 / number
        center = (value + spread / 2) / (1 + spread)
        half = Z_95 * math.sqrt(value * (1 - value) / number + spread / (4 * number)) / (1 + spread)
        return max(0.0, center - half), min(1.0, center + half)
    return (value - Z_95 * error, value + Z_95 * error) if error else None


def baselines(kind: str, documents: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """What is reached without a model, by metric.

    Of multiple choice it is chance; of labels, completions and questions the share of the most frequent one; of text
    what one knows who knows only how frequent each byte is.
    """
    if not documents:
        return {}
    if kind == "text":
        counts = Counter(byte for document in documents for byte in document["text"].encode())
        total = max(1, counts.total())
        bits = -sum(count / total * math.log2(count / total) for count in counts.values())
        return {"bits_per_byte": bits, "byte_perplexity": 2**bits}
    if kind == "multiple_choice":
        chance = sum(1 / len(document["choices"]) for document in documents) / len(documents)
        return {"acc": chance, "acc_norm": chance}
    if kind == "questions":
        return {"right": question_answering.best_constant_share(documents)}
    field, metrics = ("answer", ("acc", "acc_norm")) if kind == "classification" else ("completion", ("exact_match",))
    (_most_frequent, count), *_rest = Counter(document[field] for document in documents).most_common(1)
    return dict.fromkeys(metrics, count / len(documents))
