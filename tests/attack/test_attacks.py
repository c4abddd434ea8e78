"""Each attack of the table, while the work of another user goes on beside it. `make attack` runs them."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.attack.attacks import Attack
from tests.attack.measuring import measuring
from tests.attack.rows import ATTACKS
from tests.attack.target import Target
from tests.row_table import Report


@pytest.mark.parametrize(
    "attack", [pytest.param(one, marks=pytest.mark.row(one.row, one.what), id=one.name) for one in ATTACKS]
)
def test_an_attack_harms_no_other_user(
    target: Target, report: Report, within: Callable[[float], Any], attack: Attack
) -> None:
    if target.dead_programs():
        target.installation.repair()
    target.begin()
    effect = None
    try:
        with measuring(target, attack) as effect, within(attack.seconds):
            try:
                report(attack.run(target))
            except AssertionError as error:
                raise AssertionError(f"{error} {target.doing}") from error
        faults = list(target.faults)
    finally:
        for column, value in effect.values().items() if effect else ():
            report(value, column)
        dead = target.dead_programs()
        if dead:
            target.installation.repair()
        target.clean_up()
    assert not dead, f"{dead} ended"
    assert not faults, f"{len(faults)} responses, such as {faults[0]}"
    effect.check()
