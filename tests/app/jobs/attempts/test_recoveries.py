"""The recoveries of a job: the same over REST and in the live view."""

from typing import Any

import pytest
from sqlalchemy import func, update
from starlette.testclient import TestClient

from app.core import db, i18n
from app.core.models import Attempt, Job
from app.jobs import stream
from app.jobs.attempts import attempts, recoveries
from app.jobs.scheduling import dispatch
from tests.app.jobs import factories
from tests.users import Person
from trainer import events


def killed(job_id: str, fence: int) -> int:
    """Kill the process of the attempt and claim another attempt; returns its fence."""
    with db.transaction() as session:
        attempts.release(session, job_id=job_id, fence=fence, reason="trainer_killed", how="rank 0: SIGKILL")
    with db.transaction() as session:
        session.execute(update(Job).where(Job.id == job_id).values(not_before=func.now()))
        dispatch.requeue_or_fail(session)
    factories.give_to(job_id, "ada")
    with db.transaction() as session:
        claimed = attempts.claim(session, job_id=job_id, node="ada")
    assert claimed is not None
    return claimed


def begin(job_id: str, fence: int, step: int) -> None:
    with db.transaction() as session:
        attempts.resume_at(session, job_id=job_id, fence=fence, step=step, saved=None, damaged=[])


@pytest.fixture
def recovered(alice_user: Person) -> tuple[str, int]:
    """Create a job that was killed at step 20 and resumed after step 6; returns its ID and fence."""
    factories.node()
    job_id, fence = factories.started(alice_user, factories.corpus(alice_user))
    begin(job_id, fence, 0)
    factories.record(job_id, fence, factories.losses([5 - n / 10 for n in range(20)]))
    fence = killed(job_id, fence)
    begin(job_id, fence, 6)
    return job_id, fence


def again(job_id: str, fence: int, values: list[float | str], differs: list[str] | None = None) -> None:
    """The steps from 7 on are trained a second time."""
    first: list[events.Event] = [events.ResumedEvent(seq=1, at=1000.0, step=6, differs=differs or [])]
    factories.record(job_id, fence, [*first, *factories.losses(values, first_step=7, first_seq=2)])


SAME = [5 - n / 10 for n in range(6, 20)]


def test_a_job_reports_its_recoveries_and_repeated_steps(alice_api: TestClient, recovered: tuple[str, int]) -> None:
    job_id, fence = recovered
    again(job_id, fence, list(SAME))
    job = alice_api.get(f"/api/v1/jobs/{job_id}").json()
    assert (job["num_recoveries"], job["repeated_steps"]) == (1, 14)
    assert job["setback"] == {"code": "trainer_killed", "message": "A training process was killed (rank 0: SIGKILL)."}
    assert job["verdict"] == {"verdict": "exact", "message": "Exact resume proven on 14 steps.", "num_steps": 14}
    (listed,) = [row for row in alice_api.get("/api/v1/jobs").json()["data"] if row["id"] == job_id]
    assert listed["verdict"] == job["verdict"]


@pytest.mark.parametrize(
    ("values", "differs", "words"),
    [
        (SAME[:4], [], "Comparing the steps that are trained again: 4 so far."),
        (
            [value * (1 + 1e-6) for value in SAME],
            ["world_size"],
            "Equivalent: 14 steps agree within 1e-4 (changed since: number of processes).",
        ),
        ([*SAME[:5], 9.25, *SAME[6:]], [], "Step 12 differs: loss was 3.9, now 9.25."),
        (["nan", *SAME[1:]], ["versions"], "Step 7 differs: loss was 4.4, now nan."),
    ],
)
def test_the_comparison_of_repeated_steps_has_a_message(
    recovered: tuple[str, int], values: list[Any], differs: list[str], words: str
) -> None:
    again(*recovered, values, differs)
    with db.transaction() as session:
        attempt = session.get_one(Attempt, recovered)
        assert recoveries.sentence(attempt) == words
        with i18n.use_locale("zh-CN"):
            assert recoveries.sentence(attempt) not in (None, words)
        assert recoveries.summarize(session, [factories.row(recovered[0])])[recovered[0]].replayed is attempt


def test_a_later_matching_attempt_does_not_hide_differing_steps(
    alice_api: TestClient, recovered: tuple[str, int]
) -> None:
    job_id, fence = recovered
    again(job_id, fence, wrong := [*SAME[:5], 9.25, *SAME[6:]])
    fence = killed(job_id, fence)
    begin(job_id, fence, 6)
    for number in (4, len(wrong)):
        again(job_id, fence, wrong[:number])
        verdicts = [row["verdict"] for row in alice_api.get(f"/api/v1/jobs/{job_id}/attempts").json()["data"]]
        assert verdicts[2]["verdict"] == ("comparing" if number == 4 else "exact")
        assert alice_api.get(f"/api/v1/jobs/{job_id}").json()["verdict"] == verdicts[1]
        assert verdicts[1]["verdict"] == "different"


def test_attempts_are_listed_with_their_resume_point_and_outcome(
    alice_api: TestClient, bob_api: TestClient, recovered: tuple[str, int]
) -> None:
    job_id, fence = recovered
    again(job_id, fence, list(SAME))
    first, second = alice_api.get(f"/api/v1/jobs/{job_id}/attempts").json()["data"]
    assert (first["fence"], first["exit_code"], first["reached_step"]) == (1, "trainer_killed", 20)
    assert first["exit_message"] == "A training process was killed (rank 0: SIGKILL)."
    assert first["verdict"] is None
    assert (second["fence"], second["resume_step"], second["reached_step"]) == (2, 6, 20)
    assert (second["repeated_steps"], second["ended_at"], second["exit_message"]) == (14, None, None)
    assert second["verdict"]["verdict"] == "exact"
    assert bob_api.get(f"/api/v1/jobs/{job_id}/attempts").status_code == 404


def test_the_history_has_next_steps_and_severities(alice_api: TestClient, recovered: tuple[str, int]) -> None:
    entries = alice_api.get(f"/api/v1/jobs/{recovered[0]}/history").json()["data"]
    lost = next(entry for entry in entries if entry["reason"] == "trainer_killed")
    assert (lost["kind"], lost["fence"], lost["data"]) == ("warn", 1, {"how": "rank 0: SIGKILL"})
    assert "newest checkpoint" in lost["next_step"]
    assert (entries[0]["kind"], entries[0]["next_step"], entries[0]["fence"]) == ("person", None, 0)
    assert entries[-1]["data"] == {"step": 6, "repeated": 14}


def test_a_continuing_job_never_asks_to_be_submitted_again(alice_api: TestClient, alice_user: Person) -> None:
    job_id, fence = factories.started(alice_user, factories.corpus(alice_user))
    for reason, values in (("internal", {}), ("checkpoint_failed", {"step": 20, "why": "no file"})):
        with db.transaction() as session:
            attempts.release(session, job_id=job_id, fence=fence, reason=reason, **values)
        told = alice_api.get(f"/api/v1/jobs/{job_id}/history").json()["data"][-1]
        assert told["next_step"].startswith("It resumes from its newest checkpoint"), reason
        with db.transaction() as session:
            session.execute(update(Job).where(Job.id == job_id).values(not_before=func.now()))
            dispatch.requeue_or_fail(session)
        factories.give_to(job_id, "ada")
        with db.transaction() as session:
            fence = attempts.claim(session, job_id=job_id, node="ada") or 0


def test_a_lost_job_has_not_recovered_yet_but_shows_the_reason(
    alice: TestClient, alice_api: TestClient, alice_user: Person
) -> None:
    job_id, fence = factories.started(alice_user, factories.corpus(alice_user))
    with db.transaction() as session:
        attempts.release(session, job_id=job_id, fence=fence, reason="hang", step=7)
    job = alice_api.get(f"/api/v1/jobs/{job_id}").json()
    assert (job["state"], job["num_recoveries"]) == ("recovering", 0)
    assert job["setback"]["code"] == "hang"
    page = alice.get(f"/jobs/{job_id}").text
    assert "Training hung at step 7" in page[: page.index("data-chart")]


def test_live_views_receive_attempts_and_comparisons(recovered: tuple[str, int]) -> None:
    job_id, fence = recovered
    read = stream.json_reader(job_id, "en")
    cursor = read("", None).cursor
    again(job_id, fence, list(SAME))
    news = {update.event: update.data for update in read(cursor, None).updates}
    assert "Exact resume proven on 14 steps." in news["attempts"]
    assert "Exact resume proven on 14 steps." in news["job"]
    assert "attempts" not in {update.event for update in read(read(cursor, None).cursor, None).updates}
