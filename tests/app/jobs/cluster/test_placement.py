"""Placement of jobs on nodes: by priority, in fair order, without starvation, and with the reason for each wait."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from app.jobs.cluster.placement import OVERDUE, Decision, NodeCapacity, WaitingJob, place, rank

ALICE, BOB = "alice", "bob"


def gpu_node(name: str, total: int, free: int) -> NodeCapacity:
    gpus = tuple(f"{name}-{n}" for n in range(total))
    return NodeCapacity(name, gpus, 1, list(gpus[:free]), 0)


def silent(room: NodeCapacity) -> NodeCapacity:
    return replace(room, is_live=False)


def cpu_node(name: str, slots: int = 1, free: int = 1) -> NodeCapacity:
    return NodeCapacity(name, (), slots, [], free)


def jobs_of(sizes: Sequence[int]) -> list[WaitingJob]:
    return [WaitingJob(f"{n:03}", size) for n, size in enumerate(sizes)]


def decided(sizes: list[int], rooms: list[NodeCapacity]) -> list[str | None]:
    found = {decision.job_id: decision.node for decision in place(jobs_of(sizes), rooms)}
    return [found[job_id] for job_id in sorted(found)]


def order(
    jobs: Sequence[WaitingJob], *, slots: int = 1, held: Mapping[str, int] | None = None, most_held: int = 0
) -> list[str]:
    """The jobs that got a place, as they got it."""
    found = place(jobs, [cpu_node("ada", slots, slots)], held, most_held)
    return [decision.job_id for decision in found if decision.node]


def reasons(decisions: Sequence[Decision]) -> dict[str, list[Any]]:
    return {decision.job_id: json.loads(decision.wait_reason) for decision in decisions}


# ---- room -----------------------------------------------------------------------------------------------------------


def test_jobs_fill_the_slots_in_their_order() -> None:
    assert decided([1, 1, 1], [cpu_node("ada", 2, 2)]) == ["ada", "ada", None]


def test_a_job_gets_as_many_gpus_as_it_has_processes_and_none_twice() -> None:
    decisions = place([WaitingJob("a", 2), WaitingJob("b", 1), WaitingJob("c", 2)], [gpu_node("ada", 4, 4)])
    assert [decision.gpus for decision in decisions] == [["ada-0", "ada-1"], ["ada-2"], []]


def test_the_fullest_node_with_room_is_taken_first() -> None:
    assert decided([1], [gpu_node("ada", 8, 8), gpu_node("grace", 8, 2)]) == ["grace"]
    assert decided([1], [cpu_node("ada", 4, 4), cpu_node("grace", 4, 1)]) == ["grace"]


def test_a_large_job_that_waits_keeps_its_nodes_from_later_small_ones() -> None:
    rooms = [gpu_node("big", 8, 4), gpu_node("small", 2, 2)]
    assert decided([8, 1, 1, 1], rooms) == [None, "small", "small", None]


def test_cpu_nodes_serve_what_no_gpu_node_could_ever_take() -> None:
    rooms = [gpu_node("ada", 1, 0), cpu_node("grace")]
    assert decided([1, 2], rooms) == [None, "grace"]


def test_a_gpu_job_waits_for_its_silent_node_although_one_without_gpus_is_free() -> None:
    rooms = [silent(gpu_node("ada", 4, 4)), cpu_node("grace")]
    assert decided([4, 8], rooms) == [None, "grace"]
    assert reasons(place(jobs_of([4, 4]), rooms)) == {
        "000": ["silent", {"position": 1}],
        "001": ["silent", {"position": 2}],
    }


def test_a_job_goes_to_another_gpu_node_while_its_own_is_silent() -> None:
    assert decided([2, 8], [silent(gpu_node("ada", 8, 8)), gpu_node("grace", 2, 2)]) == ["grace", None]


def test_where_all_nodes_are_silent_no_worker_runs() -> None:
    assert reasons(place(jobs_of([1]), [silent(cpu_node("ada"))])) == {"000": ["no_node", {"position": 1}]}


def test_a_job_is_not_too_large_while_a_silent_node_could_take_it() -> None:
    rooms = [silent(gpu_node("ada", 8, 8)), gpu_node("grace", 2, 2)]
    assert [code for code, _values in reasons(place(jobs_of([8, 9]), rooms)).values()] == ["silent", "too_large"]


# ---- order ----------------------------------------------------------------------------------------------------------


def test_priority_goes_before_age() -> None:
    assert order([WaitingJob("1", 1, rank=-1), WaitingJob("2", 1), WaitingJob("3", 1, rank=1)], slots=3) == [
        "3",
        "2",
        "1",
    ]


def test_owners_take_turns_whoever_submitted_more() -> None:
    jobs = [WaitingJob(f"{n}", 1, ALICE) for n in range(4)] + [WaitingJob(f"{n}", 1, BOB) for n in range(4, 6)]
    assert order(jobs, slots=6) == ["0", "4", "1", "5", "2", "3"]


def test_who_has_fewer_jobs_running_goes_first() -> None:
    jobs = [WaitingJob("1", 1, ALICE), WaitingJob("2", 1, BOB), WaitingJob("3", 1, BOB)]
    assert order(jobs, slots=3, held={ALICE: 2}) == ["2", "3", "1"]


def test_a_job_that_nothing_can_ever_take_costs_its_owner_no_turn() -> None:
    jobs = [WaitingJob("1", 9, ALICE), WaitingJob("2", 1, ALICE), WaitingJob("3", 1, BOB)]
    found = place(jobs, [gpu_node("ada", 4, 1)])
    assert [decision.job_id for decision in found if decision.node] == ["2"]


def test_waiting_raises_a_job_step_by_step_up_to_the_highest_priority() -> None:
    assert [rank(-1, seconds, 1800) for seconds in (0, 1799, 1800, 3600, 7199)] == [-1, -1, 0, 1, 1]
    assert rank(1, 7199, 1800) == 1
    assert rank(0, -5, 1800) == 0  # a clock that was set back ages nobody


def rounds_until_placed(
    mine: WaitingJob, room: NodeCapacity, stream: Sequence[int], *, seconds_a_round: float = 600
) -> int:
    """Rounds until a job of low priority gets its place, while others submit high ones each round that run for one."""
    for number in range(1, 100):
        arrivals = [WaitingJob(f"{number:03}-{n}", size, BOB, 1) for n, size in enumerate(stream)]
        aged = WaitingJob(mine.job_id, mine.num_processes, mine.owner_id, rank(-1, number * seconds_a_round, 1800))
        free = NodeCapacity(room.name, room.gpus, room.slots, list(room.gpus), room.slots)
        if any(decision.node for decision in place([*arrivals, aged], [free]) if decision.job_id == mine.job_id):
            return number
    raise AssertionError("it starved")


def test_a_stream_of_high_priority_does_not_starve_a_low_one() -> None:
    assert (
        rounds_until_placed(WaitingJob("000", 1, ALICE), cpu_node("ada", 2), [1, 1, 1]) == 6
    )  # two steps of half an hour


def test_a_stream_of_small_jobs_does_not_starve_one_that_needs_the_whole_node() -> None:
    assert rounds_until_placed(WaitingJob("000", 8, ALICE), gpu_node("ada", 8, 8), [1] * 9) == 6


def test_what_waited_four_times_as_long_as_a_step_goes_by_age_alone() -> None:
    assert {rank(priority, 4 * 1800, 1800) for priority in (-1, 0, 1)} == {OVERDUE}
    jobs = [WaitingJob("1", 1, ALICE, OVERDUE), WaitingJob("2", 1, ALICE, OVERDUE), WaitingJob("3", 1, BOB, OVERDUE)]
    assert order([*jobs, WaitingJob("0", 1, BOB, 1)], slots=4, held={ALICE: 5}) == ["1", "2", "3", "0"]


def test_a_stream_of_others_with_high_priority_does_not_starve_the_second_high_job_of_somebody() -> None:
    for number in range(1, 100):
        arrivals = [WaitingJob(f"{number:03}", 1, f"user{number}", 1)]
        mine = WaitingJob("000", 1, ALICE, rank(1, number * 600, 1800))
        if "000" in order([*arrivals, mine], held={ALICE: 1}):
            assert number == 12  # four steps of half an hour
            return
    raise AssertionError("it starved")


def test_a_user_has_no_more_places_than_their_limit() -> None:
    jobs = [WaitingJob(f"{n}", 1, ALICE) for n in range(4)] + [WaitingJob("4", 1, BOB)]
    assert order(jobs, slots=9, held={ALICE: 1}, most_held=3) == ["4", "0", "1"]


def test_who_waits_for_their_own_limit_keeps_nothing_from_others() -> None:
    jobs = [WaitingJob("1", 8, ALICE), WaitingJob("2", 1, BOB)]
    found = place(jobs, [gpu_node("ada", 8, 4)], {ALICE: 1}, 1)
    assert {decision.job_id: decision.node for decision in found} == {"1": None, "2": "ada"}


def test_ten_thousand_jobs_of_a_hundred_people_are_decided_about_once_each() -> None:
    jobs = [WaitingJob(f"{n:05}", 1 + n % 3, f"user{n % 100}", n % 3 - 1) for n in range(10_000)]
    found = place(jobs, [gpu_node(f"n{n}", 8, 8) for n in range(20)])
    assert sorted(decision.job_id for decision in found) == [job.job_id for job in jobs]
    given = [gpu for decision in found for gpu in decision.gpus]
    assert len(given) == len(set(given)) == 20 * 6  # the first ones need three each


# ---- why ------------------------------------------------------------------------------------------------------------


def test_without_a_node_a_job_knows_its_place_and_that_no_worker_runs() -> None:
    assert list(reasons(place(jobs_of([1, 8]), [])).values()) == [
        ["no_node", {"position": 1}],
        ["no_node", {"position": 2}],
    ]


def test_a_job_too_large_for_any_node_is_told_the_largest() -> None:
    found = reasons(place(jobs_of([4]), [gpu_node("ada", 1, 1), gpu_node("grace", 2, 2)]))
    assert found["000"] == ["too_large", {"needed": 4, "node": "grace", "largest": 2}]


def test_who_waits_for_a_slot_is_told_the_place_in_line() -> None:
    found = reasons(place(jobs_of([1, 1, 1]), [cpu_node("ada", 4, 1)]))
    assert list(found.values()) == [
        ["placed", {"node": "ada"}],
        ["next_slot", {"position": 1, "busy": 4, "total": 4}],
        ["no_slot", {"position": 2, "busy": 4, "total": 4}],
    ]


def test_who_waits_for_gpus_is_told_how_many_are_busy_of_those_that_would_do() -> None:
    found = reasons(place(jobs_of([4, 4]), [gpu_node("ada", 4, 1), gpu_node("grace", 1, 1)]))
    assert list(found.values()) == [
        ["next_gpu", {"position": 1, "busy": 3, "total": 4, "needed": 4}],
        ["no_gpu", {"position": 2, "busy": 3, "total": 4, "needed": 4}],
    ]


def test_who_sees_free_gpus_that_are_kept_for_another_is_told_so() -> None:
    assert reasons(place(jobs_of([4, 1]), [gpu_node("ada", 4, 1)]))["001"] == ["reserved", {"position": 2}]


def test_only_those_who_wait_for_the_same_nodes_are_ahead() -> None:
    found = reasons(place(jobs_of([1, 1, 2]), [gpu_node("ada", 1, 0), cpu_node("grace", 1, 0)]))
    assert [values["position"] for _code, values in found.values()] == [1, 2, 1]


def test_who_reached_their_own_limit_is_told_the_limit_and_the_place_among_their_own() -> None:
    found = reasons(place(jobs_of([1, 1]), [cpu_node("ada", 9, 9)], {"": 2}, 2))
    assert list(found.values()) == [
        ["own_limit", {"limit": 2, "position": 1}],
        ["own_limit", {"limit": 2, "position": 2}],
    ]
