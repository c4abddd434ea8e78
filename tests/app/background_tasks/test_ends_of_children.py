"""A child that ends without a report is explained in one way, whatever its task: by memory, or by its exit status."""

import sys
from collections.abc import Sequence
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.core import db, storage
from app.tokenizers import service as tokenizers_service
from tests.app.playground.conftest import StoredCheckpoint
from tests.background import forget_waiting, run_waiting
from tests.users import Person
from trainer.data import tokenizer
from trainer.events import EXIT_OUT_OF_MEMORY
from trainer.processes import cgroups
from trainer.processes.child_limits import ChildLimits
from worker.sandbox import runner

TEXT = "In the beginning. " * 20
TOO_LITTLE = {"a library aborts": "os.abort()", "a MemoryError": f"sys.exit({EXIT_OUT_OF_MEMORY})"}
STEPS = [{"name": "length", "min_characters": 1}]


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Replaces the command of the next children by a program of Python."""
    limited = runner.limited_command

    def replace(text: str) -> None:
        def command(limits: ChildLimits, _command: Sequence[str]) -> list[str]:
            return limited(limits, [sys.executable, "-c", f"import os, signal, sys; {text}"])

        monkeypatch.setattr(runner, "limited_command", command)

    return replace


@pytest.fixture
def subjects(alice_api: TestClient, alice_user: Person, checkpoint: StoredCheckpoint) -> dict[str, str]:
    """A corpus that was parsed, a tokenizer and a checkpoint, by their kind."""
    forget_waiting()
    corpus = alice_api.post("/api/v1/corpora?filename=a.txt", content=TEXT.encode()).json()["id"]
    run_waiting()
    values: dict[str, Any] = {"owner_id": alice_user.id, "name": "small", "vocab_size": 270, "corpora": []}
    with db.transaction() as session:
        tokenizer_id = tokenizers_service.record_tokenizer(session, sha256="small", **values).id
    tokenizer.save(tokenizer.train_on(iter([TEXT]), 270), storage.tokenizer(tokenizer_id))
    return {"corpus": corpus, "tokenizer": tokenizer_id, "checkpoint": checkpoint.id}


def ended(api: TestClient, kind: str, subjects: dict[str, str]) -> tuple[str, str]:
    """Start a task of a kind and wait for its end; returns the code of its failure and its sentence."""
    corpus = subjects["corpus"]
    path, body = {
        "parse": ("corpora?filename=b.txt", TEXT),
        "clean": (f"corpora/{corpus}/clean", {"steps": STEPS}),
        "statistics": (f"corpora/{corpus}/statistics", {}),
        "tokenize": ("jobs/tokenize", {"corpora": [corpus], "tokenizer": subjects["tokenizer"], "recipe": "tiny"}),
        "tokenizer": ("tokenizers", {"corpora": [corpus], "vocab_size": 300}),
        "export": ("exports", {"checkpoint": subjects["checkpoint"]}),
        "evaluation": ("evaluations", {"checkpoint": subjects["checkpoint"], "corpora": [corpus]}),
    }[kind]
    content: dict[str, Any] = {"json": body} if isinstance(body, dict) else {"content": body}
    row = api.post(f"/api/v1/{path}", **content).raise_for_status().json()
    run_waiting()
    if kind in ("parse", "clean", "tokenizer"):
        plural = "tokenizers" if kind == "tokenizer" else "corpora"
        problem = api.get(f"/api/v1/{plural}/{row['id']}").json()["problems"][0]
        return problem["code"], problem["message"]
    failure = api.get(f"/api/v1/tasks/{row.get('task_id') or row['id']}").json()["failure"]
    return failure["code"], failure["message"]


MEMORY = {
    "parse": "out_of_memory",
    "clean": "cleaning_memory",
    "statistics": "statistics_memory",
    "tokenize": "process_memory",
    "tokenizer": "out_of_memory",
    "export": "process_memory",
    "evaluation": "process_memory",
}


@pytest.mark.parametrize("cause", TOO_LITTLE)
@pytest.mark.parametrize("kind", MEMORY)
def test_too_little_memory_is_explained_with_the_limit(
    alice_api: TestClient, subjects: dict[str, str], program: Any, kind: str, cause: str
) -> None:
    program(TOO_LITTLE[cause])
    code, message = ended(alice_api, kind, subjects)
    assert code == MEMORY[kind]
    assert "iB" in message, message  # the limit as a size


@pytest.mark.parametrize("kind", MEMORY)
def test_a_child_killed_by_the_kernel_for_want_of_memory_is_explained_so(
    alice_api: TestClient, subjects: dict[str, str], program: Any, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    program("os.kill(os.getpid(), signal.SIGKILL)")
    assert ended(alice_api, kind, subjects)[0] != MEMORY[kind]  # by whom is not said
    monkeypatch.setattr(cgroups, "has_exceeded_memory", lambda group: True)
    assert ended(alice_api, kind, {**subjects})[0] == MEMORY[kind]
