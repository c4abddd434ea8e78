"""From an upload to a loaded checkpoint through all parts of Athanor, over REST with an API token."""

import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.stack import Stack
from tests.waiting import until

TEXT = "".join(f"{n} sheep went up the hill, and {n + 1} came down again.\n" for n in range(4_000))
NETWORK = {"vocab_size": 512, "num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 160}
SIZE = {**NETWORK, "sequence_length": 64, "train_batch_size": 8, "per_device_batch_size": 8, "learning_rate": 0.003}
SHORT = {**SIZE, "max_steps": 30, "eval_steps": 10, "save_steps": 20, "warmup_steps": 2}


@pytest.fixture(scope="module")
def corpus(running_stack: Stack) -> str:
    """An uploaded text, ready."""
    client = running_stack.client
    given = {"filename": "sheep.txt", "name": "Sheep"}
    answer = client.post("/api/v1/corpora", params=given, content=TEXT.encode()).raise_for_status()
    corpus_id = str(answer.json()["id"])
    until(lambda: client.get(f"/api/v1/corpora/{corpus_id}").json()["state"] == "ready", 30, "a parsed corpus")
    return corpus_id


def events_of(client: httpx.Client, job_id: str, cursor: str = "") -> Iterator[tuple[str, str, Any]]:
    """The stream of a job: id, event and data of each message."""
    fields: dict[str, str] = {}
    headers = {"Last-Event-ID": cursor} if cursor else {}
    with client.stream("GET", f"/api/v1/jobs/{job_id}/events", headers=headers, timeout=60) as answer:
        answer.raise_for_status()
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            if line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif "data" in fields:
                yield fields["id"], fields["event"], json.loads(fields["data"])
                fields = {}


def followed(client: httpx.Client, job_id: str, break_every: int = 10**9) -> dict[str, Any]:
    """Watch a job to its end, over connections that break after so many messages; what was seen."""
    seen: dict[str, Any] = {"loss": {}, "samples": {}, "saved": [], "states": [], "log": "", "doubles": 0}
    cursor = ""
    while True:
        for number, (identity, event, data) in enumerate(events_of(client, job_id, cursor)):
            cursor = identity
            _see(seen, event, data)
            if _is_all(seen):
                return seen
            if number >= break_every:
                break


def _is_all(seen: dict[str, Any]) -> bool:
    job = seen["job"]
    if not job["finished_at"] or seen["states"][-1:] != [job["state"]]:
        return False
    last = job["max_steps"]
    return job["state"] != "succeeded" or (last in seen["loss"] and last in seen["samples"] and last in seen["saved"])


def _see(seen: dict[str, Any], event: str, data: Any) -> None:
    if event in ("curve", "points") and "loss" in data["series"]:
        curve = data["series"]["loss"]
        seen["doubles"] += len(set(curve["steps"]) & set(seen["loss"])) if event == "points" else 0
        seen["loss"].update(zip(curve["steps"], curve["values"], strict=True))
    elif event == "job":
        seen["job"] = data
    elif event == "sample":
        seen["samples"][data["step"]] = data["text"]
    elif event == "checkpoints":
        seen["saved"] = sorted(entry["step"] for entry in data["data"])
    elif event == "history":
        seen["states"].append(data["to"])
    elif event == "log":
        seen["log"] += data["text"]


def test_an_api_client_trains_a_model_and_opens_its_checkpoint(
    running_stack: Stack, corpus: str, tmp_path: Path
) -> None:
    client = running_stack.client
    job = client.post("/api/v1/jobs", json={"name": "sheep", "corpora": [corpus], **SHORT}).raise_for_status().json()
    seen = followed(client, job["id"], break_every=7)
    assert seen["job"]["state"] == "succeeded", seen["log"]
    assert seen["doubles"] == 0
    assert seen["states"] == ["queued", "starting", "running", "succeeded"]
    assert sorted(seen["samples"]) == [0, 10, 20, 30]
    curve = client.get(f"/api/v1/jobs/{job['id']}/metrics", params={"series": "loss"}).json()["series"]["loss"]
    stored = dict(zip(curve["steps"], curve["values"], strict=True))
    assert stored.keys() == set(range(1, 31))
    assert seen["loss"] == stored
    assert stored[30] < 0.8 * stored[1]

    saved = client.get("/api/v1/checkpoints", params={"job": job["id"]}).json()["data"]
    assert [row["step"] for row in saved] == [30, 20]
    archive = client.get(f"/api/v1/checkpoints/{saved[0]['id']}/download").raise_for_status()
    assert archive.headers["Content-Disposition"] == 'attachment; filename="sheep-step-30.zip"'
    zipfile.ZipFile(io.BytesIO(archive.content)).extractall(tmp_path)
    opened = subprocess.run([sys.executable, "-c", OPEN, tmp_path], capture_output=True, text=True, timeout=400)
    assert opened.returncode == 0, opened.stderr
    assert json.loads(opened.stdout) == [seen["job"]["facts"]["num_parameters"], "7 sheep went up"]


OPEN = """
import json, sys
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], local_files_only=True)
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1], local_files_only=True)
text = tokenizer.decode(tokenizer("7 sheep went up")["input_ids"])
print(json.dumps([sum(p.numel() for p in model.parameters()), text]))
"""


def test_two_ranks_train_a_job_to_the_end(running_stack: Stack, corpus: str) -> None:
    given = {"corpora": [corpus], **SHORT, "num_processes": 2, "per_device_batch_size": 4, "zero_stage": 2}
    client = running_stack.client
    job = client.post("/api/v1/jobs", json=given).raise_for_status().json()
    seen = followed(client, job["id"])
    assert seen["job"]["state"] == "succeeded", seen["log"]
    assert sorted(seen["loss"]) == list(range(1, 31))


def test_a_running_job_is_cancelled(running_stack: Stack, corpus: str) -> None:
    client = running_stack.client
    job = client.post("/api/v1/jobs", json={"corpora": [corpus], "max_steps": 100_000}).raise_for_status().json()
    until(lambda: client.get(f"/api/v1/jobs/{job['id']}").json()["state"] == "running", 60, "a running job")
    assert client.post(f"/api/v1/jobs/{job['id']}/cancel").status_code == 202
    until(lambda: client.get(f"/api/v1/jobs/{job['id']}").json()["state"] == "cancelled", 30, "a cancelled job")
