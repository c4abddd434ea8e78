"""Real trainings and generations by OpenAI's own client, both majors, against a whole installation."""

import csv
import io
from collections.abc import Iterator
from typing import Any

import pytest

from tests.app.openai.clients import ClientCalls, client_calls
from tests.app.openai.conftest import openai  # noqa: F401 - a fixture
from tests.stack import Stack
from tests.waiting import until

TALK = "file-00smalltalk"  # conversations that every installation has
SMALL = {
    "vocab_size": 512,
    "num_hidden_layers": 2,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "sequence_length": 256,
    "train_batch_size": 4,
    "per_device_batch_size": 4,
    "learning_rate": 0.003,
    "warmup_steps": 2,
}
SECONDS = 600  # until a training is so far: other tests may keep the processors busy
QUESTION = [{"role": "user", "content": "Hello"}]


@pytest.fixture
def client(openai: Any, running_stack: Stack) -> Iterator[ClientCalls]:  # noqa: F811
    """Alice's client: major 1 called synchronously, major 3 asynchronously. tests/app/openai tries all combinations."""
    address, key = running_stack.base_url, running_stack.token
    with client_calls(openai, address, key, is_async=not openai.__version__.startswith("1.")) as calls:
        yield calls


def create(client: ClientCalls, **fields: Any) -> Any:
    body = {"athanor": {**SMALL, **fields}}
    return client("fine_tuning.jobs.create", model="chat", training_file=TALK, suffix="walk", seed=1, extra_body=body)


def wait(client: ClientCalls, job: Any, status: str) -> Any:
    """The job once it has this status. It must not end with another one."""

    def look() -> Any:
        now = client("fine_tuning.jobs.retrieve", job.id)
        assert now.status == status or now.status not in ("succeeded", "failed", "cancelled"), now.error
        return now if now.status == status else None

    return until(look, SECONDS, status)


def step(client: ClientCalls, job: Any) -> int:
    return int(client("fine_tuning.jobs.retrieve", job.id).athanor["step"])


def checkpoints(client: ClientCalls, job: Any) -> list[Any]:
    return client.pages("fine_tuning.jobs.checkpoints.list", job.id, limit=20)


def losses(client: ClientCalls, job: Any) -> dict[int, float]:
    """The training loss by step, from the events; each step has one."""
    events = client.pages("fine_tuning.jobs.list_events", job.id, limit=100)
    assert len({event.id for event in events}) == len(events)
    points = [event.data for event in reversed(events) if event.type == "metrics" and "train_loss" in event.data]
    assert len({point["step"] for point in points}) == len(points)
    return {point["step"]: point["train_loss"] for point in points}


def answer(client: ClientCalls, model: str) -> Any:
    options = {"messages": QUESTION, "max_tokens": 8, "temperature": 0}
    return client("chat.completions.create", model=model, **options).choices[0]


def test_a_training_is_talked_to_paused_and_resumed(client: ClientCalls, running_stack: Stack) -> None:
    job = create(client, max_steps=100_000, eval_steps=100_000, save_steps=50)
    until(lambda: len(checkpoints(client, job)) > 1, SECONDS, "two checkpoints")
    for checkpoint in checkpoints(client, job)[-2:]:
        assert answer(client, checkpoint.fine_tuned_model_checkpoint).finish_reason in ("stop", "length")
    assert client("fine_tuning.jobs.retrieve", job.id).status == "running"

    statuses = [client("fine_tuning.jobs.pause", job.id).status for _time in range(2)]
    assert set(statuses) <= {"pausing", "paused"}
    wait(client, job, "paused")
    assert client("fine_tuning.jobs.pause", job.id).status == "paused"
    before = losses(client, job)
    pause = max(before)
    assert sorted(before) == list(range(1, pause + 1))
    assert checkpoints(client, job)[0].step_number == pause
    nodes = running_stack.client.get("/api/v1/nodes").json()["data"]
    assert [node["running"] for node in nodes] == [[]]
    assert answer(client, checkpoints(client, job)[0].fine_tuned_model_checkpoint)

    assert {client("fine_tuning.jobs.resume", job.id).status for _time in range(2)} <= {"queued", "running"}
    until(lambda: step(client, job) > pause + 4, SECONDS, "steps after the pause")
    after = losses(client, job)
    assert {step: after[step] for step in before} == before
    assert sorted(after) == list(range(1, max(after) + 1))
    learned = before[1] - before[pause]
    assert abs(after[pause + 1] - before[pause]) < learned / 2

    client("fine_tuning.jobs.cancel", job.id)
    wait(client, job, "cancelled")
    assert client("fine_tuning.jobs.cancel", job.id).status == "cancelled"


def test_a_finished_training_answers_with_all_its_models_and_cannot_be_cancelled(
    client: ClientCalls,
    openai: Any,  # noqa: F811
) -> None:
    job = wait(client, create(client, max_steps=12, eval_steps=6, save_steps=6), "succeeded")
    models = [checkpoint.fine_tuned_model_checkpoint for checkpoint in checkpoints(client, job)]
    assert [model.rpartition(":")[2] for model in models] == ["ckpt-step-12", "ckpt-step-6"]
    last, _early, final = [answer(client, model).message.content for model in (*models, job.fine_tuned_model)]
    assert last == final
    rows = list(csv.DictReader(io.StringIO(client("files.content", job.result_files[0]).text)))
    assert [int(row["step"]) for row in rows if row["train_loss"]] == list(range(1, 13))
    with pytest.raises(openai.ConflictError) as refused:
        client("fine_tuning.jobs.cancel", job.id)
    assert (refused.value.code, refused.value.response.headers["x-should-retry"]) == ("job_ended", "false")
    assert refused.value.response.request.headers["x-stainless-retry-count"] == "0"
