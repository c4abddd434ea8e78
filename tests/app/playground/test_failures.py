"""The failures of generations as error responses."""

from collections import defaultdict

import pytest

from app.playground import failures
from trainer.limits import MESSAGES


@pytest.mark.parametrize("code", [code for code in failures.codes() if code not in MESSAGES])
def test_a_failure_of_the_server_says_when_to_try_again(code: str) -> None:
    error = failures.error(code, defaultdict(int))
    assert error.status < 500 or (error.status, error.headers) == (503, {"Retry-After": "5"})


def test_a_failure_with_a_limit_of_one_is_in_the_singular() -> None:
    assert failures.sentence("layer_unknown", {"number": 3, "limit": 1}).endswith("it has 1 layer, counted from 0.")
    assert failures.sentence("position_unknown", {"number": 3, "limit": 1}).endswith("it has 1 token, counted from 0.")
    assert failures.sentence("position_unknown", {"number": 3, "limit": 2}).endswith("it has 2 tokens, counted from 0.")
