"""What an imported model cannot be used for is said by the API and on its page, and in the same words by whatever
would start it.
"""

import html
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests import folders
from tests.app.base_models.conftest import Import
from tests.app.jobs import factories
from tests.trainer.tokenizers_of_bases import fast, unigram
from tests.users import Person

TALK = [{"role": "user", "content": "Who?"}]
BROKEN = "{{ messages[0].tenant.name }}"
MUTE = {"generate": "checkpoint_mute", "messages": "checkpoint_mute", "evaluate": "evaluation_unfit"}


def scaled(directory: Path) -> None:
    folders.change(directory, rope_parameters={"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 2.0})


def with_unigram(directory: Path) -> None:
    fast(unigram()).save_pretrained(directory)


def with_template(directory: Path) -> None:
    (directory / "chat_template.jinja").write_text(BROKEN)


def unchanged(directory: Path) -> None:
    pass


CASES: dict[str, tuple[str, Callable[[Path], None], dict[str, str]]] = {
    "decoder": ("llama", unchanged, {"messages": "chat_template_missing"}),
    "positions": ("llama", scaled, {"messages": "chat_template_missing", "gguf": "gguf_positions"}),
    "tokenizer": ("llama", with_unigram, {"messages": "chat_template_missing", "gguf": "gguf_tokenizer"}),
    "template": ("gpt2", with_template, dict.fromkeys(("messages", "chat"), "chat_template_unusable")),
    "encoder": ("bert", unchanged, {**MUTE, "gguf": "gguf_family", "masked": "tokens_missing"}),
    "t5": (
        "t5",
        unchanged,
        {
            "messages": "messages_unfit",
            "evaluate": "evaluation_unfit",
            "gguf": "gguf_family",
            "span_corruption": "tokens_missing",
        },
    ),
}


@pytest.fixture(scope="module")
def corpus(alice_user: Person) -> str:
    factories.node(slots=50)
    return factories.corpus(alice_user)


def start(client: TestClient, use: str, model_id: str, corpus: str) -> Any:
    """The answer to a request that would use a model so."""
    match use:
        case "generate" | "messages":
            asked: dict[str, Any] = {"messages": TALK} if use == "messages" else {"prompt": "The"}
            return client.post("/api/v1/generate", json={"checkpoint": model_id, **asked})
        case "evaluate":
            body: dict[str, Any] = {"checkpoint": model_id, "corpora": [corpus]}
            return client.post("/api/v1/evaluations", json=body)
        case "gguf":
            return client.post("/api/v1/exports", json={"checkpoint": model_id, "format": "gguf"})
    return client.post("/api/v1/jobs", json={"base_model": model_id, "objective": use, "corpora": [corpus]})


@pytest.mark.parametrize("case", CASES)
def test_limits_are_reported_by_the_import_and_by_each_request(
    alice: TestClient,
    alice_api: TestClient,
    folder: Callable[[str], Path],
    imported: Import,
    tmp_path: Path,
    corpus: str,
    case: str,
) -> None:
    kind, change, expected = CASES[case]
    directory = Path(shutil.copytree(folder(kind), tmp_path / case))
    change(directory)
    model = imported(alice_api, directory)
    assert model["state"] == "ready", model["problems"]
    assert {entry["use"]: entry["code"] for entry in model["limits"]} == expected

    page = html.unescape(alice.get(f"/models/{model['id']}").text)
    for entry in model["limits"]:
        answer = start(alice_api, entry["use"], model["id"], corpus)
        assert (answer.status_code, answer.json()["code"]) == (422, entry["code"]), answer.text
        assert answer.json()["title"] == entry["message"]
        assert entry["message"] in page
    chinese = alice_api.get(f"/api/v1/models/{model['id']}", headers={"Accept-Language": "zh"}).json()
    assert all(
        there["message"] != here["message"] for there, here in zip(chinese["limits"], model["limits"], strict=True)
    )


def test_a_job_may_replace_an_unusable_chat_template(
    alice_api: TestClient, folder: Callable[[str], Path], imported: Import, tmp_path: Path, corpus: str
) -> None:
    directory = Path(shutil.copytree(folder("gpt2"), tmp_path / "model"))
    with_template(directory)
    model = imported(alice_api, directory)
    body = {"base_model": model["id"], "objective": "chat", "corpora": [corpus], "chat_template": "plain"}

    # The corpus, which holds no conversations, is looked at later.
    assert alice_api.post("/api/v1/jobs", json=body).json()["code"] == "kind_unfit"
