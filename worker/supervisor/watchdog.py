"""Notices training that hangs: too long without a step, measured against the steps before. Pure."""

from collections import deque
from dataclasses import dataclass, field
from statistics import median

from trainer import events

WARM_STEPS = 5
WINDOW = 50
FACTOR = 5.0  # of the median step
PATIENCE = 6.0  # a vocabulary of a large text is merged in silence


@dataclass
class Watchdog:
    """Fed with the journal's events and a monotonic clock. Phases other than training get the first step's limit."""

    step_seconds: float
    first_step_seconds: float
    now: float
    phase: str = "prepare"
    step: int = 0  # the last one done
    num_steps: int = 0
    seconds: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    _at: float | None = None  # of the last step, by the trainer's clock

    def __post_init__(self) -> None:
        self.heard_at = self.now

    def hear(self, event: events.Event, now: float) -> None:
        """Something was written: the trainer lives."""
        self.heard_at = now
        if isinstance(event, events.PhaseEvent):
            if event.phase != self.phase:
                self._at = None  # an evaluation in between is no step
            self.phase = event.phase
        if isinstance(event, events.PointsEvent) and "loss" in event.values:
            if self._at is not None:
                self.seconds.append(max(0.0, event.at - self._at))
            self._at = event.at
            self.step = event.step
            self.num_steps += 1

    def limit(self) -> float:
        """How long the trainer may be silent now, in seconds."""
        if self.phase in ("prepare", "tokenise"):
            return PATIENCE * self.first_step_seconds
        if self.phase != "train" or self.num_steps < WARM_STEPS or not self.seconds:
            return self.first_step_seconds
        return max(FACTOR * median(self.seconds), self.step_seconds)

    def is_hung(self, now: float) -> bool:
        """Whether it has been silent for too long."""
        return now - self.heard_at > self.limit()
