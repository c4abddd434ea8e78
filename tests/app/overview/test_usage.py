"""What users and their running jobs use: measured by the jobs, summed up, and seen by whom it concerns."""

from typing import Any

from sqlalchemy import update
from starlette.testclient import TestClient

from app.core import db, quotas
from app.core.json_shapes import JobProgress
from app.core.models import Job
from tests.app.jobs import factories, saved_checkpoints
from tests.users import Person

GIB = 2**30


def measured(person: Person, name: str, **latest: Any) -> tuple[str, int]:
    job_id, fence = factories.started(person, factories.corpus(person), on="ada", name=name)
    with db.transaction() as session:
        session.execute(update(Job).where(Job.id == job_id).values(progress=JobProgress(latest=latest)))
    return job_id, fence


def test_use_is_summed_up_by_user_and_seen_by_whom_it_concerns(
    alice: TestClient, bob: TestClient, alice_user: Person, bob_user: Person
) -> None:
    factories.node("ada", slots=9)  # with two processors
    first, fence = measured(bob_user, "first", cpu_percent=75.0, memory_bytes=3.0 * GIB, gpu_percent=40.0)
    measured(bob_user, "second", cpu_percent=10.0, memory_bytes=1.0 * GIB)
    measured(bob_user, "new", loss="nan")
    measured(alice_user, "secret")
    size = saved_checkpoints.recorded(first, 4, fence).num_bytes
    with db.transaction() as session:
        disk_bytes = quotas.used_bytes(session, bob_user.id)

    (own,) = bob.get("/api/v1/usage").json()["data"]
    assert (own["name"], own["cpu_cores"], own["memory_bytes"], own["disk_bytes"]) == ("Bob", 1.7, 4 * GIB, disk_bytes)
    jobs = {job.pop("name"): job for job in own["jobs"]}
    assert list(jobs) == ["first", "second", "new"]
    assert jobs["first"] == {
        "id": first,
        "node": "ada",
        "cpu_cores": 1.5,
        "memory_bytes": 3 * GIB,
        "num_gpus": 0,
        "gpu_percent": 40.0,
        "disk_bytes": size,
    }
    assert (jobs["new"]["cpu_cores"], jobs["new"]["memory_bytes"], jobs["new"]["gpu_percent"]) == (None, None, None)
    assert "secret" not in bob.get("/usage").text

    everyone = alice.get("/api/v1/usage").json()["data"]
    assert {user["name"]: [job["name"] for job in user["jobs"]] for user in everyone} == {
        "Bob": ["first", "second", "new"],
        "Alice": ["secret"],
    }
    text = alice.get("/usage").text
    assert ("4.0 GiB" in text, "0 · 40 %" in " ".join(text.split()), ">1.7<" in text) == (True, True, True)
    assert f'href="/jobs/{first}"' not in text
    assert f'href="/jobs/{first}"' in bob.get("/usage").text
    assert alice.get("/api/v1/usage?limit=1").json()["next"] is not None
