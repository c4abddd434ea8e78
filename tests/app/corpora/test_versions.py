"""Corpora of several files, and their versions."""

import hashlib
import json
import re
import struct
from typing import Any

import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

from app.core import db, migrations, storage
from app.core.models import Corpus
from app.corpora import previews, service
from tests.app.corpora.conftest import Upload
from tests.app.corpora.test_tus import BODY, create, metadata
from tests.app.jobs import factories
from tests.background import run_waiting
from tests.users import Person
from trainer.formats.corpus_kinds import group_hash

CAFE = b"one caf\xe9 in town\n"
FILES = {"b/two.txt": b"Second.", "a/one.txt": b"First.\fAlso first.", "three.jsonl": b'{"text": "Third."}\n'}


def send(client: TestClient, filename: str, content: bytes) -> str:
    headers = {**BODY, "Upload-Length": str(len(content)), "Upload-Metadata": metadata(relativePath=filename)}
    answer = client.post("/api/v1/uploads", content=content, headers=headers)
    assert answer.status_code == 201, answer.text
    return str(answer.headers["Location"].rpartition("/")[2])


def joined(client: TestClient, files: dict[str, bytes], **more: str) -> dict[str, Any]:
    uploads = [send(client, name, content) for name, content in files.items()]
    answer = client.post("/api/v1/corpora/from-uploads", json={"uploads": uploads, **more})
    assert answer.status_code == 201, answer.text
    return read(client, answer.json()["id"])


def changed(client: TestClient, corpus_id: str, files: dict[str, bytes], *remove: str) -> Any:
    uploads = [send(client, name, content) for name, content in files.items()]
    return client.post(f"/api/v1/corpora/{corpus_id}/versions", json={"uploads": uploads, "remove": list(remove)})


def read(client: TestClient, corpus_id: str) -> dict[str, Any]:
    run_waiting()
    corpus: dict[str, Any] = client.get(f"/api/v1/corpora/{corpus_id}").json()
    return corpus


def texts(corpus_id: str) -> list[str]:
    return [document.text for document in previews.documents(corpus_id, 0, 100)]


def files(client: TestClient, corpus_id: str) -> list[dict[str, Any]]:
    data: list[dict[str, Any]] = client.get(f"/api/v1/corpora/{corpus_id}/files").json()["data"]
    return data


def test_the_files_of_a_corpus_are_read_in_their_order(alice: TestClient) -> None:
    corpus = joined(alice, FILES, name="All of them")
    assert (corpus["state"], corpus["name"], corpus["version"], corpus["num_uploads"]) == ("ready", "All of them", 1, 3)
    assert texts(corpus["id"]) == ["Second.", "First.", "Also first.", "Third."]
    assert (corpus["num_documents"], corpus["num_text_bytes"]) == (4, 30)
    listed = files(alice, corpus["id"])
    assert [(file["filename"], file["num_documents"], file["num_text_bytes"]) for file in listed] == [
        ("b/two.txt", 1, 7),
        ("a/one.txt", 2, 17),
        ("three.jsonl", 1, 6),
    ]
    assert [file["sha256"] for file in listed] == [hashlib.sha256(content).hexdigest() for content in FILES.values()]
    lines = "".join(f"{file['sha256']}  {file['filename']}\n" for file in listed)
    assert corpus["sha256"] == hashlib.sha256(lines.encode()).hexdigest()
    assert sorted(path.name for path in storage.corpus(corpus["id"]).iterdir()) == [
        *(".lock", "index.bin", "text.bin", "upload", "upload.1", "upload.2")
    ]


def test_the_same_text_has_the_same_hash_in_one_file_or_several(alice: TestClient) -> None:
    one = joined(alice, {"one.txt": b"First.\fSecond."})
    two = joined(alice, {"a.txt": b"First.", "b.txt": b"Second."})
    with db.transaction() as session:
        hashes = {session.get_one(Corpus, corpus["id"]).text_sha256 for corpus in (one, two)}
    assert len(hashes) == 1


def test_a_new_version_adds_replaces_and_removes_and_leaves_the_old_one(alice: TestClient) -> None:
    first = joined(alice, FILES)
    before = texts(first["id"])
    answer = changed(alice, first["id"], {"four.md": b"Fourth.", "b/two.txt": b"Other second."}, "a/one.txt")
    assert answer.status_code == 201
    second = read(alice, answer.json()["id"])
    assert (second["version"], second["lineage_id"], second["state"]) == (2, first["id"], "ready")
    assert texts(second["id"]) == ["Other second.", "Third.", "Fourth."]
    assert texts(first["id"]) == before
    shared = storage.corpus_file(first["id"], 2), storage.corpus_file(second["id"], 1)
    assert shared[0].samefile(shared[1])
    answer = alice.get(f"/api/v1/corpora/{second['id']}/changes", params={"since": first["id"]})
    assert answer.json() == {
        "before": first["id"],
        "added": ["four.md"],
        "replaced": ["b/two.txt"],
        "removed": ["a/one.txt"],
        "num_same": 1,
    }
    assert alice.get(f"/api/v1/corpora/{second['id']}/changes").json() == answer.json()
    alone = alice.get(f"/api/v1/corpora/{first['id']}/changes")
    assert (alone.status_code, alone.json()["code"]) == (422, "version_first")
    versions = alice.get(f"/api/v1/corpora/{first['id']}/versions").json()["data"]
    assert [version["version"] for version in versions] == [2, 1]

    third = changed(alice, first["id"], {}, "three.jsonl").json()  # from the first again
    assert (third["version"], third["num_uploads"]) == (3, 2)
    assert alice.delete(f"/api/v1/corpora/{first['id']}").status_code == 204
    assert texts(read(alice, third["id"])["id"]) == before[:3]
    assert storage.corpus_file(second["id"], 1).read_bytes() == FILES["three.jsonl"]


def test_a_new_version_is_read_with_the_mapping_of_the_one_before(alice: TestClient) -> None:
    first = joined(alice, {"quiz.csv": b"frage,antwort\nWhy?,Because.\n"})
    body = {"mapping": {"name": "Quiz", "columns": {"prompt": "frage", "completion": "antwort"}}}
    assert alice.post(f"/api/v1/corpora/{first['id']}/parse", json=body).status_code == 202
    assert read(alice, first["id"])["state"] == "ready"
    second = read(alice, changed(alice, first["id"], {"more.csv": b"frage,antwort\nWho?,I.\n"}).json()["id"])
    assert (second["state"], second["kind"], second["num_documents"]) == ("ready", "completion", 2)
    assert second["mapping"] == {"name": "Quiz", "kind": "completion", "columns": body["mapping"]["columns"]}


def test_lists_have_the_newest_version_and_the_newest_that_is_ready(alice: TestClient) -> None:
    first = joined(alice, {"a.txt": b"One."})
    second = changed(alice, first["id"], {"b.txt": b"Two."}).json()

    def listed() -> set[str]:
        data = alice.get("/api/v1/corpora", params={"limit": 100}).json()["data"]
        return {corpus["id"] for corpus in data} & {first["id"], second["id"]}

    assert listed() == {first["id"], second["id"]}
    read(alice, second["id"])
    assert listed() == {second["id"]}


def test_a_version_that_would_be_the_same_or_empty_is_refused(alice: TestClient) -> None:
    corpus = joined(alice, {"a.txt": b"One."})
    assert changed(alice, corpus["id"], {"a.txt": b"One."}).json()["code"] == "version_same"
    assert changed(alice, corpus["id"], {}).json()["code"] == "version_same"
    assert changed(alice, corpus["id"], {}, "a.txt").json()["code"] == "version_empty"
    answer = changed(alice, corpus["id"], {}, "b.txt")
    assert (answer.json()["code"], answer.json()["title"]) == ("file_unknown", "This corpus has no file “b.txt”.")


def test_two_files_of_one_name_are_refused_and_stay_uploads(alice: TestClient) -> None:
    uploads = [send(alice, "a.txt", b"One."), send(alice, "a.txt", b"Two.")]
    answer = alice.post("/api/v1/corpora/from-uploads", json={"uploads": uploads})
    assert (answer.status_code, answer.json()["code"]) == (422, "file_twice")
    assert (
        alice.post("/api/v1/corpora/from-uploads", json={"uploads": uploads[:1] * 2}).json()["code"] == "upload_twice"
    )
    assert alice.post("/api/v1/corpora/from-uploads", json={"uploads": uploads[:1]}).status_code == 201


def test_every_file_that_cannot_be_read_is_named_and_read_again_alone(alice: TestClient) -> None:
    chinese = "床前明月光，疑是地上霜。举头望明月，低头思故乡。\n" * 20
    corpus = joined(
        alice,
        {
            "good.txt": b"Good.",
            "moon.txt": chinese.encode("gb18030"),
            "chat.jsonl": b'{"prompt": "a", "completion": "b"}',
        },
    )
    assert corpus["state"] == "failed"
    codes = dict.fromkeys((problem["file"], problem["code"]) for problem in corpus["problems"])
    assert list(codes) == [("moon.txt", "undecodable"), ("chat.jsonl", "kind_differs")]
    assert "Put it into a corpus of its own." in corpus["problems"][-1]["message"]
    assert [file["num_problems"] > 0 for file in files(alice, corpus["id"])] == [False, True, True]
    assert "gb18030" in [offer["encoding"] for offer in corpus["encodings"]]
    body = {"filename": "moon.txt", "encoding": "gb18030"}
    assert alice.post(f"/api/v1/corpora/{corpus['id']}/parse", json=body).status_code == 202
    again = read(alice, corpus["id"])
    assert [problem["file"] for problem in again["problems"]] == ["chat.jsonl"]
    last = read(alice, changed(alice, corpus["id"], {}, "chat.jsonl").json()["id"])
    assert (last["state"], last["encoding"]) == ("ready", None)
    assert texts(last["id"]) == ["Good.", chinese[:500]]
    assert [file["encoding"] for file in files(alice, last["id"])] == ["utf-8", "gb18030"]


def test_an_encoding_is_offered_for_the_files_that_need_it_and_leaves_the_others(alice: TestClient) -> None:
    moon = "床前明月光，疑是地上霜。举头望明月，低头思故乡。\n" * 20
    spring = "国破山河在，城春草木深。感时花溅泪，恨别鸟惊心。\n" * 20
    pond = "古池や蛙飛びこむ水の音。閑さや岩にしみ入る蝉の声。\n" * 20
    contents = {"cafe.txt": "Café.".encode(), "moon.txt": moon.encode("gbk"), "spring.txt": spring.encode("gbk")}
    corpus = joined(alice, {**contents, "pond.txt": pond.encode("cp932")})
    offers = {offer["encoding"]: offer["files"] for offer in reversed(corpus["encodings"])}
    assert (offers["gb18030"], offers["cp932"]) == (["moon.txt", "spring.txt"], ["pond.txt"])
    path = f"/corpora/{corpus['id']}/parse"
    for names, encoding in ((["moon.txt", "spring.txt"], "gb18030"), (["pond.txt"], "cp932")):
        assert "<h3>" + ", ".join(names) + "</h3>" in alice.get(f"/corpora/{corpus['id']}").text
        answer = alice.post(path, data={"filename": names, "encoding": encoding}, follow_redirects=False)
        assert answer.status_code == 303
        run_waiting()
    assert alice.get(f"/api/v1/corpora/{corpus['id']}").json()["state"] == "ready"
    assert texts(corpus["id"]) == ["Café.", moon[:500], spring[:500], pond[:500]]
    assert 'value="" selected>That of each file, as it is now' in alice.get(f"/corpora/{corpus['id']}").text
    assert alice.post(path, data={"encoding": "", "kind": "text"}, follow_redirects=False).status_code == 303
    assert read(alice, corpus["id"])["state"] == "ready"
    encodings = [file["encoding"] for file in files(alice, corpus["id"])]
    assert encodings == ["utf-8", "gb18030", "gb18030", "cp932"]


def test_replaced_bytes_are_those_of_the_file_that_they_were_chosen_for(alice: TestClient) -> None:
    moon = "床前明月光，疑是地上霜。举头望明月，低头思故乡。\n" * 20
    cafe = "Café. Résumé. Naïve.\n" * 20
    contents = {"cafe.txt": cafe.encode() + b"\xff!", "moon.txt": moon.encode("gbk")}
    corpus = joined(alice, contents)["id"]
    path = f"/api/v1/corpora/{corpus}/parse"
    choice = {"filename": "cafe.txt", "encoding": "utf-8", "bad_bytes": "replace"}
    assert alice.post(path, json=choice).is_success
    run_waiting()
    assert alice.get(f"/api/v1/corpora/{corpus}").json()["state"] == "failed"  # the other is not read as UTF-8
    assert alice.post(path, json={"filename": "moon.txt", "encoding": "gb18030"}).is_success
    run_waiting()
    assert alice.get(f"/api/v1/corpora/{corpus}").json()["state"] == "ready"
    assert texts(corpus) == [f"{cafe}\ufffd!"[:500], moon[:500]]


def test_each_file_keeps_its_encoding_or_is_offered_another_by_itself(alice: TestClient) -> None:
    moon = "床前明月光，疑是地上霜。举头望明月，低头思故乡。\n" * 600
    cafe = "Café. Résumé. Naïve.\n" * 20
    spoiled = cafe.encode() + b"\xff!"
    names = [f"moon-{number}.txt" for number in range(7)]
    corpus = joined(alice, {"cafe.txt": spoiled, "note.txt": spoiled, **dict.fromkeys(names, moon.encode("gbk"))})
    offered = {offer["encoding"]: offer["num_files"] for offer in reversed(corpus["encodings"])}
    assert offered["gb18030"] == 7
    page = alice.get(f"/corpora/{corpus['id']}").text
    cards = {
        name: page.split(f'id="{name}"')[1].split("</section>")[0]
        for name in ("problems", "bad-bytes", "encoding", "other-bad-bytes")
    }
    assert "cafe.txt, note.txt: Broken places in 1004 B: 2. " in cards["problems"]
    several = ", ".join(names[:5]) + " and 2 other files"
    assert [card for card in cards if several in cards[card]] == ["problems", "encoding", "other-bad-bytes"]
    forms = cards["encoding"].split("<form")[1:]
    assert [names[6] in form for form in forms if "button primary" in form] == [True]
    sent = re.findall(r'name="filename"\s+value="([^"]*)"', cards["bad-bytes"])
    assert sent == ["cafe.txt", "note.txt"] * 3
    path = f"/corpora/{corpus['id']}/parse"
    answer = alice.post(path, data={"filename": sent[:2], "bad_bytes": "omit"}, follow_redirects=False)
    assert answer.status_code == 303
    assert {problem["file"] for problem in read(alice, corpus["id"])["problems"]} == set(names)
    body = {"filenames": names, "encoding": "gb18030"}
    assert alice.post(f"/api/v1{path}", json=body).status_code == 202
    assert read(alice, corpus["id"])["state"] == "ready"
    assert texts(corpus["id"]) == [f"{cafe}!"[:500]] * 2 + [moon[:500]] * 7
    for body in ({"filenames": [names[0], "sun.txt"]}, {"filename": "sun.txt"}):
        refused = alice.post(f"/api/v1{path}", json=body)
        assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, next(iter(body)))


def test_it_says_how_many_files_are_left_where_not_all_are_read_again_at_once(
    alice: TestClient, upload: Upload
) -> None:
    corpus_id = upload(alice, b"one caf\xe9 in town\n", "town.txt")["id"]
    with db.transaction() as session:
        corpus = session.get_one(Corpus, corpus_id)
        broken = corpus.progress.broken_files[0].model_copy(update={"files": ["a.txt", "b.txt"], "num_files": 612})
        corpus.progress = corpus.progress.model_copy(update={"broken_files": [broken]})
    text = alice.get(f"/corpora/{corpus_id}").text
    assert "a.txt, b.txt and 610 other files</h3>" in text
    assert "The first 2 are read again at once, and the rest is offered after that." in text
    offer = alice.get(f"/api/v1/corpora/{corpus_id}").json()["encodings"][0]
    assert (offer["files"], offer["num_files"]) == (["a.txt", "b.txt"], 612)


@pytest.mark.parametrize("files", [{"town.txt": CAFE}, {"town.txt": CAFE, "b.txt": b"plain"}], ids=["one", "several"])
def test_what_failed_before_offers_were_looked_for_is_read_again_by_one_button(
    alice: TestClient, files: dict[str, bytes]
) -> None:
    corpus_id = joined(alice, files)["id"]
    with db.transaction() as session:
        corpus = session.get_one(Corpus, corpus_id)
        corpus.progress = corpus.progress.model_copy(update={"broken_files": []})
    card = alice.get(f"/corpora/{corpus_id}").text.partition('id="encoding"')[2].partition("</section>")[0]
    assert "An earlier version of Athanor read this corpus" in card
    (form,) = [part.partition("</form>")[0] for part in card.split("<form")[1:] if "button primary" in part]
    sent = dict(re.findall(r'name="(\w+)"\s+value="([^"]*)"', form))
    assert alice.post(f"/corpora/{corpus_id}/parse", data=sent, follow_redirects=False).status_code == 303
    again = read(alice, corpus_id)
    assert [offer["encoding"] for offer in again["encodings"]][:1] == ["windows-1252"]
    page = alice.get(f"/corpora/{corpus_id}").text
    assert ("An earlier version" in page, "Read as Windows-1252" in page) == (False, True)


def test_counts_of_records_are_those_of_all_files(alice: TestClient) -> None:
    def labels(*names: str) -> bytes:
        return "\n".join(json.dumps({"text": f"{name}!", "label": name, "source": "x"}) for name in names).encode()

    corpus = joined(alice, {"a.jsonl": labels("good", "bad"), "b.jsonl": labels("good", "new")})
    assert (corpus["kind"], corpus["num_labels"]) == ("classification", 3)
    assert corpus["labels"] == {"good": 2, "bad": 1, "new": 1}
    assert corpus["unused_keys"] == {"source": 4}


def test_the_corpus_of_another_user_is_out_of_reach(alice: TestClient, bob: TestClient) -> None:
    corpus = joined(alice, {"a.txt": b"One."})
    assert changed(bob, corpus["id"], {"b.txt": b"Two."}).status_code == 404
    assert bob.get(f"/api/v1/corpora/{corpus['id']}/files").status_code == 404
    assert bob.get(f"/api/v1/corpora/{corpus['id']}/versions").status_code == 404
    own = joined(bob, {"a.txt": b"One."})
    answer = bob.get(f"/api/v1/corpora/{own['id']}/changes", params={"since": corpus["id"]})
    assert answer.status_code == 404


def test_versions_of_different_corpora_are_not_compared(alice: TestClient) -> None:
    one, two = joined(alice, {"a.txt": b"One."}), joined(alice, {"a.txt": b"One."})
    answer = alice.get(f"/api/v1/corpora/{one['id']}/changes", params={"since": two["id"]})
    assert answer.json()["code"] == "version_other"


def test_a_job_keeps_its_version(alice: TestClient, alice_user: Person) -> None:
    first = joined(alice, {"a.txt": b"One." * 100})
    job_id = factories.submitted(alice_user, first["id"])
    changed(alice, first["id"], {"a.txt": b"Two."})
    assert alice.get(f"/api/v1/jobs/{job_id}").json()["spec"]["corpora"] == [first["id"]]
    assert alice.delete(f"/api/v1/corpora/{first['id']}").json()["code"] == "corpus_in_use"


def test_corpora_from_before_become_first_versions_of_one_file(alice_user: Person) -> None:
    corpus_id = factories.corpus(alice_user)
    migrations.downgrade("0014")
    migrations.upgrade()
    query = text("SELECT lineage_id, version, num_uploads FROM corpus WHERE id = :id")
    with db.transaction() as session:
        assert session.execute(query, {"id": corpus_id}).one() == (corpus_id, 1, 1)
        (file,) = service.list_files(session, corpus_id)
        assert (file.position, file.filename) == (0, "genesis.txt")
        assert file.num_bytes > 0


@pytest.fixture(autouse=True)
def _no_tasks_of_others(alice: TestClient) -> None:
    run_waiting()


def test_several_files_are_not_one_file_under_v1(alice_api: TestClient, alice: TestClient) -> None:
    corpus = joined(alice, {"a.txt": b"One.", "b.txt": b"Two."})
    assert alice_api.get(f"/v1/files/file-{corpus['id']}").json()["bytes"] == 8
    answer = alice_api.get(f"/v1/files/file-{corpus['id']}/content")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "file_of_many")


def test_creation_is_repeated_without_effect(alice: TestClient) -> None:
    uploads = [send(alice, "a.txt", b"One.")]
    headers = {"Idempotency-Key": "once"}
    answers = [
        alice.post("/api/v1/corpora/from-uploads", json={"uploads": uploads}, headers=headers).json()["id"]
        for _time in range(2)
    ]
    assert answers[0] == answers[1]
    assert create(alice).status_code == 201


def test_a_column_of_groups_is_kept_beside_the_text_in_every_version(alice: TestClient) -> None:
    lines = ['{"text": "One.", "by": "ann"}', '{"text": "Two.", "by": 7}', '{"text": "Three."}']
    first = joined(alice, {"a.jsonl": "\n".join(lines).encode()})
    assert not (storage.corpus(first["id"]) / "groups.bin").exists()
    unknown = alice.post(f"/api/v1/corpora/{first['id']}/parse", json={"group_column": "author"})
    assert (unknown.status_code, unknown.json()["code"]) == (422, "column_unknown")
    assert alice.post(f"/api/v1/corpora/{first['id']}/parse", json={"group_column": "by"}).status_code == 202
    first = read(alice, first["id"])
    counts = {name: first[name] for name in ("group_column", "groups", "num_groups", "num_ungrouped")}
    assert counts == {"group_column": "by", "groups": {"ann": 1, "7": 1}, "num_groups": 2, "num_ungrouped": 1}
    assert groups(first["id"]) == [group_hash([b"ann"]), group_hash([b"7"]), 0]
    second = changed(alice, first["id"], {"b.csv": b"text,by\nFour.,ann\n"}).json()
    assert read(alice, second["id"])["groups"] == {"ann": 2, "7": 1}
    assert groups(second["id"]) == [*groups(first["id"]), group_hash([b"ann"])]


def groups(corpus_id: str) -> list[int]:
    data = (storage.corpus(corpus_id) / "groups.bin").read_bytes()
    return [number for (number,) in struct.iter_unpack("<Q", data)]
