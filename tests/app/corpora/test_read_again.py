"""A corpus that is read again while a background task reads it: the task fails with the reason."""

import threading
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.core.models import BackgroundTask
from tests.app.corpora.test_versions import joined
from tests.background import claim, forget_waiting, run_waiting
from trainer.formats.jsonlines import Message
from worker.background import runner
from worker.background.lease import Lease

TEXT = "".join(f"Über {n} Flaschen an der Wand.\n" for n in range(400)).encode()


class ReadAgain(Lease):
    """While the process of the task runs, its corpus is read in another encoding."""

    def __init__(self, task: BackgroundTask, client: TestClient, corpus_id: str) -> None:
        super().__init__(task, threading.Event())
        self._client, self._corpus_id = client, corpus_id
        self._is_done = False

    def renew(self, progress: Message | None, phase: str | None = None) -> bool:
        if not self._is_done:
            self._is_done = True
            body = {"encoding": "windows-1252"}
            assert self._client.post(f"/api/v1/corpora/{self._corpus_id}/parse", json=body).status_code == 202
            assert run_waiting() == 1
        return super().renew(progress, phase)


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("corpora/{id}/clean", {"steps": [{"name": "exact_duplicates"}]}, "parent_gone"),
        ("corpora/{id}/statistics", {}, "corpus_changed"),
        ("tokenizers", {"vocab_size": 300}, "corpus_gone"),
    ],
    ids=["cleaning", "statistics", "tokenizer"],
)
def test_a_task_whose_corpus_is_read_again_meanwhile_fails(
    alice: TestClient, path: str, body: dict[str, Any], code: str
) -> None:
    forget_waiting()
    corpus_id = joined(alice, {"bottles.txt": TEXT})["id"]
    body = {**body, "corpora": [corpus_id]} if path == "tokenizers" else body
    started = alice.post(f"/api/v1/{path.format(id=corpus_id)}", json=body).json()
    task = claim()
    assert task is not None
    runner.run(task, ReadAgain(task, alice, corpus_id))
    failed = alice.get(f"/api/v1/tasks/{task.id}").json()
    assert failed["state"] == "failed"
    if task.kind != "statistics":
        kind = "tokenizers" if task.kind == "tokenizer" else "corpora"
        failed = alice.get(f"/api/v1/{kind}/{started['id']}").json()["problems"][0]
        assert failed["code"] == code
    else:
        assert failed["failure"]["code"] == code
