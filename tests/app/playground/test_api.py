"""Generation over REST: streamed and unstreamed, validated, stopped, and only with the user's own checkpoints."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update
from starlette.testclient import TestClient

from app.core import db, storage
from app.core.models import Checkpoint, ImportedModel
from tests.app.playground.conftest import StoreCheckpoint, StoredCheckpoint
from tests.users import Person

Events = list[tuple[str, dict[str, Any]]]


def body(checkpoint: StoredCheckpoint, **fields: Any) -> dict[str, Any]:
    return {"checkpoint": checkpoint.id, "prompt": "In the beginning", "max_tokens": 40, "seed": 7, **fields}


def events(api: TestClient, asked: dict[str, Any]) -> Events:
    with api.stream("POST", "/api/v1/generate", json={**asked, "stream": True}) as answer:
        assert answer.status_code == 200, answer.read()
        return list(parsed(answer.iter_lines()))


def parsed(lines: Iterator[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    name = ""
    for text in lines:
        if text.startswith("event: "):
            name = text[7:]
        elif text.startswith("data: "):
            yield name, json.loads(text[6:])


def test_chunks_arrive_in_order_between_start_and_done(api: TestClient, checkpoint: StoredCheckpoint) -> None:
    names = [name for name, _data in events(api, body(checkpoint)) if name not in ("waiting", "loading")]

    assert names[0] == "start"
    assert names[-1] == "done"
    assert set(names[1:-1]) == {"piece"}
    assert len(names) > 3


def test_done_reports_length_speed_and_stop_reason(api: TestClient, checkpoint: StoredCheckpoint) -> None:
    found = events(api, body(checkpoint, max_tokens=12))
    _name, done = found[-1]

    assert done["finish_reason"] == "length"
    assert done["num_tokens"] == 12
    assert [data["seed"] for name, data in found if name in ("start", "done")] == [7, 7]
    assert done["tokens_per_second"] > 0


def test_the_unstreamed_answer_equals_the_streamed_one(api: TestClient, checkpoint: StoredCheckpoint) -> None:
    streamed = "".join(data["text"] for name, data in events(api, body(checkpoint)) if name == "piece")
    whole = api.post("/api/v1/generate", json=body(checkpoint)).json()

    assert whole["text"] == streamed
    assert whole["finish_reason"] == "length"


def test_the_text_is_determined_by_the_seed(api: TestClient, checkpoint: StoredCheckpoint) -> None:
    first, again, other = (
        api.post("/api/v1/generate", json=body(checkpoint, prompt="", seed=seed, temperature=2)).json()
        for seed in (1, 1, 2)
    )

    assert first["text"] == again["text"]
    assert first["text"] != other["text"]


def test_a_random_seed_is_reported_and_reusable(api: TestClient, checkpoint: StoredCheckpoint) -> None:
    drawn = api.post("/api/v1/generate", json=body(checkpoint, prompt="", seed=None, temperature=2)).json()
    again = api.post("/api/v1/generate", json=body(checkpoint, prompt="", seed=drawn["seed"], temperature=2)).json()

    assert drawn["text"] == again["text"]


def test_the_model_continues_its_training_text(api: TestClient, checkpoint: StoredCheckpoint) -> None:
    text = api.post("/api/v1/generate", json=body(checkpoint, temperature=0)).json()["text"]

    assert text.startswith(" the furnace was cold")


def test_chinese_characters_are_never_split(api: TestClient, checkpoint: StoredCheckpoint) -> None:
    pieces = [d["text"] for n, d in events(api, body(checkpoint, prompt="起初", temperature=0)) if n == "piece"]

    assert "".join(pieces).startswith(",炉火是冷的")
    assert not any("\ufffd" in piece for piece in pieces)


def test_a_stop_string_ends_the_text_and_is_omitted(api: TestClient, checkpoint: StoredCheckpoint) -> None:
    asked = body(checkpoint, temperature=0, stop=["was cold", "never"])
    done = api.post("/api/v1/generate", json=asked).json()

    assert done["text"] == " the furnace "
    assert done["finish_reason"] == "stop"


def test_an_empty_prompt_starts_a_text(api: TestClient, checkpoint: StoredCheckpoint) -> None:
    answer = api.post("/api/v1/generate", json=body(checkpoint, prompt=""))

    assert answer.status_code == 200
    assert answer.json()["num_tokens"] == 40


CONVERSATION = [{"role": "user", "content": "In the"}]


def test_conversations_use_the_template_of_the_model(
    api: TestClient, store_checkpoint: StoreCheckpoint, alice_user: Person
) -> None:
    talking = store_checkpoint(alice_user)
    template = "{{ messages[0].content }}{% if add_generation_prompt %}{{ ' beginning' }}{% endif %}"
    (talking.path / "chat_template.jinja").write_text(template)
    chat = {"messages": CONVERSATION, "prompt": "", "temperature": 0}
    answer = api.post("/api/v1/generate", json=body(talking, **chat)).json()
    plain = api.post("/api/v1/generate", json=body(talking, temperature=0)).json()

    assert answer["text"] == plain["text"]
    streamed = [data["text"] for name, data in events(api, body(talking, **chat)) if name == "piece"]
    assert "".join(streamed) == answer["text"]


def test_messages_rejected_by_the_template_show_its_message(
    api: TestClient, store_checkpoint: StoreCheckpoint, alice_user: Person
) -> None:
    talking = store_checkpoint(alice_user)
    (talking.path / "chat_template.jinja").write_text("{{ raise_exception('roles must alternate') }}")
    refused = api.post("/api/v1/generate", json=body(talking, messages=CONVERSATION, prompt=""))

    assert (refused.status_code, refused.json()["code"]) == (422, "messages_refused")
    assert "roles must alternate" in refused.json()["title"]


def test_a_model_without_a_template_accepts_no_messages(api: TestClient, checkpoint: StoredCheckpoint) -> None:
    refused = api.post("/api/v1/generate", json=body(checkpoint, messages=CONVERSATION, prompt=""))

    assert (refused.status_code, refused.json()["code"]) == (422, "chat_template_missing")


def test_prompt_and_messages_exclude_each_other(api: TestClient, checkpoint: StoredCheckpoint) -> None:
    refused = api.post("/api/v1/generate", json=body(checkpoint, messages=CONVERSATION))

    assert (refused.status_code, refused.json()["code"]) == (422, "prompt_and_messages")


def test_a_library_error_is_not_a_server_error(
    api: TestClient, store_checkpoint: StoreCheckpoint, alice_user: Person
) -> None:
    odd = store_checkpoint(alice_user)
    tokenizer = json.loads((odd.path / "tokenizer.json").read_text())
    tokenizer["decoder"] = {"type": "Replace", "pattern": {"String": " "}, "content": ""}
    tokenizer["pre_tokenizer"] = {"type": "UnicodeScripts"}
    tokenizer["model"]["vocab"] = {token: n for n, token in enumerate(["<|endoftext|>", "<|padding|>"])}
    tokenizer["model"]["merges"] = []
    (odd.path / "tokenizer.json").write_text(json.dumps(tokenizer))
    answer = api.post("/api/v1/generate", json=body(odd))

    assert answer.status_code < 500


def test_generating_from_the_checkpoint_of_another_user_is_not_found(
    bob_api: TestClient, checkpoint: StoredCheckpoint
) -> None:
    answer = bob_api.post("/api/v1/generate", json=body(checkpoint))

    assert answer.status_code == 404
    assert answer.json()["code"] == "not_found"


def test_a_token_without_the_scope_submit_cannot_generate(
    visitor: TestClient, alice_user: Person, checkpoint: StoredCheckpoint
) -> None:
    token = alice_user.token("read")
    answer = visitor.post("/api/v1/generate", json=body(checkpoint), headers={"Authorization": f"Bearer {token}"})

    assert answer.status_code == 403


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("temperature", 2.5, "temperature must be at most 2"),
        ("temperature", -0.1, "temperature must be at least 0"),
        ("top_p", 0, "top_p must be greater than 0"),
        ("max_tokens", 0, "max_tokens must be at least 1"),
        ("max_tokens", 5000, "max_tokens must be at most 4096"),
        ("top_k", -1, "top_k must be at least 0"),
        ("seed", 2**31, "seed must be at most 2147483647"),
        ("stop", ["x"] * 9, "stop must have at most 8 entries"),
        ("stop", [""], "stop.0 must not be empty"),
        ("magic", 1, "magic is not a field"),
    ],
)
def test_a_value_out_of_range_is_named_with_its_range(
    alice_api: TestClient, checkpoint: StoredCheckpoint, field: str, value: Any, sentence: str
) -> None:
    answer = alice_api.post("/api/v1/generate", json=body(checkpoint, **{field: value}))

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["message"].startswith(sentence)


def test_a_prompt_of_a_hundred_thousand_characters_is_rejected(
    alice_api: TestClient, checkpoint: StoredCheckpoint
) -> None:
    answer = alice_api.post("/api/v1/generate", json=body(checkpoint, prompt="x" * 100_000))

    assert answer.status_code == 413
    assert "100000 characters; the limit is 50000" in answer.json()["title"]


def test_a_prompt_longer_than_the_context_is_rejected_with_both_lengths(
    api: TestClient, checkpoint: StoredCheckpoint
) -> None:
    answer = api.post("/api/v1/generate", json=body(checkpoint, prompt="xyz " * 500))

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "prompt"
    assert "the limit of this model is 256" in answer.json()["title"]


def test_a_checkpoint_without_files_gives_409(
    api: TestClient, store_checkpoint: StoreCheckpoint, alice_user: Person
) -> None:
    lost = store_checkpoint(alice_user)
    assert api.post("/api/v1/generate", json=body(lost)).status_code == 200
    shutil.rmtree(lost.path)

    answer = api.post("/api/v1/generate", json=body(lost))

    assert answer.status_code == 409
    assert answer.json()["title"] == "The files of this checkpoint are gone. Choose another one."


def test_a_damaged_checkpoint_can_only_be_downloaded(
    api: TestClient, alice: TestClient, store_checkpoint: StoreCheckpoint, alice_user: Person
) -> None:
    damaged = store_checkpoint(alice_user)
    with db.transaction() as session:
        session.execute(update(Checkpoint).where(Checkpoint.id == damaged.id).values(state="corrupt"))

    answer = api.post("/api/v1/generate", json=body(damaged))

    assert (answer.status_code, answer.json()["code"]) == (409, "checkpoint_corrupt")
    assert answer.json()["title"] == "The files of this checkpoint are damaged. Choose another one."
    assert f'value="{damaged.id}"' not in alice.get("/playground").text
    assert api.get(f"/api/v1/checkpoints/{damaged.id}/download").status_code == 200


def test_an_unreadable_checkpoint_is_reported(
    api: TestClient, store_checkpoint: StoreCheckpoint, alice_user: Person
) -> None:
    broken = store_checkpoint(alice_user)
    (broken.path / "model.safetensors").write_bytes(b"no weights")

    name, data = events(api, body(broken))[-1]

    assert name == "failure"
    assert data["message"] == "The files of this checkpoint cannot be read. Choose another one."


def test_failures_are_in_the_language_of_the_user(api: TestClient, checkpoint: StoredCheckpoint) -> None:
    headers = {"Accept-Language": "zh-CN"}
    answer = api.post("/api/v1/generate", json=body(checkpoint, prompt="xyz " * 500), headers=headers)

    assert "提示词" in answer.json()["title"]


# ---- imported models ------------------------------------------------------------------------------------------------


def imported(owner: Person, files: Path, model_type: str = "llama", **facts: Any) -> str:
    """Create an imported model with these files; returns its ID."""
    with db.transaction() as session:
        facts["model_type"] = model_type
        model = ImportedModel(owner_id=owner.id, name="Imported", source="upload", state="ready", facts=facts)
        session.add(model)
        session.flush()
        shutil.copytree(files, storage.base_model(model.id))
        return model.id


def test_an_imported_model_generates_like_a_checkpoint_with_the_same_weights(
    api: TestClient, alice: TestClient, checkpoint: StoredCheckpoint, alice_user: Person
) -> None:
    model_id = imported(alice_user, checkpoint.path)
    asked = body(checkpoint, max_tokens=12)
    expected = api.post("/api/v1/generate", json=asked).json()["text"]
    assert api.post("/api/v1/generate", json={**asked, "checkpoint": model_id}).json()["text"] == expected
    assert f'<option value="{model_id}" data-label="Imported"' in alice.get("/playground").text


def test_a_model_that_cannot_generate_is_rejected_and_not_offered(
    api: TestClient, alice: TestClient, checkpoint: StoredCheckpoint, alice_user: Person
) -> None:
    model_id = imported(alice_user, checkpoint.path, "bert")
    answer = api.post("/api/v1/generate", json={**body(checkpoint), "checkpoint": model_id})
    assert (answer.status_code, answer.json()["code"]) == (422, "checkpoint_mute")
    assert answer.json()["title"] == "A bert cannot continue a prompt. Choose another model."
    assert model_id not in alice.get("/playground").text


def test_the_imported_model_of_another_user_is_not_found(
    bob_api: TestClient, checkpoint: StoredCheckpoint, alice_user: Person
) -> None:
    model_id = imported(alice_user, checkpoint.path)
    assert bob_api.post("/api/v1/generate", json={**body(checkpoint), "checkpoint": model_id}).status_code == 404
