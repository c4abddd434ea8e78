"""A whole data set of a hub as one corpus: its files are listed, downloaded one by one, and parsed together."""

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from starlette.testclient import TestClient

from app.core import background_tasks, db, disk, quotas, storage
from app.core.account_models import User
from app.core.hub_shapes import HubDataset
from app.core.models import BackgroundTask
from app.core.settings import settings
from app.corpora import downloads, hub_datasets, versions
from app.corpora.hub_datasets import DatasetRefused, Listed
from tests import hub
from tests.app.corpora.test_versions import files, read, texts
from tests.background import forget_waiting, run_waiting
from tests.hub import COMMIT, ModelHub
from tests.users import Person
from tests.worker.sandbox.test_corpus_download import file_server, redirect, send
from worker.background import hub_listing
from worker.sandbox import corpus_download

NAMES = ["a.jsonl", "en/b b.jsonl", "en/春.jsonl"]
SKIPPED = {
    ".gitattributes": "hidden",
    "README.md": "about",
    "dataset_infos.json": "about",
    "cover.png": "unreadable",
    "none.jsonl": "empty",
    "quiz.py": "beside_records",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("quiz")
    (directory / "en").mkdir()
    for name in NAMES:
        (directory / name).write_text(json.dumps({"text": name}) + "\n")
    for name, reason in SKIPPED.items():
        (directory / name).write_text("" if reason == "empty" else "x")
    return directory


@pytest.fixture
def online(database: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelHub]:
    with hub.serving({}, {"alice/quiz": folder}) as running:
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        monkeypatch.setenv("HF_ENDPOINT", running.endpoint)
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        monkeypatch.setenv("ATHANOR_DOWNLOAD_HOSTS", "http://127.0.0.1")
        settings.cache_clear()
        yield running
        forget_waiting()
    monkeypatch.undo()
    settings.cache_clear()


def page_of(running: ModelHub, rest: str = "", name: str = "alice/quiz") -> str:
    return f"{running.endpoint}/datasets/{name}{rest}"


def start(client: TestClient, url: str, **more: str) -> dict[str, Any]:
    answer = client.post("/api/v1/corpora/from-url", json={"url": url, **more})
    assert answer.status_code == 201, answer.text
    corpus: dict[str, Any] = answer.json()
    return corpus


def downloaded(client: TestClient, url: str, **more: str) -> dict[str, Any]:
    return read(client, start(client, url, **more)["id"])


def file_requests(running: ModelHub) -> list[str]:
    return [path.partition(f"/resolve/{COMMIT}/")[2] for path in running.paths() if "/resolve/" in path]


def problem(corpus: dict[str, Any]) -> dict[str, Any]:
    assert corpus["state"] == "failed", corpus
    (first,) = corpus["problems"]
    return dict(first)


def test_all_files_that_are_read_become_one_corpus(alice: TestClient, bob: TestClient, online: ModelHub) -> None:
    online.page_size = 4
    started = start(alice, page_of(online))
    assert (started["state"], started["name"], started["dataset"]["commit"]) == ("parsing", "quiz", "")
    corpus = read(alice, started["id"])
    assert (corpus["state"], corpus["num_uploads"], corpus["num_documents"]) == ("ready", 3, 3)
    assert [json.loads(text)["text"] if text.startswith("{") else text for text in texts(corpus["id"])] == NAMES
    rows = files(alice, corpus["id"])
    assert [row["filename"] for row in rows] == NAMES
    base = f"{online.endpoint}/datasets/alice/quiz/resolve/{COMMIT}"
    assert rows[1]["url"] == f"{base}/en/b%20b.jsonl"
    assert corpus["num_bytes"] == sum(row["num_bytes"] for row in rows) == corpus["dataset"]["num_bytes"]
    lines = "".join(f"{row['sha256']}  {row['filename']}\n" for row in rows)
    assert corpus["sha256"] == hashlib.sha256(lines.encode()).hexdigest()
    assert {token for _method, _path, token in online.requests} == {None}
    assert len([path for path in online.paths() if "/tree/" in path]) == 3
    assert bob.get(f"/api/v1/corpora/{corpus['id']}").status_code == 404


def test_files_that_are_left_out_are_listed_with_the_reason(alice: TestClient, online: ModelHub) -> None:
    corpus = downloaded(alice, page_of(online, "/"))
    assert {file["name"]: file["reason"] for file in corpus["dataset"]["skipped"]} == SKIPPED
    assert corpus["dataset"]["num_skipped"] == len(SKIPPED)
    assert sorted(file_requests(online)) == sorted(["a.jsonl", "en/b%20b.jsonl", "en/%E6%98%A5.jsonl"])
    page = alice.get(f"/corpora/{corpus['id']}").text
    assert all(f"<code>{name}</code>" in page for name in SKIPPED)
    assert "6 files of the data set were left out" in page
    alice.post(f"/api/v1/corpora/{corpus['id']}/parse", json={})
    again = read(alice, corpus["id"])
    assert (again["state"], again["dataset"]) == ("ready", corpus["dataset"])
    assert len(file_requests(online)) == 3, "it is downloaded once"


def test_a_folder_of_a_revision_is_downloaded(alice: TestClient, online: ModelHub) -> None:
    corpus = downloaded(alice, page_of(online, "/tree/refs%2Fconvert%2Fparquet/en/"), name="English", kind="text")
    assert (corpus["state"], corpus["name"]) == ("ready", "English")
    assert [row["filename"] for row in files(alice, corpus["id"])] == NAMES[1:]
    said = {name: corpus["dataset"][name] for name in ("name", "revision", "folder", "commit", "skipped")}
    assert said == {
        "name": "alice/quiz",
        "revision": "refs/convert/parquet",
        "folder": "en",
        "commit": COMMIT,
        "skipped": [],
    }
    assert online.paths()[:2] == [
        "/api/datasets/alice/quiz/revision/refs%2Fconvert%2Fparquet",
        f"/api/datasets/alice/quiz/tree/{COMMIT}/en",
    ]


def test_a_data_set_of_one_file_is_a_corpus_of_that_file(alice: TestClient, online: ModelHub, tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("In the beginning")
    online.datasets["alice/one"] = tmp_path
    corpus = downloaded(alice, page_of(online, name="alice/one"))
    assert (corpus["state"], corpus["num_uploads"], corpus["filename"]) == ("ready", 1, "train.txt")
    assert corpus["sha256"] == hashlib.sha256(b"In the beginning").hexdigest()


def test_files_that_arrived_stay_when_the_worker_is_lost(
    alice: TestClient, alice_user: Person, online: ModelHub
) -> None:
    is_stopping, is_over = threading.Event(), threading.Event()

    def hang(request: BaseHTTPRequestHandler) -> bool:
        if request.path.endswith("b.jsonl"):
            is_stopping.set()
            is_over.wait(60)
            return True
        return False

    online.intercept = hang
    corpus_id = start(alice, page_of(online))["id"]
    run_waiting(is_stopping)
    is_over.set()
    rows = files(alice, corpus_id)
    assert [bool(row["sha256"]) for row in rows] == [True, False, False]
    assert [row["num_bytes"] > 0 for row in rows] == [True, False, False]
    with db.transaction() as session:
        before = quotas.used_bytes(session, alice_user.id)
    storage.corpus_download(corpus_id).write_bytes(b"x" * 100)
    with db.transaction() as session:
        assert quotas.used_bytes(session, alice_user.id) == before + 100
        (task,) = session.scalars(select(BackgroundTask).where(BackgroundTask.corpus_id == corpus_id))
        background_tasks.release(session, task_id=task.id, fence=task.fence)
    online.intercept = lambda request: False
    corpus = read(alice, corpus_id)
    assert (corpus["state"], corpus["num_documents"]) == ("ready", 3)
    assert file_requests(online).count("a.jsonl") == 1
    assert len([path for path in online.paths() if "/tree/" in path]) == 1


def test_a_file_that_fails_is_named_and_read_again(alice: TestClient, online: ModelHub) -> None:
    def fail(request: BaseHTTPRequestHandler) -> bool:
        if request.path.endswith("b.jsonl"):
            request.send_response(410)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return True
        return False

    online.intercept = fail
    corpus = downloaded(alice, page_of(online))
    assert (problem(corpus)["code"], problem(corpus)["file"]) == ("download_status", "en/b b.jsonl")
    assert alice.get(f"/corpora/{corpus['id']}").status_code == 200
    online.intercept = lambda request: False
    alice.post(f"/api/v1/corpora/{corpus['id']}/parse", json={})
    assert read(alice, corpus["id"])["state"] == "ready"
    assert file_requests(online).count("a.jsonl") == 1


@pytest.mark.parametrize(
    "path", ["../evil.txt", "en/../../evil.txt", "/etc/evil.txt", "en\\evil.txt", "en//evil.txt", "./a.txt"]
)
def test_paths_outside_of_the_data_set_are_refused(alice: TestClient, online: ModelHub, path: str) -> None:
    online.entries = [{"type": "file", "path": path, "size": 3, "oid": "0"}]
    refused = problem(downloaded(alice, page_of(online)))
    assert refused["code"] == "dataset_path"
    assert path in refused["message"]
    assert file_requests(online) == []


def test_names_that_cannot_be_kept_are_left_out(alice: TestClient, online: ModelHub) -> None:
    names = ["a\u0000b.png", "a\u202eb.jsonl", f"{'n' * 300}.jsonl", f"{'春' * 240}.jsonl", "e\u0301.jsonl", "é.jsonl"]
    online.entries = [{"type": "file", "path": name, "size": 3, "oid": "0"} for name in names]
    chosen, skipped = hub_datasets.choose(DATASET, [Listed(**entry) for entry in online.entries])
    assert list(chosen) == ["é.jsonl"]
    assert [file.reason for file in skipped].count("name") == 4
    online.entries = online.entries[:2]
    corpus = downloaded(alice, page_of(online))
    assert corpus["state"] == "ready"
    assert "a\ufffdb.png" in [file["name"] for file in corpus["dataset"]["skipped"]]


DATASET = HubDataset(endpoint="https://huggingface.co", name="me/set", revision="main", commit=COMMIT)


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["a.txt", "b.md", "c.py"], ["a.txt", "b.md", "c.py"]),
        (["a.jsonl.zst", "b.md", "c.py.gz", "d.txt"], ["a.jsonl.zst", "d.txt"]),
        (["LICENSE", "a.txt", "README_zh.md", "README.rst", "notice.md", "noticed.md"], ["a.txt", "noticed.md"]),
        (["readme.jsonl", "b.txt", "README.txt"], ["b.txt", "readme.jsonl"]),
        (["x/.cache/a.jsonl", "data/b.jsonl"], ["data/b.jsonl"]),
        (["a.zip", "b.parquet", "c.tar.gz"], ["a.zip", "b.parquet", "c.tar.gz"]),
    ],
)
def test_files_are_chosen_by_their_names(names: list[str], chosen: list[str]) -> None:
    listed = [Listed(type="file", path=name, size=1) for name in names]
    assert list(hub_datasets.choose(DATASET, [*listed, Listed(type="directory", path="x.txt", size=0)])[0]) == chosen


def test_what_a_quota_does_not_leave_is_refused_before_a_byte_arrives(
    alice: TestClient, alice_user: Person, online: ModelHub
) -> None:
    online.entries = [{"type": "file", "path": f"{n}.jsonl", "size": 50_000, "oid": "0"} for n in range(3)]
    with db.transaction() as session:
        session.get_one(User, alice_user.id).quota_bytes = quotas.used_bytes(session, alice_user.id) + 100_000
    try:
        refused = problem(downloaded(alice, page_of(online)))
    finally:
        with db.transaction() as session:
            session.get_one(User, alice_user.id).quota_bytes = None
    assert refused["code"] == "dataset_too_large"
    assert "146.6 KiB" in refused["message"]
    assert "97.7 KiB" in refused["message"]
    assert file_requests(online) == []


@pytest.mark.parametrize(
    ("limit", "code"),
    [
        ({"disk.room": 400}, "dataset_too_large"),
        ({"ATHANOR_MAX_UPLOAD_BYTES": 40_000}, "dataset_file_too_large"),
        ({"MAX_FILES": 3}, "dataset_files_many"),
        ({"MAX_PAGES": 1}, "dataset_pages"),
    ],
)
def test_other_limits_are_checked_before_a_byte_arrives(
    alice: TestClient, online: ModelHub, monkeypatch: pytest.MonkeyPatch, limit: dict[str, int], code: str
) -> None:
    online.entries = [{"type": "file", "path": "large.jsonl", "size": 50_000, "oid": "0"}]
    online.page_size = 6
    corpus_id = start(alice, page_of(online))["id"]
    for name, value in limit.items():
        if name == "disk.room":
            monkeypatch.setattr(disk, "room", lambda value=value: value)
        elif name == "ATHANOR_MAX_UPLOAD_BYTES":
            monkeypatch.setenv(name, str(value))
            settings.cache_clear()
        else:
            monkeypatch.setattr(versions if name == "MAX_FILES" else hub_listing, name, value)
    refused = problem(read(alice, corpus_id))
    assert refused["code"] == code
    assert file_requests(online) == []


def test_a_data_set_without_a_file_to_read_is_refused(alice: TestClient, online: ModelHub, tmp_path: Path) -> None:
    (tmp_path / "cat.png").write_bytes(b"x")
    online.datasets["alice/pictures"] = tmp_path
    assert problem(downloaded(alice, page_of(online, name="alice/pictures")))["code"] == "dataset_unreadable"


@pytest.mark.parametrize(
    ("name", "rest", "code"),
    [
        ("alice/nothing", "", "dataset_closed"),
        ("alice/quiz", "/tree/v9", "dataset_unknown"),
        ("alice/quiz", "/tree/main/nowhere", "dataset_unknown"),
    ],
)
def test_a_data_set_that_is_not_there_says_so(
    alice: TestClient, online: ModelHub, name: str, rest: str, code: str
) -> None:
    refused = problem(downloaded(alice, page_of(online, rest, name)))
    assert refused["code"] == code
    assert name in refused["message"]


def test_a_gated_data_set_says_so_and_no_token_is_sent(alice: TestClient, online: ModelHub) -> None:
    online.gated.add("alice/quiz")
    refused = problem(downloaded(alice, page_of(online)))
    assert (refused["code"], refused["file"]) == ("dataset_closed", "a.jsonl")
    assert "gated" in refused["message"]
    assert {token for _method, _path, token in online.requests} == {None}


@pytest.mark.parametrize(
    "content", [b"<html>", b"{}", b'[{"type": "file", "path": "a.txt", "size": -1}]', b"[" * 10_000]
)
def test_a_list_that_is_none_is_refused(alice: TestClient, online: ModelHub, content: bytes) -> None:
    def answer(request: BaseHTTPRequestHandler) -> bool:
        if "/tree/" in request.path:
            send(request, content)
            return True
        return False

    online.intercept = answer
    corpus = downloaded(alice, page_of(online))
    assert problem(corpus)["code"] == "dataset_listing"
    online.intercept = lambda request: False
    alice.post(f"/api/v1/corpora/{corpus['id']}/parse", json={})
    assert read(alice, corpus["id"])["state"] == "ready"


def test_a_list_is_not_the_rest_of_another_one(alice: TestClient, online: ModelHub) -> None:
    content = json.dumps({"sha": COMMIT}).encode()

    def answer(request: BaseHTTPRequestHandler) -> bool:
        if "/revision/" in request.path:
            send(request, content)
            return True
        return False

    online.intercept = answer
    corpus_id = start(alice, page_of(online))["id"]
    directory = storage.corpus(corpus_id)
    directory.mkdir(parents=True)
    (directory / corpus_download.PART).write_bytes(b"of an")
    (directory / corpus_download.NOTE).write_text(json.dumps({"validator": '"1"'}))
    assert read(alice, corpus_id)["state"] == "ready"


def test_a_data_set_is_listed_once(alice: TestClient, online: ModelHub) -> None:
    corpus = downloaded(alice, page_of(online))
    with db.transaction() as session:
        listed = [Listed(type="file", path="other.txt", size=1)]
        downloads.record_listing(session, corpus_id=corpus["id"], dataset=DATASET, entries=listed)
    assert len(files(alice, corpus["id"])) == 3


def linking(address: str) -> Callable[[BaseHTTPRequestHandler], bool]:
    """Says that the next page of the list is at an address."""

    def answer(request: BaseHTTPRequestHandler) -> bool:
        if "/tree/" not in request.path:
            return False
        request.send_response(200)
        request.send_header("Link", f'<{address}>; rel="next"')
        request.send_header("Content-Length", "2")
        request.end_headers()
        request.wfile.write(b"[]")
        return True

    return answer


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_next_page_at_another_host_is_not_reached(alice: TestClient, online: ModelHub, scheme: str) -> None:
    with file_server() as other:
        other.answer = lambda request: send(request, b"[]")
        online.intercept = linking(f"{scheme}://127.0.0.1:{other.port}/next")
        assert problem(downloaded(alice, page_of(online)))["code"] == "download_redirected"
        assert other.requests == []
    online.intercept = linking("http://[::1")
    assert problem(downloaded(alice, page_of(online)))["code"] == "dataset_listing"


@pytest.mark.parametrize("part", ["/revision/", "/tree/", "/resolve/"])
def test_redirects_lead_to_listed_hosts_only(alice: TestClient, online: ModelHub, part: str) -> None:
    def lead(location: str) -> Callable[[BaseHTTPRequestHandler], bool]:
        def answer(request: BaseHTTPRequestHandler) -> bool:
            if part in request.path:
                redirect(location)(request)
                return True
            return False

        return answer

    with file_server() as other:
        other.answer = lambda request: send(request, b'{"text": "elsewhere"}')
        online.intercept = lead(f"http://localhost:{other.port}/a.jsonl")
        corpus = downloaded(alice, page_of(online))
        assert problem(corpus)["code"] == "download_redirected"
        assert "localhost" in problem(corpus)["message"]
        assert other.requests == []
        if part == "/resolve/":
            online.intercept = lead(f"http://127.0.0.1:{other.port}/a.jsonl")
            alice.post(f"/api/v1/corpora/{corpus['id']}/parse", json={})
            assert texts(read(alice, corpus["id"])["id"]) == ["elsewhere"] * 3


def test_a_hub_that_is_not_listed_is_not_reached(
    alice: TestClient, online: ModelHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus_id = start(alice, page_of(online))["id"]
    assert f"{online.endpoint}/datasets/OWNER/NAME/tree/main" in alice.get("/corpora").text
    monkeypatch.setenv("ATHANOR_DOWNLOAD_HOSTS", "data.example.org")
    settings.cache_clear()
    refused = alice.post("/api/v1/corpora/from-url", json={"url": page_of(online)})
    assert (refused.status_code, refused.json()["code"]) == (422, "url_refused")
    assert problem(read(alice, corpus_id))["code"] == "download_address"
    assert online.requests == []
    assert "OWNER/NAME" not in alice.get("/corpora").text


def test_a_hub_that_is_off_is_not_reached(alice: TestClient, online: ModelHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    settings.cache_clear()
    refused = alice.post("/api/v1/corpora/from-url", json={"url": page_of(online)})
    assert (refused.status_code, refused.json()["code"]) == (409, "hub_offline")
    assert "OWNER/NAME" not in alice.get("/corpora").text


def test_the_files_of_a_data_set_keep_their_names(alice: TestClient, online: ModelHub) -> None:
    form = {"url": page_of(online), "filename": "all.jsonl", "name": "Quiz"}
    refused = alice.post("/corpora/download", data=form)
    assert refused.status_code == 422
    assert 'id="download-filename-error"' in refused.text
    answer = alice.post("/corpora/download", data={**form, "filename": ""}, follow_redirects=False)
    assert answer.status_code == 303
    run_waiting()
    assert "alice/quiz" in alice.get(answer.headers["location"]).text


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        ("/datasets/me/set", ("me/set", "main", "")),
        ("/datasets/me/set/?library=datasets#top", ("me/set", "main", "")),
        ("/datasets/me/set/tree/main", ("me/set", "main", "")),
        ("/datasets/me/set/tree/refs%2Fpr%2F1/data/en%20us/", ("me/set", "refs/pr/1", "data/en us")),
        ("/datasets/me/set/tree/..", None),
        ("/datasets/me/set/tree/main/..%2F..", None),
        ("/datasets/me/set/tree/main/a%00b", None),
        ("/datasets/me/set/tree/main/a//b", None),
        ("/datasets/../set", None),
        ("/datasets/me/set/viewer/default/train", None),
        ("/datasets/me/set/resolve/main/a.txt", None),
        ("/datasets/me", None),
        ("/me/model", None),
        (".evil.example/datasets/me/set", None),
    ],
)
def test_the_pages_of_data_sets(rest: str, expected: tuple[str, str, str] | None) -> None:
    dataset = hub_datasets.of_page(f"https://huggingface.co{rest}")
    assert (dataset and (dataset.name, dataset.revision, dataset.folder)) == expected


def test_the_addresses_of_a_data_set() -> None:
    dataset = DATASET.model_copy(update={"revision": "refs/pr/1", "folder": "en us"})
    base = "https://huggingface.co/api/datasets/me/set"
    assert hub_datasets.commit_url(dataset) == f"{base}/revision/refs%2Fpr%2F1?expand=sha"
    assert hub_datasets.tree_url(dataset) == f"{base}/tree/{COMMIT}/en%20us?recursive=true"
    assert hub_datasets.file_url(dataset, "en us/a#?.txt") == (
        f"https://huggingface.co/datasets/me/set/resolve/{COMMIT}/en%20us/a%23%3F.txt"
    )


def test_a_path_outside_is_refused() -> None:
    with pytest.raises(DatasetRefused, match="dataset_path"):
        hub_datasets.choose(DATASET, [Listed(type="file", path="../cover.png", size=1)])
