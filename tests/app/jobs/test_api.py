"""Jobs over HTTP: what is asked for, what is wrong with it, who may see it."""

import json
from typing import Any

import pytest
from sqlalchemy import update
from starlette.testclient import TestClient

from app.core import db, storage
from app.core.models import Job
from app.jobs import service
from app.jobs.attempts import metrics
from tests.app.jobs import factories
from tests.users import Person
from trainer.planning.scaling_laws import effective_tokens, expected_bits_per_byte
from trainer.spec import recipe_names


@pytest.fixture(scope="module")
def corpus(alice_user: Person) -> str:
    factories.node()
    return factories.corpus(alice_user)


@pytest.fixture(scope="module")
def short(alice_user: Person) -> str:
    return factories.corpus(alice_user, text="Let there be light." * 10, name="Short")


def test_a_job_is_submitted_once_per_idempotency_key(alice_api: TestClient, corpus: str) -> None:
    headers = {"Idempotency-Key": "first"}
    answers = [alice_api.post("/api/v1/jobs", json={"corpora": [corpus]}, headers=headers) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 200]
    assert answers[0].json()["id"] == answers[1].json()["id"]
    assert answers[0].headers["Location"] == f"/api/v1/jobs/{answers[0].json()['id']}"
    other = alice_api.post("/api/v1/jobs", json={"corpora": [corpus], "seed": 3}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_conflict")


BAD = [
    ({"corpora": []}, "corpora", "at least 1"),
    ({}, "corpora", "missing"),
    ({"corpora": ["nothing"]}, "corpora", "There is no corpus nothing"),
    ({"corpora": 3}, "corpora", "list"),
    ({"corpora": ["CORPUS", "CORPUS"]}, "corpora", "twice"),
    ({"corpora": ["CORPUS"], "learning_speed": 1}, "learning_speed", "not a field"),
    ({"corpora": ["CORPUS"], "max_steps": 0}, "max_steps", "at least 1"),
    ({"corpora": ["CORPUS"], "max_steps": "many"}, "max_steps", "whole number"),
    ({"corpora": ["CORPUS"], "hidden_size": 130}, "hidden_size", "multiple"),
    ({"corpora": ["CORPUS"], "recipe": "huge"}, "recipe", "tiny, gpt2-124m, llama-7b"),
    ({"corpora": ["CORPUS"], "recipe": None}, "recipe", "text"),
    ({"corpora": ["CORPUS"], "name": ""}, "name", "empty"),
    ({"corpora": ["CORPUS"], "name": "a\0b"}, "name", "(U+0000) at position 2"),
    ({"corpora": ["CORPUS"], "name": "a\u202eb"}, "name", "(U+202E) at position 2"),
    ({"corpora": ["CORPUS"], "chat_template": "a\x1bb"}, "chat_template", "(U+001B) at position 2"),
    ({"corpora": ["CORPUS"], "sample_prompt": "\ud800"}, "sample_prompt", "(U+D800) at position 1"),
    ({"corpora": ["CORPUS"], "tokenizer": "nothing"}, "tokenizer", "There is no tokenizer"),
    ({"corpora": ["CORPUS"], "vocab_size": 10}, "vocab_size", "at least 258"),
    ({"corpora": ["SHORT"], "sequence_length": 1024}, "sequence_length", "at most"),
    ({"corpora": ["CORPUS"], "learning_rate": float("nan")}, "body", "NaN is not a finite number"),
    ({"corpora": ["CORPUS"], "num_processes": 3}, "train_batch_size", "multiple"),
]


@pytest.mark.parametrize(("given", "field", "words"), BAD)
@pytest.mark.parametrize("address", ["/api/v1/jobs", "/api/v1/jobs/plan"])
def test_an_invalid_spec_is_rejected_at_its_field(
    alice_api: TestClient, corpus: str, short: str, address: str, given: dict[str, Any], field: str, words: str
) -> None:
    body = {**given}
    if isinstance(body.get("corpora"), list):
        body["corpora"] = [{"CORPUS": corpus, "SHORT": short}.get(name, name) for name in body["corpora"]]
    content = json.dumps(body).encode()
    answer = alice_api.post(address, content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422, answer.text
    problems = {problem["field"]: problem["message"] for problem in answer.json()["errors"]}
    assert words in problems[field]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"\xff", b"null", b"{" * 10_000])
def test_a_body_that_is_not_an_object_is_rejected(alice_api: TestClient, corpus: str, body: bytes) -> None:
    answer = alice_api.post("/api/v1/jobs", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422), answer.text


def test_an_unusable_corpus_is_rejected(alice_api: TestClient, alice_user: Person, bob_user: Person) -> None:
    parsing, theirs = factories.corpus(alice_user, state="parsing"), factories.corpus(bob_user)
    for corpus_id, words in ((parsing, "still being read"), (theirs, "There is no corpus")):
        answer = alice_api.post("/api/v1/jobs", json={"corpora": [corpus_id]})
        assert words in answer.json()["errors"][0]["message"]


def test_a_plan_shows_the_cost_of_a_job(alice_api: TestClient, corpus: str) -> None:
    plan = alice_api.post("/api/v1/jobs/plan", json={"corpora": [corpus]}).json()
    assert plan["num_parameters"] == 1_066_112
    assert plan["memory_bytes"] == sum(plan["memory"].values())
    assert plan["fits"] is True
    assert plan["tokens_per_step"] == 2048
    assert "GiB" in plan["reason"]
    large = alice_api.post("/api/v1/jobs/plan", json={"corpora": [corpus], "recipe": "llama-7b", "vocab_size": 2048})
    assert large.json()["fits"] is False


def test_a_plan_shows_time_disk_and_reasons(alice_api: TestClient, corpus: str) -> None:
    plan = alice_api.post("/api/v1/jobs/plan", json={"corpora": [corpus]}).json()
    assert {"memory_bytes", "flops", "disk_bytes", "step_seconds", "total_seconds"} <= set(plan["figures"])
    total = plan["figures"]["total_seconds"]
    assert 0 < total["low"] < total["value"] < total["high"]
    assert " to " in total["text"]
    assert total["reason"].startswith("Steps: 400, evaluations: 9, checkpoints: 2")
    assert plan["notes"][0].startswith("Based on the usual speed of CPU cores (2 here)")
    assert plan["flops_per_token"]["matmuls"] == 6 * 1_066_112


def test_a_plan_names_the_cheapest_change_that_fits(alice_api: TestClient, corpus: str) -> None:
    fields = {"corpora": [corpus], "recipe": "gpt2-124m", "vocab_size": 2048, "per_device_batch_size": 128}
    plan = alice_api.post("/api/v1/jobs/plan", json=fields).json()
    assert plan["fits"] is False
    assert set(plan["changes"]) <= {"per_device_batch_size", "gradient_checkpointing"}
    changes = ", ".join(f"{name}={str(value).lower()}" for name, value in plan["changes"].items())
    assert f"With {changes} it would need" in plan["reason"]
    assert alice_api.post("/api/v1/jobs/plan", json={**fields, **plan["changes"]}).json()["fits"] is True


def test_a_job_too_large_for_every_node_is_rejected_with_a_fix(alice_api: TestClient, corpus: str) -> None:
    fields = {"corpora": [corpus], "recipe": "llama-7b", "vocab_size": 2048, "num_processes": 1}
    answer = alice_api.post("/api/v1/jobs", json={**fields, "hidden_size": 2048, "intermediate_size": 5504})
    assert (answer.status_code, answer.json()["code"]) == (422, "memory_short")
    error = answer.json()["errors"][0]
    assert error["field"] == "num_hidden_layers"
    assert "with num_hidden_layers=" in error["message"]


def test_a_plan_is_translated(alice_api: TestClient, corpus: str) -> None:
    headers = {"Accept-Language": "zh"}
    plan = alice_api.post("/api/v1/jobs/plan", json={"corpora": [corpus]}, headers=headers).json()
    assert "每个进程约需" in plan["reason"]
    assert "至" in plan["figures"]["total_seconds"]["text"]
    assert "个检查点" in plan["figures"]["disk_bytes"]["reason"]


def test_cancelling_a_job_is_idempotent(alice_api: TestClient, corpus: str) -> None:
    job_id = alice_api.post("/api/v1/jobs", json={"corpora": [corpus]}).json()["id"]
    for _ in range(2):
        answer = alice_api.post(f"/api/v1/jobs/{job_id}/cancel")
        assert (answer.status_code, answer.json()["state"]) == (202, "cancelled")
    history = alice_api.get(f"/api/v1/jobs/{job_id}/history").json()["data"]
    assert [(entry["from"], entry["to"]) for entry in history] == [(None, "queued"), ("queued", "cancelled")]
    assert history[-1]["message"] == "Cancellation requested."


def test_jobs_are_filtered_by_state_and_paginated(alice_api: TestClient, corpus: str) -> None:
    alice_api.post("/api/v1/jobs", json={"corpora": [corpus]})
    page = alice_api.get("/api/v1/jobs", params={"state": "queued", "limit": 1}).json()
    assert [job["state"] for job in page["data"]] == ["queued"]
    answer = alice_api.get("/api/v1/jobs", params={"state": "lost"})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "state")


def test_curves_log_and_samples_of_a_job_can_be_read(alice_api: TestClient, alice_user: Person, corpus: str) -> None:
    job_id, fence = factories.started(alice_user, corpus)
    factories.record(job_id, fence, factories.losses([3.0, "nan", 1.0]))
    curve = alice_api.get(f"/api/v1/jobs/{job_id}/metrics").json()["series"]["loss"]
    assert (curve["steps"], curve["values"], curve["stride"]) == ([1, 2, 3], [3.0, "nan", 1.0], 1)
    assert alice_api.get(f"/api/v1/jobs/{job_id}/metrics", params={"series": "x"}).json() == {"series": {}}
    part = alice_api.get(f"/api/v1/jobs/{job_id}/metrics", params={"start": 2, "end": 2}).json()["series"]["loss"]
    assert part["steps"] == [2]
    assert alice_api.get(f"/api/v1/jobs/{job_id}/metrics", params={"start": 5, "end": 2}).status_code == 422
    log = storage.run(job_id) / "log.txt"
    log.parent.mkdir(parents=True)
    log.write_text("one\ntwo\n")
    piece = alice_api.get(f"/api/v1/jobs/{job_id}/log", params={"offset": 4}).json()
    assert piece == {"text": "two\n", "offset": 4, "next_offset": 8, "size": 8}
    lines = alice_api.get(f"/api/v1/jobs/{job_id}/log/lines", params={"search": "TWO", "limit": 1}).json()
    assert lines == {"data": [{"offset": 4, "text": "two", "level": "info"}], "next": None}
    following = alice_api.get(f"/api/v1/jobs/{job_id}/log/lines", params={"limit": 1}).json()["next"]
    rest = alice_api.get(f"/api/v1/jobs/{job_id}/log/lines", params={"after": following}).json()
    assert [line["text"] for line in rest["data"]] == ["two"]
    around = alice_api.get(f"/api/v1/jobs/{job_id}/log/lines", params={"around": 4, "search": "x"}).json()
    assert [line["text"] for line in around["data"]] == ["one", "two"]
    refused = alice_api.get(f"/api/v1/jobs/{job_id}/log/lines", params={"level": "loud"})
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "level")
    assert alice_api.get(f"/api/v1/jobs/{job_id}/samples").json()["data"] == []


ROUTES = ["", "/history", "/samples", "/metrics", "/log", "/log/lines", "/events"]


@pytest.mark.parametrize("route", ROUTES)
def test_the_job_of_another_user_is_not_found(bob_api: TestClient, alice_user: Person, corpus: str, route: str) -> None:
    job_id = factories.submitted(alice_user, corpus)
    assert bob_api.get(f"/api/v1/jobs/{job_id}{route}").status_code == 404
    assert bob_api.post(f"/api/v1/jobs/{job_id}/cancel").status_code == 404


def test_a_visitor_gets_401(visitor: TestClient) -> None:
    for route in ("/jobs", "/nodes", "/recipes", "/checkpoints"):
        assert visitor.get(f"/api/v1{route}").status_code == 401
    assert visitor.post("/api/v1/jobs", json={}).status_code == 401


def test_recipes_and_nodes_are_listed(alice_api: TestClient, corpus: str) -> None:
    recipes = alice_api.get("/api/v1/recipes").json()["data"]
    assert [recipe["name"] for recipe in recipes] == recipe_names()
    assert 120e6 < recipes[1]["num_parameters"] < 130e6
    assert 6.7e9 < recipes[2]["num_parameters"] < 6.8e9
    node = alice_api.get("/api/v1/nodes").json()["data"][0]
    assert (node["name"], node["live"], node["slots"]) == ("ada", True, 1)


def test_the_curve_of_a_million_steps_is_one_small_response(
    alice_api: TestClient, alice_user: Person, corpus: str
) -> None:
    job_id = factories.submitted(alice_user, corpus)
    with db.transaction() as session:
        every = [metrics.Point(n + 1, n * 250, {"loss": float(n % 100)}) for n in range(4_000)]
        metrics.append(session, job_id=job_id, fence=1, points=every)
        assert service.history(session, job_id=job_id)
    answer = alice_api.get(f"/api/v1/jobs/{job_id}/metrics", params={"points": 500})
    curve = answer.json()["series"]["loss"]
    assert len(curve["steps"]) <= 500
    assert max(curve["max"]) == 99.0


def test_a_proposal_can_be_submitted(alice_api: TestClient, corpus: str) -> None:
    asked = {"corpora": [corpus], "seconds": 600}
    made = alice_api.post("/api/v1/jobs/propose", json=asked).json()
    assert made["spec"]["corpora"] == [corpus]
    assert made["seconds"] <= 600
    assert {"size", "tokens", "loss", "limit", "vocab_size", "learning_rate"} <= set(made["reasons"])
    plan = alice_api.post("/api/v1/jobs/plan", json=made["spec"])
    assert plan.status_code == 200, plan.text
    assert plan.json()["num_parameters"] == made["num_parameters"]
    assert plan.json()["figures"]["total_seconds"]["value"] == pytest.approx(made["seconds"])
    assert plan.json()["fits"] is True


def test_the_curve_has_what_is_proposed_for_each_time(alice_api: TestClient, corpus: str) -> None:
    asked = {"corpora": [corpus], "seconds": [600, 60]}
    points = alice_api.post("/api/v1/jobs/propose-curve", json=asked).json()["points"]
    for seconds, point in zip([600, 60], points, strict=True):
        made = alice_api.post("/api/v1/jobs/propose", json={"corpora": [corpus], "seconds": seconds}).json()
        assert point.pop("budget_seconds") == seconds
        assert point == {name: made[name] for name in point}
    every = alice_api.post("/api/v1/jobs/propose-curve", json={"corpora": [corpus]}).json()
    budgets = [point["budget_seconds"] for point in every["points"]]
    assert (budgets[0], budgets[-1], budgets) == (60, 7 * 86_400, sorted(budgets))
    assert "Kaplan et al. 2020" in every["reason"]


def test_earlier_jobs_on_the_corpora_correct_the_time_and_the_loss_of_a_proposal(
    alice_api: TestClient, alice_user: Person, corpus: str
) -> None:
    asked = {"corpora": [corpus], "seconds": 600}
    before = alice_api.post("/api/v1/jobs/propose", json=asked).json()
    job_id, _checkpoint = factories.finished(alice_user, corpus, vocab_size=before["spec"]["vocab_size"], max_steps=20)
    job = factories.row(job_id)
    facts = job.facts.model_copy(update={"num_tokens": 20_000, "num_parameters": 1_000_000})
    progress = job.progress.model_copy(update={"latest": {"eval_bits_per_byte": 1.5}})
    with db.transaction() as session:
        session.execute(update(Job).where(Job.id == job_id).values(facts=facts, progress=progress))
    after = alice_api.post("/api/v1/jobs/propose", json=asked).json()
    assert after["seconds"] < before["seconds"]  # the tokenizer and the tokens are there
    tokens = effective_tokens(20 * job.spec.tokens_per_step, 20_000)
    ratio = 1.5 / expected_bits_per_byte(1_000_000, tokens)
    assert after["bits_per_byte"] == pytest.approx(ratio * before["bits_per_byte"], rel=0.01)
    assert "earlier jobs on these corpora (1)" in after["reasons"]["loss"]


@pytest.mark.parametrize(("field", "value"), [("seconds", 1), ("seconds", "soon"), ("corpora", []), ("corpora", ["x"])])
def test_a_proposal_out_of_range_is_rejected_at_the_field(
    alice_api: TestClient, corpus: str, field: str, value: object
) -> None:
    answer = alice_api.post("/api/v1/jobs/propose", json={"corpora": [corpus], "seconds": 600, field: value})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == field


def test_without_a_node_or_with_too_little_text_nothing_is_proposed(
    alice_api: TestClient, alice_user: Person, corpus: str
) -> None:
    short = factories.corpus(alice_user, text="In the beginning", name="short")
    answer = alice_api.post("/api/v1/jobs/propose", json={"corpora": [short], "seconds": 600})
    assert (answer.status_code, answer.json()["code"]) == (422, "too_little")
    factories.forget_nodes()
    answer = alice_api.post("/api/v1/jobs/propose", json={"corpora": [corpus], "seconds": 600})
    factories.node()
    assert (answer.status_code, answer.json()["code"]) == (409, "no_node")
