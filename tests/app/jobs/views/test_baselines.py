"""What the loss of a job is compared with."""

import math
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.app.jobs import factories
from tests.users import Person
from trainer import events

SIZES = {"num_tokens": 900, "num_train_sequences": 6, "num_validation_sequences": 1, "bytes_per_token": 3.0}
DATA = [
    events.TokenizerEvent(seq=1, at=1.0, path="tokenizer", sha256="ab", vocab_size=4096, trained=True),
    events.DataEvent.model_validate({"seq": 2, "at": 2.0, "unigram_loss": 6.125, **SIZES}),
]


def baselines(client: TestClient, job_id: str) -> dict[str, Any]:
    return dict(client.get(f"/api/v1/jobs/{job_id}/baselines").raise_for_status().json())


def test_a_loss_is_compared_with_guesses_and_the_best_earlier_job_on_the_data(
    alice_api: TestClient, alice_user: Person
) -> None:
    factories.node()
    corpus, other = factories.corpus(alice_user), factories.corpus(alice_user)
    for number, loss in enumerate([3.25, 2.5, 4.0]):
        factories.end(factories.submitted(alice_user, corpus, name=f"run {number}"), loss)
    factories.end(factories.submitted(alice_user, other), 1.0)
    factories.end(factories.submitted(alice_user, corpus, vocab_size=300), 1.5)  # its loss is one of other tokens
    factories.end(factories.submitted(alice_user, corpus), None)
    job_id, fence = factories.started(alice_user, corpus)
    later = factories.submitted(alice_user, corpus)
    factories.end(later, 0.5)
    waiting = baselines(alice_api, job_id)
    assert (waiting["blind_loss"], waiting["unigram_loss"]) == (None, None)
    assert (waiting["best_earlier"]["name"], waiting["best_earlier"]["eval_loss"]) == ("run 1", 2.5)
    factories.record(job_id, fence, DATA)
    begun = baselines(alice_api, job_id)
    assert begun["blind_loss"] == pytest.approx(math.log(4096))
    assert begun["unigram_loss"] == 6.125
    page = alice_api.get(f"/jobs/{job_id}").text
    assert "Blind guessing would have a loss of 8.32, guessing each token by its frequency 6.12." in page
    assert "Your best earlier run on this data reached 2.500:" in page
    assert begun["best_earlier"]["id"] in page.split("data-best-earlier")[1][:300]


def test_a_reader_of_a_shared_job_learns_nothing_of_its_owners_other_jobs(
    alice_api: TestClient, bob_api: TestClient, alice_user: Person, bob_user: Person
) -> None:
    factories.node()
    corpus = factories.corpus(alice_user)
    factories.end(factories.submitted(alice_user, corpus, name="a secret"), 2.5)
    job_id = factories.submitted(alice_user, corpus)
    assert bob_api.get(f"/api/v1/jobs/{job_id}/baselines").status_code == 404
    alice_api.put(f"/api/v1/shares/{job_id}", json={"everyone": True}).raise_for_status()
    assert baselines(alice_api, job_id)["best_earlier"]["name"] == "a secret"
    assert baselines(bob_api, job_id)["best_earlier"] is None
    assert "a secret" not in bob_api.get(f"/jobs/{job_id}").text
