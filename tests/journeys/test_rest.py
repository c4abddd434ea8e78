"""The main user journey over REST with an API token: upload, train, follow, download the checkpoint, generate."""

import io
import json
import math
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import httpx
import pytest
from tokenizers import Tokenizer

from app.corpora.shipped import FOLDER
from tests.stack import Stack
from tests.waiting import until

STEPS = 120
SPEC = {
    "recipe": "tiny",
    "vocab_size": 1024,
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "intermediate_size": 160,
    "sequence_length": 128,
    "train_batch_size": 8,
    "per_device_batch_size": 8,
    "learning_rate": 0.005,
    "max_steps": STEPS,
    "eval_steps": 60,
    "save_steps": 60,
}


TEXT = (FOLDER / "king-james-bible.txt").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def api(running_stack: Stack) -> httpx.Client:
    """Alice's program."""
    return running_stack.client


@pytest.fixture(scope="module")
def english(api: httpx.Client) -> str:
    """The ID of an uploaded text that is read."""
    upload = api.post("/api/v1/corpora", params={"filename": "kjv.txt", "name": "King James"}, content=TEXT.encode())
    assert upload.status_code == 201, upload.text
    until(ready(api, upload.json()["id"]), 60, "the corpus")
    return str(upload.json()["id"])


def ready(api: httpx.Client, corpus_id: str) -> Callable[[], bool]:
    """Whether a corpus is read; it must not fail."""

    def look() -> bool:
        corpus = api.get(f"/api/v1/corpora/{corpus_id}").json()
        assert corpus["state"] != "failed", corpus
        return bool(corpus["state"] == "ready")

    return look


def submit(api: httpx.Client, corpus_id: str, **fields: Any) -> str:
    """The id of a new job."""
    answer = api.post("/api/v1/jobs", json={**SPEC, "corpora": [corpus_id], **fields})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def follow(api: httpx.Client, job_id: str) -> Iterator[tuple[str, Any]]:
    """The live events of a job until it has ended."""
    with api.stream("GET", f"/api/v1/jobs/{job_id}/events", timeout=httpx.Timeout(30, read=180)) as answer:
        name = ""
        for line in answer.iter_lines():
            if line.startswith("event:"):
                name = line.removeprefix("event:").strip()
            elif line.startswith("data:"):
                data = json.loads(line.removeprefix("data:"))
                yield name, data
                if name == "job" and data["state"] in ("succeeded", "failed", "cancelled"):
                    assert data["state"] == "succeeded", data["failure"]
                    return


def download(api: httpx.Client, job_id: str) -> tuple[str, zipfile.ZipFile]:
    """The id and the files of a job's last checkpoint."""
    newest = api.get("/api/v1/checkpoints", params={"job": job_id}).json()["data"][0]
    assert newest["step"] == STEPS
    answer = api.get(f"/api/v1/checkpoints/{newest['id']}/download")
    return newest["id"], zipfile.ZipFile(io.BytesIO(answer.raise_for_status().content))


def unigram_loss(tokenizer: Tokenizer, text: str) -> float:
    """Nats per token of the last twentieth under the token frequencies of the rest: what knowing no context gives."""
    ids = tokenizer.encode(text).ids
    cut = len(ids) * 19 // 20
    counts = Counter(ids[:cut])
    total = cut + tokenizer.get_vocab_size()  # one more of each, so that none is impossible
    return -sum(math.log((counts[token] + 1) / total) for token in ids[cut:]) / (len(ids) - cut)


def read_tokenizer(files: zipfile.ZipFile) -> Tokenizer:
    name = next(name for name in files.namelist() if name.endswith("tokenizer.json"))
    return Tokenizer.from_str(files.read(name).decode())


def test_an_english_text_trains_to_the_end(api: httpx.Client, english: str) -> None:
    job_id = submit(api, english)

    points: dict[int, float] = {}
    for name, data in follow(api, job_id):
        if name in ("points", "curve") and "loss" in data["series"]:
            points.update(zip(data["series"]["loss"]["steps"], data["series"]["loss"]["values"], strict=True))
    assert sorted(points) == list(range(1, STEPS + 1))  # live, no point was lost or doubled
    stored = api.get(f"/api/v1/jobs/{job_id}/metrics", params={"series": "loss"}).json()["series"]["loss"]
    assert dict(zip(stored["steps"], stored["values"], strict=True)) == points

    checkpoint_id, files = download(api, job_id)
    assert files.testzip() is None
    tokenizer = read_tokenizer(files)
    loss = api.get(f"/api/v1/jobs/{job_id}").json()["latest"]["eval_loss"]
    assert loss < unigram_loss(tokenizer, TEXT) - 0.5

    asked = {"checkpoint": checkpoint_id, "prompt": "And the LORD", "max_tokens": 12, "seed": 3}
    first, second = (api.post("/api/v1/generate", json=asked).raise_for_status().json() for _n in range(2))
    assert first["text"] == second["text"] != ""


def test_the_chinese_corpus_trains_too(api: httpx.Client) -> None:
    until(ready(api, "00songlyrics"), 60, "the sample corpus")
    job_id = submit(api, "00songlyrics", sample_prompt="明月")
    samples = [data["text"] for name, data in follow(api, job_id) if name == "sample"]
    _checkpoint_id, files = download(api, job_id)
    documents = api.get("/api/v1/corpora/00songlyrics/documents", params={"limit": 100}).json()["data"]
    tokenizer = read_tokenizer(files)
    opening = documents[0]["text"]
    assert tokenizer.decode(tokenizer.encode(opening).ids) == opening
    curves = api.get(f"/api/v1/jobs/{job_id}/metrics", params={"series": "eval_loss"}).json()["series"]
    first, *_between, last = curves["eval_loss"]["values"]
    assert last < first - 1
    assert any("\u4e00" <= character <= "\u9fff" for sample in samples for character in sample)


def test_a_cancelled_job_stops_and_its_processes_are_gone(api: httpx.Client, english: str) -> None:
    job_id = submit(api, english, max_steps=100_000, warmup_steps=10)
    until(lambda: api.get(f"/api/v1/jobs/{job_id}").json()["step"] > 2, 60, "the first steps")
    assert api.post(f"/api/v1/jobs/{job_id}/cancel").status_code == 202
    until(lambda: api.get(f"/api/v1/jobs/{job_id}").json()["state"] == "cancelled", 40, "the end of the job")
    states = [event["to"] for event in api.get(f"/api/v1/jobs/{job_id}/history").json()["data"]]
    assert states == ["queued", "starting", "running", "cancelling", "cancelled"]
    assert api.post(f"/api/v1/jobs/{job_id}/cancel").status_code == 202


def test_two_processes_train_through_deepspeed(api: httpx.Client, english: str) -> None:
    steps = STEPS // 2
    spec = {"num_processes": 2, "per_device_batch_size": 4, "zero_stage": 2, "max_steps": steps, "eval_steps": steps}
    job_id = submit(api, english, **spec)
    losses: list[float] = []
    for name, data in follow(api, job_id):
        if name in ("points", "curve"):
            losses += data["series"].get("loss", {}).get("values", [])
    assert len(losses) == steps
    assert losses[-1] < losses[0] - 1


def test_the_live_view_resumes_at_the_cursor_of_a_reader(api: httpx.Client, english: str) -> None:
    job_id = submit(api, english, max_steps=20, warmup_steps=5)
    until(lambda: api.get(f"/api/v1/jobs/{job_id}").json()["state"] == "succeeded", 120, "the end of the job")
    cursors: list[str] = []
    with api.stream("GET", f"/api/v1/jobs/{job_id}/events") as answer:
        for line in answer.iter_lines():
            if line.startswith("id:"):
                cursors.append(line.removeprefix("id:").strip())
            if line.startswith("event: log"):
                break
    assert all(before != after for before, after in pairwise(cursors))
    with api.stream("GET", f"/api/v1/jobs/{job_id}/events", headers={"Last-Event-ID": cursors[-2]}) as answer:
        names = []
        for line in answer.iter_lines():
            if line.startswith("event:"):
                names.append(line.removeprefix("event:").strip())
                break
    assert names
    assert names[0] not in ("points", "curve")  # they had come before that cursor
