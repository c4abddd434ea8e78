"""Detects hanging training: too long without a step, compared with earlier steps. Pure functions."""

from collections import deque
from dataclasses import dataclass, field
from statistics import median

from trainer import events

WARM_STEPS = 5
WINDOW = 50
FACTOR = 5.0  # times the median step time
PATIENCE = 6.0  # training a tokenizer on a large text reports nothing for long


@dataclass
class Watchdog:
    """Takes the journal's events and a monotonic clock. All phases but training have the limit of the first step."""

    step_seconds: float
    first_step_seconds: float
    now: float
    phase: str = "prepare"
    step: int = 0  # the last completed one
    num_steps: int = 0
    seconds: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    _at: float | None = None  # time of the last step by the trainer's clock, in seconds

    def __post_init__(self) -> None:
        self.last_event_at = self.now

    def observe(self, event: events.Event, now: float) -> None:
        """Take an event: the trainer is alive."""
        self.last_event_at = now
        if isinstance(event, events.PhaseEvent):
            if event.phase != self.phase:
                self._at = None  # do not count an evaluation as step time
            self.phase = event.phase
        if isinstance(event, events.PointsEvent) and "loss" in event.values:
            if self._at is not None:
                self.seconds.append(max(0.0, event.at - self._at))
            self._at = event.at
            self.step = event.step
            self.num_steps += 1

    def limit(self) -> float:
        """How long the trainer may currently be silent, in seconds."""
        if self.phase in ("prepare", "tokenise"):
            return PATIENCE * self.first_step_seconds
        if self.phase != "train" or self.num_steps < WARM_STEPS or not self.seconds:
            return self.first_step_seconds
        return max(FACTOR * median(self.seconds), self.step_seconds)

    def is_hung(self, now: float) -> bool:
        """Whether it has been silent for too long."""
        return now - self.last_event_at > self.limit()
