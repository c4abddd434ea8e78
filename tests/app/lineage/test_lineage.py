"""What comes of what: the graph of every kind of item, its limits, its drawing and its page."""

import re
from typing import Any

import pytest
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from app.core import db
from app.core.deployment_models import Deployment
from app.core.json_shapes import Cleaning, TaskOptions
from app.core.models import BackgroundTask, Checkpoint, Corpus, ImportedModel, Job, Tokenizer
from app.core.synthetic_shapes import Synthesis
from app.lineage import service
from app.lineage.drawing import BOX_HEIGHT, BOX_WIDTH, draw, shortened
from app.lineage.pages import KIND_WORDS
from app.lineage.schemas import LineageAnswer
from tests.app.jobs import factories, saved_checkpoints
from tests.app.synthetic.conftest import record_settings
from tests.users import Person

STEPS = {"max_steps": 8, "warmup_steps": 1}


@pytest.fixture(scope="module")
def story(alice_user: Person) -> dict[str, str]:
    """A corpus and its cleaned version, a tokenizer of it, a job, its checkpoint, and what came of that, by name."""
    factories.node(slots=9)
    text = factories.corpus(alice_user, name="Fables")
    clean = factories.corpus(alice_user, name="Fables")
    with db.transaction() as session:
        cleaning = Cleaning(parent_id=text, parent_version=1, parent_sha256="0", num_documents=1, recipe=[])
        row = session.get_one(Corpus, clean)
        row.lineage_id, row.version, row.cleaning = text, 2, cleaning
        tokenizer = Tokenizer(owner_id=alice_user.id, name="Words", source="training", corpora=[clean], vocab_size=2048)
        session.add(tokenizer)
        session.flush()
        words = tokenizer.id
    job, fence = factories.started(alice_user, clean, name="Scribe", **STEPS)
    with db.transaction() as session:
        set_spec(session, job, tokenizer=words)
    checkpoint = saved_checkpoints.recorded(job, 4, fence).id
    onward = factories.submitted(alice_user, clean, name="Onward", **STEPS)
    with db.transaction() as session:
        session.get_one(Job, onward).resume_from_id = checkpoint
        evaluation = BackgroundTask(
            owner_id=alice_user.id, checkpoint_id=checkpoint, kind="evaluation", options=TaskOptions(corpora=[text])
        )
        options = TaskOptions(format="gguf", quantization="q8_0")
        export = BackgroundTask(owner_id=alice_user.id, checkpoint_id=checkpoint, kind="export", options=options)
        deployment = Deployment(owner_id=alice_user.id, name="Oracle", name_key="oracle", model_id=checkpoint, path="x")
        session.add_all([evaluation, export, deployment])
        session.flush()
        others = {"evaluation": evaluation.id, "export": export.id, "deployment": deployment.id}
    return {
        "text": text,
        "clean": clean,
        "words": words,
        "job": job,
        "checkpoint": checkpoint,
        "onward": onward,
        **others,
    }


def set_spec(session: Session, job_id: str, **changes: Any) -> None:
    job = session.get_one(Job, job_id)
    job.spec = job.spec.model_copy(update=changes)


def lineage(client: TestClient, item_id: str) -> dict[str, Any]:
    answer = client.get(f"/api/v1/lineage/{item_id}")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def links(answer: dict[str, Any], story: dict[str, str]) -> set[tuple[str, str]]:
    names = {item_id: name for name, item_id in story.items()}
    return {(names[link["source"]], names[link["target"]]) for link in answer["links"]}


ALL_LINKS = {
    *(("text", "clean"), ("clean", "words"), ("clean", "job"), ("words", "job"), ("job", "checkpoint")),
    *(("checkpoint", name) for name in ("onward", "evaluation", "export", "deployment")),
    *(("clean", "onward"), ("text", "evaluation")),
}


@pytest.mark.parametrize("name", ["text", "checkpoint", "job"])
def test_what_an_item_comes_from_and_what_came_of_it_are_linked(
    story: dict[str, str], alice: TestClient, name: str
) -> None:
    answer = lineage(alice, story[name])
    assert links(answer, story) == ALL_LINKS
    assert (answer["subject"], answer["num_left_out"]) == (story[name], 0)
    places = {item["id"]: place for place, item in enumerate(answer["items"])}
    assert all(places[link["source"]] < places[link["target"]] for link in answer["links"])


def test_siblings_are_not_part_of_a_lineage(story: dict[str, str], alice: TestClient) -> None:
    answer = lineage(alice, story["export"])
    assert links(answer, story) == {
        *(("text", "clean"), ("clean", "words"), ("clean", "job"), ("words", "job"), ("job", "checkpoint")),
        ("checkpoint", "export"),
    }


def test_items_are_named_and_told_apart_in_the_readers_language(story: dict[str, str], alice: TestClient) -> None:
    items = {item["id"]: item for item in lineage(alice, story["checkpoint"])["items"]}
    texts = {name: (items[story[name]]["name"], items[story[name]]["detail"]) for name in story}
    assert texts["clean"] == ("Fables", "version 2")
    assert texts["checkpoint"] == ("Scribe", "step 4")
    assert texts["export"] == ("gguf", "q8_0")
    assert items[story["deployment"]]["href"] == f"/deployments/{story['deployment']}"
    chinese = alice.get(f"/api/v1/lineage/{story['clean']}", headers={"Accept-Language": "zh-CN"}).json()
    assert "version" not in str(chinese["items"])


def test_a_model_from_elsewhere_leads_to_the_jobs_that_start_from_it(alice_user: Person, alice: TestClient) -> None:
    with db.transaction() as session:
        model = ImportedModel(owner_id=alice_user.id, name="Elder", source="hub", reference="a/b@c", state="ready")
        session.add(model)
        session.flush()
        model_id = model.id
    job_id = factories.submitted(alice_user, factories.corpus(alice_user), name="Younger", **STEPS)
    with db.transaction() as session:
        set_spec(session, job_id, base_model=model_id)
    answer = lineage(alice, model_id)
    assert [(item["kind"], item["name"], item["detail"]) for item in answer["items"]] == [
        ("model", "Elder", "a/b@c"),
        ("job", "Younger", "8 steps"),
    ]


def test_generated_records_come_of_their_model_their_documents_and_the_version_before(
    story: dict[str, str], alice_user: Person, alice: TestClient
) -> None:
    first, second = (factories.corpus(alice_user, name="Questions") for _version in range(2))
    settings = record_settings()
    synthesis = Synthesis(
        generation_id="g",
        parent_id=story["text"],
        parent_name="Fables",
        parent_version=1,
        parent_sha256="0",
        model="Oracle",
        model_id=story["checkpoint"],
        endpoint=None,
        settings=settings,
        num_records=1,
        num_edited=0,
    )
    with db.transaction() as session:
        row = session.get_one(Corpus, second)
        row.lineage_id, row.version, row.synthesis = first, 2, synthesis
    sources = {(link["source"], link["target"]) for link in lineage(alice, second)["links"]}
    assert {(story[name], second) for name in ("text", "checkpoint")} | {(first, second)} <= sources
    products = {(link["source"], link["target"]) for link in lineage(alice, story["checkpoint"])["links"]}
    assert (story["checkpoint"], second) in products
    with db.transaction() as session:
        session.delete(session.get_one(Corpus, second))


def test_a_tokenizer_comes_of_the_job_that_trained_it(alice_user: Person, alice: TestClient) -> None:
    job_id = factories.submitted(alice_user, factories.corpus(alice_user), **STEPS)
    with db.transaction() as session:
        tokenizer = Tokenizer(owner_id=alice_user.id, name="Own", corpora=[], sha256="7" * 64)
        session.add(tokenizer)
        session.flush()
        session.get_one(Job, job_id).tokenizer_id = tokenizer.id
        tokenizer_id = tokenizer.id
    of_job, of_tokenizer = lineage(alice, job_id), lineage(alice, tokenizer_id)
    assert {"source": job_id, "target": tokenizer_id} in of_job["links"]
    assert {"source": job_id, "target": tokenizer_id} in of_tokenizer["links"]


def test_the_newest_are_drawn_and_the_others_counted(alice_user: Person, alice: TestClient) -> None:
    job_id, fence = factories.started(alice_user, factories.corpus(alice_user), max_steps=99, warmup_steps=1)
    saved = [saved_checkpoints.recorded(job_id, step, fence).id for step in range(1, service.MAX_PRODUCTS + 4)]
    answer = lineage(alice, job_id)
    drawn = {item["id"] for item in answer["items"] if item["kind"] == "checkpoint"}
    assert drawn == set(saved[3:])
    assert answer["num_left_out"] == 3
    assert "3 others are left out" in alice.get(f"/lineage/{job_id}").text
    assert saved[0] in {item["id"] for item in lineage(alice, saved[0])["items"]}


def test_files_that_were_deleted_are_left_out(story: dict[str, str], alice_user: Person, alice: TestClient) -> None:
    job_id, fence = factories.started(alice_user, factories.corpus(alice_user), **STEPS)
    checkpoint = saved_checkpoints.recorded(job_id, 4, fence)
    with db.transaction() as session:
        session.get_one(Checkpoint, checkpoint.id).state = "deleted"
    assert checkpoint.id not in {item["id"] for item in lineage(alice, job_id)["items"]}


def test_what_is_in_the_trash_is_left_out_and_says_so_itself(alice_user: Person, alice: TestClient) -> None:
    corpus = factories.corpus(alice_user)
    job_id, _checkpoint = factories.finished(alice_user, corpus, **STEPS)
    assert alice.delete(f"/api/v1/jobs/{job_id}").status_code == 204
    assert [item["id"] for item in lineage(alice, corpus)["items"]] == [corpus]
    answer = alice.get(f"/api/v1/lineage/{job_id}")
    assert (answer.status_code, answer.json()["code"]) == (404, "in_trash")


def test_items_that_come_of_each_other_end_the_walk_and_the_drawing() -> None:
    ids, circle = ["a", "b", "c"], [("a", "b"), ("b", "c"), ("c", "a")]
    assert set(service.generations(ids, circle)) == set(ids)


def test_boxes_do_not_overlap_and_links_lead_to_the_right(story: dict[str, str], alice: TestClient) -> None:
    answer = LineageAnswer.model_validate(lineage(alice, story["checkpoint"]))
    drawing = draw(answer, KIND_WORDS)
    places = [(box.x, box.y) for box in drawing.boxes]
    assert len(set(places)) == len(answer.items)
    assert all(
        abs(a[0] - b[0]) >= BOX_WIDTH or abs(a[1] - b[1]) >= BOX_HEIGHT for a in places for b in places if a != b
    )
    assert all(x + BOX_WIDTH <= drawing.width and y + BOX_HEIGHT <= drawing.height for x, y in places)
    ends = [re.findall(r"[\d]+", path) for path in drawing.paths]
    assert all(int(numbers[0]) < int(numbers[-2]) for numbers in ends)


def test_long_texts_are_cut_by_their_width() -> None:
    assert shortened("abc", 5) == "abc"
    assert shortened("abcdefgh", 5) == "abcd…"
    assert shortened("宋词选集大全", 6) == "宋词…"


def test_the_page_draws_links_and_lists_the_same(story: dict[str, str], alice: TestClient, bob: TestClient) -> None:
    text = alice.get(f"/lineage/{story['checkpoint']}").text
    svg, listed = text[text.index('<svg class="lineage"') :].split("</svg>", 1)
    for part in (svg, listed):
        assert f'href="/corpora/{story["text"]}"' in part
        assert f'href="/tasks/{story["export"]}"' in part
    assert "style=" not in text
    assert svg.count("<path ") == len(ALL_LINKS)
    assert svg.count("aria-current") == 1
    assert f'href="/lineage/{story["checkpoint"]}"' in alice.get(f"/checkpoints/{story['checkpoint']}").text
    assert bob.get(f"/lineage/{story['checkpoint']}").status_code == 404
