"""Files and uploads in parts, by OpenAI's own client."""

import hashlib
import json
import time
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from app.core import db, storage
from app.core.models import Corpus
from app.core.openai_models import Upload
from app.corpora import open_uploads, parted_uploads, service
from tests.app.jobs import factories
from tests.app.openai.clients import ClientCalls
from tests.background import run_waiting
from tests.users import Person

CHAT = [{"role": "user", "content": "What melts lead?"}, {"role": "assistant", "content": "Heat, 你好."}]
ROWS = b"".join(json.dumps({"messages": CHAT}).encode() + b"\r\n" for _n in range(30))


def test_the_content_of_a_file_is_what_was_sent(alice_client: ClientCalls) -> None:
    file = alice_client("files.create", file=("chat.jsonl", ROWS), purpose="fine-tune")
    assert (file.bytes, file.filename, file.purpose) == (len(ROWS), "chat.jsonl", "fine-tune")
    assert abs(file.created_at - time.time()) < 60
    assert file.status == "processed"
    run_waiting()
    assert alice_client("files.retrieve", file.id).status == "processed"
    assert alice_client("files.content", file.id).read() == ROWS
    assert file.id in [one.id for one in alice_client.pages("files.list", purpose="fine-tune")]


def test_a_file_without_an_ending_is_read_as_json_lines(alice_client: ClientCalls) -> None:
    file = alice_client("files.create", file=ROWS, purpose="fine-tune")
    run_waiting()
    with db.transaction() as session:
        corpus = session.get_one(Corpus, file.id.removeprefix("file-"))
        assert (corpus.state, corpus.kind, corpus.num_documents) == ("ready", "chat", 30)


def test_a_file_with_a_bad_line_has_the_error_status_and_says_why(alice_client: ClientCalls) -> None:
    file = alice_client("files.create", file=("bad.jsonl", ROWS + b"{\n"), purpose="fine-tune")
    run_waiting()
    waited = alice_client("files.wait_for_processing", file.id)
    assert waited.status == "error"
    assert waited.status_details.startswith("Line 31: ")


def test_a_file_for_something_else_keeps_its_purpose(alice_client: ClientCalls) -> None:
    file = alice_client("files.create", file=("a.pdf", b"%PDF-1.7\x00"), purpose="user_data")
    run_waiting()
    assert alice_client("files.retrieve", file.id).status == "processed"
    assert alice_client.pages("files.list", purpose="user_data")[0].id == file.id


def test_pages_of_one_file_each_have_all_files_once_in_both_orders(alice_client: ClientCalls) -> None:
    for n in range(3):
        alice_client("files.create", file=(f"{n}.jsonl", ROWS), purpose="fine-tune")
    newest = [file.id for file in alice_client.pages("files.list", limit=1)]
    oldest = [file.id for file in alice_client.pages("files.list", limit=2, order="asc")]
    assert len(set(newest)) == len(newest)
    assert newest == oldest[::-1]


def test_the_last_page_of_files_says_that_it_is_the_last(alice_client: ClientCalls) -> None:
    for n in range(2):
        alice_client("files.create", file=(f"{n}.jsonl", ROWS), purpose="fine-tune")
    count = len(alice_client("files.list").data)
    assert [alice_client("files.list", limit=limit).has_more for limit in (count - 1, count)] == [True, False]


def test_a_deleted_file_is_gone(alice_client: ClientCalls, openai: Any) -> None:
    file = alice_client("files.create", file=("chat.jsonl", ROWS), purpose="fine-tune")
    assert alice_client("files.delete", file.id).deleted
    with pytest.raises(openai.NotFoundError):
        alice_client("files.retrieve", file.id)
    assert file.id.removeprefix("file-") not in str(alice_client("files.list").data)


def test_a_file_in_use_by_a_job_cannot_be_deleted(alice_client: ClientCalls, openai: Any, alice_user: Person) -> None:
    factories.node()
    corpus_id = factories.corpus(alice_user)
    factories.submitted(alice_user, corpus_id)
    with pytest.raises(openai.ConflictError) as refused:
        alice_client("files.delete", f"file-{corpus_id}")
    assert refused.value.code == "corpus_in_use"


def test_files_of_others_do_not_exist(alice_client: ClientCalls, bob_client: ClientCalls, openai: Any) -> None:
    file = alice_client("files.create", file=("chat.jsonl", ROWS), purpose="fine-tune")
    for method in ("files.retrieve", "files.content", "files.delete"):
        with pytest.raises(openai.NotFoundError):
            bob_client(method, file.id)
    assert file.id not in [one.id for one in bob_client.pages("files.list")]


def test_results_of_others_do_not_exist(
    alice_client: ClientCalls, bob_client: ClientCalls, openai: Any, alice_user: Person
) -> None:
    factories.node()
    job_id, _checkpoint = factories.finished(alice_user, factories.corpus(alice_user), max_steps=2, warmup_steps=1)
    results = f"file-{job_id}"
    assert alice_client("files.content", results).text.startswith("step,train_loss")
    for method in ("files.retrieve", "files.content", "files.delete"):
        with pytest.raises(openai.NotFoundError):
            bob_client(method, results)
    with pytest.raises(openai.BadRequestError) as refused:
        alice_client("files.delete", results)
    assert refused.value.code == "file_of_job"
    assert results not in [one.id for one in bob_client.pages("files.list")]
    assert results in [one.id for one in alice_client.pages("files.list")]


@pytest.mark.parametrize(
    ("options", "param", "code"),
    [
        ({"file": ("a.jsonl", b""), "purpose": "fine-tune"}, "file", "file_empty"),
        ({"file": ("a.jsonl", ROWS), "purpose": ""}, "purpose", "purpose_missing"),
        (
            {
                "file": ("a.jsonl", ROWS),
                "purpose": "fine-tune",
                "extra_body": {"expires_after": {"anchor": "created_at", "seconds": 60}},
            },
            "expires_after",
            "expiry_invalid",
        ),
        (
            {
                "file": ("a.jsonl", ROWS),
                "purpose": "fine-tune",
                "extra_body": {"expires_after": {"anchor": "last_active_at", "seconds": 3600}},
            },
            "expires_after",
            "expiry_invalid",
        ),
    ],
)
def test_a_file_that_is_refused_is_not_stored(
    alice_client: ClientCalls, openai: Any, options: dict[str, Any], param: str, code: str
) -> None:
    before = set((storage.data() / "corpora").glob("*/*"))
    with pytest.raises(openai.BadRequestError) as refused:
        alice_client("files.create", **options)
    assert (refused.value.param, refused.value.code) == (param, code)
    assert set((storage.data() / "corpora").glob("*/*")) == before


@pytest.mark.parametrize("seconds", [3600, 2_592_000])
def test_the_shortest_and_the_longest_lifetime_are_accepted(alice_client: ClientCalls, seconds: int) -> None:
    lifetime = {"expires_after": {"anchor": "created_at", "seconds": seconds}}
    file = alice_client("files.create", file=("a.jsonl", ROWS), purpose="fine-tune", extra_body=lifetime)
    assert file.expires_at - file.created_at == pytest.approx(seconds, abs=2)


def test_the_first_file_of_a_form_is_stored(server: str, key: str) -> None:
    before = set((storage.data() / "corpora").glob("*/*"))
    file = sent(server, key, files=[("file", ("first.jsonl", ROWS)), ("file", ("second.jsonl", ROWS))])
    assert file["filename"] == "first.jsonl"
    assert len(set((storage.data() / "corpora").glob("*/*")) - before) == 1


def sent(server: str, key: str, *, again: bool = False, purpose: str = "fine-tune", **options: Any) -> dict[str, Any]:
    """The answer to a form, perhaps from a client that got no answer before."""
    headers = {"Authorization": f"Bearer {key}", "x-stainless-retry-count": str(int(again))}
    answer = httpx.post(f"{server}/v1/files", headers=headers, data={"purpose": purpose}, **options)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_only_the_same_file_of_the_same_user_is_one_that_was_sent_before(
    server: str, key: str, bob_user: Person, alice_client: ClientCalls
) -> None:
    form: dict[str, Any] = {"files": {"file": (f"again {time.time_ns()}.jsonl", ROWS)}}
    first = sent(server, key, **form)
    before = set((storage.data() / "corpora").glob("*/*"))
    assert sent(server, key, again=True, **form)["id"] == first["id"]
    assert set((storage.data() / "corpora").glob("*/*")) == before
    other = sent(server, key, again=True, purpose="user_data", **form)
    of_bob = sent(server, bob_user.token(), again=True, **form)
    alice_client("files.delete", first["id"])
    anew = sent(server, key, again=True, **form)
    assert len({file["id"] for file in (first, other, of_bob, anew)}) == 4


def test_a_file_is_deleted_after_its_lifetime(alice_client: ClientCalls, openai: Any) -> None:
    lifetime = {"expires_after": {"anchor": "created_at", "seconds": 3600}}
    file = alice_client("files.create", file=("a.jsonl", ROWS), purpose="fine-tune", extra_body=lifetime)
    assert file.expires_at - file.created_at == 3600
    with db.transaction() as session:
        service.delete_expired(session)
    assert alice_client("files.retrieve", file.id).id == file.id
    with db.transaction() as session:
        expired = update(Corpus).where(Corpus.id == file.id.removeprefix("file-"))
        session.execute(expired.values(expires_at=db.now() - timedelta(seconds=1)))
        service.delete_expired(session)
    with pytest.raises(openai.NotFoundError):
        alice_client("files.retrieve", file.id)


# ---- uploads in parts -----------------------------------------------------------------------------------------------

PIECES = [ROWS[:1000], ROWS[1000:1500], ROWS[1500:]]


def begun(alice_client: ClientCalls, num_bytes: int = len(ROWS)) -> Any:
    return alice_client(
        "uploads.create", bytes=num_bytes, filename="chat.jsonl", mime_type="text/jsonl", purpose="fine-tune"
    )


def add(alice_client: ClientCalls, upload: Any, piece: bytes) -> str:
    return str(alice_client("uploads.parts.create", upload.id, data=piece).id)


def test_parts_become_a_file_in_the_order_of_the_completion(alice_client: ClientCalls, openai: Any) -> None:
    upload = begun(alice_client)
    assert (upload.status, upload.bytes) == ("pending", len(ROWS))
    last, first, middle, again = (add(alice_client, upload, PIECES[n]) for n in (2, 0, 1, 0))
    digest = hashlib.md5(ROWS, usedforsecurity=False).hexdigest().upper()
    done = alice_client("uploads.complete", upload.id, part_ids=[again, middle, last], md5=digest)
    assert done.status == "completed"
    assert alice_client("files.content", done.file.id).read() == ROWS
    assert not storage.upload(upload.id.removeprefix("upload_")).exists()
    repeated = alice_client("uploads.complete", upload.id, part_ids=[again, middle, last])
    assert repeated.file.id == done.file.id
    with pytest.raises(openai.BadRequestError) as refused:
        alice_client("uploads.complete", upload.id, part_ids=[middle, again, last])
    assert refused.value.code == "upload_closed"
    assert first != again


def test_a_part_of_another_upload_is_refused(alice_client: ClientCalls, openai: Any) -> None:
    upload, other = begun(alice_client), begun(alice_client)
    part = add(alice_client, other, ROWS)
    with pytest.raises(openai.BadRequestError) as refused:
        alice_client("uploads.complete", upload.id, part_ids=[part])
    assert (refused.value.param, refused.value.code) == ("part_ids", "part_unknown")


def test_the_lifetime_of_an_upload_is_that_of_its_file(alice_client: ClientCalls) -> None:
    fields = {"filename": "chat.jsonl", "mime_type": "text/jsonl", "purpose": "fine-tune"}
    lifetime = {"anchor": "created_at", "seconds": 7200}
    upload = alice_client("uploads.create", bytes=len(ROWS), expires_after=lifetime, **fields)
    done = alice_client("uploads.complete", upload.id, part_ids=[add(alice_client, upload, ROWS)])
    assert done.file.expires_at - done.file.created_at == pytest.approx(7200, abs=2)


def test_another_md5_is_refused_and_the_upload_stays_open(alice_client: ClientCalls, openai: Any) -> None:
    upload = begun(alice_client)
    parts = [add(alice_client, upload, piece) for piece in PIECES]
    with pytest.raises(openai.BadRequestError) as refused:
        alice_client("uploads.complete", upload.id, part_ids=parts, md5="0" * 32)
    assert (refused.value.param, refused.value.code) == ("md5", "md5_differs")
    assert alice_client("uploads.complete", upload.id, part_ids=parts).status == "completed"


@pytest.mark.parametrize("wanted", [[0, 1], [0, 1, 2, 2]])
def test_parts_of_another_total_size_are_refused(alice_client: ClientCalls, openai: Any, wanted: list[int]) -> None:
    upload = begun(alice_client)
    parts = [add(alice_client, upload, piece) for piece in PIECES]
    with pytest.raises(openai.BadRequestError) as refused:
        alice_client("uploads.complete", upload.id, part_ids=[parts[n] for n in wanted])
    assert refused.value.code == "upload_incomplete"


def test_a_cancelled_upload_is_closed(alice_client: ClientCalls, openai: Any) -> None:
    upload = begun(alice_client)
    parts = [add(alice_client, upload, piece) for piece in PIECES]
    assert [alice_client("uploads.cancel", upload.id).status for _time in range(2)] == ["cancelled"] * 2
    assert not storage.upload(upload.id.removeprefix("upload_")).exists()
    with pytest.raises(openai.BadRequestError):
        alice_client("uploads.complete", upload.id, part_ids=parts)
    with pytest.raises(openai.BadRequestError):
        add(alice_client, upload, b"more")


def test_an_expired_upload_is_closed_and_later_forgotten(alice_client: ClientCalls, openai: Any) -> None:
    upload = begun(alice_client)
    part = add(alice_client, upload, ROWS)
    row = Upload.id == upload.id.removeprefix("upload_")
    with db.transaction() as session:
        session.execute(update(Upload).where(row).values(expires_at=db.now() - timedelta(seconds=1)))
    with pytest.raises(openai.BadRequestError) as refused:
        alice_client("uploads.complete", upload.id, part_ids=[part])
    assert "expired" in refused.value.message
    with db.transaction() as session:
        session.execute(update(Upload).where(row).values(expires_at=db.now() - timedelta(days=2)))
        open_uploads.forget_expired(session)
    with pytest.raises(openai.NotFoundError):
        alice_client("uploads.cancel", upload.id)


def test_uploads_of_others_do_not_exist(alice_client: ClientCalls, bob_client: ClientCalls, openai: Any) -> None:
    upload = begun(alice_client)
    part = add(alice_client, upload, ROWS)
    for method, options in (
        ("uploads.cancel", {}),
        ("uploads.complete", {"part_ids": [part]}),
        ("uploads.parts.create", {"data": b"x"}),
    ):
        with pytest.raises(openai.NotFoundError):
            bob_client(method, upload.id, **options)


def test_more_parts_than_the_file_can_need_are_refused(
    alice_client: ClientCalls, openai: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parted_uploads, "SMALLEST_LIMIT", 1000)
    upload = begun(alice_client, 400)
    add(alice_client, upload, b"x" * 900)
    with pytest.raises(openai.APIStatusError) as refused:
        add(alice_client, upload, b"x" * 400)
    assert refused.value.status_code == 413
