"""Evaluations on corpora of all kinds: progress, baselines, confidence intervals, questions and their judge."""

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import scipy.stats
import torch
from transformers import LlamaConfig
from transformers.modeling_outputs import CausalLMOutput

from tests.trainer.inference.test_lm_eval_harness import Memorized
from tests.trainer.runs import checkpoint_of, english, write_corpus
from trainer.inference import evaluation, generation, question_answering
from trainer.inference.evaluation import EvaluationRefused, baselines, confidence_interval
from trainer.inference.generation import LoadedModel
from trainer.inference.question_answering import is_right, last_number
from trainer.run_dir import CorpusInput, RunDir


class Remembering(Memorized):
    """The same for a caller that feeds only new tokens, with a cache."""

    def forward(self, input_ids: torch.Tensor, past_key_values: Any = None, **named: Any) -> CausalLMOutput:
        if past_key_values is not None:
            past_key_values.ids = torch.cat([getattr(past_key_values, "ids", input_ids[:, :0]), input_ids], dim=1)
            input_ids = past_key_values.ids
        return super().forward(input_ids, **named)


@pytest.fixture(scope="module")
def loaded(trained: RunDir) -> LoadedModel:
    return generation.load(checkpoint_of(trained, 150), "cpu")


def memorized(loaded: LoadedModel, texts: dict[str, str], context: int = 2_048) -> LoadedModel:
    """A model that continues each of these prompts with its text."""
    config = LlamaConfig(
        vocab_size=len(loaded.tokenizer),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        max_position_embeddings=context,
    )
    records = [{"prompt": prompt, "completion": text} for prompt, text in texts.items()]
    return LoadedModel(Remembering(config, loaded.tokenizer, records), loaded.tokenizer)


def corpus(home: Path, kind: str, documents: list[Any]) -> CorpusInput:
    texts = [document if isinstance(document, str) else json.dumps(document) for document in documents]
    return write_corpus(home / kind, texts).model_copy(update={"id": kind, "kind": kind})


def evaluate(model: LoadedModel, *corpora: CorpusInput, **options: Any) -> tuple[dict[str, Any], list[tuple[int, int]]]:
    progress: list[tuple[int, int]] = []
    options = {"limit": None, "num_fewshot": 0, "batch_size": 4, **options}
    result = evaluation.evaluate(model, corpora, progress=lambda done, total: progress.append((done, total)), **options)
    return {one.corpus: one for one in result.corpora}, progress


def question(text: str, *answers: str, check: str = "exact", **fields: Any) -> dict[str, Any]:
    return {"question": text, "answers": list(answers), "check": check, **fields}


# ---- progress -------------------------------------------------------------------------------------------------------


def test_the_progress_of_long_texts_counts_the_windows_that_are_read(loaded: LoadedModel, tmp_path: Path) -> None:
    documents = [english(6_000), english(500)]
    lengths = [len(loaded.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in documents]
    windows = sum(math.ceil(length / loaded.context) for length in lengths)
    assert windows > 10 * len(documents)

    _results, progress = evaluate(loaded, corpus(tmp_path, "text", documents))

    assert {total for _done, total in progress} == {windows}
    steps = [done for done, _total in progress]
    assert steps[-2:] == [windows, windows]  # the last batch, and the end
    assert all(after - before <= 4 for before, after in zip([0, *steps], steps, strict=False))  # never a whole document


# ---- baselines and intervals ----------------------------------------------------------------------------------------


def test_baselines_are_those_of_guessing() -> None:
    texts = [{"text": "aab"}, {"text": "é"}]
    counts = Counter(b"aab" + "é".encode())
    assert baselines("text", texts)["bits_per_byte"] == pytest.approx(
        float(scipy.stats.entropy(list(counts.values()), base=2))
    )
    two_and_four = [{"choices": ["a", "b"]}, {"choices": ["a", "b", "c", "d"]}]
    assert baselines("multiple_choice", two_and_four) == {"acc": 0.375, "acc_norm": 0.375}
    labels = [{"answer": 1}, {"answer": 0}, {"answer": 1}]
    assert baselines("classification", labels)["acc"] == pytest.approx(2 / 3)
    assert baselines("completion", [{"completion": "x"}, {"completion": "y"}]) == {"exact_match": 0.5}
    asked = [question("?", "4", check="number"), question("?", "4.0", check="number"), question("?", "no")]
    assert baselines("questions", asked)["right"] == pytest.approx(2 / 3)
    assert baselines("questions", [*asked, question("?", ".*", check="regex")])["right"] == 0.5
    assert baselines("text", []) == {}


@pytest.mark.parametrize(("right", "number"), [(0, 5), (5, 5), (7, 20), (199, 200)])
def test_intervals_of_shares_are_those_of_scipy(right: int, number: int) -> None:
    expected = scipy.stats.binomtest(right, number).proportion_ci(method="wilson")
    low, high = confidence_interval("acc", right / number, None, number) or (-1, -1)

    assert (low, high) == (pytest.approx(expected.low, abs=1e-6), pytest.approx(expected.high, abs=1e-6))


def test_other_intervals_are_those_of_their_standard_errors() -> None:
    assert confidence_interval("bits_per_byte", 2.0, 0.1, 50) == (pytest.approx(1.804004), pytest.approx(2.195996))
    assert confidence_interval("bits_per_byte", 2.0, None, 50) is None


# ---- checks of answers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("check", "expected", "answer", "is_expected"),
    [
        ("exact", "Rome", " Rome\n", True),
        ("exact", "Rome", "Rome.", False),
        ("exact", "Rome", "rome", False),
        ("contains", "Rome", "It is ROME, of course.", True),
        ("contains", "Rome", "It is Paris.", False),
        ("regex", r"^R[ao]me$", "Rome", True),
        ("regex", r"\d{4}", "in 1984.", True),
        ("regex", r"^\d{4}$", "in 1984.", False),
        ("number", "1200", "So the sum is 1,200.", True),
        ("number", "1,200", "12 + 1188 = 1200", True),
        ("number", "0.1", "0.1001", False),
        ("number", "0.1", "0.10", True),
        ("number", "-3", "It is -3 degrees", True),
        ("number", "3", "three", False),
        ("number", "2", "2 of 10", False),  # the last number is the answer
    ],
)
def test_checks(check: str, expected: str, answer: str, is_expected: bool) -> None:
    assert is_right(question("?", expected, check=check), answer) is is_expected


def test_any_of_several_answers_is_right_and_numbers_may_differ_by_their_tolerance() -> None:
    assert is_right(question("?", "Rome", "Roma"), "Roma")
    assert is_right(question("?", "3.14", check="number", tolerance=0.01), "about 3.15")
    assert not is_right(question("?", "3.14", check="number", tolerance=0.001), "about 3.15")
    assert last_number("1e3 and .5") == 0.5


def test_a_pattern_that_never_ends_does_not_match(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(question_answering, "PATTERN_SECONDS", 0.05)

    assert not is_right(question("?", r"^(a|aa|a?a)+$", check="regex"), "a" * 200 + "b")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (" Rome\n", "Rome"),
        ("<think>Italy, so Paris? No.</think>\n\nRome", "Rome"),
        ("Italy, so Paris? No.</think>Rome", "Rome"),  # whose template begins the reasoning
        ("<think>a</think>Paris<think>b</think> Rome", "Rome"),
        ("<think>Is it Rome", ""),
    ],
)
def test_reasoning_is_no_part_of_an_answer(text: str, answer: str) -> None:
    assert question_answering.without_reasoning(text) == answer


# ---- questions ------------------------------------------------------------------------------------------------------


def test_answers_to_questions_are_generated_and_checked(loaded: LoadedModel, tmp_path: Path) -> None:
    model = memorized(loaded, {"The capital of Italy is": " Rome.\n\nThe", "2 + 2 =": " 4", "Say ok:": " no"})
    asked = [
        question("The capital of Italy is", "rome", check="contains"),
        question("2 + 2 =", "4", check="number"),
        question("Say ok:", "ok"),
        question("x " * 3_000, "ok"),  # longer than the model can read
    ]

    results, progress = evaluate(model, corpus(tmp_path, "questions", asked), corpus(tmp_path, "text", ["And God"]))

    scores = results["questions"]
    assert [(one["answer"], one["is_right"]) for one in scores.examples] == [
        ("Rome.", True),
        ("4", True),
        ("no", False),
        ("", False),
    ]
    assert (scores.metrics, scores.num_cut, scores.baselines) == ({"right": 0.5}, 1, {"right": 0.5})
    assert scores.intervals["right"][0] < 0.5 < scores.intervals["right"][1]
    assert results["text"].metrics.keys() >= {"bits_per_byte"}
    assert {total for _done, total in progress} == {5}


def test_examples_are_shown_before_questions(loaded: LoadedModel, tmp_path: Path) -> None:
    model = memorized(loaded, {"1 + 1 =\n2\n\n2 + 2 =\n": "4\n\n3 + 3"})
    asked = [question("1 + 1 =", "2", check="number"), question("2 + 2 =", "4")]

    results, _progress = evaluate(model, corpus(tmp_path, "questions", asked), num_fewshot=1)

    assert [one["answer"] for one in results["questions"].examples] == ["4"]
    with pytest.raises(EvaluationRefused, match="too few to show 2") as refused:
        evaluate(model, corpus(tmp_path, "questions", asked), num_fewshot=2)
    assert (refused.value.code, refused.value.values) == ("examples_few", {"found": 2, "shown": 2})


def test_a_second_model_judges_where_questions_ask_for_it(loaded: LoadedModel, tmp_path: Path) -> None:
    asked = [question("Who?", "God", check="judge"), question("What?", "light", check="judge")]
    model = memorized(loaded, {"Who?": " the LORD", "What?": " dust"})
    words = {"question": "Who?", "expected": "God", "answer": "the LORD"}
    judge = memorized(loaded, {question_answering.JUDGE_PROMPT.format(**words) + "\nAnswer:": " yes"})
    questions = corpus(tmp_path, "questions", asked)

    results, progress = evaluate(model, questions, load_judge=lambda: judge)

    assert [one["is_right"] for one in results["questions"].examples] == [True, False]
    assert progress[-1] == (4, 4)
    with pytest.raises(ValueError, match="choose a model that judges"):
        evaluate(model, questions)


def test_a_judge_may_write_its_verdict_with_a_capital_letter(
    loaded: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chances = {" yes": 0.01, " Yes": 0.6, " no": 0.3, " No": 0.09}
    model = memorized(loaded, {"Who?": " the LORD"})
    monkeypatch.setattr(question_answering, "_log_probability", lambda model, prompt, text: math.log(chances[text]))
    questions = corpus(tmp_path, "questions", [question("Who?", "God", check="judge")])

    results, _progress = evaluate(model, questions, load_judge=lambda: model)

    assert [one["is_right"] for one in results["questions"].examples] == [True]


def test_an_answer_that_the_judge_cannot_read_is_cut(loaded: LoadedModel, tmp_path: Path) -> None:
    asked = [question("Who?", "God", check="judge"), question("What?", "light", check="judge")]
    model = memorized(loaded, {"Who?": " the LORD", "What?": " light"})
    judge = memorized(loaded, {}, context=16)

    results, _progress = evaluate(model, corpus(tmp_path, "questions", asked), load_judge=lambda: judge)

    assert [one["is_right"] for one in results["questions"].examples] == [False, True]  # the exact one needs no judge
    assert results["questions"].num_cut == 1
