"""The list of attacks: each a function that attacks an installation and says what happened."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from tests.attack.target import Target

Run = Callable[[Target], str]
Other = Literal["job", "job,parse"]


@dataclass(frozen=True)
class Attack:
    """A row of the table. `other` are the works of another user meanwhile; after `seconds` the row has failed."""

    row: str
    what: str
    run: Run
    seconds: int
    other: Other
    in_soak: bool

    @property
    def name(self) -> str:
        """The row and the function, to select it by."""
        return f"{self.row}-{self.run.__name__}"


ATTACKS: list[Attack] = []


def attack(
    row: str, what: str, *, seconds: int = 90, other: Other = "job", in_soak: bool = True
) -> Callable[[Run], Run]:
    """Add a function to the list. It raises AssertionError if what must hold does not."""

    def add(run: Run) -> Run:
        ATTACKS.append(Attack(row, what, run, seconds, other, in_soak))
        return run

    return add
