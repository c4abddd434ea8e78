"""Exports and evaluations from request to result, also with a lost worker or a cancel."""

import json
import shutil
import sys
from typing import Any

import pytest
from sqlalchemy import update
from starlette.testclient import TestClient

from app.core import db, storage
from app.core.json_shapes import FailureReason, ModelFacts
from app.core.models import BackgroundTask, Checkpoint, Corpus, ImportedModel
from app.core.settings import settings
from tests.app.jobs import factories
from tests.app.playground.conftest import StoredCheckpoint
from tests.background import run_waiting
from tests.users import Person
from worker.background import export_and_evaluate

HEADERS = {"Origin": "http://localhost"}


@pytest.fixture(scope="module")
def corpus(alice_user: Person) -> str:
    made = factories.corpus(alice_user)
    directory = storage.corpus(made)
    directory.mkdir(parents=True, exist_ok=True)
    text = b"In the beginning God created the heaven and the earth."
    (directory / "text.bin").write_bytes(text)
    (directory / "index.bin").write_bytes(len(text).to_bytes(8, "little"))
    return made


def evaluation(api: TestClient, checkpoint: StoredCheckpoint, corpus: str, **fields: Any) -> dict[str, Any]:
    body = {"checkpoint": checkpoint.id, "corpora": [corpus], **fields}
    answer = api.post("/api/v1/evaluations", json=body)
    assert answer.status_code == 201, answer.text
    task: dict[str, Any] = answer.json()
    return task


@pytest.fixture
def imported(alice_user: Person, checkpoint: StoredCheckpoint) -> str:
    """The ID of an imported base model with the files of the checkpoint, but without its manifest."""
    with db.transaction() as session:
        source = storage.checkpoint(session.get_one(Checkpoint, checkpoint.id).path)
        facts = ModelFacts(model_type="llama", license="apache-2.0")
        model = ImportedModel(
            owner_id=alice_user.id,
            name="from elsewhere",
            source="hub",
            reference="somebody/model@abc",
            state="ready",
            facts=facts,
            sha256="0" * 64,
        )
        session.add(model)
        session.flush()
        shutil.copytree(source, storage.base_model(model.id))
    (storage.base_model(model.id) / "MANIFEST.json").unlink()
    return model.id


def test_a_checkpoint_and_an_imported_model_are_evaluated_alike_and_exported(
    alice_api: TestClient, alice: TestClient, checkpoint: StoredCheckpoint, imported: str, corpus: str
) -> None:
    asked = evaluation(alice_api, checkpoint, corpus)
    body = {"checkpoint": checkpoint.id, "format": "gguf", "quantization": "f32", "license": "mit"}
    export = alice_api.post("/api/v1/exports", json=body).json()
    assert (asked["state"], export["state"]) == ("queued", "queued")
    of_imported = [
        alice_api.post("/api/v1/evaluations", json={"checkpoint": imported, "corpora": [corpus]}).json(),
        alice_api.post("/api/v1/exports", json={"checkpoint": imported}).json(),
    ]
    assert (of_imported[0]["model_id"], of_imported[0]["checkpoint_id"]) == (imported, None)
    refused = alice_api.post("/api/v1/exports", json={"checkpoint": imported, "format": "adapter"})
    assert (refused.status_code, "An imported model has no adapter" in refused.text) == (422, True)

    run_waiting()

    results = []
    for task in (asked, export, *of_imported):
        ended = alice_api.get(f"/api/v1/tasks/{task['id']}").json()
        assert ended["state"] == "succeeded", ended
        results.append(ended["result"])
    figures = results[0]["corpora"][0]["metrics"]
    assert figures["bits_per_byte"] > 0
    assert figures == results[2]["corpora"][0]["metrics"]  # the files are the same
    check_export(alice_api, alice, checkpoint, export["id"], results[1])
    assert "Bits per byte" in alice.get(f"/tasks/{asked['id']}").text
    assert asked["id"] in alice.get(f"/tasks?subject={checkpoint.id}").text
    check_imported(alice_api, alice, imported, [task["id"] for task in of_imported])


def check_export(
    alice_api: TestClient, alice: TestClient, checkpoint: StoredCheckpoint, task_id: str, result: dict[str, Any]
) -> None:
    """The files of an export can be read by name, and are deleted with it."""
    assert {"model.gguf", "README.md"} <= {file["name"] for file in result["files"]}
    part = alice_api.get(f"/api/v1/tasks/{task_id}/files/model.gguf", headers={"Range": "bytes=0-3"})
    assert (part.status_code, part.content) == (206, b"GGUF")
    assert "license: mit" in alice_api.get(f"/api/v1/tasks/{task_id}/files/README.md").text
    assert alice_api.get(f"/api/v1/tasks/{task_id}/files/..%2Flog.txt").status_code == 404
    assert "model.gguf" in alice.get(f"/tasks/{task_id}").text
    assert alice_api.delete(f"/api/v1/tasks/{task_id}").status_code == 204
    assert not storage.background_task(task_id).exists()


def check_imported(alice_api: TestClient, alice: TestClient, imported: str, task_ids: list[str]) -> None:
    """The export of an imported model names its source, and pages name the model."""
    card = alice_api.get(f"/api/v1/tasks/{task_ids[1]}/files/README.md").text
    assert "base_model: somebody/model\n" in card
    assert "license: apache-2.0" in card
    assert imported not in card
    listed = alice_api.get(f"/api/v1/tasks?subject={imported}").json()["data"]
    assert {task["id"] for task in listed} == set(task_ids)
    assert "from elsewhere" in alice.get(f"/tasks?subject={imported}").text
    assert f'href="/models/{imported}"' in alice.get("/tasks").text
    assert f'href="/tasks?subject={imported}"' in alice.get(f"/models/{imported}").text
    assert "from elsewhere" in alice.get(f"/tasks/{task_ids[0]}").text


QUESTION = {"question": "Who?", "answers": ["the miller"], "check": "exact"}
HOSTILE: dict[str, tuple[str, str, Any]] = {
    "tokenizer": (
        "text",
        "a" * 5_000,
        {"type": "Replace", "pattern": {"Regex": "(a|aa)" * 20 + "[bc]"}, "content": ""},
    ),
    "template": ("questions", json.dumps(QUESTION), "{{ (messages|length + 7) ** (9 ** 9) }}"),
}


@pytest.mark.parametrize("part", HOSTILE)
def test_an_endless_loop_of_a_tokenizer_or_template_fails_the_evaluation_with_a_reason(
    alice_api: TestClient, alice_user: Person, imported: str, part: str
) -> None:
    kind, content, program = HOSTILE[part]
    documents = factories.corpus(alice_user, name=part)
    directory = storage.corpus(documents)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "text.bin").write_bytes(content.encode())
    (directory / "index.bin").write_bytes(len(content).to_bytes(8, "little"))
    with db.transaction() as session:
        session.execute(update(Corpus).where(Corpus.id == documents).values(kind=kind, num_documents=1))
    name, key = ("tokenizer.json", "normalizer") if part == "tokenizer" else ("tokenizer_config.json", "chat_template")
    path = storage.base_model(imported) / name
    path.write_text(json.dumps({**json.loads(path.read_text()), key: program}))
    asked = alice_api.post("/api/v1/evaluations", json={"checkpoint": imported, "corpora": [documents]}).json()

    run_waiting()

    ended = alice_api.get(f"/api/v1/tasks/{asked['id']}").json()
    assert (ended["state"], ended["failure"]["code"]) == ("failed", "text_slow")
    assert "endless loop or a slow regular expression" in ended["failure"]["message"]


@pytest.mark.parametrize("kind", ["export", "evaluation"])
def test_a_process_that_takes_more_computing_time_than_its_limit_is_ended_with_a_reason(
    alice_api: TestClient, checkpoint: StoredCheckpoint, corpus: str, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    body = {"checkpoint": checkpoint.id} | ({"corpora": [corpus]} if kind == "evaluation" else {})
    task_id = alice_api.post(f"/api/v1/{kind}s", json=body).json()["id"]
    monkeypatch.setitem(settings().__dict__, "evaluate_cpu_seconds", 1)
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    monkeypatch.setattr(export_and_evaluate, "command", lambda assignment: [sys.executable, "-c", "while True: pass"])
    run_waiting()

    task = row(task_id)
    assert (task.state, task.failure.code if task.failure else None) == ("failed", "process_slow")


def test_a_file_of_an_export_is_at_most_four_times_as_long_as_its_model(
    alice_api: TestClient, checkpoint: StoredCheckpoint
) -> None:
    task_id = alice_api.post("/api/v1/exports", json={"checkpoint": checkpoint.id}).json()["id"]
    with db.transaction() as session:
        task = session.get_one(BackgroundTask, task_id)
        assignment = export_and_evaluate.assign(session, task)
        num_bytes = session.get_one(Checkpoint, checkpoint.id).num_bytes
    assert (export_and_evaluate.limits(task, assignment).file_bytes or 0) >= 4 * num_bytes
    task.kind = "evaluation"
    assert export_and_evaluate.limits(task, assignment).file_bytes == export_and_evaluate.SCRATCH_BYTES
    alice_api.post(f"/api/v1/tasks/{task_id}/cancel")


def row(task_id: str) -> BackgroundTask:
    with db.transaction() as session:
        return session.get_one(BackgroundTask, task_id)


def test_an_invalid_request_is_rejected_at_its_field(
    alice_api: TestClient, checkpoint: StoredCheckpoint, corpus: str
) -> None:
    def refusal(path: str, **body: Any) -> tuple[int, str]:
        answer = alice_api.post(f"/api/v1/{path}", json={"checkpoint": checkpoint.id, **body})
        return answer.status_code, answer.text

    assert refusal("exports", format="adapter")[0] == 422
    assert "its job trained all weights" in refusal("exports", format="adapter")[1]
    assert refusal("exports", format="onnx")[0] == 422
    assert refusal("evaluations", corpora=[])[0] == 422
    assert "There is no corpus" in refusal("evaluations", corpora=["nope"])[1]
    assert refusal("evaluations", corpora=[corpus], checkpoint="nope")[0] == 422


def test_more_examples_than_records_are_refused_before_and_explained_after(
    alice: TestClient, alice_api: TestClient, alice_user: Person, checkpoint: StoredCheckpoint
) -> None:
    records = factories.corpus(alice_user, name="Pairs")
    with db.transaction() as session:
        session.execute(update(Corpus).where(Corpus.id == records).values(kind="completion", num_documents=3))
    body = {"checkpoint": checkpoint.id, "corpora": [records], "num_fewshot": 3}
    refused = alice_api.post("/api/v1/evaluations", json=body).json()
    assert (refused["code"], refused["errors"][0]["field"]) == ("examples_few", "num_fewshot")
    assert refused["errors"][0]["message"].startswith("The corpus “Pairs” has 3 records. Show fewer examples")
    task_id = evaluation(alice_api, checkpoint, records, num_fewshot=2)["id"]
    values = {"found": 2, "shown": 2}  # it was read again meanwhile
    with db.transaction() as session:
        task = session.get_one(BackgroundTask, task_id)
        task.state, task.failure = "failed", FailureReason(code="examples_few", values=values)
    assert "too few documents (2) to show examples (2)" in alice_api.get(f"/api/v1/tasks/{task_id}").text
    assert "有语料的文档太少（2 篇）" in alice.get(f"/tasks/{task_id}", headers={"Accept-Language": "zh-CN"}).text


def test_tasks_of_another_user_are_not_found(
    alice_api: TestClient, bob_api: TestClient, checkpoint: StoredCheckpoint, corpus: str
) -> None:
    task_id = evaluation(alice_api, checkpoint, corpus)["id"]

    assert bob_api.get(f"/api/v1/tasks/{task_id}").status_code == 404
    assert bob_api.post(f"/api/v1/tasks/{task_id}/cancel").status_code == 404
    assert bob_api.get("/api/v1/tasks").json()["data"] == []
    assert bob_api.post("/api/v1/exports", json={"checkpoint": checkpoint.id}).status_code == 422
    alice_api.post(f"/api/v1/tasks/{task_id}/cancel")


@pytest.mark.parametrize(
    "closing",
    [{"result": {"files": "none"}}, {"failed": {"code": "bad_input", "values": {"why": "a\0b"}}}, {"odd": 1}],
)
def test_a_result_that_cannot_be_stored_fails_the_task_with_a_reason(
    alice_api: TestClient,
    checkpoint: StoredCheckpoint,
    corpus: str,
    monkeypatch: pytest.MonkeyPatch,
    closing: dict[str, Any],
) -> None:
    task_id = evaluation(alice_api, checkpoint, corpus)["id"]
    monkeypatch.setattr(export_and_evaluate, "command", lambda assignment: ["printf", "%s\\n", json.dumps(closing)])
    run_waiting()

    task = row(task_id)
    assert (task.state, task.failure.code if task.failure else None) == ("failed", "result_unstorable")
    assert not storage.background_task(task_id).exists()


def test_the_form_starts_the_export_it_names(
    alice: TestClient, alice_api: TestClient, checkpoint: StoredCheckpoint
) -> None:
    page = alice.get(f"/tasks?subject={checkpoint.id}").text
    assert "GGUF" in page
    assert f'href="/evaluations?model={checkpoint.id}#new"' in page
    form = {"checkpoint": checkpoint.id, "format": "gguf", "quantization": "q8_0", "license": ""}
    started = alice.post("/tasks", data=form, headers=HEADERS, follow_redirects=False)
    assert started.status_code == 303, started.text
    task_id = started.headers["location"].rpartition("/")[2]
    assert row(task_id).options.quantization == "q8_0"
    assert "Waiting for a free node" in alice.get(f"/tasks/{task_id}?part=state").text
    wrong = alice.post("/tasks", data={**form, "quantization": "q1"}, headers=HEADERS)
    assert wrong.status_code == 422
    assert "quantization" in wrong.text
    alice.post(f"/tasks/{task_id}/cancel", headers=HEADERS)
    assert row(task_id).state == "cancelled"
    alice.post(f"/tasks/{task_id}/delete", headers=HEADERS)
    assert alice_api.get(f"/api/v1/tasks/{task_id}").status_code == 404


def test_the_paths_of_earlier_versions_still_work(
    alice: TestClient, alice_api: TestClient, checkpoint: StoredCheckpoint, corpus: str
) -> None:
    task_id = evaluation(alice_api, checkpoint, corpus)["id"]
    for former in ("works", "checkpoint-tasks"):
        assert alice_api.get(f"/api/v1/{former}/{task_id}").json() == alice_api.get(f"/api/v1/tasks/{task_id}").json()
        listed = alice_api.get(f"/api/v1/{former}?checkpoint={checkpoint.id}").json()["data"]
        assert task_id in [task["id"] for task in listed]
        answer = alice.get(f"/{former}?checkpoint=x", follow_redirects=False)
        assert answer.headers["location"] == "/tasks?subject=x"
        assert alice.get(f"/{former}/{task_id}", follow_redirects=False).headers["location"] == f"/tasks/{task_id}"
    assert alice_api.post(f"/api/v1/works/{task_id}/cancel").json()["state"] == "cancelled"
