"""Who goes where: first come, first served, nobody starved."""

import json

from app.jobs.placement import Room, Waiting, place


def gpu_node(name: str, total: int, free: int) -> Room:
    gpus = tuple(f"{name}-{n}" for n in range(total))
    return Room(name, gpus, 1, list(gpus[:free]), 0)


def cpu_node(name: str, slots: int = 1, free: int = 1) -> Room:
    return Room(name, (), slots, [], free)


def decided(jobs: list[int], rooms: list[Room]) -> list[str | None]:
    found = place([Waiting(str(n), processes) for n, processes in enumerate(jobs)], rooms)
    return [decision.node for decision in found]


def codes(jobs: list[int], rooms: list[Room]) -> list[list[object]]:
    found = place([Waiting(str(n), processes) for n, processes in enumerate(jobs)], rooms)
    return [json.loads(decision.wait_reason) for decision in found]


def test_jobs_fill_the_slots_in_their_order() -> None:
    assert decided([1, 1, 1], [cpu_node("ada", 2, 2)]) == ["ada", "ada", None]


def test_a_job_gets_as_many_gpus_as_it_has_processes_and_none_twice() -> None:
    decisions = place([Waiting("a", 2), Waiting("b", 1), Waiting("c", 2)], [gpu_node("ada", 4, 4)])
    assert [decision.gpus for decision in decisions] == [["ada-0", "ada-1"], ["ada-2"], []]


def test_the_fullest_node_with_room_is_taken_first() -> None:
    assert decided([1], [gpu_node("ada", 8, 8), gpu_node("grace", 8, 2)]) == ["grace"]


def test_a_large_job_that_waits_keeps_its_nodes_from_later_small_ones() -> None:
    rooms = [gpu_node("big", 8, 4), gpu_node("small", 2, 2)]
    assert decided([8, 1, 1, 1], rooms) == [None, "small", "small", None]


def test_cpu_nodes_serve_what_no_gpu_node_could_ever_take() -> None:
    rooms = [gpu_node("ada", 1, 0), cpu_node("grace")]
    assert decided([1, 2], rooms) == [None, "grace"]


def test_a_job_is_told_why_it_waits() -> None:
    assert codes([1], []) == [["no_node", {}]]
    assert codes([4], [gpu_node("ada", 2, 2)]) == [["too_large", {"needed": 4, "largest": 2}]]
    waiting = codes([1, 1, 1, 1], [cpu_node("ada")])
    assert waiting == [["placed", {"node": "ada"}], ["next", {}], ["no_room", {"ahead": 1}], ["no_room", {"ahead": 2}]]
