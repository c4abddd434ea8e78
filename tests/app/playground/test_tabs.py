"""Which models the playground offers, and in which of its tabs a model opens."""

import re
from dataclasses import dataclass

import pytest
from sqlalchemy import update
from starlette.testclient import TestClient

from app.core import db
from app.core.json_shapes import StoredFile
from app.core.models import Checkpoint, Job
from tests.app.jobs import factories
from tests.users import Person

STEPS = {"max_steps": 4, "warmup_steps": 1}


@dataclass(frozen=True)
class OfferedModels:
    """The IDs of two checkpoints of Alice's: `tuned` has a chat template and was trained from `base`."""

    base: str
    tuned: str


@pytest.fixture(scope="module")
def models(alice_user: Person) -> OfferedModels:
    """The tuned one is the older one."""
    factories.node(slots=4)
    corpus_id = factories.corpus(alice_user)
    job_id, tuned = factories.finished(alice_user, corpus_id, name="Talker", **STEPS)
    _job_id, base = factories.finished(alice_user, corpus_id, name="Writer", **STEPS)
    template = StoredFile(name="chat_template.jinja", size=1, sha256="0" * 64)
    with db.transaction() as session:
        row = session.get_one(Checkpoint, tuned)
        row.manifest = row.manifest.model_copy(update={"files": [*row.manifest.files, template]})
        job = session.get_one(Job, job_id)
        job.spec = job.spec.model_copy(update={"base_model": base})
    return OfferedModels(base, tuned)


def columns(page: str) -> list[str]:
    """The models side by side in the chat; in the completion those beside the first one."""
    return re.findall(r'data-initial="(\w+)"', page)


def chosen(page: str) -> list[str]:
    """The first model of the completion."""
    return re.findall(r'<option value="(\w+)"[^>]*selected', page)


def test_a_model_with_a_chat_template_opens_in_the_chat_beside_its_base(
    alice: TestClient, models: OfferedModels
) -> None:
    page = alice.get(f"/playground?checkpoint={models.tuned}").text

    assert columns(page) == [models.tuned, models.base]
    assert re.findall(r'<option value="(\w+)"[^>]* data-chat[ >]', page)[0] == models.tuned
    assert f'data-base="{models.base}"' in page
    assert 'name="prompt"' not in page


def test_a_tuned_model_opens_in_the_completion_beside_its_base(alice: TestClient, models: OfferedModels) -> None:
    page = alice.get(f"/playground?checkpoint={models.tuned}&tab=completion").text

    assert (chosen(page), columns(page)) == ([models.tuned], [models.base])
    assert columns(alice.get(f"/playground?checkpoint={models.base}").text) == []


def test_a_model_without_a_chat_template_opens_in_the_completion(alice: TestClient, models: OfferedModels) -> None:
    assert chosen(alice.get(f"/playground?checkpoint={models.base}").text) == [models.base]
    assert chosen(alice.get("/playground").text) == [models.base]  # the newest
    assert columns(alice.get(f"/playground?checkpoint={models.base}&tab=chat").text) == [models.base]


def test_the_chat_begins_with_a_model_that_has_a_chat_template(alice: TestClient, models: OfferedModels) -> None:
    assert columns(alice.get("/playground?tab=chat").text) == [models.tuned, models.base]


def test_the_chat_is_translated(alice: TestClient, models: OfferedModels) -> None:
    page = alice.get("/playground?tab=chat", headers={"Accept-Language": "zh-CN"}).text
    assert "向模型提问" in page
    assert "Ask the models" not in page


def test_a_conversation_opens_without_any_model_left(bob: TestClient) -> None:
    row = bob.post("/api/v1/conversations", json={"title": "Old times"}).json()
    page = bob.get(f"/playground?conversation={row['id']}&tab=chat")
    assert f'data-conversation="{row["id"]}"' in page.text
    assert "No models to try yet" in bob.get("/playground?tab=chat").text


def test_token_biases_are_read_from_lines(alice: TestClient, models: OfferedModels) -> None:
    form = {"checkpoint": models.base, "prompt": "In", "logit_bias": "12: 101", "random_seed": "true"}
    answer = alice.post("/playground", data=form)
    assert answer.status_code == 422
    assert "at most 100" in answer.text
    assert "12: 101</textarea>" in answer.text


def test_the_playground_begins_with_the_best_checkpoint_of_the_newest_complete_job(
    alice: TestClient, alice_user: Person, models: OfferedModels
) -> None:
    corpus_id = factories.corpus(alice_user)
    job_id, fence = factories.started(alice_user, corpus_id, name="Broken off", **STEPS)
    factories.saved(job_id, fence, 2)
    with db.transaction() as session:
        for state in ("cancelling", "cancelled"):
            session.execute(update(Job).where(Job.id == job_id).values(state=state))

    assert chosen(alice.get("/playground?tab=completion").text) == [models.base]


def test_a_model_that_was_trained_further_opens_beside_what_it_continues(
    alice: TestClient, alice_user: Person, models: OfferedModels
) -> None:
    corpus_id = factories.corpus(alice_user)
    job_id, further = factories.finished(alice_user, corpus_id, name="Further", **STEPS)
    with db.transaction() as session:
        job = session.get_one(Job, job_id)
        job.spec = job.spec.model_copy(update={"resume_from_checkpoint": models.base})
    page = alice.get(f"/playground?checkpoint={further}").text

    assert (chosen(page), columns(page)) == ([further], [models.base])
