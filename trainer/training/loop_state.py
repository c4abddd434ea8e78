"""What the training loop remembers between steps besides weights and optimizer: spikes of its loss, its evaluations."""

import math
import statistics
from dataclasses import dataclass, field
from typing import Any, Self

# A loss is a spike if it exceeds SPIKE_FACTOR times the median of the recent losses, and the median by MIN_SPIKE. A
# single spike may be due to a bad batch; MAX_SPIKES in a row are a divergence.
SPIKE_FACTOR = 3.0
MIN_SPIKE = 1.0  # nats
WINDOW = 50
MIN_HISTORY = 20
MAX_SPIKES = 5


@dataclass
class LoopState:
    """Saved as JSON in each checkpoint; the names of its fields are the keys there."""

    metrics: dict[str, float] = field(default_factory=dict)  # of the last step
    recent_losses: list[float] = field(default_factory=list)  # without spikes
    num_leaps: int = 0  # consecutive spikes of the loss
    num_updates: int = 0  # steps that changed the weights, as AdamW counts them: skipped steps are not included
    best_eval_loss: float | None = None
    num_worse_evals: int = 0  # evaluations since the one with the best loss

    @classmethod
    def from_json(cls, state: dict[str, Any]) -> Self:
        """The state in a checkpoint. Raises KeyError if it is incomplete."""
        required = {name: state[name] for name in ("metrics", "recent_losses", "num_leaps", "num_updates")}
        later = ("best_eval_loss", "num_worse_evals")  # earlier versions did not save them
        return cls(**required, **{name: state[name] for name in later if name in state})

    @property
    def has_diverged(self) -> bool:
        """Whether there were too many spikes in a row to be bad batches."""
        return self.num_leaps >= MAX_SPIKES

    def note_loss(self, loss: float) -> float | None:
        """Count a step that changed the weights, by its training loss.

        Returns the median of the recent losses if this one is a spike, else None.
        """
        self.num_updates += 1
        if len(self.recent_losses) >= MIN_HISTORY:
            median = statistics.median(self.recent_losses)
            if loss > max(SPIKE_FACTOR * median, median + MIN_SPIKE):
                self.num_leaps += 1
                return median
        self.num_leaps = 0
        self.recent_losses = [*self.recent_losses, loss][-WINDOW:]
        return None

    def note_eval_loss(self, loss: float) -> None:
        """Compare the validation loss with the best so far. One that is not a number is no better."""
        if math.isfinite(loss) and (self.best_eval_loss is None or loss < self.best_eval_loss):
            self.best_eval_loss, self.num_worse_evals = loss, 0
        else:
            self.num_worse_evals += 1

    def has_converged(self, patience: int | None) -> bool:
        """Whether the last `patience` evaluations brought no better validation loss; never with None."""
        return patience is not None and self.num_worse_evals >= patience
