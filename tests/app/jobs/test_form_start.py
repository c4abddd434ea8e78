"""What the form of a new job offers to start from, and whether its job fits with each."""

import re
from html import unescape

import pytest
from sqlalchemy import update
from starlette.testclient import TestClient

from app.core import db
from app.core.models import Checkpoint, ImportedModel, Job
from app.jobs.cluster import nodes
from app.jobs.planning import base_model
from tests.app.jobs import factories
from tests.app.jobs.html_form import HtmlForm
from tests.app.jobs.planning.test_base_model import BERT, LLAMA, checkpoint, model
from tests.users import Person
from trainer.planning.hardware import NodeHardware


def offered(page: str) -> dict[str, list[str]]:
    """The options of the select by the title of their group, "" for those without."""
    (select,) = re.findall(r'<select\s+id="field-base_model".*?</select>', page, re.DOTALL)
    groups: dict[str, list[str]] = {"": re.findall(r"<option[^>]*>([^<]*)<", select.partition("<optgroup")[0])}
    for title, options in re.findall(r'<optgroup label="([^"]*)">(.*?)</optgroup>', select, re.DOTALL):
        groups[unescape(title)] = re.findall(r"<option[^>]*>([^<]*)<", options)
    return groups


def test_models_are_grouped_by_run_and_say_whether_the_job_fits(
    alice: TestClient, alice_user: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    factories.node(slots=50)
    corpus = factories.corpus(alice_user)
    for name in ("first run", "second run"):
        checkpoint_id = checkpoint(alice_user, corpus)
        with db.transaction() as session:
            job_id = session.get_one(Checkpoint, checkpoint_id).job_id
            session.execute(update(Job).where(Job.id == job_id).values(name=name))
    imported, encoder = model(alice_user), model(alice_user, BERT)
    large = model(alice_user, {**LLAMA, "num_hidden_layers": 80, "hidden_size": 8192, "intermediate_size": 28672})
    names = {imported: "small", large: "large", encoder: "encoder"}
    with db.transaction() as session:
        for model_id, name in names.items():
            session.execute(update(ImportedModel).where(ImportedModel.id == model_id).values(name=name))

    groups = offered(alice.get(f"/jobs/new?corpus={corpus}").text)

    assert list(groups) == ["", "Trained models: second run", "Trained models: first run", "Base models"]
    assert groups[""] == ["From scratch · fits"]
    assert groups["Trained models: first run"] == ["step 1 · llama · fits"]
    assert sorted(groups["Base models"]) == ["encoder · bert", "large · llama · does not fit", "small · llama · fits"]
    masked = offered(alice.get(f"/jobs/new?corpus={corpus}&recipe=tiny-bert").text)["Base models"]
    assert sorted(masked) == ["encoder · bert · fits", "large · llama", "small · llama"]
    wrong = offered(alice.post("/jobs/plan", data={"recipe": "tiny", "max_steps": "many"}).text)
    assert wrong[""] == ["From scratch"]

    monkeypatch.setattr(base_model, "CHOICES", 1)
    form = HtmlForm.of(alice.get(f"/jobs/new?corpus={corpus}&base_model={checkpoint_id}").text)
    assert form.value("base_model") == checkpoint_id
    checkpoint(alice_user, corpus)
    assert HtmlForm.of(alice.get(f"/jobs/new?base_model={checkpoint_id}").text).value("base_model") == checkpoint_id


def test_the_headline_of_a_plan_says_that_it_is_tight(
    alice: TestClient, alice_user: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    factories.node(slots=50)
    corpus = factories.corpus(alice_user)
    needed = alice.post("/api/v1/jobs/plan", json={"recipe": "tiny", "corpora": [corpus]}).json()["memory_bytes"]
    for share, words in ((2.0, "fits"), (1.05, "tight"), (0.9, "does not fit")):
        node = NodeHardware(kind="cpu", memory_bytes=int(needed * share), num_cpus=2)
        monkeypatch.setattr(nodes, "for_a_plan", lambda *_arguments, node=node: node)
        page = alice.get(f"/jobs/new?corpus={corpus}").text
        headline = re.search(r"data-headline>.*?data-fits=\"\w*\">([^<]*)<", page, re.DOTALL)
        assert headline is not None
        assert headline[1] == words
