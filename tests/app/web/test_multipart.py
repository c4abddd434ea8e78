"""Forms with files: read piece by piece, limited in every direction, and nothing is left of one that fails."""

import tempfile
from collections.abc import Iterator
from itertools import chain, repeat
from typing import Any

import anyio
import pytest
from fastapi import Request
from sqlalchemy import func, select
from starlette.testclient import TestClient

from app.core import db, storage
from app.core.errors import PanelError
from app.core.models import Corpus
from app.core.settings import settings
from app.web import multipart

BOUNDARY = "limit"
TYPE = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
LAST = f"--{BOUNDARY}--\r\n".encode()


def part(value: bytes, name: str = "x", filename: str | None = None, headers: str = "") -> bytes:
    """One part of a form."""
    file = f'; filename="{filename}"' if filename is not None else ""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n{headers}\r\n'
    return head.encode() + value + b"\r\n"


class Body:
    """A request whose body arrives in these chunks, and how many of them were asked for."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self.num_read = 0

    async def receive(self) -> dict[str, Any]:
        self.num_read += 1
        chunk = next(self._chunks, None)
        return {"type": "http.request", "body": chunk or b"", "more_body": chunk is not None}

    def parts(self, max_bytes: int = 2**40) -> list[tuple[str, str | None, bytes]]:
        """What the reader gets: names and values, of files the name and the content."""

        async def read() -> list[tuple[str, str | None, bytes]]:
            headers = [(name.lower().encode(), value.encode()) for name, value in TYPE.items()]
            request = Request({"type": "http", "headers": headers}, self.receive)
            found = []
            async for each in multipart.parts(request, max_bytes):
                content = b"".join([piece async for piece in each.pieces]) if each.filename else b""
                found.append((each.name, each.filename, content if each.filename else (await each.text()).encode()))
            return found

        with anyio.from_thread.start_blocking_portal() as portal:  # the browser tests leave a loop running in this one
            return portal.call(read)


def refusal(chunks: Iterator[bytes], max_bytes: int = 2**40) -> tuple[PanelError, int]:
    """Why a form is refused, and after how many chunks."""
    body = Body(chunks)
    with pytest.raises(PanelError) as caught:
        body.parts(max_bytes)
    return caught.value, body.num_read


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 10_000])
def test_a_form_is_read_alike_however_it_is_cut(size: int) -> None:
    content = b"first\r\n--limi\r\n--limit" + bytes(range(256)) + b"\r\n"
    form = part(content, "file", "字.txt") + part("中文".encode()) + part(b"", "file", "") + part(b"", "empty") + LAST
    chunks = (form[start : start + size] for start in range(0, len(form), size))
    assert Body(chunks).parts() == [
        ("file", "字.txt", content),
        ("x", None, "中文".encode()),
        ("file", "", b""),
        ("empty", None, b""),
    ]


def test_seven_hundred_fields_of_a_megabyte_are_refused_at_the_first() -> None:
    error, num_read = refusal(chain.from_iterable((part(b"v" * 2**20),) for _n in range(700)))
    assert (error.status, error.code, num_read) == (413, "form_too_large", 1)


@pytest.mark.parametrize(
    "chunk",
    [
        part(b"v"),
        part(b"", "file", "a.txt"),
        part(b"v", headers="X: y\r\n"),
    ],
)
def test_parts_without_end_are_refused(chunk: bytes) -> None:
    error, num_read = refusal(repeat(chunk))
    assert (error.status, num_read) == (413, multipart.MAX_PARTS + 1)


@pytest.mark.parametrize("headers", ["X: y\r\n" * 100, "X: " + "y" * 10_000 + "\r\n", "X" * 10_000 + ": y\r\n"])
def test_headers_of_a_part_are_limited(headers: str) -> None:
    assert refusal(iter([part(b"v", headers=headers) + LAST]))[0].status == 400


def test_a_header_without_end_is_refused_while_it_arrives() -> None:
    error, num_read = refusal(chain([f"--{BOUNDARY}\r\nX: ".encode()], repeat(b"y" * 1000)))
    assert (error.status, num_read <= 10) == (400, True)


def test_the_whole_body_is_limited_whatever_length_was_declared() -> None:
    error, num_read = refusal(chain([part(b"", "file", "a.txt")[:-2]], repeat(b"y" * 1000)), max_bytes=50_000)
    assert (error.status, num_read) == (413, 51)


@pytest.mark.parametrize(
    "form", [b"", b"--", b"no form", part(b"v"), part(b"v") + LAST[:-4], part(b"v")[:20], part(b"v", "file", "a.txt")]
)
def test_a_form_that_ends_before_its_end_is_refused(form: bytes) -> None:
    assert refusal(iter([form]))[0].code == "form_broken"


@pytest.fixture
def small_limit(database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("ATHANOR_MAX_UPLOAD_BYTES", "3000000")
    settings.cache_clear()
    yield
    monkeypatch.undo()
    settings.cache_clear()


@pytest.mark.parametrize(
    ("rest", "status"),
    [
        ([part(b"b" * 4_000_000, "file", "b.txt"), LAST], 413),  # one file over the limit
        ([part(b"b" * 1_500_000, "file", f"{n}.txt") for n in range(4)], 413),  # all together
        ([part(b"v" * 5000), LAST], 413),
        ([part(b"b", "file", "b.txt")], 400),  # cut off
        ([part(b"klingon", "encoding"), LAST], 422),
    ],
)
def test_a_form_that_fails_leaves_nothing_anywhere(
    alice: TestClient, small_limit: None, monkeypatch: pytest.MonkeyPatch, rest: list[bytes], status: int
) -> None:
    def spool(*_arguments: Any, **_options: Any) -> None:
        raise AssertionError("an upload is written outside the data directory")

    monkeypatch.setattr("tempfile.SpooledTemporaryFile", spool)
    monkeypatch.setattr("starlette.formparsers.SpooledTemporaryFile", spool)
    monkeypatch.setattr(tempfile, "mkstemp", spool)
    before = set(storage.data().rglob("*"))
    answer = alice.post("/corpora", content=iter([part(b"a" * 1_500_000, "file", "a.txt"), *rest]), headers=TYPE)
    assert answer.status_code == status, answer.text
    assert {path for path in storage.data().rglob("*") if path.is_file()} <= before
    with db.transaction() as session:
        assert session.scalar(select(func.count()).select_from(Corpus)) == 0
