"""What models are called under /v1, which of ours a name means, and what deleting one removes."""

from dataclasses import dataclass

import pytest
from starlette.testclient import TestClient

from app.core import db
from app.core.models import Checkpoint, ImportedModel, Job
from tests import statements, users
from tests.app.jobs import factories, saved_checkpoints
from tests.users import Person

STEPS = {"max_steps": 8, "warmup_steps": 1}


@dataclass(frozen=True)
class Trained:
    """A job of Alice's with two checkpoints, and an imported model."""

    job_id: str
    early: str
    late: str
    imported: str


@pytest.fixture(scope="module")
def trained(database: str, alice_user: Person) -> Trained:
    factories.node(slots=4)
    job_id, fence = factories.started(alice_user, factories.corpus(alice_user), name="My Bible", **STEPS)
    ids = [saved_checkpoints.recorded(job_id, step, fence).id for step in (4, 8)]
    with db.transaction() as session:
        model = ImportedModel(owner_id=alice_user.id, name="small/llama", source="upload", state="ready")
        session.add(model)
        session.flush()
        return Trained(job_id, *ids, model.id)


def get(client: TestClient, name: str) -> dict[str, object]:
    answer = client.get(f"/v1/models/{name.replace('/', '%2F')}")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_the_list_has_imported_models_and_checkpoints(alice_api: TestClient, trained: Trained) -> None:
    tuned = f"ft:tiny:org-local:My-Bible:{trained.job_id}"
    answer = alice_api.get("/v1/models").json()
    assert answer["object"] == "list"
    assert [model["id"] for model in answer["data"]] == [
        f"{tuned}:ckpt-step-8",
        f"{tuned}:ckpt-step-4",
        "small/llama",
    ]
    for model in answer["data"]:
        assert get(alice_api, model["id"]) == model


def test_the_name_of_a_job_means_its_last_checkpoint(alice_api: TestClient, trained: Trained) -> None:
    tuned = f"ft:tiny:org-local:My-Bible:{trained.job_id}"
    created = {model["id"]: model["created"] for model in alice_api.get("/v1/models").json()["data"]}
    assert get(alice_api, tuned) == {
        "id": tuned,
        "object": "model",
        "created": created[f"{tuned}:ckpt-step-8"],
        "owned_by": "org-local",
    }
    assert get(alice_api, trained.early)["id"] == f"{tuned}:ckpt-step-4"
    assert get(alice_api, trained.imported)["id"] == "small/llama"


@pytest.mark.parametrize(
    "name", ["gpt-4o", "ft:tiny:org-local::0000000000000000", "ft:tiny:org-local:My-Bible:{job}:ckpt-step-5", "0" * 16]
)
def test_an_unknown_model_is_not_found(alice_api: TestClient, trained: Trained, name: str) -> None:
    answer = alice_api.get(f"/v1/models/{name.format(job=trained.job_id)}")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"
    assert answer.json()["error"]["param"] == "model"


def test_another_user_sees_and_deletes_none_of_them(bob_api: TestClient, trained: Trained) -> None:
    assert bob_api.get("/v1/models").json()["data"] == []
    for name in (trained.early, trained.imported, f"ft:tiny:org-local:My-Bible:{trained.job_id}", "small%2Fllama"):
        assert bob_api.get(f"/v1/models/{name}").status_code == 404
        assert bob_api.delete(f"/v1/models/{name}").status_code == 404


def test_a_thousand_checkpoints_are_listed_with_as_many_queries_as_two(web: TestClient, trained: Trained) -> None:
    carol = users.enter("Carol", "member")
    api = users.client(web, token=carol.token())
    numbers, models = [], []
    for count in (2, 998):
        saved_checkpoints.add_copies(trained.late, carol, count)
        with statements.record() as queries:
            models = [model["id"] for model in api.get("/v1/models").json()["data"]]
        numbers.append(len(queries))
    assert numbers[0] == numbers[1]
    assert len(set(models)) == 1_000
    assert all(name.startswith("ft:tiny:org-local:My-Bible:") for name in models)


def test_the_newest_checkpoint_of_an_unfinished_job_stays(alice_api: TestClient, trained: Trained) -> None:
    refused = alice_api.delete(f"/v1/models/ft:tiny:org-local:My-Bible:{trained.job_id}")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "checkpoint_in_use")
    assert refused.headers["x-should-retry"] == "false"


def test_a_deleted_checkpoint_is_gone_and_the_others_stay(alice_api: TestClient, trained: Trained) -> None:
    with db.transaction() as session:
        job = session.get_one(Job, trained.job_id)
        job.state, job.finished_at = "succeeded", db.now()
    name = f"ft:tiny:org-local:My-Bible:{trained.job_id}:ckpt-step-4"
    assert alice_api.delete(f"/v1/models/{name}").json() == {"id": name, "object": "model", "deleted": True}
    assert alice_api.get(f"/v1/models/{name}").status_code == 404
    with db.transaction() as session:
        assert session.get_one(Checkpoint, trained.late).state == "ready"
    assert alice_api.get("/v1/models").json()["data"][0]["id"] == f"ft:tiny:org-local:My-Bible:{trained.job_id}"


def test_an_imported_model_is_deleted_by_its_name(alice_api: TestClient, trained: Trained) -> None:
    assert alice_api.delete("/v1/models/small/llama").json()["deleted"] is True
    assert alice_api.get(f"/v1/models/{trained.imported}").status_code == 404


@pytest.mark.parametrize(
    ("token", "code"), [("", "invalid_api_key"), ("ath_wrong", "invalid_api_key"), ("read", "scope_missing")]
)
def test_a_refused_token_is_an_error_in_the_form_of_openai(
    web: TestClient, alice_user: Person, token: str, code: str
) -> None:
    secret = alice_user.token("read") if token == "read" else token
    client = users.client(web, token=secret or None)
    answer = client.delete("/v1/models/tiny") if token == "read" else client.get("/v1/models")
    assert answer.status_code == (403 if token == "read" else 401)
    assert list(answer.json()) == ["error"]
    assert answer.json()["error"].keys() == {"message", "type", "param", "code"}
    assert answer.json()["error"]["code"] == code
    assert len(answer.headers["x-request-id"]) == 12


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/v1/nowhere", 404), ("PUT", "/v1/models", 405)])
def test_an_unknown_address_is_an_error_in_the_form_of_openai(
    visitor: TestClient, method: str, path: str, status: int
) -> None:
    answer = visitor.request(method, path)
    assert answer.status_code == status
    assert answer.json()["error"].keys() == {"message", "type", "param", "code"}
