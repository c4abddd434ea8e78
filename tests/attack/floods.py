"""Floods: connections and requests that take memory, threads or time from others."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import httpx
import psutil
import psycopg

from tests.attack.attacks import attack
from tests.attack.measuring import resident
from tests.attack.raw import parse_head, request
from tests.attack.target import MEMBER_PASSWORD, Target, fault_of, list_counts

MAX_MORE_BYTES = 100_000_000  # more memory of a program than before
HOLD_SECONDS = 12
LOCK_SECONDS = 8

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def role_bytes(target: Target, role: str = "web") -> int:
    """The resident memory of a program."""
    process = target.installation.programs[role].process
    return resident(process.pid) if process else 0


def check_growth(target: Target, before: int, limit: int = MAX_MORE_BYTES, role: str = "web") -> int:
    """How many bytes a program grew by. Raises AssertionError if these are too many."""
    growth = role_bytes(target, role) - before
    assert growth < limit, f"{role} took {growth / 1e6:.0f} MB more"
    return growth


async def connect(target: Target, limit: int = 65_536) -> Connection:
    """A connection to the web process."""
    return await asyncio.open_connection("127.0.0.1", target.installation.port, limit=limit)


def many(target: Target, number: int, client: Callable[[Target, int], Coroutine[None, None, str]]) -> Counter[str]:
    """Run so many clients at once; returns how many ended how."""

    async def run() -> Counter[str]:
        async def one(index: int) -> str:
            try:
                return await client(target, index)
            except OSError:
                return "closed"

        return Counter(await asyncio.gather(*(one(index) for index in range(number))))

    return asyncio.run(run())


# ---- heads and connections ------------------------------------------------------------------------------------------


@attack("F1", "20 connections, each with a header without end")
def endless_headers(target: Target) -> str:
    """Each is refused long before it fills memory."""
    sent_bytes = [0] * 20

    async def client(target: Target, index: int) -> str:
        reader, writer = await connect(target)
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ")
        with suppress(OSError):
            while sent_bytes[index] < 64_000_000 and not reader.at_eof() and not writer.is_closing():
                writer.write(b"a" * 65_536)
                async with asyncio.timeout(5):
                    await writer.drain()
                sent_bytes[index] += 65_536
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(5):
                return str(parse_head(await reader.read(4096)).status)
        return "closed"

    before = role_bytes(target)
    results = many(target, 20, client)
    assert max(sent_bytes) < 32_000_000, f"{max(sent_bytes) / 1e6:.0f} MB of one header were read"
    check_growth(target, before)
    return f"{list_counts(results)}, after {max(sent_bytes) / 1e6:.1f} MB at most"


@attack("F2", "heads of 10,000 headers, 5,000 requests in one connection at once, an address of 1 MB")
def many_headers(target: Target) -> str:
    """Each is refused."""

    async def client(target: Target, index: int) -> str:
        reader, writer = await connect(target)
        lines = b"".join(b"X-%d: a\r\n" % number for number in range(10_000))
        get = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n"
        data = (get + lines + b"\r\n", (get + b"\r\n") * 5_000, b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\n\r\n")
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(10):
                writer.write(data[index % 3])
                await writer.drain()
                answer = parse_head(await reader.read(4096))
                return f"{('headers', 'requests', 'address')[index % 3]}: {answer.status or 'closed'}"
        return "closed"

    return list_counts(many(target, 30, client))


@attack("F3", "300 clients that send a byte of a head, or of a body, each second")
def slow_senders(target: Target) -> str:
    """They take no place that others need."""

    async def client(target: Target, index: int) -> str:
        reader, writer = await connect(target)
        head = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: "
        body = request(target, "/api/v1/jobs/plan", "Content-Length: 900000", method="POST")
        writer.write(head if index % 2 else body)
        deadline = time.monotonic() + HOLD_SECONDS
        while time.monotonic() < deadline:
            writer.write(b"a")
            await writer.drain()
            await asyncio.sleep(1)
            if reader.at_eof():
                return "closed by the panel"
        writer.close()
        return "left"

    return list_counts(many(target, 300, client))


@attack("F4", "200 clients that ask for a large page and do not read it")
def slow_readers(target: Target) -> str:
    """The memory of what they leave unread is bounded."""

    async def client(target: Target, index: int) -> str:
        _reader, writer = await connect(target, limit=1024)
        writer.write(request(target, "/api/openapi.json", "Connection: keep-alive") * 4)
        await asyncio.sleep(HOLD_SECONDS)
        writer.close()
        return "left"

    before = role_bytes(target)
    results = many(target, 200, client)
    check_growth(target, before, 4 * MAX_MORE_BYTES)
    return list_counts(results)


@attack("F5", "silent connections, more than the limit of files of a process")
def silent_connections(target: Target) -> str:
    """New clients are answered all the time."""
    number = min(5_000, psutil.Process().rlimit(psutil.RLIMIT_NOFILE)[0] - 200)

    async def client(target: Target, index: int) -> str:
        reader, writer = await connect(target)
        with suppress(TimeoutError):
            async with asyncio.timeout(HOLD_SECONDS):
                await reader.read(1)
                return "closed by the panel"
        writer.close()
        return "left"

    return list_counts(many(target, number, client))


@attack("F12", "5,000 logins without the end of their bodies")
def unfinished_bodies(target: Target) -> str:
    """New clients are answered all the time."""
    number = min(5_000, psutil.Process().rlimit(psutil.RLIMIT_NOFILE)[0] - 200)
    head = b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n"

    async def client(target: Target, index: int) -> str:
        reader, writer = await connect(target)
        writer.write(head + b"x")
        with suppress(TimeoutError):
            async with asyncio.timeout(HOLD_SECONDS):
                answer = parse_head(await reader.read(4096))
                return str(answer.status or "closed by the panel")
        writer.close()
        return "left"

    return list_counts(many(target, number, client))


# ---- accounts -------------------------------------------------------------------------------------------------------


def log_in(target: Target, name: str, password: str) -> httpx.Response:
    """Try to log in."""
    with target.client(timeout=60) as client:
        return client.post("/api/v1/login", json={"name": name, "password": password})


@attack("F6", "250 logins at once, with right, wrong and unknown names")
def logins(target: Target) -> str:
    """Few are hashed at a time, the others wait or are refused with Retry-After."""
    names = ("Mallory", "Nobody", "Alice", "Trent")

    def one(number: int) -> str:
        password = MEMBER_PASSWORD if number % 50 == 0 else f"wrong {number}"
        return str(log_in(target, names[number % 4], password).status_code)

    with ThreadPoolExecutor(250) as threads:
        results = Counter(threads.map(one, range(250)))
    assert set(results) <= {"204", "401", "429", "503"}, results
    return list_counts(results)


@attack("F7", "40 guesses of the password of a user, and of a name that nobody has", in_soak=False)
def guesses(target: Target) -> str:
    """As many are free for both, then both have to wait."""
    begin, answers = time.monotonic(), {}
    for name in ("Bob", "Sybil"):
        answers[name] = [log_in(target, name, f"a wrong guess {number}").status_code for number in range(40)]
    free = {name: [*statuses, 429].index(429) for name, statuses in answers.items()}
    assert free["Bob"] == free["Sybil"], f"known {answers['Bob'][:12]}, unknown {answers['Sybil'][:12]}"
    assert set(answers["Bob"]) == set(answers["Sybil"]) == {401, 429}, answers
    num_checked = sum(statuses.count(401) for statuses in answers.values())
    return f"both {free['Bob']} free; {num_checked} of 80 checked in {time.monotonic() - begin:.0f} s"


# ---- bodies ---------------------------------------------------------------------------------------------------------


@attack("F8", "forms of 700 fields of 1 MB, and bodies without end, at ten routes at once", seconds=180)
def huge_bodies(target: Target) -> str:
    """They are counted while they arrive, and neither memory nor disk is filled."""
    before, stored_before = role_bytes(target), target.stored()
    field = b'--b\r\nContent-Disposition: form-data; name="f%d"\r\n\r\n'

    def form() -> object:
        for number in range(700):
            yield field % number + b"x" * 1_000_000 + b"\r\n"
        yield b"--b--\r\n"

    def endless() -> object:
        yield b'{"name": "'
        for _ in range(500):
            yield b"x" * 1_000_000

    def post(path: str) -> str:
        is_page = "/api/" not in path
        kind = "multipart/form-data; boundary=b" if is_page else "application/json"
        with target.client(target.mallory, cookie=is_page, timeout=60) as client:
            try:
                body = form() if is_page else endless()
                return str(client.post(path, content=body, headers={"Content-Type": kind}).status_code)  # type: ignore[arg-type]
            except httpx.TransportError:
                return "closed"

    paths = ["/corpora", "/models", "/jobs", "/jobs/plan", "/login", "/tasks"]
    paths += ["/api/v1/jobs", "/api/v1/models", "/api/v1/login", "/api/v1/generate"]
    with ThreadPoolExecutor(10) as threads:
        results = Counter(threads.map(post, paths))
    growth = check_growth(target, before, 2 * MAX_MORE_BYTES)
    stored = target.check_stored(stored_before)
    return f"{list_counts(results)}, {growth / 1e6:+.0f} MB in memory, {stored / 1e6:+.0f} MB on disk"


@attack("F9", "bodies with 80,000 unknown keys, 100,000 corpora, and 1 MB of depth")
def many_keys(target: Target) -> str:
    """The responses are short."""
    bodies = [
        {f"k{number}": 1 for number in range(80_000)},
        {"corpora": ["x"] * 100_000},
        {"corpora": {"a": [1] * 90_000}},
    ]
    largest = 0
    with target.client(target.mallory) as client:
        for path in (
            "/jobs",
            "/jobs/plan",
            "/jobs/propose",
            "/jobs/propose-curve",
            "/models",
            "/generate",
            "/exports",
            "/evaluations",
            "/tokens",
        ):
            for body in bodies:
                largest = max(largest, len(client.post(f"/api/v1{path}", json=body).content))
    assert largest < 500_000, f"a response of {largest / 1e6:.1f} MB"
    return f"{target.list_statuses()}; the longest response has {largest / 1000:.0f} kB"


# ---- the database ---------------------------------------------------------------------------------------------------


@attack("F10", "a locked row of a job, a checkpoint and a corpus; 30 requests that need it", in_soak=False)
def locked_rows(target: Target) -> str:
    """The requests wait a few seconds, then get 503 with Retry-After."""
    ids = target.ids
    paths = [
        ("POST", f"/api/v1/jobs/{ids['job_id']}/cancel", {}),
        ("POST", "/api/v1/exports", {"checkpoint": ids["checkpoint_id"], "format": "safetensors"}),
        ("POST", f"/api/v1/checkpoints/{ids['checkpoint_id']}/pin", {}),
        ("POST", f"/api/v1/corpora/{ids['corpus_id']}/parse", {}),
        ("GET", f"/api/v1/jobs/{ids['job_id']}", None),
    ]

    def ask(number: int) -> str:
        method, path, body = paths[number % len(paths)]
        with target.client(target.alice, timeout=60) as client:
            return str(client.request(method, path, json=body).status_code)

    with psycopg.connect(target.installation.postgres.url()) as connection:
        for table, key in (("job", "job_id"), ("checkpoint", "checkpoint_id"), ("corpus", "corpus_id")):
            connection.execute(f"SELECT 1 FROM {table} WHERE id = %s FOR UPDATE".encode(), (ids[key],))
        with ThreadPoolExecutor(30) as threads:
            answers = threads.map(ask, range(30))
            time.sleep(LOCK_SECONDS)
            connection.rollback()
            results = Counter(answers)
    return list_counts(results)


@attack("F11", "2,000 requests at once that are refused, by 100 clients")
def refused_requests(target: Target) -> str:
    """The panel answers them all."""

    async def client(target: Target, index: int) -> str:
        reader, writer = await connect(target)
        for number in range(20):
            path = ("/api/v1/jobs/none", "/nowhere", "/api/v1/me", "/login")[number % 4]
            token = b"" if number % 2 else f"Authorization: Bearer {target.mallory.token}\r\n".encode()
            writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n".encode() + token + b"\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            answer = parse_head(head)
            await reader.readexactly(int(answer.headers.get("content-length", 0)))
            fault = fault_of(answer.status, answer.headers)
            if fault:
                target.faults.append(f"GET {path}: {fault}")
            target.statuses[answer.status] = target.statuses.get(answer.status, 0) + 1
        writer.close()
        return "done"

    results = many(target, 100, client)
    assert results == {"done": 100}, results
    return target.list_statuses()
