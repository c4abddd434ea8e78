"""Waiting for what the server does in the background."""

import time
from collections.abc import Callable, Collection
from typing import Protocol, TypeVar

PAUSES = (0.1, 0.2, 0.5)  # seconds between the first questions; then one per second
LAST_PAUSE = 1.0


class HasState(Protocol):
    """What has a state."""

    @property
    def state(self) -> str: ...


T = TypeVar("T", bound=HasState)


def wait_until_ended(look: Callable[[], T], open_states: Collection[str], on_change: Callable[[T], None]) -> T:
    """Ask until the state is none of `open_states`; `on_change` gets each answer."""
    pauses = list(PAUSES)
    while True:
        answer = look()
        on_change(answer)
        if answer.state not in open_states:
            return answer
        time.sleep(pauses.pop(0) if pauses else LAST_PAUSE)


def ignore(answer: object) -> None:
    """An `on_change` that does nothing."""
