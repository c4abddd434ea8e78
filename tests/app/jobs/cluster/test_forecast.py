"""When queued jobs start, by hand arithmetic."""

import math
from collections.abc import Sequence

from app.jobs.cluster.forecast import JobEnd, NodeForecast, QueuedJob, Start, starts
from app.jobs.cluster.placement import NodeCapacity


def gpus(count: int) -> tuple[str, ...]:
    return tuple(f"gpu-{n}" for n in range(count))


def start_times(jobs: Sequence[QueuedJob], nodes: Sequence[NodeForecast]) -> dict[str, float]:
    return {job_id: start.seconds for job_id, start in starts(jobs, nodes).items()}


def test_one_slot_is_taken_in_turn() -> None:
    node = NodeForecast(NodeCapacity("ada", slots=1), [JobEnd(30.0, 1, "running-0")])
    jobs = [QueuedJob("a", 1, 100.0), QueuedJob("b", 4, 10.0), QueuedJob("c", 1, 1.0)]
    assert start_times(jobs, [node]) == {"a": 30.0, "b": 130.0, "c": 140.0}


def test_a_free_node_is_taken_before_one_that_ends_later() -> None:
    nodes = [
        NodeForecast(NodeCapacity("ada", slots=1), [JobEnd(60.0, 1, "running-1")]),
        NodeForecast(NodeCapacity("bea", slots=1), [JobEnd(20.0, 1, "running-2")]),
    ]
    jobs = [QueuedJob("a", 1, 100.0), QueuedJob("b", 1, 5.0), QueuedJob("c", 1, 5.0)]
    assert start_times(jobs, nodes) == {"a": 20.0, "b": 60.0, "c": 65.0}


def test_a_job_of_many_gpus_waits_for_all_of_them_and_is_not_overtaken() -> None:
    node = NodeForecast(NodeCapacity("gpu", gpus=gpus(4)), [JobEnd(10.0, 1, "running-3"), JobEnd(50.0, 2, "running-4")])
    jobs = [QueuedJob("two", 2, 100.0), QueuedJob("four", 4, 5.0), QueuedJob("one", 1, 5.0)]
    assert start_times(jobs, [node]) == {"two": 10.0, "four": 110.0, "one": 115.0}


def test_gpu_nodes_are_kept_for_jobs_that_fit_them() -> None:
    nodes = [NodeForecast(NodeCapacity("gpu", gpus=gpus(2))), NodeForecast(NodeCapacity("cpu", slots=1))]
    assert start_times([QueuedJob("a", 2, 5.0), QueuedJob("b", 4, 5.0)], nodes) == {"a": 0.0, "b": 0.0}


def test_a_job_that_waits_for_one_node_does_not_hold_back_the_others() -> None:
    nodes = [
        NodeForecast(NodeCapacity("large", gpus=gpus(8)), [JobEnd(math.inf, 1, "running-5")]),
        NodeForecast(NodeCapacity("small", gpus=gpus(1)), [JobEnd(600.0, 1, "running-6")]),
    ]
    jobs = [QueuedJob("eight", 8, 5.0), QueuedJob("one", 1, 5.0)]
    assert start_times(jobs, nodes) == {"eight": math.inf, "one": 600.0}


def test_behind_a_job_of_unknown_length_nothing_is_known() -> None:
    node = NodeForecast(NodeCapacity("ada", slots=1))
    starts = start_times([QueuedJob("a", 1, math.inf), QueuedJob("b", 1, 5.0)], [node])
    assert starts == {"a": 0.0, "b": math.inf}
    assert start_times([QueuedJob("a", 3, 5.0)], [NodeForecast(NodeCapacity("gpu", gpus=gpus(2)))]) == {}


def test_each_start_names_the_job_that_frees_the_place() -> None:
    nodes = [
        NodeForecast(NodeCapacity("ada", slots=1), [JobEnd(60.0, 1, "long")]),
        NodeForecast(NodeCapacity("bea", slots=2), [JobEnd(20.0, 1, "short")]),
    ]
    jobs = [QueuedJob(name, 1, 50.0) for name in ("a", "b", "c", "d")]
    assert starts(jobs, nodes) == {
        "a": Start(0.0),
        "b": Start(20.0, "short"),
        "c": Start(50.0, "a"),
        "d": Start(60.0, "long"),
    }


def test_a_job_that_others_reserve_the_node_for_names_what_they_wait_for() -> None:
    node = NodeForecast(NodeCapacity("gpu", gpus=gpus(4)), [JobEnd(10.0, 1, "small"), JobEnd(50.0, 2, "large")])
    jobs = [QueuedJob("three", 3, 100.0), QueuedJob("one", 1, 5.0)]
    assert starts(jobs, [node]) == {"three": Start(50.0, "large"), "one": Start(50.0, "large")}


def test_a_job_of_unknown_length_is_named_without_a_time() -> None:
    node = NodeForecast(NodeCapacity("ada", slots=1), [JobEnd(math.inf, 1, "endless")])
    assert starts([QueuedJob("a", 1, 5.0)], [node]) == {"a": Start(math.inf, "endless")}
