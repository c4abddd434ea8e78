"""What the loop remembers of its evaluations."""

import math

from trainer.training.checkpoint import LoopState


def test_evaluations_without_a_better_loss_are_counted_and_no_number_is_better() -> None:
    state = LoopState()
    seen = []
    for loss in (math.nan, 3.0, math.inf, 3.0, 2.5, math.nan):
        state.note_eval_loss(loss)
        seen.append((state.best_eval_loss, state.num_worse_evals))
    assert seen == [(None, 1), (3.0, 0), (3.0, 1), (3.0, 2), (2.5, 0), (2.5, 1)]
