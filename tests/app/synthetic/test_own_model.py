"""Records that a deployment of this installation writes: a small model that is trained here on such answers."""

from array import array
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.core import db
from app.core.synthetic_models import RecordGeneration
from app.synthetic import prompts
from tests.app.playground.conftest import (  # noqa: F401 - fixtures
    STEPS,
    StoreCheckpoint,
    StoredCheckpoint,
    a_spec,
    checkpoint,
    node,
    store_checkpoint,
)
from tests.app.synthetic.conftest import record_settings, records, state, upload_corpus
from tests.background import run_waiting
from tests.trainer.gangs import GangForkServer
from trainer.run_dir import CorpusInput, Inputs, RunDir

ANSWER = '{"records": [{"question": "Cold?", "answer": "Yes."}]}'
SETTINGS = record_settings()


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, fork_server: GangForkServer) -> Path:
    """The directory of a checkpoint that has learned one answer to all that is asked here."""
    home = tmp_path_factory.mktemp("answering")
    texts = [prompts.prompt(SETTINGS, document(n)) + ANSWER for n in range(6)] * 40
    data = [text.encode() for text in texts]
    (home / "text.bin").write_bytes(b"".join(data))
    ends = [sum(map(len, data[: n + 1])) for n in range(len(data))]
    (home / "index.bin").write_bytes(array("Q", ends).tobytes())
    run_dir = RunDir(home / "run")
    run_dir.path.mkdir()
    inputs = Inputs(corpora=[CorpusInput(id="text", path=str(home), sha256="0" * 64)], cache=str(home / "cache"))
    run_dir.create(a_spec(), inputs, fence=1)
    done = fork_server.command("trainer", "train", str(run_dir.path), OMP_NUM_THREADS="1").result()
    assert done.returncode == 0, done.stderr
    return run_dir.checkpoint_path(STEPS, 1)


def document(number: int) -> str:
    return f"Document {number} is about metal number {number}."


def test_a_deployment_writes_records_at_no_cost(
    alice: TestClient,
    checkpoint: StoredCheckpoint,  # noqa: F811
    node: str,  # noqa: F811
) -> None:
    corpus = upload_corpus(alice)
    deployment = alice.post("/api/v1/deployments", json={"name": "scribe", "model": checkpoint.id})
    assert deployment.status_code == 201, deployment.text
    fields = SETTINGS.model_dump(exclude={"language"})
    body: dict[str, Any] = {**fields, "corpus": corpus["id"], "model": "scribe"}
    started = alice.post("/api/v1/record-generations", json=body)
    assert started.status_code == 201, started.text
    run_waiting()
    generation = state(alice, started.json()["id"])
    assert (generation["state"], generation["num_done"], generation["cost"]) == ("succeeded", 2, 0)
    assert (generation["malformed"], generation["model_name"]) == ({}, "scribe")
    with db.transaction() as session:
        assert session.get_one(RecordGeneration, generation["id"]).model_id == checkpoint.id
    assert [row["cells"] for row in records(alice, generation["id"])] == [["Cold?", "Yes."]] * 2
    assert min(generation["num_prompt_tokens"], generation["num_tokens"]) > 0
    usage = alice.get(f"/api/v1/deployments/{deployment.json()['id']}").json()["last_day"]
    assert usage["requests"] >= 2  # of a model without a chat template the first is asked once more
