"""Every way to fail has words, in both languages, and names the numbers it is given."""

import re
import string

import pytest

from app import i18n
from app.jobs import failures, waiting
from app.jobs.failures import FAILURES, REASONS
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
    stored = waiting.encoded("no_room", ahead=3)
    assert waiting.describe(stored) == {"code": "no_room", "message": "Waiting for a free slot; 3 jobs are ahead."}
    assert waiting.describe(None)["code"] == "unplaced"
