"""The pages of corpora."""

import html
import json
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.core import db
from app.core.json_shapes import TaskProgress
from app.corpora import service
from tests.app.corpora.conftest import Upload
from tests.app.corpora.test_versions import joined, read
from tests.background import claim, forget_waiting, run_waiting
from tests.worker.sandbox.corpus import sample_files

EVIL = "<script>alert(1)</script>"


@pytest.mark.parametrize("path", ["/corpora", "/corpora/x"])
def test_a_visitor_is_redirected_to_the_login(visitor: TestClient, path: str) -> None:
    answer = visitor.get(path)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/login?next={path}")


def test_an_empty_list_explains_what_to_upload(bob: TestClient) -> None:
    assert "No corpora yet" in bob.get("/corpora").text


def test_the_form_works_without_scripts_and_takes_several_files(alice: TestClient) -> None:
    files = [("file", ("one.txt", b"first")), ("file", ("two.md", b"second"))]
    answer = alice.post("/corpora", files=files)
    assert (answer.status_code, answer.headers["location"]) == (303, "/corpora")
    text = alice.get("/corpora").text
    assert ">one</a>" in text
    assert ">two</a>" in text


def test_a_rejected_file_is_named_and_the_others_are_kept(alice: TestClient) -> None:
    files = [("file", ("kept.txt", b"kept")), ("file", ("bad.exe", b"MZ")), ("file", ("void.txt", b""))]
    answer = alice.post("/corpora", files=files)
    text = html.unescape(answer.text)
    assert answer.status_code == 422
    assert "bad.exe: “bad.exe” is not a supported file." in text
    assert "void.txt: The file is empty." in text
    assert ">kept</a>" in text


def test_a_form_without_a_file_says_so(alice: TestClient) -> None:
    answer = alice.post("/corpora", files=[("file", ("", b""))])
    assert (answer.status_code, "Choose a file." in answer.text) == (422, True)


def test_the_list_polls_only_while_a_corpus_is_parsed(alice: TestClient) -> None:
    forget_waiting()
    corpus = alice.post("/api/v1/corpora?filename=busy.txt", content=b"busy").json()
    claim(TaskProgress(done=1, total=4, seconds=2))
    part = alice.get(f"/corpora/{corpus['id']}?part=state").text
    assert "data-busy" in part
    assert 'value="1" max="4"' in part
    assert "6 seconds left" in part
    assert "<html" not in part
    assert "data-busy" in alice.get("/corpora?part=list").text
    alice.post(f"/api/v1/tasks/{alice.get('/api/v1/corpora/' + corpus['id']).json()['task_id']}/cancel")
    assert "data-busy" not in alice.get(f"/corpora/{corpus['id']}?part=state").text


def test_the_page_of_a_corpus_shows_its_counts_and_documents(alice: TestClient, upload: Upload) -> None:
    content = "".join(json.dumps({"text": f"poem number {n}"}) + "\n" for n in range(1, 26)).encode()
    corpus = upload(alice, content, "poems.jsonl")
    text = alice.get(f"/corpora/{corpus['id']}").text
    assert "poem number 10<" in text
    assert "poem number 11" not in text
    assert f"/jobs/new?corpus={corpus['id']}" in text
    assert "1 to 10 of 25" in text
    second = alice.get(f"/corpora/{corpus['id']}?start=20").text
    assert "poem number 25" in second
    assert "21 to 25 of 25" in second
    assert alice.get(f"/corpora/{corpus['id']}?start=9999").status_code == 200


def test_bad_lines_are_listed_and_can_be_skipped(alice: TestClient, upload: Upload) -> None:
    corpus = upload(alice, b'{"text": "a"}\nnonsense\n{"text": 1}\n', "bad.jsonl")
    text = alice.get(f"/corpora/{corpus['id']}").text
    assert "Skip 2 lines or files" in text
    assert "This is not valid JSON: error at character 1." in text
    answer = alice.post(f"/corpora/{corpus['id']}/parse", data={"skip_bad": "true"})
    assert answer.headers["location"] == f"/corpora/{corpus['id']}"
    run_waiting()
    text = alice.get(f"/corpora/{corpus['id']}").text
    assert "What was left out" in text
    assert "Train on this" in text


def test_a_single_bad_line_can_be_skipped(alice: TestClient, upload: Upload) -> None:
    corpus = upload(alice, b'{"text": "a"}\nnonsense\n', "bad.jsonl")
    text = alice.get(f"/corpora/{corpus['id']}").text
    assert "1 line or file is not a document." in text
    assert "Skip 1 line or file</button>" in text


def test_unused_keys_and_reasons_are_listed(alice: TestClient, upload: Upload) -> None:
    content = lines({"text": "a", "<b>": 1}, {"text": "b", "<b>": 2}, {"text": ""}, {"text": ""}, {"text": 3})
    corpus = upload(alice, content, "keys.jsonl")
    text = html.unescape(alice.get(f"/corpora/{corpus['id']}").text)
    assert "<dt>2 ×</dt><dd>The value of “text” is empty.</dd>" in text
    assert "<dt>1 ×</dt><dd>The value of “text” is not a string.</dd>" in text
    alice.post(f"/corpora/{corpus['id']}/parse", data={"skip_bad": "true"})
    run_waiting()
    text = alice.get(f"/corpora/{corpus['id']}").text
    assert "Keys that are not used" in text
    assert "<dt><code>&lt;b&gt;</code></dt><dd>2 ×</dd>" in text


def test_bad_bytes_can_be_dropped(alice: TestClient, upload: Upload) -> None:
    corpus = upload(alice, b"one caf\xe9 in town\n", "town.txt")
    text = html.unescape(alice.get(f"/corpora/{corpus['id']}").text)
    assert "one caf\\xe9 in town" in text
    assert "Broken places in 17 B: 1. 0 characters beyond ASCII are valid UTF-8." in text
    assert "The whole file decodes, and its letters are about as frequent as in English." in text
    assert text.index("Read it without the bad bytes") < text.index("Read as Windows-1252")
    answer = alice.post(f"/corpora/{corpus['id']}/parse", data={"bad_bytes": "omit"})
    assert answer.status_code == 303
    run_waiting()
    text = alice.get(f"/corpora/{corpus['id']}").text
    assert "one caf in town" in text
    assert "Bad bytes left out" in text


def test_files_of_an_archive_that_cannot_be_read_are_named_until_they_are_skipped(
    alice: TestClient, upload: Upload
) -> None:
    scan, part = sample_files.pdf([""]), sample_files.pdf(["Two pages.", ""])
    members = [("a/one.txt", b"One page."), ("scan.pdf", scan), ("part.pdf", part), ("photo.png", b"\x89PNG")]
    corpus = upload(alice, sample_files.zipped(members), "folder.zip")
    assert (corpus["state"], corpus["format"], corpus["bad_lines"]) == ("failed", "zip", {"pdf_without_text": 1})
    assert corpus["problems"][0]["file"] == "scan.pdf"
    text = html.unescape(alice.get(f"/corpora/{corpus['id']}").text)
    assert "<code>scan.pdf</code>: None of its pages (1) has text" in text
    alice.post(f"/corpora/{corpus['id']}/parse", data={"skip_bad": "true"})
    run_waiting()
    again = alice.get(f"/api/v1/corpora/{corpus['id']}").json()
    assert (again["state"], again["num_documents"], again["num_files"]) == ("ready", 2, 3)
    assert again["skipped_files"] == {".png": 1}
    assert again["remarks"][0]["message"] == "1 page has no text, such as a scanned one: 2."
    text = html.unescape(alice.get(f"/corpora/{corpus['id']}").text)
    assert "<code>part.pdf</code>: 1 page has no text" in text
    assert "<code>.png</code></dt><dd>1 ×" in text


def test_tools_and_multiple_turns_are_shown(alice: TestClient, upload: Upload) -> None:
    function = {"name": "look_up", "arguments": {"house": EVIL}}
    question = {"role": "user", "content": "Which door?"}
    call = {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": function}]}
    answer = {"role": "assistant", "content": "The red one."}
    chat = {"messages": [question, call, {"role": "tool", "content": "red"}, answer], "tools": [{"name": "look_up"}]}
    pair = {"prompt": [question], "chosen": [call, question, answer], "rejected": [answer, question, answer]}
    for record in (chat, pair):
        corpus = upload(alice, lines(record), "tools.jsonl")
        assert corpus["state"] == "ready", corpus["problems"]
        text = alice.get(f"/corpora/{corpus['id']}").text
        assert "look_up" in text
        assert "The red one." in text
        assert ">None<" not in text
        assert EVIL not in text


def test_an_offered_encoding_can_be_chosen(alice: TestClient, upload: Upload) -> None:
    poem = "国破山河在，城春草木深。感时花溅泪，恨别鸟惊心。\n" * 9
    corpus = upload(alice, poem.encode("gb18030"), "春望.txt")
    text = alice.get(f"/corpora/{corpus['id']}").text
    assert "Read as GB18030 (GBK, GB2312)" in text
    assert "国破山河在" in text
    alice.post(f"/corpora/{corpus['id']}/parse", data={"encoding": "gb18030"})
    run_waiting()
    assert "国破山河在" in alice.get(f"/corpora/{corpus['id']}").text


def test_a_file_of_white_space_is_not_offered_in_another_encoding(alice: TestClient, upload: Upload) -> None:
    corpus = upload(alice, b" \n\t \r\n" * 9, "blank.txt")
    page = alice.get(f"/corpora/{corpus['id']}").text
    assert "the file has no text" in page
    assert f'action="/corpora/{corpus["id"]}/parse"' not in page


def test_an_invalid_request_is_reported_on_the_page(alice: TestClient, upload: Upload) -> None:
    corpus = upload(alice, b"\xff\xff", "x.txt")
    answer = alice.post(f"/corpora/{corpus['id']}/parse", data={"encoding": "klingon"})
    assert (answer.status_code, "Choose an encoding of:" in answer.text) == (422, True)


def test_a_shipped_corpus_cannot_be_changed(alice: TestClient) -> None:
    with db.transaction() as session:
        service.install_samples(session)
    run_waiting()
    text = alice.get("/corpora/00songlyrics").text
    assert "范仲淹" in text
    assert "/delete" not in text
    assert alice.post("/corpora/00songlyrics/delete").status_code == 403


def test_deleting_on_the_page_returns_to_the_list(alice: TestClient, upload: Upload) -> None:
    corpus = upload(alice, b"text")
    answer = alice.post(f"/corpora/{corpus['id']}/delete")
    assert answer.headers["location"] == f"/corpora?trashed={corpus['id']}"
    assert alice.get(f"/corpora/{corpus['id']}").status_code == 404


def test_names_and_texts_are_html_escaped(alice: TestClient, upload: Upload) -> None:
    corpus = upload(alice, EVIL.encode(), "evil.txt", name=EVIL)
    bad = upload(alice, b'{"a<script>": 1, "a<script>": 2}', "bad.jsonl")
    for path in ("/corpora", f"/corpora/{corpus['id']}", f"/corpora/{bad['id']}"):
        text = alice.get(path).text
        assert EVIL not in text
        assert "a<script>" not in text
    assert html.escape(EVIL) in alice.get(f"/corpora/{corpus['id']}").text


# ---- records --------------------------------------------------------------------------------------------------------


def lines(*records: dict[str, Any]) -> bytes:
    return "\n".join(map(json.dumps, records)).encode()


RECORDS = {
    "chat": {
        "messages": [{"role": "user", "content": "Is it hot?"}, {"role": "assistant", "content": EVIL, "weight": 2}]
    },
    "completion": {"prompt": "Is it hot?", "completion": EVIL},
    "classification": {"text": "Is it hot?", "label": EVIL},
    "preference": {"prompt": [{"role": "user", "content": "Is it hot?"}], "chosen": EVIL, "rejected": "No."},
    "seq2seq": {"source": "Is it hot?", "target": EVIL},
    "multiple_choice": {"question": "Is it hot?", "choices": ["No.", EVIL], "answer": 1},
    "unpaired": {"prompt": "Is it hot?", "completion": EVIL, "label": False},
}


def message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


ANSWERS = [message("assistant", "Ja."), message("assistant", "No.")]


@pytest.mark.parametrize("kind", RECORDS)
def test_records_are_shown_in_readable_form(alice: TestClient, upload: Upload, kind: str) -> None:
    corpus = upload(alice, lines(RECORDS[kind]), f"{kind}.jsonl")
    assert (corpus["kind"], corpus["num_documents"]) == (kind, 1)
    text = alice.get(f"/corpora/{corpus['id']}").text
    assert "Is it hot?" in text
    assert html.escape(EVIL) in text
    assert EVIL not in text
    documents = text.partition('id="documents"')[2].partition("</section>")[0]
    assert "{&#34;" not in documents, "the record is drawn as JSON"


def test_columns_are_mapped_by_hand_and_the_mapping_is_offered_for_the_next_file(
    alice: TestClient, bob: TestClient, upload: Upload
) -> None:
    content = b"Frage;Antwort;Note\nIs it hot?;Very.;1\n"
    corpus = upload(alice, content, "one.csv")
    assert corpus["state"] == "failed"
    assert [(column["name"], column["sample"]) for column in corpus["columns"]] == [
        ("frage", "Is it hot?"),
        ("antwort", "Very."),
        ("note", "1"),
    ]
    assert "Say what each column is" in alice.get(f"/corpora/{corpus['id']}").text
    fields = {"column": ["frage", "antwort", "note"], "used_as": ["prompt", "completion", ""], "mapping_name": "Quiz"}
    assert alice.post(f"/corpora/{corpus['id']}/parse", data=fields).status_code == 303
    run_waiting()
    again = alice.get(f"/api/v1/corpora/{corpus['id']}").json()
    assert (again["state"], again["kind"], again["unused_keys"]) == ("ready", "completion", {"note": 1})
    assert again["mapping"] == {
        "name": "Quiz",
        "kind": "completion",
        "columns": {"prompt": "frage", "completion": "antwort"},
    }
    assert [(column["name"], column["use"]) for column in again["columns"]] == [
        ("frage", "Prompt"),
        ("antwort", "Completion"),
        ("note", ""),
    ]
    second = upload(alice, content, "two.csv")
    text = alice.get(f"/corpora/{second['id']}").text
    assert 'name="mapping_name" value="Quiz"' in text
    assert alice.post(f"/corpora/{second['id']}/parse", data={"mapping_name": "Quiz"}).status_code == 303
    run_waiting()
    assert alice.get(f"/api/v1/corpora/{second['id']}").json()["mapping"] == again["mapping"]
    others = upload(bob, content, "three.csv")
    assert "Quiz" not in bob.get(f"/corpora/{others['id']}").text
    body = {"mapping": {"columns": {"text": "antwort"}}}
    assert alice.post(f"/api/v1/corpora/{second['id']}/parse", json=body).status_code == 202
    run_waiting()
    assert alice.get(f"/api/v1/corpora/{second['id']}").json()["kind"] == "text"
    for columns in ({}, {"prompt": "frage"}, {"text": "a", "label": "a"}, {"poem": "a"}, {"text": "\0"}):
        refused = alice.post(f"/api/v1/corpora/{second['id']}/parse", json={"mapping": {"columns": columns}})
        assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "mapping")


MAPPED = [
    (
        {"prompt": "frage", "context": "zusatz", "completion": "antwort"},
        "completion",
        [
            {"prompt": "Translate.\n\nIs it hot?\n\n", "completion": "Ja."},
            {"prompt": "Say no.\n\n", "completion": "No."},
        ],
    ),
    (
        {"prompt": "frage", "context": "zusatz", "system": "rolle", "completion": "antwort"},
        "chat",
        [
            {"messages": [message("system", "Be brief."), message("user", "Translate.\n\nIs it hot?"), ANSWERS[0]]},
            {"messages": [message("user", "Say no."), ANSWERS[1]]},
        ],
    ),
]


@pytest.mark.parametrize(("columns", "kind", "records"), MAPPED)
def test_columns_are_mapped_to_all_parts_of_a_prompt(
    alice: TestClient, columns: dict[str, str], kind: str, records: list[Any]
) -> None:
    content = "Frage;Zusatz;Antwort;Rolle;Nr\nTranslate.;Is it hot?;Ja.;Be brief.;1\nSay no.;;No.;;2\n"
    corpus = joined(alice, {"parts.csv": content.encode()})
    used_as = {column: field for field, column in columns.items()}
    names = ["frage", "zusatz", "antwort", "rolle", "nr"]
    sent = {"column": names, "used_as": [used_as.get(name, "") for name in names]}
    assert alice.post(f"/corpora/{corpus['id']}/parse", data=sent, follow_redirects=False).status_code == 303
    again = read(alice, corpus["id"])
    assert (again["state"], again["kind"]) == ("ready", kind)
    assert again["unused_keys"].keys() == {name for name in names if name not in used_as}
    documents = alice.get(f"/api/v1/corpora/{corpus['id']}/documents").json()["data"]
    assert [json.loads(document["text"]) for document in documents] == records
    assert {column["name"]: column["use"] for column in again["columns"]}["zusatz"] == "Part of the prompt"


def test_the_page_says_what_a_file_looks_like_and_what_it_is_good_for(alice: TestClient, upload: Upload) -> None:
    corpus = upload(alice, lines(RECORDS["unpaired"]), "kto.jsonl")
    text = html.unescape(alice.get(f"/corpora/{corpus['id']}").text)
    assert "This looks like unpaired judgments" in text
    assert "No model is trained on judgments of single answers yet." in text
    assert "Train on this" not in text
    chat = upload(alice, lines({**RECORDS["chat"], "id": 7}), "chat.jsonl")
    text = html.unescape(alice.get(f"/corpora/{chat['id']}").text)
    assert "This looks like chat" in text
    assert '<td data-label="Used as">Conversation</td>' in text
    assert '<td data-label="Used as">not used</td>' in text
    assert "Train on this" in text


def test_labels_are_counted_and_shown_as_bars(alice: TestClient, upload: Upload) -> None:
    corpus = upload(alice, b"text,label\nwarm,good\nhot,good\ncold,bad\n", "feel.csv")
    assert (corpus["num_labels"], corpus["labels"]) == (2, {"good": 2, "bad": 1})
    text = alice.get(f"/corpora/{corpus['id']}").text
    assert '<progress value="2" max="2" aria-label="good">' in text
    assert "66.7 %" in text
    assert "2 labels" in alice.get("/corpora").text


def test_a_file_is_parsed_as_the_requested_kind(alice: TestClient, upload: Upload) -> None:
    content = lines({"text": "warm", "label": "good", "prompt": "How?", "completion": "So."})
    found = upload(alice, content, "both.jsonl")
    assert found["kind"] == "completion"
    answer = alice.post(f"/corpora/{found['id']}/parse", data={"kind": "classification"})
    assert answer.status_code == 303
    run_waiting()
    assert alice.get(f"/api/v1/corpora/{found['id']}").json()["kind"] == "classification"
    assert upload(alice, content, "both.jsonl", kind="text")["kind"] == "text"
    refused = alice.post("/api/v1/corpora", params={"filename": "a.jsonl", "kind": "poem"}, content=content)
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "kind")


def test_a_record_too_long_to_render_is_shown_as_stored(alice: TestClient, upload: Upload) -> None:
    corpus = upload(alice, lines({"prompt": "p" * 30_000, "completion": "c"}), "long.jsonl")
    text = alice.get(f"/corpora/{corpus['id']}").text
    assert "p" * 400 in text
    assert "p" * 600 not in text


def test_columns_inside_of_others_can_be_mapped_on_the_page(alice: TestClient) -> None:
    record = {"question": "What is iron?", "answers": {"text": ["A metal.", "An element."]}}
    corpus = joined(alice, {"squad.jsonl": json.dumps(record).encode()})
    page = alice.get(f"/corpora/{corpus['id']}").text
    assert page.count("<code>answers.text[0]</code>") == 1, "in the form, not in the table of what was read"
    sent = {"column": ["question", "answers", "answers.text[0]"], "used_as": ["prompt", "", "completion"]}
    assert alice.post(f"/corpora/{corpus['id']}/parse", data=sent, follow_redirects=False).status_code == 303
    again = read(alice, corpus["id"])
    assert again["mapping"]["columns"] == {"prompt": "question", "completion": "answers.text[0]"}
    assert again["unused_keys"] == {"answers.text[1:]": 1}
