"""Asks a model questions and checks its answers: by comparison, by a pattern, as numbers, or by another model."""

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import regex
import torch

from trainer.data import chat_template
from trainer.inference.generation import LoadedModel, PromptTooLong, stream

Question = Mapping[str, Any]  # {"question", "answers", "check", "tolerance"?}

NUMBER = re.compile(r"[-+]?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?")
RELATIVE_TOLERANCE = 1e-9  # of numbers, beside the tolerance of the question: for their rounding
PATTERN_SECONDS = 1.0  # after which a pattern does not match
JUDGE_PROMPT = (
    "Question: {question}\n\nReference answer: {expected}\n\nGiven answer: {answer}\n\n"
    "Does the given answer say the same as the reference answer? Answer yes or no."
)


@dataclass(frozen=True)
class Answered:
    """A question with what the model answered. `is_cut`: it was longer than the model, or its judge, can read."""

    question: Question
    answer: str
    is_right: bool
    is_cut: bool = False


def ask(
    model: LoadedModel,
    questions: Sequence[Question],
    examples: Sequence[Question],
    *,
    max_tokens: int,
    read: Callable[[int], None],
) -> list[Answered]:
    """The model's likeliest answers, of at most `max_tokens` tokens each, checked unless a judge has to.

    `examples` are shown before each question with their first answer: as earlier turns to a model with a chat
    template, else as text. `read` is called with 1 after each question.
    """
    answered = []
    for question in questions:
        try:
            prompt, stop = _prompt(model, question, examples)
            pieces = stream(model, prompt, max_tokens=max_tokens, stop=stop, temperature=0.0)
            answer = without_reasoning("".join(piece.text for piece in pieces))
            answered.append(Answered(question, answer, is_right(question, answer)))
        except PromptTooLong:
            answered.append(Answered(question, "", False, is_cut=True))
        read(1)
    return answered


def _prompt(
    model: LoadedModel, question: Question, examples: Sequence[Question]
) -> tuple[str | list[int], tuple[str, ...]]:
    """What the model is shown, as text or tokens, and where its answer ends besides its own end of a text."""
    if chat_template.default_template(model.tokenizer) is None:
        solved = "".join(f"{example['question']}\n{example['answers'][0]}\n\n" for example in examples)
        return f"{solved}{question['question']}" + ("\n" if examples else ""), ("\n\n",)
    messages = []
    for example in examples:
        messages.append({"role": "user", "content": example["question"]})
        messages.append({"role": "assistant", "content": example["answers"][0]})
    return model.encode_chat([*messages, {"role": "user", "content": question["question"]}]), ()


def without_reasoning(text: str) -> str:
    """What a model answers after its reasoning between <think> and </think>, which some templates begin themselves.

    Empty if the reasoning does not end.
    """
    _reasoning, end, answer = text.rpartition("</think>")
    return (answer if end else text.partition("<think>")[0]).strip()


def is_right(question: Question, answer: str) -> bool:
    """Whether an answer is one of those that are right. Of a question for a judge: whether it is exactly one."""
    expected = [str(one).strip() for one in question["answers"]]
    match question["check"]:
        case "contains":
            return any(one.casefold() in answer.casefold() for one in expected)
        case "regex":
            return any(_matches(one, answer) for one in expected)
        case "number":
            number = last_number(answer)
            tolerance = float(question.get("tolerance", 0.0))
            return number is not None and any(_is_near(number, _parsed(one), tolerance) for one in expected)
        case _:
            return answer.strip() in expected


def _matches(pattern: str, answer: str) -> bool:
    try:
        return regex.search(pattern, answer, timeout=PATTERN_SECONDS) is not None
    except (TimeoutError, regex.error):
        return False


def last_number(text: str) -> float | None:
    """The last number in a text, which may have thousands separators; None if there is none."""
    numbers = NUMBER.findall(text)
    return _parsed(numbers[-1]) if numbers else None


def _parsed(number: str) -> float:
    return float(number.replace(",", ""))


def _is_near(number: float, expected: float, tolerance: float) -> bool:
    return abs(number - expected) <= tolerance + RELATIVE_TOLERANCE * abs(expected)


def judge(model: LoadedModel, answered: Sequence[Answered], read: Callable[[int], None]) -> list[Answered]:
    """The answers, those to questions for a judge as the model calls them: right where “yes” is likelier than “no”."""
    results = []
    for one in answered:
        if one.question["check"] == "judge" and not one.is_cut:
            try:
                one = replace(one, is_right=one.is_right or _calls_right(model, one))
            except PromptTooLong:
                one = replace(one, is_cut=True)
            read(1)
        results.append(one)
    return results


def _calls_right(model: LoadedModel, one: Answered) -> bool:
    """Raises PromptTooLong if the judge cannot read the question with both answers."""
    expected = " / ".join(map(str, one.question["answers"]))
    text = JUDGE_PROMPT.format(question=one.question["question"], expected=expected, answer=one.answer)
    if chat_template.default_template(model.tokenizer) is None:
        prompt, space = model.encode(f"{text}\nAnswer:"), " "
    else:
        prompt, space = model.encode_chat([{"role": "user", "content": text}]), ""
    yes, no = (
        sum(math.exp(_log_probability(model, prompt, space + spelled)) for spelled in (word, word.title()))
        for word in ("yes", "no")
    )
    return yes > no


@torch.no_grad()
def _log_probability(model: LoadedModel, prompt: list[int], text: str) -> float:
    """log p(text | prompt), in nats."""
    ids = model.tokenizer.encode(text, add_special_tokens=False)
    if len(prompt) + len(ids) > model.context:
        raise PromptTooLong(len(prompt) + len(ids), model.context)
    scores = model.model(input_ids=torch.tensor([prompt + ids], device=model.model.device)).logits[0]
    return float(scores[len(prompt) - 1 : -1].float().log_softmax(-1)[range(len(ids)), ids].sum())


def best_constant_share(questions: Sequence[Question]) -> float:
    """The share of right answers for one who always gives the same, the best of the most frequent expected answers.

    Questions whose answers are patterns count as wrong.
    """
    compared = [question for question in questions if question["check"] != "regex"]  # a pattern is no answer
    candidates = Counter(str(answer).strip() for question in compared for answer in question["answers"])
    constants = [answer for answer, _count in candidates.most_common(20)]
    shares = [sum(is_right(question, constant) for question in compared) for constant in constants]
    return max(shares, default=0) / max(1, len(questions))
