"""Progress and the time that is left."""

from app.core.json_shapes import JobProgress, PhaseTotals
from app.jobs.attempts import progress
from trainer.events import PhaseEvent, PointsEvent
from trainer.spec import resolve

SPEC = resolve({"corpora": ["c"], "max_steps": 100, "eval_steps": 40, "save_steps": 50})


def phase(at: float, name: str, done: int, total: int) -> PhaseEvent:
    return PhaseEvent.model_validate({"seq": 1, "at": at, "phase": name, "done": done, "total": total})


def folded(*events: PhaseEvent | PointsEvent) -> JobProgress:
    state = JobProgress()
    for event in events:
        state = (
            progress.with_phase(state, event) if isinstance(event, PhaseEvent) else progress.with_points(state, event)
        )
    return state


def step(number: int, at: float) -> PointsEvent:
    return PointsEvent(seq=1, at=at, step=number, values={"loss": 1.0})


def test_time_is_counted_for_its_phase() -> None:
    state = folded(
        phase(0, "prepare", 0, 1), phase(2, "prepare", 1, 1), phase(3, "tokenise", 0, 10), phase(7, "tokenise", 10, 10)
    )
    assert state.phases["prepare"] == PhaseTotals(done=1, total=1, seconds=2.0, count=1)
    assert state.phases["tokenise"] == PhaseTotals(done=10, total=10, seconds=5.0, count=1)


def test_evaluations_add_up() -> None:
    state = folded(
        phase(0, "evaluate", 0, 4), phase(2, "evaluate", 4, 4), phase(2, "train", 0, 100), phase(6, "evaluate", 0, 4),
        phase(7, "evaluate", 4, 4),
    )  # fmt: skip
    assert state.phases["evaluate"].seconds == 3.0
    assert state.phases["evaluate"].count == 2


def test_the_remaining_time_covers_steps_evaluations_and_saves() -> None:
    state = folded(
        phase(0, "evaluate", 0, 4), phase(2, "evaluate", 4, 4), phase(2, "train", 0, 100), step(1, 3.0), step(2, 3.5),
        step(3, 4.0), phase(4, "train", 3, 100),
    )  # fmt: skip
    # 97 steps of 0.5 s; evaluations at 40, 80 and the end, 2 s each; no save was timed yet.
    assert progress.eta_seconds(state, SPEC, 3) == 97 * 0.5 + 3 * 2.0
    assert progress.eta_seconds(state, SPEC, 100) == 0.0


def test_before_training_the_remaining_time_is_that_of_the_phase() -> None:
    state = folded(phase(0, "tokenise", 0, 1000), phase(2, "tokenise", 250, 1000))
    assert progress.eta_seconds(state, SPEC, 0) == 6.0


def test_without_measurements_no_remaining_time_is_reported() -> None:
    assert progress.eta_seconds(JobProgress(), SPEC, 0) is None
    assert progress.eta_seconds(folded(phase(0, "load", 0, 1)), SPEC, 0) is None
    assert progress.eta_seconds(folded(phase(0, "train", 0, 100), step(1, 1.0)), SPEC, 1) is None


def test_one_slow_step_does_not_change_the_remaining_time() -> None:
    times = [0.0, 1.0, 2.0, 60.0, 61.0, 62.0]
    state = folded(phase(0, "train", 0, 100), *(step(n + 1, at) for n, at in enumerate(times)))
    assert progress.eta_seconds(state, SPEC, 6) == 94.0
