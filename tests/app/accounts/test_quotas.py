"""Quotas of users: what is counted, where they are checked, and who changes them."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, update
from starlette.testclient import TestClient

from app.base_models import service as base_models
from app.core import db, quotas
from app.core.account_models import User
from app.core.json_shapes import StoredFile, TaskResult
from app.core.models import Attempt, BackgroundTask, Corpus, CorpusFile, ImportedModel
from tests.app.jobs import factories
from tests.background import forget_waiting
from tests.users import Person

HEADERS = {"Origin": "http://localhost"}
NO_QUOTAS = {"disk_bytes": None, "running_jobs": None, "gpu_hours": None}


def set_quotas(api: TestClient, person: Person, **values: Any) -> dict[str, Any]:
    answer = api.put(f"/api/v1/users/{person.id}/quotas", json={**NO_QUOTAS, **values})
    assert answer.status_code == 200, answer.text
    usage: dict[str, Any] = answer.json()
    return usage


@pytest.fixture(autouse=True)
def no_quotas(alice_api: TestClient, bob_user: Person) -> None:
    set_quotas(alice_api, bob_user)


def used(person: Person) -> int:
    with db.transaction() as session:
        return quotas.used_bytes(session, person.id)


def test_everything_that_lies_on_the_disk_is_counted_once(bob_user: Person) -> None:
    before = used(bob_user)
    first, second = (factories.corpus(bob_user, text="x" * 1_000) for _time in range(2))
    with db.transaction() as session:
        for corpus_id in (first, second):  # versions that share a file
            row = session.get_one(Corpus, corpus_id)
            shared = {"filename": row.filename, "format": "txt", "num_bytes": 1_000, "sha256": "a" * 64}
            session.add(CorpusFile(corpus_id=corpus_id, position=0, **shared))
    assert used(bob_user) - before == 2 * 1_000 + 1_000  # the text of both, and the file

    with db.transaction() as session:
        model = ImportedModel(owner_id=bob_user.id, name="m", source="upload", state="ready", num_bytes=5 * 2**30)
        session.add(model)
        session.flush()
        files = [StoredFile(name="model.gguf", size=3 * 2**30, sha256="0" * 64)]
        export = {"owner_id": bob_user.id, "kind": "export", "model_id": model.id, "result": TaskResult(files=files)}
        session.add(BackgroundTask(state="succeeded", **export))
    assert used(bob_user) - before == 3_000 + 8 * 2**30

    with db.transaction() as session:
        session.delete(session.get_one(ImportedModel, model.id))
    assert used(bob_user) - before == 3_000


def test_an_upload_over_the_quota_is_refused_and_leaves_nothing(
    alice_api: TestClient, bob_api: TestClient, bob_user: Person
) -> None:
    usage = set_quotas(alice_api, bob_user, disk_bytes=used(bob_user) + 500)
    assert usage["quotas"] == {"disk_bytes": usage["disk_bytes"] + 500, "running_jobs": None, "gpu_hours": None}
    query = {"filename": "long.txt", "name": "Long"}
    num_corpora = len(bob_api.get("/api/v1/corpora").json()["data"])

    refused = bob_api.post("/api/v1/corpora", params=query, content=b"x" * 600)

    assert (refused.status_code, refused.json()["code"]) == (403, "quota_exceeded")
    assert "ask an administrator" in refused.json()["title"]
    assert len(bob_api.get("/api/v1/corpora").json()["data"]) == num_corpora
    assert bob_api.post("/api/v1/corpora", params=query, content=b"x" * 100).status_code == 201
    forget_waiting()


def test_files_of_models_that_are_not_imported_count(
    alice_api: TestClient, bob_api: TestClient, bob_user: Person
) -> None:
    set_quotas(alice_api, bob_user, disk_bytes=used(bob_user) + 1_000)
    first, second = (bob_api.post("/api/v1/models", json={"name": "tiny"}).json()["id"] for _time in range(2))

    def put(model_id: str, num_bytes: int) -> int:
        address = f"/api/v1/models/{model_id}/files/config.json"
        return bob_api.put(address, content=b"x" * num_bytes).status_code

    assert [put(first, 600), put(second, 600), put(second, 300)] == [200, 403, 200]
    assert [put(first, 700), put(first, 701)] == [200, 403]  # instead of the file that was there


def test_nothing_is_downloaded_once_the_quota_is_used_up(
    alice_api: TestClient, bob_api: TestClient, bob_user: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base_models, "_check_reference", lambda _reference: None)
    set_quotas(alice_api, bob_user, disk_bytes=used(bob_user))
    refused = bob_api.post("/api/v1/models", json={"name": "hub", "reference": "someone/model"})
    assert (refused.status_code, refused.json()["code"]) == (403, "quota_exceeded")


def test_a_job_whose_checkpoints_exceed_the_quota_is_refused(
    alice_api: TestClient, bob_api: TestClient, bob_user: Person
) -> None:
    corpus_id = factories.corpus(bob_user)
    set_quotas(alice_api, bob_user, disk_bytes=used(bob_user) + 1_000)
    body = {"corpora": [corpus_id]}

    refused = bob_api.post("/api/v1/jobs", json=body)

    assert (refused.status_code, refused.json()["code"]) == (403, "quota_exceeded")
    set_quotas(alice_api, bob_user, disk_bytes=None)
    assert bob_api.post("/api/v1/jobs", json=body).status_code == 201


def test_gpu_hours_are_those_of_the_last_thirty_days_on_nodes_with_gpus(bob_user: Person) -> None:
    factories.node("gpu", gpus=4)
    factories.node("cpu")
    corpus_id = factories.corpus(bob_user)
    hours = timedelta(hours=1)
    periods = {  # of attempts: node, begin and end before now
        "gpu": [(40 * 24 * hours, 39 * 24 * hours), (3 * hours, hours)],
        "cpu": [(5 * hours, hours)],
    }
    for node, spans in periods.items():
        for begin, end in spans:
            job_id, fence = factories.started(bob_user, corpus_id, on=node, num_processes=2, per_device_batch_size=8)
            with db.transaction() as session:
                times = {"started_at": func.now() - begin, "ended_at": func.now() - end}
                session.execute(update(Attempt).where(Attempt.job_id == job_id, Attempt.fence == fence).values(times))

    with db.transaction() as session:
        assert quotas.gpu_hours(session, [bob_user.id])[bob_user.id] == pytest.approx(2 * 2, rel=1e-3)
        session.execute(update_quota(bob_user, 4.5))
        assert quotas.exhausted_gpu_quotas(session, [bob_user.id]) == {}
        session.execute(update_quota(bob_user, 3.5))
        assert quotas.exhausted_gpu_quotas(session, [bob_user.id]) == {bob_user.id: 3.5}
    factories.forget_nodes()


def update_quota(person: Person, gpu_hours: float) -> Any:
    return update(User).where(User.id == person.id).values(quota_gpu_hours=gpu_hours)


def test_the_pages_show_usage_and_admins_change_quotas(alice: TestClient, bob: TestClient, bob_user: Person) -> None:
    form = {"disk_gigabytes": "1,5", "running_jobs": "2", "gpu_hours": ""}
    path = f"/account/people/{bob_user.id}/quotas"
    answer = alice.post(path, data=form, headers=HEADERS, follow_redirects=True)
    assert "The quotas are changed." in answer.text
    with db.transaction() as session:
        assert quotas.job_limits(session, [bob_user.id]) == {bob_user.id: 2}
    assert "of 1.4 GiB" in bob.get("/account").text
    entry = alice.get("/api/v1/audit-log").json()["data"][0]
    assert (entry["action"], entry["subject"]) == ("quotas_changed", "Bob")
    for hours in ("-1", "1,500", "nan", "1e999"):
        wrong = alice.post(path, data={**form, "gpu_hours": hours}, headers=HEADERS)
        assert (wrong.status_code, "Enter numbers that are not negative" in wrong.text) == (422, True), hours
    refused = bob.post(path, data=form, headers=HEADERS)
    assert refused.status_code == 403
