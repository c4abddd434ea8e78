"""Every way to fail has words, in both languages, and names the numbers it is given."""

import re
import string
from datetime import UTC, datetime, timedelta

import pytest

from app import i18n
from app.jobs import failures, waiting
from app.jobs.failures import FAILURES, REASONS
from app.models import Job
from trainer import failure


def names(sentence: str) -> set[str]:
    return {name for _text, name, _spec, _conversion in string.Formatter().parse(sentence) if name}


def test_every_failure_of_the_trainer_has_words() -> None:
    assert set(failure.EXIT_CODES) <= set(FAILURES)
    for code, sentence in failure.SENTENCES.items():
        assert names(FAILURES[code].cause) <= names(sentence), code


@pytest.mark.parametrize("language", ["en", "zh-CN"])
@pytest.mark.parametrize("code", FAILURES)
def test_a_failure_is_told_in_whole_sentences(code: str, language: str) -> None:
    values = dict.fromkeys(names(FAILURES[code].cause + FAILURES[code].next_step), 7)
    with i18n.speaking(language):
        told = failures.describe(code, values)
    for sentence in (told["cause"], told["next_step"]):
        assert sentence.endswith("." if language == "en" else "。")
        assert "{" not in sentence
        assert bool(re.search(r"[一-鿿]", sentence)) == (language == "zh-CN")


@pytest.mark.parametrize("code", [*waiting.WAITS, *REASONS])
def test_every_reason_is_translated(code: str) -> None:
    sentence = waiting.WAITS.get(code) or REASONS[code]
    with i18n.speaking("zh-CN"):
        assert i18n.translate(sentence) != sentence
        assert names(i18n.translate(sentence)) == names(sentence)


def test_an_old_failure_that_lacks_a_number_is_still_told() -> None:
    assert "?" in failures.describe("data_short", {})["cause"]
    assert failures.describe("unheard of", {})["code"] == "unheard of"


def test_a_stored_wait_is_told_with_its_numbers() -> None:
    stored = waiting.encoded("no_slot", position=3, busy=4, total=4)
    assert waiting.describe(Job(state="queued", wait_reason=stored)) == {
        "code": "no_slot",
        "message": "Number 3 in line. Slots busy: 4 of 4.",
        "position": 3,
        "until": None,
    }
    new = waiting.describe(Job(state="queued", wait_reason=None))
    assert new is not None
    assert new["code"] == "unplaced"
    assert waiting.describe(Job(state="running", wait_reason=None)) is None


def test_a_back_off_says_how_many_seconds_are_left() -> None:
    until = datetime.now(UTC) + timedelta(seconds=7.5)
    told = waiting.describe(Job(state="recovering", wait_reason=waiting.encoded("back_off"), not_before=until))
    assert told is not None
    assert (told["code"], told["until"]) == ("back_off", until)
    assert re.search(r"starts in [78] s\.", told["message"])


def test_a_paused_job_says_where_it_stands() -> None:
    told = waiting.describe(Job(state="paused", wait_reason=None, step=12, max_steps=40))
    assert told is not None
    assert told["message"] == "Paused at step 12 of 40; it goes on when it is resumed."
