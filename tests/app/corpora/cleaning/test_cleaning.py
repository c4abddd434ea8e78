"""Cleaning through the API: new versions, their lineage, previews, undoing, cancelling, and what is refused."""

import hashlib
import json
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.core import db, storage
from app.core.models import Corpus, CorpusFile
from app.corpora import previews
from app.corpora.cleaning.reasons import STEP_NAMES
from tests.app.corpora.conftest import Upload
from tests.app.corpora.test_versions import changed, groups, read
from tests.background import claim, run_waiting
from trainer.formats.corpus_kinds import group_hash
from worker.sandbox.corpus.json_records import MAX_LINE_CHARACTERS

TEXTS = [
    "The first document is long enough to stay here.",
    "Short.",
    "The first  document is long enough to stay here.",
]
COMPARED = ("contamination", "perplexity")  # steps that need other corpora
RECIPE = [{"name": "length", "min_characters": 20}, {"name": "exact_duplicates"}]


def lines(texts: list[str]) -> bytes:
    return "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()


def cleaned(client: TestClient, corpus_id: str, *steps: dict[str, Any]) -> dict[str, Any]:
    answer = client.post(f"/api/v1/corpora/{corpus_id}/clean", json={"steps": list(steps)})
    assert answer.status_code == 201, answer.text
    run_waiting()
    corpus: dict[str, Any] = client.get(f"/api/v1/corpora/{answer.json()['id']}").json()
    return corpus


def texts(corpus_id: str) -> list[str]:
    return [document.text for document in previews.documents(corpus_id, 0, 100)]


def test_a_recipe_makes_a_new_version_with_its_lineage(alice: TestClient, upload: Upload) -> None:
    parent = upload(alice, lines(TEXTS), "three.jsonl")
    corpus = cleaned(alice, parent["id"], *RECIPE)

    assert (corpus["state"], corpus["version"], corpus["lineage_id"]) == ("ready", 2, parent["lineage_id"])
    assert texts(corpus["id"]) == TEXTS[:1]
    assert texts(parent["id"]) == TEXTS  # stays as it is
    content = storage.corpus_file(corpus["id"], 0).read_bytes()
    assert content == lines(TEXTS[:1]).replace(b'": "', b'":"')
    assert corpus["sha256"] == hashlib.sha256(content).hexdigest()
    answer = alice.get(f"/api/v1/corpora/{corpus['id']}/cleaning").json()
    assert (answer["parent_id"], answer["parent_version"], answer["num_documents"]) == (parent["id"], 1, 3)
    assert answer["num_left"] == 1
    assert [step["name"] for step in answer["recipe"]] == ["length", "exact_duplicates"]
    with db.transaction() as session:
        hashes = [session.get_one(Corpus, each["id"]).text_sha256 for each in (parent, corpus)]
    assert [answer["parent_sha256"], answer["sha256"]] == hashes
    assert [(step["num_seen"], step["num_removed"]) for step in answer["steps"]] == [(3, 1), (2, 1)]
    assert answer["steps"][0]["examples"] == [
        {
            "document": 1,
            "before": "Short.",
            "after": None,
            "reason": "characters_few",
            "message": "6 characters, at least 20",
        }
    ]
    assert answer["steps"][1]["examples"][0]["message"] == "The same text as document 1"
    assert alice.get(f"/api/v1/corpora/{parent['id']}/cleaning").json()["code"] == "not_cleaned"


def test_the_same_recipe_on_the_same_version_gives_the_same_hash(alice: TestClient, upload: Upload) -> None:
    parent = upload(alice, lines(TEXTS), "again.jsonl")
    first, second = (cleaned(alice, parent["id"], *RECIPE) for _time in range(2))
    assert first["sha256"] == second["sha256"]
    assert (first["version"], second["version"]) == (2, 3)


def test_a_job_uses_a_cleaned_version_and_another_keeps_its_own(alice: TestClient, upload: Upload) -> None:
    parent = upload(alice, lines(["A document of the first job. " * 40, "Short."]), "jobs.jsonl")
    before = alice.post("/api/v1/jobs", json={"recipe": "tiny", "corpora": [parent["id"]]}).json()["id"]
    corpus = cleaned(alice, parent["id"], RECIPE[0])
    after = alice.post("/api/v1/jobs", json={"recipe": "tiny", "corpora": [corpus["id"]]}).json()["id"]
    specs = [alice.get(f"/api/v1/jobs/{job_id}").json()["spec"]["corpora"] for job_id in (before, after)]
    assert specs == [[parent["id"]], [corpus["id"]]]


def test_a_cleaning_is_undone_by_restoring_its_parent(alice: TestClient, upload: Upload) -> None:
    parent = upload(alice, lines(TEXTS), "undo.jsonl")
    corpus = cleaned(alice, parent["id"], *RECIPE)
    answer = alice.post(f"/api/v1/corpora/{parent['id']}/restore")
    assert answer.status_code == 201, answer.text
    run_waiting()
    restored = alice.get(f"/api/v1/corpora/{answer.json()['id']}").json()

    assert (restored["state"], restored["version"]) == ("ready", 3)
    assert (texts(restored["id"]), restored["sha256"]) == (TEXTS, parent["sha256"])
    assert alice.post(f"/api/v1/corpora/{restored['id']}/restore").json()["code"] == "version_newest"
    assert texts(corpus["id"]) == TEXTS[:1]
    again = alice.post(f"/api/v1/corpora/{corpus['id']}/restore").json()  # a cleaned version has a file, too
    run_waiting()
    assert texts(again["id"]) == TEXTS[:1]


def test_a_preview_counts_and_writes_nothing(alice_api: TestClient, alice: TestClient, upload: Upload) -> None:
    parent = upload(alice, lines(TEXTS), "preview.jsonl")
    body = {"steps": RECIPE, "num_documents": 2}
    answer = alice_api.post(f"/api/v1/corpora/{parent['id']}/preview-cleaning", json=body)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert (found["num_documents"], found["num_left"]) == (2, 1)
    assert found["steps"][0]["examples"][0]["before"] == "Short."
    assert len(alice.get(f"/api/v1/corpora/{parent['id']}/versions").json()["data"]) == 1


def test_every_step_runs_within_the_limits_of_its_process(
    alice: TestClient, alice_api: TestClient, upload: Upload
) -> None:
    parent = upload(alice, lines(["An English document, long enough to tell its language."] * 2), "all.jsonl")
    other = upload(alice, lines(["Another corpus, whose words are the reference. " * 200]), "other.jsonl")
    steps = [{"name": name, **({"corpora": [other["id"]]} if name in COMPARED else {})} for name in STEP_NAMES]
    preview = alice_api.post(f"/api/v1/corpora/{parent['id']}/preview-cleaning", json={"steps": steps})
    assert preview.status_code == 200, preview.text
    corpus = cleaned(alice, parent["id"], *steps)
    assert (corpus["state"], corpus["num_documents"], corpus["problems"]) == ("ready", 1, [])
    counts = [step["num_removed"] for step in alice.get(f"/api/v1/corpora/{corpus['id']}/cleaning").json()["steps"]]
    assert counts == [step["num_removed"] for step in preview.json()["steps"]]


def test_a_cancelled_cleaning_can_run_again(alice: TestClient, upload: Upload) -> None:
    parent = upload(alice, lines(TEXTS), "cancel.jsonl")
    corpus = alice.post(f"/api/v1/corpora/{parent['id']}/clean", json={"steps": RECIPE}).json()
    task = claim()
    assert task is not None
    assert alice.post(f"/api/v1/tasks/{task.id}/cancel").json()["state"] == "cancelled"
    failed = alice.get(f"/api/v1/corpora/{corpus['id']}").json()
    assert (failed["state"], failed["problems"][0]["code"]) == ("failed", "cleaning_cancelled")
    assert alice.post(f"/api/v1/corpora/{corpus['id']}/parse", json={}).status_code == 202
    run_waiting()
    assert texts(corpus["id"]) == TEXTS[:1]


def test_a_recipe_that_leaves_nothing_says_so(alice: TestClient, upload: Upload) -> None:
    parent = upload(alice, lines(TEXTS), "nothing.jsonl")
    corpus = cleaned(alice, parent["id"], {"name": "length", "min_characters": 1000})
    assert (corpus["state"], corpus["problems"][0]["code"]) == ("failed", "all_removed")


def test_a_text_that_no_line_can_hold_is_split_and_can_be_read_again(alice: TestClient, upload: Upload) -> None:
    text = "\n".join(f"Line {n} of a very long text." for n in range(520_000))
    assert len(text) > MAX_LINE_CHARACTERS
    parent = upload(alice, text.encode(), "long.txt")
    corpus = cleaned(alice, parent["id"], RECIPE[0])
    assert (corpus["state"], corpus["num_documents"], corpus["num_characters"]) == ("ready", 2, len(text))
    assert [remark["code"] for remark in corpus["remarks"]] == ["document_split"]
    more = read(alice, changed(alice, corpus["id"], {"more.txt": b"One more."}).json()["id"])
    assert (more["state"], more["num_documents"], more["problems"]) == ("ready", 3, [])
    assert "It has 2 documents, made from 1." in alice.get(f"/corpora/{corpus['id']}").text


def test_a_cleaning_whose_parent_was_deleted_says_so(alice: TestClient, upload: Upload) -> None:
    parent = upload(alice, lines(TEXTS), "gone.jsonl")
    corpus = alice.post(f"/api/v1/corpora/{parent['id']}/clean", json={"steps": RECIPE}).json()
    alice.delete(f"/api/v1/corpora/{parent['id']}")
    run_waiting()
    failed = alice.get(f"/api/v1/corpora/{corpus['id']}").json()
    assert (failed["state"], failed["problems"][0]["code"]) == ("failed", "parent_gone")


def test_a_file_can_be_added_to_a_cleaned_version(alice: TestClient, upload: Upload) -> None:
    parent = upload(alice, lines(TEXTS), "grow.jsonl")
    corpus = cleaned(alice, parent["id"], *RECIPE)
    answer = changed(alice, corpus["id"], {"more.txt": b"One more."})
    assert answer.status_code == 201, answer.text
    assert texts(read(alice, answer.json()["id"])["id"]) == [TEXTS[0], "One more."]


@pytest.mark.parametrize(
    ("step", "code", "words"),
    [
        ({"name": "length", "min_characters": -1}, "request_invalid", "min_characters"),
        ({"name": "length", "min_characters": 9, "max_characters": 3}, "limits_crossed", "least length"),
        ({"name": "length", "least": 3}, "request_invalid", "least"),
        ({"name": "polish"}, "request_invalid", "steps.0"),
        ({"name": "near_duplicates", "threshold": "high"}, "request_invalid", "threshold"),
        ({"name": "language", "languages": ["klingon"]}, "language_unknown", "klingon"),
        ({"name": "contamination", "corpora": []}, "request_invalid", "corpora"),
        ({"name": "contamination", "corpora": ["nothing"]}, "corpus_unknown", "nothing"),
    ],
)
def test_a_damaged_setting_is_refused(
    alice: TestClient, upload: Upload, step: dict[str, Any], code: str, words: str
) -> None:
    parent = upload(alice, lines(TEXTS), "damaged.jsonl")
    for verb in ("clean", "preview-cleaning"):
        answer = alice.post(f"/api/v1/corpora/{parent['id']}/{verb}", json={"steps": [step]})
        assert (answer.status_code, answer.json()["code"]) == (422, code), answer.text
        assert words in answer.json()["title"]


def test_a_corpus_of_another_user_is_neither_cleaned_nor_compared_with(
    alice: TestClient, bob: TestClient, upload: Upload
) -> None:
    hers, his = upload(alice, lines(TEXTS), "hers.jsonl"), upload(bob, lines(TEXTS), "his.jsonl")
    for verb in ("clean", "preview-cleaning", "restore", "cleaning"):
        method = "GET" if verb == "cleaning" else "POST"
        answer = bob.request(method, f"/api/v1/corpora/{hers['id']}/{verb}", json={"steps": RECIPE})
        assert answer.status_code == 404
    step = {"name": "exact_duplicates", "corpora": [hers["id"]]}
    assert bob.post(f"/api/v1/corpora/{his['id']}/clean", json={"steps": [step]}).json()["code"] == "corpus_unknown"


def test_a_cleaned_version_is_not_read_differently(alice: TestClient, upload: Upload) -> None:
    corpus = cleaned(alice, upload(alice, lines(TEXTS), "different.jsonl")["id"], *RECIPE)
    for body in ({"encoding": "big5"}, {"group_column": "text"}):
        answer = alice.post(f"/api/v1/corpora/{corpus['id']}/parse", json=body)
        assert (answer.status_code, answer.json()["code"]) == (409, "corpus_cleaned")


def test_a_split_by_groups_of_a_cleaned_version_leads_to_the_version_before(alice: TestClient, upload: Upload) -> None:
    corpus = cleaned(alice, upload(alice, lines([text * 50 for text in TEXTS]), "split.jsonl")["id"], RECIPE[1])
    body = {"recipe": "tiny", "corpora": [corpus["id"]], "split": "group"}
    answer = alice.post("/api/v1/jobs/plan", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "groups_missing")
    assert "on the page of version 1" in answer.json()["errors"][0]["message"]


def test_the_file_of_a_cleaned_version_is_recorded(alice: TestClient, upload: Upload) -> None:
    corpus = cleaned(alice, upload(alice, lines(TEXTS), "file.jsonl")["id"], *RECIPE)
    with db.transaction() as session:
        file = session.get_one(CorpusFile, (corpus["id"], 0))
    assert (file.filename, file.sha256, file.num_bytes) == ("file.jsonl", corpus["sha256"], corpus["num_bytes"])
    assert sorted(path.name for path in storage.corpus(corpus["id"]).iterdir()) == [
        *(".lock", "examples.json", "index.bin", "text.bin", "upload")
    ]


def test_what_is_left_keeps_its_groups(alice: TestClient, upload: Upload) -> None:
    by = ["ann", "ben", "", "ben"]
    long = [*TEXTS, TEXTS[0]]
    rows = [{"text": f"{text} {n}", "by": name} for n, (text, name) in enumerate(zip(long, by, strict=True))]
    parent = upload(alice, "".join(json.dumps(row) + "\n" for row in rows).encode(), "by.jsonl")
    alice.post(f"/api/v1/corpora/{parent['id']}/parse", json={"group_column": "by"})
    read(alice, parent["id"])
    corpus = cleaned(alice, parent["id"], {"name": "length", "min_characters": 20})  # without the second
    assert groups(corpus["id"]) == [group_hash([b"ann"]), 0, group_hash([b"ben"])]
    counts = {name: corpus[name] for name in ("group_column", "groups", "num_groups", "num_ungrouped")}
    assert counts == {"group_column": "by", "groups": {"ann": 1, "ben": 1}, "num_groups": 2, "num_ungrouped": 1}
    more = changed(alice, corpus["id"], {"more.txt": b"More."}).json()  # the cleaned file has no such column
    assert (more["group_column"], read(alice, more["id"])["state"]) == (None, "ready")
    restored = read(alice, alice.post(f"/api/v1/corpora/{corpus['id']}/restore").json()["id"])
    assert (restored["state"], restored["group_column"]) == ("ready", None)
    body = {"recipe": "tiny", "corpora": [restored["id"]], "split": "group"}
    assert alice.post("/api/v1/jobs/plan", json=body).json()["code"] == "groups_missing"
