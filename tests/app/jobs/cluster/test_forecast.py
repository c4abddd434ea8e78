"""When queued jobs start, by hand arithmetic."""

import math

from app.jobs.cluster.forecast import NodeForecast, QueuedJob, start_times
from app.jobs.cluster.placement import NodeCapacity


def gpus(count: int) -> tuple[str, ...]:
    return tuple(f"gpu-{n}" for n in range(count))


def test_one_slot_is_taken_in_turn() -> None:
    node = NodeForecast(NodeCapacity("ada", slots=1), [(30.0, 1)])
    jobs = [QueuedJob("a", 1, 100.0), QueuedJob("b", 4, 10.0), QueuedJob("c", 1, 1.0)]
    assert start_times(jobs, [node]) == {"a": 30.0, "b": 130.0, "c": 140.0}


def test_a_free_node_is_taken_before_one_that_ends_later() -> None:
    nodes = [
        NodeForecast(NodeCapacity("ada", slots=1), [(60.0, 1)]),
        NodeForecast(NodeCapacity("bea", slots=1), [(20.0, 1)]),
    ]
    jobs = [QueuedJob("a", 1, 100.0), QueuedJob("b", 1, 5.0), QueuedJob("c", 1, 5.0)]
    assert start_times(jobs, nodes) == {"a": 20.0, "b": 60.0, "c": 65.0}


def test_a_job_of_many_gpus_waits_for_all_of_them_and_is_not_overtaken() -> None:
    node = NodeForecast(NodeCapacity("gpu", gpus=gpus(4)), [(10.0, 1), (50.0, 2)])
    jobs = [QueuedJob("two", 2, 100.0), QueuedJob("four", 4, 5.0), QueuedJob("one", 1, 5.0)]
    assert start_times(jobs, [node]) == {"two": 10.0, "four": 110.0, "one": 115.0}


def test_gpu_nodes_are_kept_for_jobs_that_fit_them() -> None:
    nodes = [NodeForecast(NodeCapacity("gpu", gpus=gpus(2))), NodeForecast(NodeCapacity("cpu", slots=1))]
    assert start_times([QueuedJob("a", 2, 5.0), QueuedJob("b", 4, 5.0)], nodes) == {"a": 0.0, "b": 0.0}


def test_a_job_that_waits_for_one_node_does_not_hold_back_the_others() -> None:
    nodes = [
        NodeForecast(NodeCapacity("large", gpus=gpus(8)), [(math.inf, 1)]),
        NodeForecast(NodeCapacity("small", gpus=gpus(1)), [(600.0, 1)]),
    ]
    jobs = [QueuedJob("eight", 8, 5.0), QueuedJob("one", 1, 5.0)]
    assert start_times(jobs, nodes) == {"eight": math.inf, "one": 600.0}


def test_behind_a_job_of_unknown_length_nothing_is_known() -> None:
    node = NodeForecast(NodeCapacity("ada", slots=1))
    starts = start_times([QueuedJob("a", 1, math.inf), QueuedJob("b", 1, 5.0)], [node])
    assert starts == {"a": 0.0, "b": math.inf}
    assert start_times([QueuedJob("a", 3, 5.0)], [NodeForecast(NodeCapacity("gpu", gpus=gpus(2)))]) == {}
