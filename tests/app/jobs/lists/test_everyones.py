"""Everybody's jobs: admins and owners list and cancel them, and nobody else does."""

import pytest
from starlette.testclient import TestClient

from app.accounts import service as users_service
from app.core import db
from app.core.models import Job
from tests import users
from tests.app.jobs import factories
from tests.users import Person

PATH = "/api/v1/everyones-jobs"
STEPS = {"max_steps": 4, "warmup_steps": 1}


@pytest.fixture(scope="module")
def jobs(database: str, alice_user: Person, bob_user: Person) -> dict[str, str]:
    """A queued job of Alice's and one of Bob's."""
    people = {"Alice": alice_user, "Bob": bob_user}
    return {
        name: factories.submitted(person, factories.corpus(person), name=f"{name}s tale", **STEPS)
        for name, person in people.items()
    }


@pytest.fixture
def admin(web: TestClient) -> TestClient:
    """The browser of an admin, who has no jobs."""
    return users.client(web, cookie=_admin().cookie())


def _admin() -> Person:
    with db.transaction() as session:
        row = users_service.find_user(session, name="Ada")
    return users.enter("Ada", "admin") if row is None else Person(row.id, row.name, row.role)


def test_an_admin_lists_everybodys_jobs_with_their_owners(admin: TestClient, jobs: dict[str, str]) -> None:
    listed = admin.get(PATH).json()["data"]
    assert [(job["id"], job["owner"]) for job in listed] == [(jobs["Bob"], "Bob"), (jobs["Alice"], "Alice")]
    assert set(listed[0]) == {
        *("id", "name", "owner", "state", "step", "max_steps", "node", "created_at", "finished_at")
    }
    page = admin.get("/everyones-jobs").text
    assert "Bobs tale" in page
    assert f"/everyones-jobs/{jobs['Alice']}/cancel" in page


def test_a_search_looks_at_jobs_and_owners(admin: TestClient, jobs: dict[str, str]) -> None:
    for search, owners in (("BOB", ["Bob"]), ("alices t", ["Alice"]), ("tale", ["Bob", "Alice"]), ("%", [])):
        assert [job["owner"] for job in admin.get(PATH, params={"q": search}).json()["data"]] == owners
    first = admin.get(PATH, params={"limit": 1}).json()
    assert [job["owner"] for job in admin.get(PATH, params={"after": first["next"]}).json()["data"]] == ["Alice"]


def test_other_pages_show_an_admin_no_foreign_job(admin: TestClient, jobs: dict[str, str]) -> None:
    assert admin.get(f"/api/v1/jobs/{jobs['Bob']}").status_code == 404
    assert "Bobs tale" not in admin.get("/jobs").text
    assert 'href="/everyones-jobs"' in admin.get("/jobs").text


def test_a_member_is_not_led_to_everybodys_jobs(bob: TestClient, jobs: dict[str, str]) -> None:
    assert "everyones-jobs" not in bob.get("/jobs").text
    assert bob.post(f"{PATH}/{jobs['Alice']}/cancel").status_code == 403
    with db.transaction() as session:
        assert session.get_one(Job, jobs["Alice"]).desired == "run"


def test_an_admin_cancels_a_job_of_another_user(admin: TestClient, bob: TestClient, jobs: dict[str, str]) -> None:
    answer = admin.post(f"{PATH}/{jobs['Bob']}/cancel")
    assert (answer.status_code, answer.json()["state"], answer.json()["owner"]) == (202, "cancelled", "Bob")
    assert bob.get(f"/api/v1/jobs/{jobs['Bob']}").json()["state"] == "cancelled"
    assert [job["owner"] for job in admin.get(PATH, params={"is_open": True}).json()["data"]] == ["Alice"]
    on_page = admin.post(f"/everyones-jobs/{jobs['Alice']}/cancel")
    assert on_page.headers["location"] == "/everyones-jobs"
    assert admin.get(PATH, params={"is_open": True}).json()["data"] == []
    assert admin.post(f"{PATH}/nothing/cancel").status_code == 404
