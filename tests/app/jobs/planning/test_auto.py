"""What is given as auto is chosen for the machine when a job is planned or submitted."""

import pytest
from starlette.testclient import TestClient

from tests.app.jobs import factories
from tests.users import Person

AUTO = dict.fromkeys(("per_device_batch_size", "gradient_checkpointing", "zero_stage", "offload_optimizer"), "auto")


@pytest.fixture(autouse=True)
def _a_machine(database: str) -> None:
    factories.forget_nodes()
    factories.node("ada")


def test_a_job_stores_the_chosen_values(alice_user: Person, alice_api: TestClient) -> None:
    asked = {"corpora": [factories.corpus(alice_user)], "name": "x", "train_batch_size": 32, **AUTO}

    chosen = alice_api.post("/api/v1/jobs/plan", json=asked).json()["chosen"]
    assert chosen == {
        "per_device_batch_size": 32,
        "gradient_checkpointing": False,
        "zero_stage": 0,
        "offload_optimizer": False,
    }
    spec = alice_api.post("/api/v1/jobs", json=asked).json()["spec"]
    assert {name: spec[name] for name in chosen} == chosen


def test_a_node_with_little_memory_gets_a_small_micro_batch(alice_user: Person, alice_api: TestClient) -> None:
    asked = {"corpora": [factories.corpus(alice_user)], "recipe": "gpt2-124m", "tokenizer": None, "vocab_size": 4096}
    answer = alice_api.post("/api/v1/jobs/plan", json={**asked, **AUTO}).json()

    assert answer["fits"]
    assert 1 <= answer["chosen"]["per_device_batch_size"] < answer["spec"]["train_batch_size"]


def test_a_job_that_cannot_fit_is_rejected_with_the_reason(alice_user: Person, alice_api: TestClient) -> None:
    asked = {"corpora": [factories.corpus(alice_user)], "hidden_size": 8192, "num_hidden_layers": 80, **AUTO}
    answer = alice_api.post("/api/v1/jobs/plan", json=asked)

    assert (answer.status_code, answer.json()["code"]) == (422, "memory_short")
    assert "memory" in answer.json()["errors"][0]["message"]


def test_the_form_offers_auto(alice: TestClient) -> None:
    page = alice.get("/jobs/new").text

    assert page.count("auto (recommended)") == 4  # a micro-batch is typed
    assert "“auto” chooses the fastest setting that fits." in page
