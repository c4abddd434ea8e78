"""Which passwords are refused as easy to guess, and that finding out is cheap."""

import random
import time
from contextlib import suppress

import pytest

from app.accounts import passwords
from app.core.errors import PanelError

SIGNS = "4@8({[<369!1|7$5+%20"


@pytest.mark.parametrize(
    ("password", "reason"),
    [
        ("password12", "it is a common word, name or password"),
        ("P@$$w0rd123", "it is a common word, name or password"),
        ("athanor2026", "it is a common word, name or password"),
        ("Liddell-1852", "it is a common word, name or password"),
        ("asdfghjkl;'", "its keys lie side by side"),
        ("aaaaaaaaaaaaaaaa", "it repeats the same characters"),
        ("abcabcabcabc", "it repeats the same characters"),
        ("abcdefghijkl", "it is a sequence"),
        ("1987-06-054", "it is a date or a year"),
    ],
)
def test_a_password_that_is_easy_to_guess_is_refused_with_the_reason(password: str, reason: str) -> None:
    with pytest.raises(PanelError, match=reason) as refused:
        passwords.check(password, "Liddell")
    assert (refused.value.status, refused.value.code) == (422, "password_weak")
    assert [error.field for error in refused.value.fields] == ["password"]


@pytest.mark.parametrize(
    "password",
    ["correct horse battery staple", "jX7#qLw92f", "熔炉把铅慢慢炼成黄金", "a furnace that feeds itself", SIGNS * 10],
)
def test_a_password_that_is_hard_to_guess_is_accepted(password: str) -> None:
    passwords.check(password[: passwords.MAX_LENGTH], "Alice")


def test_no_password_takes_long_to_check() -> None:
    # zxcvbn tries every letter that a sign may stand for: without a limit, one of these takes up to 14 s.
    draw = random.Random(1)
    hostile = ["".join(draw.choice(signs) for _ in range(200)) for signs in (SIGNS, "1|!", "01", "qwe123", "4@({<")]
    started = time.process_time()
    for password in [*hostile, "x" * 200, "drowssap" * 25]:
        with suppress(PanelError):
            passwords.check(password, "Alice")
    assert time.process_time() - started < 10
