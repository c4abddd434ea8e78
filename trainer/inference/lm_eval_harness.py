"""Measures a checkpoint on corpora with EleutherAI's lm-evaluation-harness, offline. Imports torch and lm_eval."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from datasets import Dataset, disable_progress_bars
from lm_eval import evaluator
from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from trainer.inference.generation import LoadedModel
from trainer.run_dir import CorpusInput

VERSION = f"lm_eval {version('lm_eval')}"
SPLIT = "test"
EXAMPLES = "examples"  # shown before the question
MAX_EXAMPLES = 20  # of each corpus, kept for people to read
MAX_CHARACTERS = 2_000  # of each field of an example
MIN_NEW_TOKENS = 32
FEWSHOT_SEED = 1234  # the harness's own, although its sampler takes the first ones
BOOTSTRAP_ITERATIONS = 200  # for standard errors that have no formula

# The task of each kind of corpus, in the harness's configuration format (docs/task_guide.md of lm_eval).
TASKS: dict[str, dict[str, Any]] = {
    "text": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [
            {"metric": "bits_per_byte"},
            {"metric": "byte_perplexity"},
            {"metric": "word_perplexity"},
        ],
    },
    "multiple_choice": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "choices",
        "doc_to_target": "answer",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    },
    "classification": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{text}}\n",
        "doc_to_choice": "choices",
        "doc_to_target": "answer",
        "target_delimiter": "",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    },
    "completion": {
        "output_type": "generate_until",
        "doc_to_text": "{{prompt}}",
        "doc_to_target": "{{completion}}",
        "target_delimiter": "",
        "generation_kwargs": {"until": [], "do_sample": False},  # until the end of the text
        "metric_list": [{"metric": "exact_match", "ignore_case": False, "ignore_punctuation": False}],
    },
}


@dataclass(frozen=True)
class Scores:
    """What was measured on one corpus: metrics, standard errors of those that have one, and the first documents with
    what the model made of them. Of `num_cut` documents a prompt or an answer was longer than the model can read.
    """

    num_documents: int
    num_cut: int
    metrics: dict[str, float]
    errors: dict[str, float]
    examples: list[dict[str, Any]]


class _Counted(HFLM):  # type: ignore[misc]
    """The harness's own model. Reports how many sequences it has read; gives each answer room for the expected one."""

    def __init__(self, loaded: LoadedModel, batch_size: int, read: Callable[[int], None]) -> None:
        super().__init__(
            pretrained=loaded.model, tokenizer=loaded.tokenizer, batch_size=batch_size, max_length=loaded.context
        )
        self._context, self._read = loaded.context, read

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        for request in requests:
            prompt, options = request.args
            request.arguments = (prompt, {**options, "max_gen_toks": self._max_new_tokens(request.doc, prompt)})
        return list(super().generate_until(requests, disable_tqdm))

    def _max_new_tokens(self, document: Mapping[str, Any], prompt: str) -> int:
        """Tokens to generate: as many as expected and one more, to detect a longer answer.

        Where there is room, it is a power of two, so that many documents share a batch.
        """
        expected = self._num_tokens(document["completion"])
        room = self._context - self._num_tokens(prompt)
        rounded = max(MIN_NEW_TOKENS, 1 << expected.bit_length())
        if rounded <= room:
            return rounded
        return min(expected + 1, room if 0 < expected <= room else self._context - 1)

    def is_cut(self, kind: str, sample: Mapping[str, Any]) -> bool:
        """Whether the model could not read all of a document: a prompt with the answer expected, or with a choice."""
        if kind == "text":
            return False  # read in windows
        if kind == "completion":
            prompt = sample["arguments"][0][0]
            return self._num_tokens(prompt) + self._num_tokens(sample["doc"]["completion"]) > self._context
        lengths = [self._num_tokens(prompt + choice) for prompt, choice in sample["arguments"]]
        return max(lengths) > self._context + 1  # the last token is only predicted

    def _num_tokens(self, text: str) -> int:
        return len(self.tok_encode(text))

    def _model_call(self, inps: Any, *rest: Any, **named: Any) -> Any:
        self._read(len(inps))
        return super()._model_call(inps, *rest, **named)

    def _model_generate(self, context: Any, *rest: Any, **named: Any) -> Any:
        self._read(len(context))
        return super()._model_generate(context, *rest, **named)


def measure(
    loaded: LoadedModel,
    corpora: Sequence[CorpusInput],
    documents: Mapping[str, tuple[list[dict[str, Any]], list[dict[str, Any]]]],
    *,
    num_fewshot: int,
    batch_size: int,
    read: Callable[[int], None],
) -> dict[str, Scores]:
    """How a causal model does on corpora of kinds that have a task, by corpus.

    `documents` are the examples that are shown before each document, and the documents. `read` is called with the
    number of sequences that were read.
    """
    if not corpora:
        return {}
    disable_progress_bars()
    for name in ("lm_eval", "lm-eval"):
        logging.getLogger(name).setLevel(logging.ERROR)
    model = _Counted(loaded, batch_size, read)
    manager = TaskManager(include_defaults=False)  # reading the harness's own tasks takes many seconds
    loaded_tasks = manager.load([_task(corpus, *documents[corpus.id]) for corpus in corpora])
    for task in loaded_tasks["tasks"].values():
        task.set_fewshot_seed(seed=FEWSHOT_SEED)
    # Not simple_evaluate, which lists all installed packages and hardware by other programs for seconds.
    output = evaluator.evaluate(model, loaded_tasks, bootstrap_iters=BOOTSTRAP_ITERATIONS, log_samples=True)
    return {corpus.id: _scores(corpus, output, model) for corpus in corpora}


def _task(source: CorpusInput, examples: list[dict[str, Any]], documents: list[dict[str, Any]]) -> ConfigurableTask:
    # The harness wants examples, even if none is shown.
    splits = {SPLIT: Dataset.from_list(documents), EXAMPLES: Dataset.from_list(examples or documents[:1])}
    config = {
        "task": source.id,
        "custom_dataset": lambda **_metadata: splits,
        "test_split": SPLIT,
        "fewshot_split": EXAMPLES,
        "num_fewshot": len(examples),
        "fewshot_config": {"sampler": "first_n"},
        **TASKS[source.kind],
    }
    return ConfigurableTask(config=config)


def _scores(source: CorpusInput, output: Mapping[str, Any], model: _Counted) -> Scores:
    metrics, errors = {}, {}
    for key, value in output["results"][source.id].items():
        name, _comma, _filter = key.partition(",")
        if not isinstance(value, int | float) or not math.isfinite(value) or not _comma:
            continue
        if name.endswith("_stderr"):
            errors[name.removesuffix("_stderr")] = float(value)
        else:
            metrics[name] = float(value)
    samples = output["samples"][source.id]
    return Scores(
        num_documents=len(samples),
        num_cut=sum(model.is_cut(source.kind, sample) for sample in samples),
        metrics=metrics,
        errors=errors,
        examples=[_example(source.kind, sample) for sample in samples[:MAX_EXAMPLES]],
    )


def _example(kind: str, sample: Mapping[str, Any]) -> dict[str, Any]:
    document, answers = sample["doc"], sample["filtered_resps"]
    if kind == "text":
        return {"text": document["text"][:MAX_CHARACTERS], "nats": -float(answers[0])}
    if kind == "completion":
        texts = {"prompt": document["prompt"], "expected": document["completion"], "answer": str(answers[0])}
        example: dict[str, Any] = {name: text[:MAX_CHARACTERS] for name, text in texts.items()}
        return {**example, "is_right": bool(sample["exact_match"])}
    question = document["question"] if kind == "multiple_choice" else document["text"]
    scores = [float(score) for score, _is_greedy in answers]
    return {
        "question": question[:MAX_CHARACTERS],
        "choices": [str(choice)[:MAX_CHARACTERS] for choice in document["choices"]],
        "expected": int(document["answer"]),
        "answer": scores.index(max(scores)),
        "is_right": bool(sample["acc"]),
    }
