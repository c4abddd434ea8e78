"""Reads records of the kind questions: what is asked, which answers are right, and how an answer is checked.

Standard library only: the limited child of parse.py imports this.
"""

import math
import re
from collections import Counter
from typing import Any

from trainer.formats.corpus_kinds import ANSWER_CHECKS
from worker.sandbox.corpus.fields import SHOWN_CHARACTERS, BadLine, Fields, Record


def read_question(fields: Fields, unused: Counter[str]) -> Record:
    """A record {"question", "answers", "check", "tolerance"?}. Raises BadLine."""
    question, answers = fields.text("question"), fields.take("answer")
    answers = answers if type(answers) is list else [answers]
    if not answers or not all(type(one) in (str, int, float) and str(one).strip() for one in answers):
        raise BadLine("expected_answer_invalid")
    check = fields.optional_text("check").strip().lower() or "exact"
    if check not in ANSWER_CHECKS:
        raise BadLine("check_unknown", check=check[:SHOWN_CHARACTERS], checks=", ".join(ANSWER_CHECKS))
    texts = [str(one) for one in answers]
    record: Record = {"question": question, "answers": texts, "check": check}
    if check == "number":
        return record | _checked_numbers(texts, fields.take("tolerance"))
    if check == "regex":
        _check_patterns(texts)
    return record


def _checked_numbers(answers: list[str], tolerance: Any) -> dict[str, float]:
    allowed = _number(0 if tolerance in (None, "") else tolerance)
    if allowed is None or allowed < 0 or any(_number(answer) is None for answer in answers):
        raise BadLine("expected_number_invalid")
    return {"tolerance": allowed} if allowed else {}


def _number(value: Any) -> float | None:
    """A finite number, which may be written with thousands separators; None if it is none."""
    try:
        number = float(str(value).replace(",", ""))
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _check_patterns(patterns: list[str]) -> None:
    for pattern in patterns:
        try:
            re.compile(pattern)
        except (re.error, OverflowError, RecursionError) as error:
            raise BadLine("pattern_invalid", pattern=pattern[:SHOWN_CHARACTERS], why=str(error)[:200]) from None
