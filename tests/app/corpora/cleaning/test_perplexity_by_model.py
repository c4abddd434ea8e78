"""Cleaning by the bits per byte of a checkpoint or a base model: through the API, on pages, and what is refused."""

import hashlib
import html
import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from sqlalchemy import delete, select
from starlette.testclient import TestClient
from transformers import AutoModelForCausalLM, AutoTokenizer

from app.checkpoints import service as checkpoints
from app.checkpoints import usable_models
from app.core import db, storage
from app.core.json_shapes import ModelFacts, StoredFile
from app.core.models import BackgroundTask, Checkpoint, ImportedModel
from app.core.node_budget import node_budget
from app.core.settings import settings
from app.corpora.cleaning.recipe import RECIPE_FILE
from app.web import preview_process
from tests.app.corpora.cleaning.test_cleaning import cleaned, lines, texts
from tests.app.corpora.conftest import Upload
from tests.app.jobs import factories
from tests.background import run_waiting
from tests.trainer.bases import random_checkpoint
from tests.users import Person
from worker.sandbox.cleaning import clean
from worker.sandbox.cleaning.steps import CleaningRefused

TEXTS = ["x", "The river is near the house.", "天地玄黄，宇宙洪荒。", "zq xv wk jj", "It was the best of times."]


@dataclass(frozen=True)
class Files:
    """The files of a model, and what transformers makes of the texts with them."""

    path: Path
    stored: list[StoredFile]
    bits: list[float]  # per byte; 0 for the first text, which has one token


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    path, _loaded = random_checkpoint(tmp_path_factory.mktemp("llama"), "llama", "causal")
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32),
        AutoTokenizer.from_pretrained(path),
    )
    bits = []
    for text in TEXTS:
        ids = torch.tensor([[tokenizer.eos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]]])
        with torch.no_grad():
            loss = float(model(input_ids=ids, labels=ids).loss) * (ids.shape[1] - 1)
        bits.append(loss / math.log(2) / len(text.encode()) if ids.shape[1] > 2 else 0.0)
    stored = [
        StoredFile(name=file.name, size=file.stat().st_size, sha256=hashlib.sha256(file.read_bytes()).hexdigest())
        for file in sorted(path.iterdir())
    ]
    return Files(path, stored, bits)


def imported(owner: Person, files: Files, name: str, **facts: Any) -> str:
    """Give a user a base model; returns its ID."""
    with db.transaction() as session:
        model = ImportedModel(
            owner_id=owner.id,
            name=name,
            source="upload",
            state="ready",
            facts=ModelFacts(**{"model_type": "llama", **facts}),
            files=files.stored,
        )
        session.add(model)
        session.flush()
        shutil.copytree(files.path, storage.base_model(model.id))
        return model.id


@pytest.fixture(scope="module")
def model(alice_user: Person, files: Files) -> str:
    """A base model of Alice."""
    return imported(alice_user, files, "Judge of texts")


@pytest.fixture(scope="module")
def checkpoint(alice_user: Person, files: Files) -> str:
    """A checkpoint of Alice with the same files."""
    job_id = factories.submitted(alice_user, factories.corpus(alice_user))
    path = storage.run(job_id) / "checkpoints" / "step-10-1"
    shutil.copytree(files.path, path)
    with db.transaction() as session:
        return checkpoints.record(
            session,
            owner_id=alice_user.id,
            job_id=job_id,
            step=10,
            fence=1,
            path=str(path.relative_to(storage.data())),
            manifest={"files": [file.model_dump() for file in files.stored]},
            metrics={},
        ).id


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the children would do happens in this process, which has imported torch already."""

    def run_child(command: list[str], *_rest: object, directory: Path, **_options: object) -> Any:
        recipe = json.loads((directory / RECIPE_FILE).read_text())
        try:
            return {"result": clean.clean(directory, recipe, lambda done: None)}
        except CleaningRefused as refused:
            return {"failed": {"problems": [{"code": str(refused)}]}}

    def run(_module: str, option: str, *, text: str, **_options: object) -> str:
        try:
            return json.dumps(clean.preview(json.loads(text), int(option.removeprefix("--preview="))))
        except CleaningRefused as refused:
            raise preview_process.PreviewRefused(str(refused)) from None

    monkeypatch.setattr("worker.background.clean.child", SimpleNamespace(run=run_child))
    monkeypatch.setattr(preview_process, "run", run)


def test_documents_are_scored_as_by_transformers(
    alice: TestClient, alice_api: TestClient, upload: Upload, files: Files, model: str, checkpoint: str
) -> None:
    parent = upload(alice, lines(TEXTS), "scored.jsonl")
    limit = sorted(files.bits)[2] + 1e-6  # three of five stay
    left = [text for text, bits in zip(TEXTS, files.bits, strict=True) if bits <= limit]
    step = {"name": "perplexity", "model": model, "max_percentile": 100, "max_bits_per_byte": limit}
    preview = alice_api.post(f"/api/v1/corpora/{parent['id']}/preview-cleaning", json={"steps": [step]})
    assert preview.status_code == 200, preview.text
    assert (preview.json()["num_documents"], preview.json()["num_left"]) == (5, len(left))
    assert len([*storage.corpus(parent["id"]).glob("scores-*.cache")]) == 1
    corpus = cleaned(alice, parent["id"], step)
    assert (corpus["state"], texts(corpus["id"])) == ("ready", left)
    answer = alice.get(f"/api/v1/corpora/{corpus['id']}/cleaning").json()
    assert answer["steps"] == preview.json()["steps"]
    scores = answer["steps"][0]["scores"]
    assert (scores["unit"], scores["num_unscored"], sum(scores["counts"])) == ("bits_per_byte", 1, 4)
    said = [example["message"].partition(" bits per byte, at most ")[0] for example in answer["steps"][0]["examples"]]
    assert [float(number) for number in said] == pytest.approx([b for b in files.bits if b > limit], abs=0.006)


@pytest.mark.usefixtures("in_process")
def test_the_lineage_says_which_model_scored(
    alice: TestClient, upload: Upload, files: Files, model: str, checkpoint: str
) -> None:
    parent = upload(alice, lines(TEXTS), "lineage.jsonl")
    for model_id, name in ((model, "Judge of texts"), (checkpoint, "step 10")):
        corpus = cleaned(alice, parent["id"], {"name": "perplexity", "model": model_id, "max_percentile": 50})
        models = alice.get(f"/api/v1/corpora/{corpus['id']}/cleaning").json()["models"]
        assert list(models) == [model_id]
        assert models[model_id]["name"].endswith(name)
        assert models[model_id]["sha256"] == hash_of(files)
        for item_id in (model_id, corpus["id"]):
            links = alice.get(f"/api/v1/lineage/{item_id}").json()["links"]
            assert {"source": model_id, "target": corpus["id"]} in links
    assert len([*storage.corpus(parent["id"]).glob("scores-*.cache")]) == 1  # of the same files the same scores


@pytest.mark.usefixtures("in_process")
def test_the_preview_of_a_reader_writes_nothing_into_the_corpus(
    alice: TestClient, alice_user: Person, bob_user: Person, bob_api: TestClient, upload: Upload, files: Files
) -> None:
    parent = upload(alice, lines(TEXTS), "shared.jsonl")
    assert alice.put(f"/api/v1/shares/{parent['id']}", json={"users": ["Bob"], "everyone": False}).status_code == 200
    names = sorted(path.name for path in storage.corpus(parent["id"]).iterdir())
    step = {"name": "perplexity", "model": imported(bob_user, files, "Judge of Bob"), "max_percentile": 50}
    answer = bob_api.post(f"/api/v1/corpora/{parent['id']}/preview-cleaning", json={"steps": [step]})
    assert (answer.status_code, answer.json()["num_documents"]) == (200, len(TEXTS)), answer.text
    assert sorted(path.name for path in storage.corpus(parent["id"]).iterdir()) == names


def hash_of(files: Files) -> str:
    """The hash of the names and hashes of the files, written down once more."""
    pairs = sorted([file.name, file.sha256] for file in files.stored)
    return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()


@pytest.mark.usefixtures("in_process")
def test_the_memory_of_the_model_is_reserved(alice: TestClient, upload: Upload, files: Files, model: str) -> None:
    parent = upload(alice, lines(TEXTS), "memory.jsonl")
    body = {"steps": [{"name": "perplexity", "model": model}]}
    corpus = alice.post(f"/api/v1/corpora/{parent['id']}/clean", json=body).json()
    with db.transaction() as session:
        task = session.scalars(select(BackgroundTask).where(BackgroundTask.corpus_id == corpus["id"])).one()
        needed = 3 * sum(file.size for file in files.stored) + usable_models.TORCH_BYTES
        assert task.memory_bytes == settings().parse_memory_bytes + needed
    run_waiting()


@pytest.mark.usefixtures("in_process")
def test_a_model_that_was_deleted_meanwhile_is_named(
    alice: TestClient, alice_user: Person, upload: Upload, files: Files
) -> None:
    parent = upload(alice, lines(TEXTS), "deleted.jsonl")
    model_id = imported(alice_user, files, "Short-lived")
    steps = [{"name": "perplexity", "model": model_id, "max_percentile": 50}]
    made = [alice.post(f"/api/v1/corpora/{parent['id']}/clean", json={"steps": steps}).json()["id"]]
    assert alice.delete(f"/api/v1/models/{model_id}").status_code == 204
    run_waiting()
    assert alice.get(f"/api/v1/corpora/{made[0]}").json()["state"] == "ready"  # its files wait in the trash
    answer = alice.get(f"/api/v1/corpora/{made[0]}/cleaning").json()
    assert answer["models"][model_id]["name"] == "Short-lived"
    with db.transaction() as session:
        session.execute(delete(ImportedModel).where(ImportedModel.id == model_id))
    assert alice.post(f"/api/v1/corpora/{made[0]}/parse", json={}).status_code == 202
    run_waiting()
    failed = alice.get(f"/api/v1/corpora/{made[0]}").json()
    assert (failed["state"], failed["problems"][0]["code"]) == ("failed", "scoring_model_gone")


@pytest.mark.usefixtures("in_process")
def test_a_checkpoint_without_files_is_named(
    alice: TestClient, alice_api: TestClient, upload: Upload, checkpoint: str
) -> None:
    parent = upload(alice, lines(TEXTS), "no files.jsonl")
    with db.transaction() as session:
        path = storage.checkpoint(session.get_one(Checkpoint, checkpoint).path)
    aside = path.rename(path.with_name("aside"))
    try:
        steps = [{"name": "perplexity", "model": checkpoint}]
        assert cleaned(alice, parent["id"], *steps)["problems"][0]["code"] == "scoring_model_gone"
        answer = alice_api.post(f"/api/v1/corpora/{parent['id']}/preview-cleaning", json={"steps": steps})
        assert (answer.status_code, answer.json()["code"]) == (422, "scoring_model_gone")
    finally:
        aside.rename(path)


def test_a_preview_without_room_for_the_model_says_so(
    alice_api: TestClient, alice: TestClient, upload: Upload, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = upload(alice, lines(TEXTS), "room.jsonl")
    monkeypatch.setattr(preview_process, "ROOM_SECONDS", 0.0)
    budget = node_budget()
    with budget.reserve(budget.shared_bytes - preview_process.MEMORY_BYTES):
        body = {"steps": [{"name": "perplexity", "model": model}]}
        answer = alice_api.post(f"/api/v1/corpora/{parent['id']}/preview-cleaning", json=body)
    assert (answer.status_code, answer.json()["code"]) == (503, "preview_busy")
    assert "no memory for the model" in answer.text


def test_what_cannot_score_is_refused(
    alice: TestClient, alice_user: Person, bob_user: Person, upload: Upload, files: Files, model: str
) -> None:
    parent = upload(alice, lines(TEXTS), "refused.jsonl")
    other = upload(alice, lines(["Another corpus. " * 900]), "reference.jsonl")
    encoder = imported(alice_user, files, "Encoder", model_type="bert")
    classifier = imported(alice_user, files, "Classifier", is_classifier=True)
    of_bob = imported(bob_user, files, "Of Bob")
    cases: list[tuple[dict[str, Any], str, str]] = [
        ({"model": encoder}, "perplexity_unfit", "A bert cannot score documents"),
        ({"model": classifier}, "perplexity_unfit", "A llama classifier cannot score documents"),
        ({"model": of_bob}, "checkpoint_unknown", ""),
        ({"model": "nothing"}, "checkpoint_unknown", ""),
        ({}, "scorer_unclear", "either reference corpora or a model"),
        ({"model": model, "corpora": [other["id"]]}, "scorer_unclear", "either reference corpora or a model"),
        ({"corpora": [other["id"]], "max_bits_per_byte": 2}, "scorer_unclear", "bits per byte needs a model"),
        ({"model": model, "max_bits_per_byte": 0}, "request_invalid", "max_bits_per_byte"),
    ]
    for fields, code, words in cases:
        for verb in ("clean", "preview-cleaning"):
            body = {"steps": [{"name": "perplexity", **fields}]}
            answer = alice.post(f"/api/v1/corpora/{parent['id']}/{verb}", json=body)
            assert (answer.status_code, answer.json()["code"]) == (422, code), answer.text
            assert words in answer.text
    assert len(alice.get(f"/api/v1/corpora/{parent['id']}/versions").json()["data"]) == 1


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize(
    ("language", "sentences"),
    [
        ("en", ["Model that scores", "Bits per byte · at most", "With a model, a preview ends", "Model that scored"]),
        ("zh-CN", ["评分模型", "每字节比特数 · 至多", "使用模型时，预览", "评分所用的模型"]),
    ],
)
def test_the_form_offers_models_and_shows_their_scores(
    alice: TestClient, upload: Upload, model: str, language: str, sentences: list[str]
) -> None:
    parent = upload(alice, lines(TEXTS), f"page {language}.jsonl")
    form = {"step": "perplexity", "perplexity.model": model, "perplexity.max_percentile": "50", "num_documents": "5"}
    headers = {"Accept-Language": language}
    previewed = alice.post(f"/corpora/{parent['id']}/preview-cleaning", data=form, headers=headers)
    assert previewed.status_code == 200, previewed.text[:2000]
    sent = alice.post(f"/corpora/{parent['id']}/clean", data=form, follow_redirects=False)
    assert sent.status_code == 303
    run_waiting()
    shown = alice.get(sent.headers["Location"], headers=headers)
    text = html.unescape(previewed.text + shown.text)
    for sentence in sentences:
        assert sentence in text
    assert f'<a href="/models/{model}">Judge of texts</a>' in shown.text
    assert f'<option value="{model}" selected>Judge of texts</option>' in previewed.text
    assert previewed.text.count("<rect ") == 20
    assert 'class="cut"' in previewed.text
