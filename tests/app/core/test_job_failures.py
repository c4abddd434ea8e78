"""Every way to fail has words, in both languages, and names the numbers it is given."""

import json
import re
import string
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app.core import i18n, job_failures
from app.core.job_failures import CODES, FAILURES, REASONS
from app.core.models import Job
from app.jobs.lifecycle import wait_reasons
from trainer import failure


def names(sentence: str) -> set[str]:
    return {name for _text, name, _spec, _conversion in string.Formatter().parse(sentence) if name}


def test_every_failure_of_the_trainer_has_a_message() -> None:
    assert set(failure.EXIT_CODES) <= set(FAILURES)
    for code, sentence in failure.MESSAGES.items():
        assert names(i18n.translate(FAILURES[code].cause)) <= names(sentence), code


@pytest.mark.parametrize("language", ["en", "zh-CN"])
@pytest.mark.parametrize("code", CODES)
def test_failures_are_described_in_full_sentences(code: str, language: str) -> None:
    values = dict.fromkeys(names(i18n.translate(CODES[code].cause) + CODES[code].next_step), 7)
    values |= {"last": "hang", "last_values": {"step": 7}} if code == "crash_loop" else {}
    with i18n.use_locale(language):
        told = job_failures.describe(code, values)
    for sentence in (told["cause"], told["next_step"]):
        assert sentence.endswith("." if language == "en" else "。")
        assert "{" not in sentence
        assert bool(re.search(r"[一-鿿]", sentence)) == (language == "zh-CN")


@pytest.mark.parametrize("code", [*wait_reasons.WAITS, *REASONS])
def test_every_reason_is_translated(code: str) -> None:
    sentence = wait_reasons.WAITS.get(code) or REASONS[code]
    english = i18n.translate(sentence)
    with i18n.use_locale("zh-CN"):
        assert i18n.translate(sentence) != english
        assert names(i18n.translate(sentence)) == names(english)


def test_an_old_failure_without_a_number_is_still_described() -> None:
    assert "?" in job_failures.describe("data_short", {})["cause"]
    assert job_failures.describe("unheard of", {})["code"] == "unheard of"


def test_a_stored_wait_reason_is_described_with_its_numbers() -> None:
    stored = wait_reasons.encoded("no_slot", position=3, busy=4, total=4)
    assert wait_reasons.describe(Job(state="queued", wait_reason=stored)) == {
        "code": "no_slot",
        "message": "Number 3 in the queue. Slots in use: 4 of 4.",
        "position": 3,
        "until": None,
    }
    new = wait_reasons.describe(Job(state="queued", wait_reason=None))
    assert new is not None
    assert new["code"] == "unplaced"
    assert wait_reasons.describe(Job(state="running", wait_reason=None)) is None


def test_stored_reasons_with_a_count_of_one_are_in_the_singular() -> None:
    stored = wait_reasons.encoded("own_limit", limit=1, position=2)
    waiting = wait_reasons.describe(Job(state="queued", wait_reason=stored))
    assert waiting is not None
    assert waiting["message"] == "You may run 1 job at once. This is number 2 of your waiting jobs."
    assert job_failures.describe("data_short", {"found": 1, "needed": 5})["cause"].startswith("The text has 1 token; ")
    assert (
        job_failures.explain("resumed", {"step": 3, "repeated": 1}) == "Resumed from step 3; 1 step is trained again."
    )
    assert (
        job_failures.explain("resumed", {"step": 3, "repeated": 0}) == "Resumed from step 3; 0 steps are trained again."
    )


def test_a_retry_delay_shows_the_remaining_seconds() -> None:
    until = datetime.now(UTC) + timedelta(seconds=7.5)
    told = wait_reasons.describe(
        Job(state="recovering", wait_reason=wait_reasons.encoded("back_off"), not_before=until)
    )
    assert told is not None
    assert (told["code"], told["until"]) == ("back_off", until)
    assert re.search(r"starts in [78] s\.", told["message"])


def test_a_paused_job_shows_its_step() -> None:
    told = wait_reasons.describe(Job(state="paused", wait_reason=None, step=12, max_steps=40))
    assert told is not None
    assert told["message"] == "Paused at step 12 of 40 until it is resumed."


def test_no_failure_message_says_unknown() -> None:
    for code, failure_ in CODES.items():
        assert "unknown" not in (i18n.translate(failure_.cause) + failure_.next_step).lower(), code


def test_a_crash_loop_names_the_last_failure() -> None:
    values = {"attempts": 3, "last": "trainer_killed", "last_values": {"how": "rank 0: SIGKILL"}}
    cause = job_failures.describe("crash_loop", values)["cause"]
    assert cause.startswith("3 attempts in a row")
    assert cause.endswith("The last one: A training process was killed (rank 0: SIGKILL).")
    with i18n.use_locale("zh-CN"):
        assert "rank 0: SIGKILL" in job_failures.describe("crash_loop", values)["cause"]


@pytest.mark.parametrize("reason", failure.REASONS)
def test_the_reason_within_a_failure_is_translated_with_it(reason: str) -> None:
    values = {name: "7" for _text, name, *_rest in string.Formatter().parse(failure.REASONS[reason]) if name}
    raised = failure.config_invalid("base_model", reason, **values)
    assert str(raised) == "base_model " + failure.REASONS[reason].format(**values)
    stored = json.loads(json.dumps(raised.values))

    with i18n.use_locale("zh-CN"):
        cause = job_failures.describe(raised.code, stored)["cause"]
    assert re.search(r"[\u4e00-\u9fff]", cause.partition("base_model")[2])
    assert failure.REASONS[reason].format(**values) not in cause


def test_numbers_are_formatted_for_reading() -> None:
    full = {"step": 40, "free": 3_250_586, "needed": 6_291_456}
    assert "3.1 MiB free, 6.0 MiB needed" in str(job_failures.explain("save_failed", full))
    values = {"loss": 411.98765, "median": 4.1234567, "step": 9}
    assert "jumped to 412 at step 9, from a median of 4.123" in job_failures.describe("loss_diverged", values)["cause"]


def test_a_failure_names_the_checkpoint_to_resume_from() -> None:
    values = {"series": "loss", "value": "nan", "step": 30}
    assert "step 20" not in job_failures.describe("nan_loss", values)["next_step"]
    told = job_failures.describe("nan_loss", {**values, "last_checkpoint": 20})
    assert told["next_step"].endswith("The last checkpoint is from step 20.")


def test_attempt_failures_say_what_happens_next_and_job_failures_what_to_do() -> None:
    for code in set(job_failures.FAILURES) & set(job_failures.SETBACKS):
        assert job_failures.advise(code, {}, is_retried=True) != job_failures.advise(code, {})
    assert str(job_failures.advise("internal", {}, is_retried=True)).startswith("It resumes from its newest checkpoint")
    assert str(job_failures.advise("internal", {})).startswith("Submit the job again.")


def test_only_failures_that_need_action_have_a_next_step() -> None:
    assert job_failures.advise("hang", {"step": 3})
    assert job_failures.advise("submitted", {}) is None
    assert job_failures.advise(None, {}) is None


# ---- the page in docs -----------------------------------------------------------------------------------------------

PAGE = Path(__file__).parents[3] / "docs/failures.md"
INTRODUCTION = """# Job failure codes

Every code that the job page and the API can show, with its cause and what to do or what happens next. `{placeholders}`
are filled in when a message is shown; every message has a Chinese translation. Generated from
`app/core/job_failures.py` by `python -m tests.app.core.test_job_failures`; a test keeps the two in sync.
"""
SECTIONS = {
    "The job fails": job_failures.FAILURES,
    "An attempt ends and the job retries": job_failures.SETBACKS,
    "The job continues with a warning": job_failures.TROUBLES,
}


def page() -> str:
    """The page as it must be."""
    parts = [INTRODUCTION]
    for title, codes in SECTIONS.items():
        causes = {code: i18n.translate(told.cause) for code, told in codes.items()}
        rows = [f"| `{code}` | {causes[code]} | {told.next_step} |" for code, told in sorted(codes.items())]
        parts += [f"## {title}\n", "| Code | Cause | Next step |\n| --- | --- | --- |", *rows, ""]
    return "\n".join(parts)


def test_the_failures_document_lists_every_code_with_its_message() -> None:
    assert PAGE.read_text() == page(), "run python -m tests.app.core.test_job_failures"


if __name__ == "__main__":
    PAGE.write_text(page())
