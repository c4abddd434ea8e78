"""Corpora that are tokenized before a job: over REST and from their page; the job then finds the same tokens."""

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient
from tokenizers import Tokenizer

from app.background_tasks import failures
from app.core import db, disk, storage
from app.core.json_shapes import FailureReason
from app.core.models import Corpus, Job
from app.corpora import service as corpora_service
from app.jobs.attempts.effective_spec import effective_spec
from app.tokenizers import service as tokenizers_service
from tests.app.corpora.test_versions import joined
from tests.app.jobs import factories
from tests.app.jobs.planning import test_base_model
from tests.background import claim, forget_waiting, run_waiting
from tests.trainer.runs import english
from tests.users import Person
from trainer.data import tokenized_records, tokenized_text, tokenizer
from trainer.datasets import prepare
from trainer.formats.jsonlines import Message
from trainer.report import Reporter
from trainer.run_dir import MAKING, Inputs, RunDir
from worker.background import runner
from worker.background.lease import Lease

FIELDS = {"train_batch_size": 8, "per_device_batch_size": 4, "max_steps": 9, "warmup_steps": 0, "sequence_length": 32}
TEXTS = [english(), "天地玄黄，宇宙洪荒。日月盈昃，辰宿列张。" * 25, "naïve cafe\u0301 <|endoftext|> 🙂"]
CHAT = [
    {"messages": [{"role": "user", "content": f"Count {n}."}, {"role": "assistant", "content": "Yes." * n}]}
    for n in range(1, 9)
]


@pytest.fixture(scope="module")
def vocabulary(alice_user: Person) -> str:
    """The ID of a tokenizer of Alice."""
    values: dict[str, Any] = {"owner_id": alice_user.id, "name": "four hundred", "vocab_size": 400, "corpora": []}
    with db.transaction() as session:
        tokenizer_id = tokenizers_service.record_tokenizer(session, sha256="four hundred", **values).id
    tokenizer.save(tokenizer.train_on(iter(TEXTS), 400), storage.tokenizer(tokenizer_id))
    return tokenizer_id


def upload(api: TestClient, kind: str) -> str:
    """The ID of a corpus of texts or conversations."""
    rows = [{"text": text} for text in TEXTS] if kind == "text" else CHAT
    content = "\n".join(json.dumps(row) for row in rows).encode()
    return str(joined(api, {f"{kind}.jsonl": content})["id"])


def tokenize(api: TestClient, corpora: list[str], vocabulary: str, **fields: Any) -> Any:
    return api.post("/api/v1/jobs/tokenize", json={"corpora": corpora, "tokenizer": vocabulary, **FIELDS, **fields})


def ended(api: TestClient, task_id: str) -> dict[str, Any]:
    """A task after all waiting ones have run."""
    run_waiting()
    answer: dict[str, Any] = api.get(f"/api/v1/tasks/{task_id}").json()
    return answer


def planned(api: TestClient, corpus: str, **fields: Any) -> Any:
    """The plan of a job."""
    answer = api.post("/api/v1/jobs/plan", json={"corpora": [corpus], **FIELDS, **fields})
    assert answer.status_code == 200, answer.text
    return answer.json()


def attempt(home: Path, job_id: str) -> RunDir:
    """The run directory of the first attempt at a job."""
    with db.transaction() as session:
        spec = effective_spec(session.get_one(Job, job_id))
        rows = [session.get_one(Corpus, corpus_id) for corpus_id in spec.corpora]
        corpora = [corpora_service.corpus_input(row) for row in rows]
    run_dir = RunDir(home)
    inputs = Inputs(corpora=corpora, tokenizer=str(storage.tokenizer(str(spec.tokenizer))), cache=str(storage.cache()))
    run_dir.create(spec, inputs, 1)
    return run_dir


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("text", {}),
        ("text", {"split": "document", "validation_fraction": 0.4}),
        ("chat", {"recipe": "chat", "sequence_length": 256}),
    ],
    ids=["text", "split", "chat"],
)
def test_a_job_finds_the_tokens(
    alice_api: TestClient,
    alice_user: Person,
    vocabulary: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    fields: dict[str, Any],
) -> None:
    corpus = upload(alice_api, kind)
    factories.node()
    before = planned(alice_api, corpus, tokenizer=vocabulary, **fields)
    answer = tokenize(alice_api, [corpus], vocabulary, **fields)
    assert answer.status_code == 201, answer.text
    task = ended(alice_api, answer.json()["id"])
    assert (task["state"], task["kind"], task["corpus_id"]) == ("succeeded", "tokenize", corpus), task["failure"]

    plan = planned(alice_api, corpus, tokenizer=vocabulary, **fields)
    assert (plan["data"]["num_dropped"], before["data"]["num_dropped"]) == (0 if kind == "chat" else None, None)
    startup = [estimate["figures"]["startup_seconds"] for estimate in (before, plan)]
    assert startup[1]["value"] < startup[0]["value"]
    assert "tokenized already" in startup[1]["reason"]
    others = [
        planned(alice_api, corpus, vocab_size=400, **fields),  # trains a tokenizer of its own
        planned(alice_api, corpus, tokenizer=vocabulary, **{**fields, "split": "document", "validation_fraction": 0.3}),
    ]
    for other in others:
        assert "tokenized already" not in other["figures"]["startup_seconds"]["reason"]

    def refuse(*_args: object) -> None:
        pytest.fail("the job tokenizes again")

    monkeypatch.setattr(tokenized_text, "tokenize", refuse)
    monkeypatch.setattr(tokenized_records, "_write", refuse)
    job_id = factories.submitted(alice_user, corpus, tokenizer=vocabulary, **{**FIELDS, **fields})
    prepared = prepare.prepare(attempt(tmp_path, job_id), 1, Reporter(None))
    assert json.loads(Path(prepared.tokens, "meta.json").read_text())["num_tokens"] == task["result"]["num_tokens"]
    if not fields:
        library = Tokenizer.from_file(str(storage.tokenizer(vocabulary) / "tokenizer.json"))
        library.encode_special_tokens = True
        end = library.token_to_id("<|endoftext|>")
        expected = [number for text in TEXTS for number in [*library.encode(text).ids, end]]
        assert np.fromfile(Path(prepared.tokens, "tokens.bin"), "<u2").tolist() == expected


def test_without_a_tokenizer_or_room_nothing_starts(
    alice_api: TestClient, bob: TestClient, vocabulary: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = upload(alice_api, "text")
    refused = alice_api.post("/api/v1/jobs/tokenize", json={"corpora": [corpus], **FIELDS})
    assert (refused.status_code, refused.json()["code"]) == (422, "tokenizer_missing")
    assert refused.json()["errors"][0]["field"] == "tokenizer"
    assert tokenize(bob, [corpus], vocabulary).json()["code"] == "corpus_unknown"
    size = len("".join(TEXTS).encode())
    monkeypatch.setattr(disk, "room", lambda: size - 1)
    refused = tokenize(alice_api, [corpus], vocabulary)
    assert (refused.status_code, refused.json()["code"]) == (507, "disk_full")
    monkeypatch.setattr(disk, "room", lambda: size)
    assert tokenize(alice_api, [corpus], vocabulary).status_code == 201


def test_a_corpus_that_is_tokenized_is_not_read_again_and_deleting_it_ends_that(
    alice_api: TestClient, vocabulary: str
) -> None:
    forget_waiting()
    many = "\n".join(json.dumps(CHAT[-1]) for _record in range(40_000)).encode()  # which take some seconds
    corpora = [str(joined(alice_api, {"many.jsonl": many})["id"]), upload(alice_api, "chat")]
    task_id = tokenize(alice_api, corpora, vocabulary, recipe="chat", sequence_length=256).json()["id"]
    refused = alice_api.post(f"/api/v1/corpora/{corpora[1]}/parse", json={})
    assert (refused.status_code, refused.json()["code"]) == (409, "corpus_in_use")
    cached = storage.cache() / "records"

    def entries() -> set[Path]:
        return {path for path in cached.iterdir() if path.is_dir() and not path.name.startswith(MAKING)}

    before = entries()
    written: list[Path] = []

    class Deleted(Lease):
        """As soon as there are tokens, the second corpus is deleted."""

        def renew(self, progress: Message | None, phase: str | None = None) -> bool:
            if progress is not None and not written:
                written.extend(path for path in cached.glob("making-*/entry/*.bin") if path.stat().st_size)
                if written:
                    alice_api.delete(f"/api/v1/corpora/{corpora[1]}")
            return super().renew(progress, phase)

    task = claim()
    assert task is not None
    runner.run(task, Deleted(task, threading.Event()))
    assert alice_api.get(f"/api/v1/tasks/{task_id}").json()["state"] == "cancelled"
    assert not storage.background_task(task_id).exists()
    assert written
    assert entries() == before


def test_the_page_of_a_corpus_tokenizes_it(alice: TestClient, vocabulary: str) -> None:
    corpus = upload(alice, "chat")
    form = {"corpus": corpus, "tokenizer": vocabulary, "sequence_length": "256"}
    answer = alice.post("/jobs/tokenize", data=form, follow_redirects=False)
    assert answer.headers["Location"] == f"/corpora/{corpus}#tokens"
    part = f"/corpora/{corpus}?part=tokens"
    assert "data-busy" in alice.get(part).text
    run_waiting()
    task = alice.get("/api/v1/tasks", params={"kind": "tokenize"}).json()["data"][0]
    shown = alice.get(part).text
    assert "data-busy" not in shown
    assert f"<dd >{task['result']['num_tokens']:,}</dd>" in shown
    assert "four hundred" in shown
    assert "Tokenize corpora" in alice.get(f"/tasks/{task['id']}").text
    refused = alice.post("/jobs/tokenize", data={**form, "sequence_length": "0"})
    assert (refused.status_code, "sequence_length" in refused.text) == (422, True)


def test_the_page_of_a_corpus_offers_the_tokenizers_of_base_models(alice: TestClient, alice_user: Person) -> None:
    model_id = test_base_model.model(alice_user, {**test_base_model.LLAMA, "vocab_size": 400, "context": 4096})
    tokenizer.save(tokenizer.train_on(iter(TEXTS), 400), storage.base_model(model_id))
    corpus, chosen = upload(alice, "text"), f"base_model:{model_id}"
    page = alice.get(f"/corpora/{corpus}").text
    assert f'<option value="{chosen}">Tiny (400)</option>' in page
    answer = alice.post("/jobs/tokenize", data={"corpus": corpus, "tokenizer": chosen}, follow_redirects=False)
    assert answer.headers["Location"] == f"/corpora/{corpus}#tokens"
    run_waiting()
    task = alice.get("/api/v1/tasks", params={"kind": "tokenize"}).json()["data"][0]
    assert (task["state"], task["corpus_id"]) == ("succeeded", corpus), task["failure"]
    translations = joined(alice, {"pairs.jsonl": b'{"source": "one", "target": "eins"}\n' * 30})["id"]
    assert chosen not in alice.get(f"/corpora/{translations}").text  # which a decoder does not learn from
    unknown = alice.post("/jobs/tokenize", data={"corpus": corpus, "tokenizer": "base_model:none"})
    assert (unknown.status_code, "No checkpoint or imported model has the ID none." in unknown.text) == (422, True)


def test_what_a_job_would_end_with_is_said_in_its_words() -> None:
    failure = FailureReason(code="data_short", values={"found": 5, "needed": 65})
    assert failures.sentence(failure).startswith("The text has 5 tokens; ")
