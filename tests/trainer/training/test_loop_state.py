"""What the loop remembers of its losses and evaluations, against cases counted by hand."""

import math

import pytest

from trainer.training.loop_state import MAX_SPIKES, MIN_HISTORY, WINDOW, LoopState


def test_evaluations_without_a_better_loss_are_counted_and_no_number_is_better() -> None:
    state = LoopState()
    seen = []
    for loss in (math.nan, 3.0, math.inf, 3.0, 2.5, math.nan):
        state.note_eval_loss(loss)
        seen.append((state.best_eval_loss, state.num_worse_evals))
    assert seen == [(None, 1), (3.0, 0), (3.0, 1), (3.0, 2), (2.5, 0), (2.5, 1)]


def test_training_ends_early_after_as_many_evaluations_as_were_asked_for() -> None:
    state = LoopState(num_worse_evals=2)
    assert [state.has_converged(patience) for patience in (None, 1, 2, 3)] == [False, True, True, False]


@pytest.mark.parametrize(
    ("usual", "loss", "is_spike"),
    [
        (2.0, 6.0, False),  # three times the median, not more
        (2.0, 6.1, True),
        (0.1, 1.0, False),  # ten times the median, but less than one nat above it
        (0.1, 1.2, True),
    ],
)
def test_a_spike_is_far_above_the_recent_losses(usual: float, loss: float, is_spike: bool) -> None:
    state = LoopState(recent_losses=[usual] * MIN_HISTORY)
    assert state.note_loss(loss) == (usual if is_spike else None)
    assert (state.num_leaps, state.num_updates) == (is_spike, 1)
    assert (loss in state.recent_losses) is not is_spike, "a spike does not raise the median"


def test_without_enough_losses_nothing_is_a_spike() -> None:
    state = LoopState(recent_losses=[2.0] * (MIN_HISTORY - 1))
    assert state.note_loss(1000.0) is None


def test_only_spikes_in_a_row_are_a_divergence_and_old_losses_are_forgotten() -> None:
    state = LoopState(recent_losses=[2.0] * WINDOW)
    for loss in [9.0] * (MAX_SPIKES - 1) + [2.5] + [9.0] * (MAX_SPIKES - 1):
        state.note_loss(loss)
        assert not state.has_diverged
    state.note_loss(9.0)
    assert state.has_diverged
    assert state.recent_losses == [2.0] * (WINDOW - 1) + [2.5]


def test_the_state_of_an_earlier_version_has_no_evaluations() -> None:
    stored = {"step": 3, "metrics": {"loss": 1.0}, "recent_losses": [1.0], "num_leaps": 1, "num_updates": 2}
    assert LoopState.from_json(stored) == LoopState({"loss": 1.0}, [1.0], 1, 2)
    evaluated = LoopState({}, [], 0, 0, 0.5, 4)
    assert LoopState.from_json(vars(evaluated)) == evaluated
    with pytest.raises(KeyError, match="num_updates"):
        LoopState.from_json({name: value for name, value in stored.items() if name != "num_updates"})
