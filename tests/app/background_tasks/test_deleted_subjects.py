"""Deleting what a task reads ends the process of the task within two seconds."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import psutil
import pytest
from sqlalchemy import select
from starlette.testclient import TestClient

from app.core import background_tasks, db
from app.core.background_tasks import Kind
from app.core.json_shapes import TaskOptions
from app.core.models import BackgroundTask
from tests.app.jobs import factories
from tests.app.jobs.test_deletion import ended
from tests.app.trash.test_trash import stored_corpus, stored_model
from tests.background import forget_waiting
from tests.users import Person
from tests.waiting import patience, until
from worker.background.runner import TaskRunner

SECONDS = 2  # between the answer to the deletion and the end of the process
Given = tuple[str, str]  # the path of what is deleted, and the module that the process runs


@pytest.fixture(scope="module", autouse=True)
def node(database: str) -> None:
    """A node for the jobs whose checkpoints are deleted."""
    factories.node(slots=50)


@pytest.fixture
def tasks() -> Iterator[TaskRunner]:
    """Runs tasks as a worker does."""
    forget_waiting()
    runner = TaskRunner()
    yield runner
    runner.stop()


def enqueue(owner: Person, kind: Kind, on: dict[str, str], *corpora: str, judge: str | None = None) -> None:
    options = TaskOptions(format="safetensors", max_shard_bytes=1 << 30, corpora=list(corpora), judge=judge)
    given: dict[str, Any] = {"kind": kind, "owner_id": owner.id, "memory_bytes": 1 << 30, "options": options, **on}
    with db.transaction() as session:
        background_tasks.enqueue(session, **given)


def parse(api: TestClient, _owner: Person) -> Given:
    corpus_id = api.post("/api/v1/corpora?filename=text.txt", content=b"In the beginning").json()["id"]
    return f"corpora/{corpus_id}", "worker.sandbox.corpus.parse"


def clean(api: TestClient, owner: Person) -> Given:
    corpus_id = stored_corpus(owner)
    answer = api.post(f"/api/v1/corpora/{corpus_id}/clean", json={"steps": [{"name": "exact_duplicates"}]})
    assert answer.status_code == 201, answer.text
    return f"corpora/{corpus_id}", "worker.sandbox.cleaning.clean"


def train_tokenizer(api: TestClient, owner: Person) -> Given:
    corpus_id = stored_corpus(owner)
    answer = api.post("/api/v1/tokenizers", json={"corpora": [corpus_id], "vocab_size": 300})
    assert answer.status_code == 201, answer.text
    return f"corpora/{corpus_id}", "worker.sandbox.tokenizer.train"


def import_model(api: TestClient, _owner: Person) -> Given:
    model_id = api.post("/api/v1/models", json={"name": "tiny"}).json()["id"]
    api.put(f"/api/v1/models/{model_id}/files/config.json", content=b"{}")
    assert api.post(f"/api/v1/models/{model_id}/import").status_code == 202
    return f"models/{model_id}", "worker.sandbox.model_import.validate"


def export_model(_api: TestClient, owner: Person) -> Given:
    model_id = stored_model(owner)
    enqueue(owner, "export", {"model_id": model_id})
    return f"models/{model_id}", "trainer"


def export_checkpoint(_api: TestClient, owner: Person) -> Given:
    _job_id, checkpoint_id = ended(owner, stored_corpus(owner))
    enqueue(owner, "export", {"checkpoint_id": checkpoint_id})
    return f"checkpoints/{checkpoint_id}", "trainer"


def export_job(_api: TestClient, owner: Person) -> Given:
    job_id, checkpoint_id = ended(owner, stored_corpus(owner))
    enqueue(owner, "export", {"checkpoint_id": checkpoint_id})
    return f"jobs/{job_id}", "trainer"


def evaluate(_api: TestClient, owner: Person) -> Given:
    _job_id, checkpoint_id = ended(owner, stored_corpus(owner))
    enqueue(owner, "evaluation", {"checkpoint_id": checkpoint_id}, stored_corpus(owner))
    return f"checkpoints/{checkpoint_id}", "trainer"


def evaluate_on(_api: TestClient, owner: Person) -> Given:
    corpus_id = stored_corpus(owner)
    enqueue(owner, "evaluation", {"model_id": stored_model(owner)}, corpus_id)
    return f"corpora/{corpus_id}", "trainer"


def judge(_api: TestClient, owner: Person) -> Given:
    job_id, checkpoint_id = ended(owner, stored_corpus(owner))
    enqueue(owner, "evaluation", {"model_id": stored_model(owner)}, stored_corpus(owner), judge=checkpoint_id)
    return f"jobs/{job_id}", "trainer"


def processes_of(module: str) -> list[psutil.Process]:
    """The processes that run a module for a task."""
    found = []
    for process in psutil.Process().children():
        with suppress(psutil.Error):
            arguments = process.cmdline()
            if "-m" in arguments and module in arguments and "trainer.processes.child_limits" not in arguments:
                found.append(process)
    return found


@pytest.mark.parametrize(
    "task",
    [
        parse,
        clean,
        train_tokenizer,
        import_model,
        export_model,
        export_checkpoint,
        export_job,
        evaluate,
        evaluate_on,
        judge,
    ],
)
def test_deleting_what_a_task_reads_ends_its_process_within_two_seconds(
    alice_api: TestClient, alice_user: Person, tasks: TaskRunner, task: Callable[[TestClient, Person], Given]
) -> None:
    path, module = task(alice_api, alice_user)
    tasks.start_waiting()
    (process,) = until(lambda: processes_of(module), 20, "the process")
    process.suspend()  # so that it does not end before
    answer = alice_api.delete(f"/api/v1/{path}")
    assert answer.status_code == 204, answer.text
    process.wait(SECONDS * patience())
    tasks.join(20)
    with db.transaction() as session:
        states = set(session.scalars(select(BackgroundTask.state)))
    assert not states & set(background_tasks.OPEN)
