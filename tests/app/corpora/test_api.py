"""The API of corpora: from upload to documents, and who may what."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.core import db, principal, storage
from app.core.errors import PanelError
from app.core.models import Job
from app.corpora import service
from app.corpora.shipped import FOLDER, SHIPPED
from tests import users
from tests.app.corpora.conftest import Upload
from tests.background import run_waiting
from tests.users import Person
from trainer.spec import resolve

CASES = Path(__file__).parents[2] / "fixtures/cases/data"
ROUTES = [
    ("POST", "/api/v1/corpora?filename=a.txt", "submit"),
    ("GET", "/api/v1/corpora", "read"),
    ("GET", "/api/v1/corpora/{id}", "read"),
    ("GET", "/api/v1/corpora/{id}/documents", "read"),
    ("POST", "/api/v1/corpora/{id}/parse", "submit"),
    ("DELETE", "/api/v1/corpora/{id}", "submit"),
]


def test_a_text_becomes_ready_with_its_counts(alice: TestClient, upload: Upload) -> None:
    corpus = upload(alice, "春眠不觉晓，\r\n处处闻啼鸟。".encode(), "春晓.txt")
    assert corpus["state"] == "ready"
    assert (corpus["num_documents"], corpus["num_characters"], corpus["num_text_bytes"]) == (1, 13, 37)
    assert (corpus["encoding"], corpus["problems"], corpus["progress"]) == ("utf-8", [], None)


def test_documents_are_paginated_through_the_index(alice: TestClient, upload: Upload) -> None:
    texts = [f"document {n} " + "字" * n * 100 for n in range(25)]
    content = "\n".join(json.dumps({"text": text}) for text in texts).encode()
    corpus = upload(alice, content, "poems.jsonl")
    path = f"/api/v1/corpora/{corpus['id']}/documents"
    first = alice.get(path, params={"limit": 10}).json()
    assert [document["index"] for document in first["data"]] == list(range(10))
    assert first["next"] == "10"
    last = alice.get(path, params={"limit": 10, "after": 20}).json()
    assert (last["next"], len(last["data"])) == (None, 5)
    assert last["data"][4]["text"] == texts[24][:500]
    assert last["data"][4]["cut"] is True
    assert last["data"][4]["num_bytes"] == len(texts[24].encode())
    assert alice.get(path, params={"after": 10**9}).json() == {"data": [], "next": None}


def test_a_broken_line_fails_the_corpus_until_it_is_skipped(alice: TestClient, upload: Upload) -> None:
    corpus = upload(alice, b'{"text": "good"}\n{"text": "ha', "broken.jsonl")
    assert (corpus["state"], corpus["num_bad_lines"]) == ("failed", 1)
    message = "The JSON object ends early, at character 10."
    place = {"file": None, "line": 2, "byte": 17, "context": None}
    assert corpus["problems"] == [{"code": "half_line", "message": message, **place}]
    answer = alice.post(f"/api/v1/corpora/{corpus['id']}/parse", json={"skip_bad": True})
    assert (answer.status_code, answer.json()["state"]) == (202, "parsing")
    run_waiting()
    again = alice.get(f"/api/v1/corpora/{corpus['id']}").json()
    assert (again["state"], again["num_documents"], again["num_bad_lines"]) == ("ready", 1, 1)
    assert again["problems"][0]["line"] == 2


def test_another_encoding_is_offered_and_used_when_chosen(alice: TestClient, upload: Upload) -> None:
    text = "床前明月光，疑是地上霜。举头望明月，低头思故乡。\n" * 20
    corpus = upload(alice, text.encode("gb18030"), "静夜思.txt")
    assert corpus["state"] == "failed"
    assert corpus["problems"][0]["message"] == "The file is not valid UTF-8: the bytes at position 0 cannot be decoded."
    assert corpus["encodings"][0]["encoding"] == "gb18030"
    assert "床前明月光" in corpus["encodings"][0]["preview"]
    alice.post(f"/api/v1/corpora/{corpus['id']}/parse", json={"encoding": "gb18030"})
    run_waiting()
    again = alice.get(f"/api/v1/corpora/{corpus['id']}").json()
    assert (again["state"], again["num_characters"], again["encoding"]) == ("ready", len(text), "gb18030")
    assert (again["encoding_reason"], corpus["encoding_reason"]) == ("chosen", None)


@pytest.mark.parametrize(
    ("signal", "why"),
    [("KILL", "Parsing took too long or was stopped."), ("ABRT", "Parsing was stopped: it needed more than")],
)
def test_a_crashed_parser_fails_the_corpus_with_a_reason(
    alice: TestClient, upload: Upload, monkeypatch: pytest.MonkeyPatch, signal: str, why: str
) -> None:
    monkeypatch.setattr("worker.background.parse.command", lambda corpus: ["sh", "-c", f"kill -{signal} $$"])
    corpus = upload(alice, b"text")
    assert corpus["state"] == "failed"
    assert corpus["problems"][0]["message"].startswith(why)


@pytest.mark.parametrize(
    "closing",
    [
        {"result": {"kind": "text", "num_documents": 1, "problems": [{"code": "csv", "why": "a\0b"}]}},
        {"result": {"kind": "poem", "num_documents": 1}},
        {"result": {"kind": "text", "progress": {"labels": "none"}}},
        {"failed": {"problems": [{"code": "csv", "why": "\ud83d"}]}},
        {"neither": 1},
    ],
)
def test_a_result_that_cannot_be_stored_fails_the_corpus_with_a_reason(
    alice: TestClient, upload: Upload, monkeypatch: pytest.MonkeyPatch, closing: dict[str, Any]
) -> None:
    report = ["printf", "%s\\n", json.dumps(closing)]
    monkeypatch.setattr("worker.background.parse.command", lambda corpus: report)
    corpus = upload(alice, b"text")
    assert (corpus["state"], corpus["problems"][0]["code"]) == ("failed", "result_unstorable")
    assert corpus["problems"][0]["message"].startswith("What was read could not be stored (")
    assert run_waiting() == 0


@pytest.mark.parametrize("name", ["D05-surrogate-label", "D05-surrogate-role", "D06-nul-label", "D06-nul-role"])
def test_strings_that_the_database_rejects_are_reported_by_line(alice: TestClient, upload: Upload, name: str) -> None:
    content = (CASES / f"{name}.jsonl").read_bytes()
    field = name.rpartition("-")[2]
    corpus = upload(alice, content, f"{name}.jsonl")
    assert (corpus["state"], corpus["num_bad_lines"]) == ("failed", 1)
    (problem,) = corpus["problems"]
    assert content.splitlines()[problem["line"] - 1].count(b"\\u") == 1
    assert f"“{field}”" in problem["message"]
    alice.post(f"/api/v1/corpora/{corpus['id']}/parse", json={"skip_bad": True})
    run_waiting()
    assert alice.get(f"/api/v1/corpora/{corpus['id']}").json()["num_documents"] == len(content.splitlines()) - 1


@pytest.mark.parametrize("key", ["a\0b", "\ud83d", "k" * 500])
def test_any_key_can_be_listed_as_unused(alice: TestClient, upload: Upload, key: str) -> None:
    records = [{"text": "a", key: 1}, {"text": "b", key: None}, {"text": "c"}]
    corpus = upload(alice, "\n".join(map(json.dumps, records)).encode(), "keys.jsonl")
    assert corpus["state"] == "ready"
    assert list(corpus["unused_keys"].values()) == [2]


def test_bad_lines_are_counted_by_reason(alice: TestClient, upload: Upload) -> None:
    content = b'{"text": "a"}\n' + b'{"text": ""}\n' * 150 + b'{"text": 1}\n'
    corpus = upload(alice, content, "bad.jsonl")
    assert (corpus["num_bad_lines"], corpus["bad_lines"]) == (151, {"text_empty": 150, "text_not_string": 1})
    assert corpus["problems"][-1]["line"] == 152


def test_undecodable_bytes_are_dropped_or_replaced(alice: TestClient, upload: Upload) -> None:
    corpus = upload(alice, b"one caf\xe9 in town\n", "town.txt")
    assert (corpus["state"], corpus["num_bad_places"]) == ("failed", 1)
    assert corpus["problems"][0]["context"] == "one caf\\xe9 in town\n"
    assert corpus["encodings"][0]["encoding"] == "windows-1252"
    assert "in English" in corpus["encodings"][0]["reason"]
    for way, text in (("omit", "one caf in town\n"), ("replace", "one caf\ufffd in town\n")):
        answer = alice.post(f"/api/v1/corpora/{corpus['id']}/parse", json={"bad_bytes": way})
        assert answer.status_code == 202
        run_waiting()
        again = alice.get(f"/api/v1/corpora/{corpus['id']}").json()
        assert (again["state"], again["num_bad_places"], again["bad_bytes"]) == ("ready", 1, way)
        documents = alice.get(f"/api/v1/corpora/{corpus['id']}/documents").json()["data"]
        assert [document["text"] for document in documents] == [text]
    alice.post(f"/api/v1/corpora/{corpus['id']}/parse", json={"bad_bytes": "skip_document"})
    run_waiting()
    again = alice.get(f"/api/v1/corpora/{corpus['id']}").json()
    assert (again["state"], again["num_skipped_documents"], again["num_bad_places"]) == ("failed", 1, 1)
    assert [problem["code"] for problem in again["problems"]] == ["all_skipped"]
    answer = alice.post(f"/api/v1/corpora/{corpus['id']}/parse", json={"bad_bytes": "paint"})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "bad_bytes")


# ---- deleting -------------------------------------------------------------------------------------------------------


def test_a_deleted_corpus_is_gone_and_keeps_its_files_in_the_trash(alice: TestClient, upload: Upload) -> None:
    corpus = upload(alice, b"text")
    assert alice.delete(f"/api/v1/corpora/{corpus['id']}").status_code == 204
    assert storage.corpus(corpus["id"]).exists()
    assert alice.get(f"/api/v1/corpora/{corpus['id']}").status_code == 404


def add_job(owner: Person, corpus_id: str, state: str) -> None:
    with db.transaction() as session:
        spec = resolve({"corpora": [corpus_id]})
        row = Job(owner_id=owner.id, name="first light", recipe="tiny", spec=spec, state=state, max_steps=1)
        row.spec_sha256 = row.body_sha256 = ""
        session.add(row)


@pytest.mark.parametrize(("state", "status"), [("queued", 409), ("running", 409), ("paused", 409), ("succeeded", 204)])
def test_a_corpus_in_use_cannot_be_deleted(
    alice: TestClient, alice_user: Person, upload: Upload, state: str, status: int
) -> None:
    corpus = upload(alice, b"text")
    add_job(alice_user, corpus["id"], state)
    answer = alice.delete(f"/api/v1/corpora/{corpus['id']}")
    assert answer.status_code == status
    if status == 409:
        assert answer.json()["title"].startswith("The job “first light” uses this corpus and has not finished.")
        assert alice.post(f"/api/v1/corpora/{corpus['id']}/parse", json={}).status_code == 409


# ---- who may what ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "path", "scope"), ROUTES)
def test_a_visitor_is_asked_to_log_in(visitor: TestClient, method: str, path: str, scope: str) -> None:
    answer = visitor.request(method, path.format(id="x"), json={})
    assert (answer.status_code, answer.json()["code"]) == (401, "not_logged_in")


@pytest.mark.parametrize(("method", "path", "scope"), ROUTES)
def test_a_token_without_the_scope_is_refused(
    web: TestClient, alice_user: Person, method: str, path: str, scope: str
) -> None:
    others = [other for other in principal.SCOPES if other != scope]
    answer = users.client(web, token=alice_user.token(*others)).request(method, path.format(id="x"), json={})
    assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing")


def test_the_corpus_of_another_user_is_not_found(
    alice: TestClient, bob: TestClient, bob_user: Person, upload: Upload
) -> None:
    corpus = upload(alice, b"hers alone")
    for method, path, _scope in ROUTES:
        if "{id}" in path:
            assert bob.request(method, path.format(id=corpus["id"]), json={}).status_code == 404
    assert corpus["id"] not in bob.get("/api/v1/corpora").text
    for path in ("", "?part=state"):
        assert bob.get(f"/corpora/{corpus['id']}{path}").status_code == 404
    for verb in ("parse", "delete"):
        assert bob.post(f"/corpora/{corpus['id']}/{verb}").status_code == 404
    with db.transaction() as session, pytest.raises(PanelError) as refused:
        service.require_ready_corpora(session, principal=bob_user.principal, ids=[corpus["id"]])
    assert refused.value.fields[0].field == "corpora"


@pytest.mark.parametrize("corpus_id", ["x", "%00", "..%2f..%2fetc", "x" * 2000, "😀", "1;drop table corpus"])
def test_an_unknown_id_is_a_client_error(alice: TestClient, corpus_id: str) -> None:
    for method, path, _scope in ROUTES:
        if "{id}" in path:
            assert alice.request(method, path.format(id=corpus_id), json={}).status_code in (400, 404)


@pytest.mark.parametrize("query", ["limit=0", "limit=999", "limit=x", "after=" + "x" * 100])
def test_an_invalid_page_is_reported_at_its_parameter(alice: TestClient, query: str) -> None:
    answer = alice.get(f"/api/v1/corpora?{query}")
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, query.split("=")[0])


# ---- what jobs ask --------------------------------------------------------------------------------------------------


def test_jobs_get_their_corpora_in_the_requested_order(alice: TestClient, alice_user: Person, upload: Upload) -> None:
    ids = [upload(alice, b"one")["id"], upload(alice, b"two")["id"]][::-1]
    with db.transaction() as session:
        assert [c.id for c in service.require_ready_corpora(session, principal=alice_user.principal, ids=ids)] == ids


def test_unusable_corpora_are_reported_at_the_field(alice: TestClient, alice_user: Person, upload: Upload) -> None:
    ready = upload(alice, b"fine")["id"]
    failed = upload(alice, b"\xff\xff\xff")["id"]
    parsing = alice.post("/api/v1/corpora?filename=a.txt", content=b"text").json()["id"]
    cases: list[tuple[list[str], str]] = [
        (["never was"], "corpus_unknown"),
        ([ready, failed], "corpus_failed"),
        ([ready, parsing], "corpus_parsing"),
        ([ready, ready], "corpus_twice"),
    ]
    for ids, code in cases:
        with db.transaction() as session, pytest.raises(PanelError) as refused:
            service.require_ready_corpora(session, principal=alice_user.principal, ids=ids)
        assert (refused.value.code, refused.value.fields[0].field) == (code, "corpora")


# ---- what ships -----------------------------------------------------------------------------------------------------


def test_the_shipped_corpora_are_visible_to_all_and_cannot_be_deleted(alice: TestClient, bob: TestClient) -> None:
    for _twice in range(2):
        with db.transaction() as session:
            service.install_samples(session)
    expected = {
        "00kingjamesbible": ("text", 90),
        "00songlyrics": ("text", 2143),
        "00smalltalk": ("chat", 545),
        "00xiaoduihua": ("chat", 456),
    }
    assert {shipped.corpus_id for shipped in SHIPPED} == expected.keys()
    for corpus_id, found in expected.items():
        run_waiting()
        for person in (alice, bob):
            corpus = person.get(f"/api/v1/corpora/{corpus_id}").json()
            assert (corpus["state"], corpus["shipped"]) == ("ready", True)
            assert (corpus["kind"], corpus["num_documents"]) == found
    assert alice.delete("/api/v1/corpora/00songlyrics").status_code == 403
    assert alice.post("/api/v1/corpora/00songlyrics/parse", json={}).status_code == 403


def test_the_shipped_english_text_is_genesis_and_exodus() -> None:
    chapters = (FOLDER / "king-james-bible.txt").read_text(encoding="utf-8").split("\f")
    titles = [*(f"Genesis {n}" for n in range(1, 51)), *(f"Exodus {n}" for n in range(1, 41))]
    assert [chapter.partition("\n")[0] for chapter in chapters] == titles
    verses = [len(chapter.splitlines()) - 2 for chapter in chapters]  # without the title and the line below it
    assert (sum(verses[:50]), sum(verses[50:])) == (1533, 1213)


def test_the_shipped_conversations_alternate_and_calculate_correctly() -> None:
    for name in ("small-talk.jsonl", "small-talk-chinese.jsonl"):
        lines = (FOLDER / name).read_text(encoding="utf-8").splitlines()
        talks = [json.loads(line)["messages"] for line in lines]
        assert all(message["role"] == ("user", "assistant")[n % 2] for talk in talks for n, message in enumerate(talk))
        said = [
            (ask["content"], answer["content"])
            for talk in talks
            for ask, answer in zip(talk[::2], talk[1::2], strict=True)
        ]
        sums = [(re.findall(r"\d+", ask), re.findall(r"\d+", answer)) for ask, answer in said]
        assert len([found for found in sums if found[0]]) > 50
        assert all(int(total) == int(a) + int(b) for (a, b), (_a, _b, total) in (found for found in sums if found[0]))


def test_every_shipped_poem_is_simplified_chinese_with_a_title_and_a_poet() -> None:
    lines = (FOLDER / "song-lyrics.jsonl").read_text(encoding="utf-8").splitlines()
    poems = [json.loads(line)["text"].split("\n") for line in lines]
    assert len({poem[1] for poem in poems}) == 11
    assert all(poem[2] == "" and poem[3] and not set("".join(poem)) & set("風雲東") for poem in poems)
