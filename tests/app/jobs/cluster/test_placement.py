"""Placement of jobs on nodes: by priority, in fair order, without starvation, and with the reason for each wait."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from app.jobs.cluster.placement import OVERDUE, PLACED, Decision, NodeCapacity, WaitingJob, place, rank

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


def test_jobs_fill_the_slots_in_order() -> None:
    assert decided([1, 1, 1], [cpu_node("ada", 2, 2)]) == ["ada", "ada", None]


def test_a_job_gets_one_distinct_gpu_per_process() -> None:
    decisions = place([WaitingJob("a", 2), WaitingJob("b", 1), WaitingJob("c", 2)], [gpu_node("ada", 4, 4)])
    assert [decision.gpus for decision in decisions] == [["ada-0", "ada-1"], ["ada-2"], []]


def test_the_fullest_node_with_room_is_used_first() -> None:
    assert decided([1], [gpu_node("ada", 8, 8), gpu_node("grace", 8, 2)]) == ["grace"]
    assert decided([1], [cpu_node("ada", 4, 4), cpu_node("grace", 4, 1)]) == ["grace"]


def test_a_waiting_large_job_reserves_its_nodes() -> None:
    rooms = [gpu_node("big", 8, 4), gpu_node("small", 2, 2)]
    assert decided([8, 1, 1, 1], rooms) == [None, "small", "small", None]


def test_cpu_nodes_run_jobs_that_no_gpu_node_could_run() -> None:
    rooms = [gpu_node("ada", 1, 0), cpu_node("grace")]
    assert decided([1, 2], rooms) == [None, "grace"]


def test_a_gpu_job_waits_for_its_silent_node_while_a_cpu_node_is_free() -> None:
    rooms = [silent(gpu_node("ada", 4, 4)), cpu_node("grace")]
    assert decided([4, 8], rooms) == [None, "grace"]
    assert reasons(place(jobs_of([4, 4]), rooms)) == {
        "000": ["silent", {"position": 1}],
        "001": ["silent", {"position": 2}],
    }


def test_a_job_goes_to_another_gpu_node_while_its_own_is_silent() -> None:
    assert decided([2, 8], [silent(gpu_node("ada", 8, 8)), gpu_node("grace", 2, 2)]) == ["grace", None]


def test_if_all_nodes_are_silent_no_worker_runs() -> None:
    assert reasons(place(jobs_of([1]), [silent(cpu_node("ada"))])) == {"000": ["no_node", {"position": 1}]}


def test_a_job_that_fits_a_silent_node_is_not_too_large() -> None:
    rooms = [silent(gpu_node("ada", 8, 8)), gpu_node("grace", 2, 2)]
    assert [code for code, _values in reasons(place(jobs_of([8, 9]), rooms)).values()] == ["silent", "too_large"]


# ---- order ----------------------------------------------------------------------------------------------------------


def test_priority_goes_before_age() -> None:
    assert order([WaitingJob("1", 1, rank=-1), WaitingJob("2", 1), WaitingJob("3", 1, rank=1)], slots=3) == [
        "3",
        "2",
        "1",
    ]


def test_owners_take_turns_regardless_of_their_number_of_jobs() -> None:
    jobs = [WaitingJob(f"{n}", 1, ALICE) for n in range(4)] + [WaitingJob(f"{n}", 1, BOB) for n in range(4, 6)]
    assert order(jobs, slots=6) == ["0", "4", "1", "5", "2", "3"]


def test_the_owner_with_fewer_running_jobs_goes_first() -> None:
    jobs = [WaitingJob("1", 1, ALICE), WaitingJob("2", 1, BOB), WaitingJob("3", 1, BOB)]
    assert order(jobs, slots=3, held={ALICE: 2}) == ["2", "3", "1"]


def test_an_unplaceable_job_does_not_use_up_its_owners_turn() -> None:
    jobs = [WaitingJob("1", 9, ALICE), WaitingJob("2", 1, ALICE), WaitingJob("3", 1, BOB)]
    found = place(jobs, [gpu_node("ada", 4, 1)])
    assert [decision.job_id for decision in found if decision.node] == ["2"]


def test_waiting_raises_a_job_gradually_to_the_highest_priority() -> None:
    assert [rank(-1, seconds, 1800) for seconds in (0, 1799, 1800, 3600, 7199)] == [-1, -1, 0, 1, 1]
    assert rank(1, 7199, 1800) == 1
    assert rank(0, -5, 1800) == 0  # a clock that was set back ages no job


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


def test_a_stream_of_high_priority_jobs_does_not_starve_a_low_one() -> None:
    assert (
        rounds_until_placed(WaitingJob("000", 1, ALICE), cpu_node("ada", 2), [1, 1, 1]) == 6
    )  # two steps of half an hour


def test_a_stream_of_small_jobs_does_not_starve_one_that_needs_a_full_node() -> None:
    assert rounds_until_placed(WaitingJob("000", 8, ALICE), gpu_node("ada", 8, 8), [1] * 9) == 6


def test_after_four_aging_steps_jobs_are_ordered_by_age_alone() -> None:
    assert {rank(priority, 4 * 1800, 1800) for priority in (-1, 0, 1)} == {OVERDUE}
    jobs = [WaitingJob("1", 1, ALICE, OVERDUE), WaitingJob("2", 1, ALICE, OVERDUE), WaitingJob("3", 1, BOB, OVERDUE)]
    assert order([*jobs, WaitingJob("0", 1, BOB, 1)], slots=4, held={ALICE: 5}) == ["1", "2", "3", "0"]


def test_those_of_an_owner_go_in_the_order_in_which_they_were_queued() -> None:
    jobs = [WaitingJob("1", 1, ALICE, since=9), WaitingJob("2", 1, ALICE, since=5), WaitingJob("3", 1, BOB, since=7)]
    assert order(jobs, slots=3) == ["2", "3", "1"]


def test_jobs_in_the_order_of_an_administrator_come_first() -> None:
    numbered = [WaitingJob("9", 1, ALICE, PLACED, 1), WaitingJob("8", 1, ALICE, PLACED, 2)]
    assert order([WaitingJob("1", 1, BOB, OVERDUE), *numbered], slots=3) == ["9", "8", "1"]


def test_other_owners_high_priority_jobs_do_not_starve_an_owners_second_one() -> None:
    for number in range(1, 100):
        arrivals = [WaitingJob(f"{number:03}", 1, f"user{number}", 1)]
        mine = WaitingJob("000", 1, ALICE, rank(1, number * 600, 1800))
        if "000" in order([*arrivals, mine], held={ALICE: 1}):
            assert number == 12  # four steps of half an hour
            return
    raise AssertionError("it starved")


def test_a_user_runs_no_more_jobs_than_their_limit() -> None:
    jobs = [WaitingJob(f"{n}", 1, ALICE) for n in range(4)] + [WaitingJob("4", 1, BOB)]
    assert order(jobs, slots=9, held={ALICE: 1}, most_held=3) == ["4", "0", "1"]


def test_the_quota_of_a_user_comes_before_the_limit_of_all() -> None:
    jobs = [WaitingJob(f"{n}", 1, ALICE) for n in range(3)] + [WaitingJob(f"{n}", 1, BOB) for n in range(3, 6)]
    decisions = place(jobs, [cpu_node("ada", 9, 9)], {}, 2, {ALICE: 3, BOB: 0})
    assert {decision.job_id for decision in decisions if decision.node} == {"0", "1", "2"}


def test_a_job_waiting_for_its_owners_limit_reserves_nothing() -> None:
    jobs = [WaitingJob("1", 8, ALICE), WaitingJob("2", 1, BOB)]
    found = place(jobs, [gpu_node("ada", 8, 4)], {ALICE: 1}, 1)
    assert {decision.job_id: decision.node for decision in found} == {"1": None, "2": "ada"}


def test_ten_thousand_jobs_of_a_hundred_users_are_each_decided_once() -> None:
    jobs = [WaitingJob(f"{n:05}", 1 + n % 3, f"user{n % 100}", n % 3 - 1) for n in range(10_000)]
    found = place(jobs, [gpu_node(f"n{n}", 8, 8) for n in range(20)])
    assert sorted(decision.job_id for decision in found) == [job.job_id for job in jobs]
    given = [gpu for decision in found for gpu in decision.gpus]
    assert len(given) == len(set(given)) == 20 * 6  # the first ones need three each


# ---- why ------------------------------------------------------------------------------------------------------------


def test_without_a_node_a_job_has_a_queue_position_and_the_reason_no_worker() -> None:
    assert list(reasons(place(jobs_of([1, 8]), [])).values()) == [
        ["no_node", {"position": 1}],
        ["no_node", {"position": 2}],
    ]


def test_a_job_too_large_for_any_node_names_the_largest_node() -> None:
    found = reasons(place(jobs_of([4]), [gpu_node("ada", 1, 1), gpu_node("grace", 2, 2)]))
    assert found["000"] == ["too_large", {"needed": 4, "node": "grace", "largest": 2}]


def test_a_job_waiting_for_a_slot_reports_its_queue_position() -> None:
    found = reasons(place(jobs_of([1, 1, 1]), [cpu_node("ada", 4, 1)]))
    assert list(found.values()) == [
        ["placed", {"node": "ada"}],
        ["next_slot", {"position": 1, "busy": 4, "total": 4}],
        ["no_slot", {"position": 2, "busy": 4, "total": 4}],
    ]


def test_a_job_waiting_for_gpus_reports_how_many_suitable_ones_are_busy() -> None:
    found = reasons(place(jobs_of([4, 4]), [gpu_node("ada", 4, 1), gpu_node("grace", 1, 1)]))
    assert list(found.values()) == [
        ["next_gpu", {"position": 1, "busy": 3, "total": 4, "needed": 4}],
        ["no_gpu", {"position": 2, "busy": 3, "total": 4, "needed": 4}],
    ]


def test_a_job_waiting_for_reserved_gpus_says_so() -> None:
    assert reasons(place(jobs_of([4, 1]), [gpu_node("ada", 4, 1)]))["001"] == ["reserved", {"position": 2}]


def test_only_jobs_waiting_for_the_same_nodes_are_ahead() -> None:
    found = reasons(place(jobs_of([1, 1, 2]), [gpu_node("ada", 1, 0), cpu_node("grace", 1, 0)]))
    assert [values["position"] for _code, values in found.values()] == [1, 2, 1]


def test_a_job_at_its_owners_limit_reports_the_limit_and_its_position() -> None:
    found = reasons(place(jobs_of([1, 1]), [cpu_node("ada", 9, 9)], {"": 2}, 2))
    assert list(found.values()) == [
        ["own_limit", {"limit": 2, "position": 1}],
        ["own_limit", {"limit": 2, "position": 2}],
    ]
