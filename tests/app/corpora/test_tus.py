"""Uploads by the tus protocol: offsets, checksums, ownership, room; cut and resumed by an unmodified client."""

import base64
import hashlib
import io
import os
import random
import socket
from collections.abc import Iterator
from datetime import timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update
from starlette.testclient import TestClient
from tusclient.client import TusClient

from app.core import db, disk, storage
from app.core.openai_models import Upload
from app.corpora import open_uploads
from app.web import resumable_file
from app.web.resumable_file import ResumableFile
from tests import cutting_proxy, web_server
from tests.background import run_waiting
from tests.users import Person
from tests.waiting import until

TEXT = b"Ignis est in athanore.\n" * 1000
TUS = {"Tus-Resumable": "1.0.0"}
BODY = {**TUS, "Content-Type": "application/offset+octet-stream"}


def metadata(**values: str) -> str:
    return ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in values.items())


def create(client: TestClient, length: int = len(TEXT), filename: str = "fire.txt", **headers: str) -> Any:
    given = {**TUS, "Upload-Length": str(length), "Upload-Metadata": metadata(filename=filename), **headers}
    return client.post("/api/v1/uploads", headers=given)


def begun(client: TestClient, length: int = len(TEXT)) -> str:
    address: str = create(client, length).headers["Location"]
    return address


def patch(client: TestClient, address: str, offset: int, content: bytes, **headers: str) -> Any:
    return client.patch(address, content=content, headers={**BODY, "Upload-Offset": str(offset), **headers})


def head(client: TestClient, address: str) -> Any:
    return client.head(address, headers=TUS)


def offset(client: TestClient, address: str) -> int:
    return int(head(client, address).headers["Upload-Offset"])


def file(address: str) -> Path:
    return storage.upload(address.rpartition("/")[2]) / "data"


# ---- the protocol ---------------------------------------------------------------------------------------------------


def test_everybody_learns_what_the_server_supports(visitor: TestClient) -> None:
    answer = visitor.options("/api/v1/uploads")
    assert answer.status_code == 204
    assert answer.headers["Tus-Version"] == answer.headers["Tus-Resumable"] == "1.0.0"
    assert answer.headers["Tus-Extension"] == "creation,creation-with-upload,termination,checksum,expiration"
    assert answer.headers["Tus-Max-Size"] == str(20 * 2**30)
    assert set(answer.headers["Tus-Checksum-Algorithm"].split(",")) == {"sha1", "sha256", "md5"}


def test_a_file_arrives_in_pieces_and_becomes_a_corpus(alice: TestClient) -> None:
    created = create(alice)
    assert created.status_code == 201
    address = created.headers["Location"]
    assert offset(alice, address) == 0
    answer = patch(alice, address, 0, TEXT[:10_000])
    assert (answer.status_code, answer.headers["Upload-Offset"]) == (204, "10000")
    assert parsedate_to_datetime(answer.headers["Upload-Expires"]) > db.now() + timedelta(hours=23)
    assert file(address).read_bytes() == TEXT[:10_000]
    state = head(alice, address)
    assert state.headers["Upload-Length"] == str(len(TEXT))
    assert state.headers["Upload-Metadata"] == metadata(filename="fire.txt")
    assert state.headers["Cache-Control"] == "no-store"
    patch(alice, address, 10_000, TEXT[10_000:])
    upload = alice.get(address).json()
    assert (upload["num_received"], upload["sha256"]) == (len(TEXT), hashlib.sha256(TEXT).hexdigest())

    corpus = alice.post("/api/v1/corpora/from-uploads", json={"uploads": [upload["id"]]}).json()
    assert (corpus["name"], corpus["filename"], corpus["sha256"]) == ("fire", "fire.txt", upload["sha256"])
    run_waiting()
    assert alice.get(f"/api/v1/corpora/{corpus['id']}").json()["state"] == "ready"
    assert not file(address).parent.exists()
    assert offset(alice, address) == len(TEXT)
    assert alice.get(address).json()["corpus_id"] == corpus["id"]
    again = alice.post("/api/v1/corpora/from-uploads", json={"uploads": [upload["id"]]})
    assert (again.status_code, again.json()["code"]) == (422, "upload_closed")


def test_the_first_bytes_may_come_with_the_creation(alice: TestClient) -> None:
    headers = {**BODY, "Upload-Length": str(len(TEXT)), "Upload-Metadata": metadata(relativePath="a/b/fire.txt")}
    created = alice.post("/api/v1/uploads", content=TEXT, headers=headers)
    assert (created.status_code, created.headers["Upload-Offset"]) == (201, str(len(TEXT)))
    assert alice.get(created.headers["Location"]).json()["filename"] == "a/b/fire.txt"


@pytest.mark.parametrize("wrong", [9_999, 10_001, 0])
def test_bytes_for_another_offset_are_refused_with_the_right_one(alice: TestClient, wrong: int) -> None:
    address = begun(alice)
    patch(alice, address, 0, TEXT[:10_000])
    answer = patch(alice, address, wrong, b"x")
    assert (answer.status_code, answer.headers["Upload-Offset"]) == (409, "10000")
    assert answer.json()["title"] == "The upload goes on at byte 10,000."
    assert answer.headers["Tus-Resumable"] == "1.0.0"
    assert file(address).read_bytes() == TEXT[:10_000]


def test_more_bytes_than_announced_are_refused(alice: TestClient) -> None:
    address = begun(alice, 10)
    assert patch(alice, address, 0, b"12345").status_code == 204
    assert patch(alice, address, 5, b"678901").status_code == 413
    assert (offset(alice, address), file(address).read_bytes()) == (5, b"12345")


def test_a_request_names_the_version_of_the_protocol(alice: TestClient) -> None:
    address = begun(alice)
    for version in ("", "0.2.2"):
        answer = patch(alice, address, 0, b"x", **{"Tus-Resumable": version})
        assert (answer.status_code, answer.headers["Tus-Version"]) == (412, "1.0.0")
    answer = alice.patch(address, content=b"x", headers={**TUS, "Upload-Offset": "0", "Content-Type": "text/plain"})
    assert answer.status_code == 415
    assert offset(alice, address) == 0


def test_a_method_may_be_named_by_a_header(alice: TestClient) -> None:
    address = begun(alice)
    headers = {**BODY, "Upload-Offset": "0", "X-HTTP-Method-Override": "PATCH"}
    assert alice.post(address, content=TEXT[:100], headers=headers).status_code == 204
    assert offset(alice, address) == 100


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "md5"])
def test_bytes_with_a_wrong_checksum_are_not_kept(alice: TestClient, algorithm: str) -> None:
    def checksum(content: bytes) -> str:
        return f"{algorithm} {base64.b64encode(hashlib.new(algorithm, content).digest()).decode()}"

    address = begun(alice)
    assert patch(alice, address, 0, TEXT[:100], **{"Upload-Checksum": checksum(TEXT[:100])}).status_code == 204
    answer = patch(alice, address, 100, TEXT[100:300], **{"Upload-Checksum": checksum(b"another")})
    assert (answer.status_code, answer.json()["code"]) == (460, "checksum_differs")
    assert offset(alice, address) == 100
    rest = TEXT[100:]
    assert patch(alice, address, 100, rest, **{"Upload-Checksum": checksum(rest)}).status_code == 204
    assert alice.get(address).json()["sha256"] == hashlib.sha256(TEXT).hexdigest()
    answer = patch(alice, begun(alice), 0, b"x", **{"Upload-Checksum": f"{algorithm} abc"})
    assert answer.json()["code"] == "checksum_invalid"


def test_bytes_that_were_not_checked_are_cut_after_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "data"
    whole = ResumableFile(path, 100)
    whole.write([b"0123456789"])
    whole.close(True)
    crashed = ResumableFile(path, 100, resumable_file.parse_checksum(f"md5 {base64.b64encode(bytes(16)).decode()}"))
    crashed.write([b"unchecked"])
    os.close(os.dup(crashed._file.fileno()))
    crashed._file.close()  # as the end of a process does
    assert path.stat().st_size == 19
    again = ResumableFile(path, 100)
    assert (again.offset, path.read_bytes()) == (10, b"0123456789")
    again.write([b"x" * 90])
    again.close(True)
    assert again.sha256() == hashlib.sha256(b"0123456789" + b"x" * 90).hexdigest()


def test_one_process_at_a_time_adds_to_a_file(tmp_path: Path, alice: TestClient) -> None:
    address = begun(alice)
    other = ResumableFile(file(address), len(TEXT))  # locks belong to open files: this is like another process
    answer = patch(alice, address, 0, TEXT)
    assert (answer.status_code, answer.json()["code"]) == (423, "upload_locked")
    other.close(True)
    assert patch(alice, address, 0, TEXT).status_code == 204


# ---- what is refused before a byte is stored ------------------------------------------------------------------------


def test_room_is_kept_for_the_rest_of_all_open_uploads(alice: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    for upload in alice.get("/api/v1/uploads").json()["data"]:
        alice.delete(f"/api/v1/uploads/{upload['id']}", headers=TUS)
    monkeypatch.setattr(disk, "room", lambda: 5000)
    address = begun(alice, 1000)
    assert create(alice, 2000).status_code == 201  # itself, its text, and the other 1000
    answer = create(alice, 1001)
    assert (answer.status_code, answer.json()["code"]) == (507, "disk_full")
    patch(alice, address, 0, b"x" * 999)
    assert create(alice, 999).status_code == 201


@pytest.mark.parametrize(
    ("length", "filename", "status", "code"),
    [
        (30 * 2**30, "a.txt", 413, "file_too_large"),
        (0, "a.txt", 422, "file_empty"),
        (9, "a.exe", 422, "filename_extension"),
        (9, "", 422, "filename_extension"),
        (-1, "a.txt", 422, "request_invalid"),
    ],
)
def test_what_cannot_be_a_corpus_is_refused_at_the_creation(
    alice: TestClient, length: int, filename: str, status: int, code: str
) -> None:
    answer = create(alice, length, filename)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_metadata_that_cannot_be_read_is_refused(alice: TestClient) -> None:
    answer = create(alice, **{"Upload-Metadata": "filename %%"})
    assert answer.json()["code"] == "metadata_invalid"
    assert create(alice, **{"Upload-Metadata": "filename /w=="}).json()["code"] == "metadata_invalid"


def test_a_user_has_so_many_open_uploads_at_most(bob: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_uploads, "MAX_OPEN", 1)
    begun(bob)
    assert create(bob).json()["code"] == "uploads_open"


# ---- whose it is, and its end ---------------------------------------------------------------------------------------


def test_the_upload_of_another_user_is_out_of_reach(alice: TestClient, bob: TestClient, visitor: TestClient) -> None:
    address = begun(alice)
    for client, status in ((bob, 404), (visitor, 401)):
        assert head(client, address).status_code == status
        assert patch(client, address, 0, b"x").status_code == status
        assert client.delete(address, headers=TUS).status_code == status
        assert create(visitor).status_code == 401
    answer = bob.post("/api/v1/corpora/from-uploads", json={"uploads": [address.rpartition("/")[2]]})
    assert answer.json()["code"] == "upload_unknown"
    assert address.rpartition("/")[2] not in bob.get("/api/v1/uploads").text
    assert address.rpartition("/")[2] in alice.get("/api/v1/uploads").text


def test_a_deleted_upload_is_gone_with_its_bytes(alice: TestClient) -> None:
    address = begun(alice)
    patch(alice, address, 0, TEXT[:100])
    assert alice.delete(address, headers=TUS).status_code == 204
    assert head(alice, address).status_code == 404
    assert not file(address).exists()


def test_an_upload_expires_after_a_day_without_a_request(alice: TestClient) -> None:
    address = begun(alice)
    patch(alice, address, 0, TEXT[:100])
    past = update(Upload).where(Upload.id == address.rpartition("/")[2])
    with db.transaction() as session:
        session.execute(past.values(expires_at=db.now() - timedelta(seconds=1)))
    assert head(alice, address).status_code == 410
    assert patch(alice, address, 100, TEXT[100:]).status_code == 410
    assert address.rpartition("/")[2] not in alice.get("/api/v1/uploads").text
    with db.transaction() as session:
        session.execute(past.values(expires_at=db.now() - timedelta(days=2)))
        open_uploads.forget_expired(session)
    assert head(alice, address).status_code == 404


def test_an_incomplete_upload_becomes_no_corpus(alice: TestClient) -> None:
    address = begun(alice)
    patch(alice, address, 0, TEXT[:-1])
    answer = alice.post("/api/v1/corpora/from-uploads", json={"uploads": [address.rpartition("/")[2]]})
    assert (answer.status_code, answer.json()["code"]) == (422, "upload_incomplete")
    assert "Go on with its upload." in answer.json()["title"]


# ---- cut and resumed ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def port(database: str) -> Iterator[int]:
    """Of the application on a real socket."""
    with web_server.running() as url:
        yield int(url.rpartition(":")[2])


def client_of(person: Person, url: str) -> TusClient:
    return TusClient(f"{url}/api/v1/uploads", headers={"Authorization": f"Bearer {person.token()}"})


def test_a_client_whose_lost_connection_is_unnoticed_resumes_at_once(
    port: int, alice: TestClient, alice_user: Person
) -> None:
    address = begun(alice, 50_000_000)
    request = (
        f"PATCH {address} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 50000000\r\nTus-Resumable: 1.0.0\r\n"
        f"Content-Type: application/offset+octet-stream\r\nUpload-Offset: 0\r\n"
        f"Authorization: Bearer {alice_user.token()}\r\n\r\n"
    )
    url = f"http://127.0.0.1:{port}"
    with socket.create_connection(("127.0.0.1", port)) as silent:
        silent.sendall(request.encode() + b"x" * 5_000_000)
        until(lambda: file(address).exists() and file(address).stat().st_size > 2_000_000, what="its first bytes")
        uploader = client_of(alice_user, url).uploader(file_stream=memory(b"x" * 50_000_000), url=url + address)
        assert 2_000_000 < uploader.offset <= 5_000_000
        uploader.upload()
    assert alice.get(address).json()["sha256"] == hashlib.sha256(b"x" * 50_000_000).hexdigest()


def memory(content: bytes) -> Any:
    return io.BytesIO(content)


def test_an_upload_cut_at_twenty_random_points_arrives_unchanged(
    port: int, alice: TestClient, alice_user: Person
) -> None:
    randomness = random.Random(13)
    content = randomness.randbytes(24_000_000)
    limits = [randomness.randrange(20_000, 1_100_000) for _cut in range(20)]
    with cutting_proxy.running(port, limits) as proxy:
        uploader = client_of(alice_user, proxy.url).uploader(
            file_stream=memory(content), metadata={"filename": "random.txt"}, retries=25, retry_delay=0
        )
        uploader.upload()
        assert proxy.num_cuts == 20
    upload = alice.get("/api/v1/uploads/" + uploader.url.rpartition("/")[2]).json()
    assert upload["sha256"] == hashlib.sha256(content).hexdigest()
    assert file(uploader.url).read_bytes() == content


def test_an_upload_cut_with_checksums_arrives_unchanged(port: int, alice: TestClient, alice_user: Person) -> None:
    randomness = random.Random(14)
    content = randomness.randbytes(8_000_000)
    limits = [randomness.randrange(20_000, 900_000) for _cut in range(5)]
    with cutting_proxy.running(port, limits) as proxy:
        uploader = client_of(alice_user, proxy.url).uploader(
            file_stream=memory(content),
            metadata={"filename": "random.txt"},
            chunk_size=1_000_000,
            retries=25,
            retry_delay=0,
            upload_checksum=True,
        )
        uploader.upload()
        assert proxy.num_cuts == 5
    assert file(uploader.url).read_bytes() == content


def test_an_upload_survives_the_kill_of_the_web_process_at_37_percent(alice: TestClient, alice_user: Person) -> None:
    content = random.Random(37).randbytes(20_000_000)
    web = web_server.WebProcess()
    web.start()
    try:
        with cutting_proxy.running(web.port, [7_400_000], before_cut=web.restart) as proxy:
            uploader = client_of(alice_user, proxy.url).uploader(
                file_stream=memory(content), metadata={"filename": "random.txt"}, retries=3, retry_delay=0
            )
            uploader.upload()
            assert proxy.num_cuts == 1
    finally:
        web.close()
    upload = alice.get("/api/v1/uploads/" + uploader.url.rpartition("/")[2]).json()
    assert upload["sha256"] == hashlib.sha256(content).hexdigest()
