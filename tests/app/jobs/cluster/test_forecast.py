"""When queued jobs start, by hand arithmetic."""

import math

from app.jobs.cluster.forecast import NodeForecast, QueuedJob, start_times


def test_one_slot_is_taken_in_turn() -> None:
    node = NodeForecast("ada", 1, False, [(30.0, 1)])
    jobs = [QueuedJob("a", 1, 100.0), QueuedJob("b", 4, 10.0), QueuedJob("c", 1, 1.0)]
    assert start_times(jobs, [node]) == {"a": 30.0, "b": 130.0, "c": 140.0}


def test_a_free_node_is_taken_before_one_that_ends_later() -> None:
    nodes = [NodeForecast("ada", 1, False, [(60.0, 1)]), NodeForecast("bea", 1, False, [(20.0, 1)])]
    jobs = [QueuedJob("a", 1, 100.0), QueuedJob("b", 1, 5.0), QueuedJob("c", 1, 5.0)]
    assert start_times(jobs, nodes) == {"a": 20.0, "b": 60.0, "c": 65.0}


def test_a_job_of_many_gpus_waits_for_all_of_them_and_is_not_overtaken() -> None:
    node = NodeForecast("gpu", 4, True, [(10.0, 1), (50.0, 2)])
    jobs = [QueuedJob("two", 2, 100.0), QueuedJob("four", 4, 5.0), QueuedJob("one", 1, 5.0)]
    assert start_times(jobs, [node]) == {"two": 10.0, "four": 110.0, "one": 115.0}


def test_gpu_nodes_are_kept_for_jobs_that_fit_them() -> None:
    nodes = [NodeForecast("gpu", 2, True), NodeForecast("cpu", 1, False)]
    assert start_times([QueuedJob("a", 2, 5.0), QueuedJob("b", 4, 5.0)], nodes) == {"a": 0.0, "b": 0.0}


def test_a_job_that_waits_for_one_node_does_not_hold_back_the_others() -> None:
    nodes = [NodeForecast("large", 8, True, [(math.inf, 1)]), NodeForecast("small", 1, True, [(600.0, 1)])]
    jobs = [QueuedJob("eight", 8, 5.0), QueuedJob("one", 1, 5.0)]
    assert start_times(jobs, nodes) == {"eight": math.inf, "one": 600.0}


def test_behind_a_job_of_unknown_length_nothing_is_known() -> None:
    node = NodeForecast("ada", 1, False)
    starts = start_times([QueuedJob("a", 1, math.inf), QueuedJob("b", 1, 5.0)], [node])
    assert starts == {"a": 0.0, "b": math.inf}
    assert start_times([QueuedJob("a", 3, 5.0)], [NodeForecast("gpu", 2, True)]) == {}
