"""Live views: many viewers, cursors that do not exist, a token that is revoked while its stream is open."""

import asyncio
import time
from collections import Counter
from contextlib import suppress

import httpx

from app.web.admission import MAX_OPEN
from tests.attack.attacks import attack
from tests.attack.floods import many
from tests.attack.raw import RawAnswer, parse_head, request
from tests.attack.target import Target, fault_of, list_counts, slowly
from tests.faults.runs import SPEC, TEXT
from tests.waiting import until

VIEWERS = 500
NO_CURSORS = ("9007199254740991", ".".join(["2147483647"] * 6))
REVOKED_SECONDS = 15
MORE = 200  # streams than a client may have open
OPENED_AT_ONCE = 20
OTHER_REQUESTS = 50
MAX_OTHER_SECONDS = 1.0


def start_job(target: Target, client: httpx.Client, **fields: object) -> str:
    """Submit a job of Mallory's and return its ID."""
    corpus = target.upload(client, "sheep.txt", TEXT.encode())
    spec = {**SPEC, "corpora": [corpus], "save_steps": 1_000_000, **fields}
    return str(client.post("/api/v1/jobs", json=spec).raise_for_status().json()["id"])


@attack("S1", f"{VIEWERS} viewers of a running job, a tenth with a cursor that does not exist", seconds=150)
def viewers(target: Target) -> str:
    """The viewers with a true cursor see every step up to the end."""
    steps = 60
    with target.client(target.mallory) as client:
        job_id = start_job(target, client, max_steps=steps, warmup_steps=1)

        async def watch(target: Target, index: int) -> str:
            is_invented = index % 10 == 0
            query = f"?after={NO_CURSORS[index // 10 % 2]}" if is_invented else ""
            reader, writer = await asyncio.open_connection("127.0.0.1", target.installation.port, limit=2**20)
            writer.write(request(target, f"/api/v1/jobs/{job_id}/events{query}", "Accept: text/event-stream"))
            try:
                async with asyncio.timeout(90):
                    while line := await reader.readline():
                        if b'"state":"succeeded"' in line.replace(b": ", b":"):
                            return "to the end"
            except TimeoutError:
                return "invented, blind" if is_invented else "BLIND"
            finally:
                writer.close()
            return "invented, closed" if is_invented else "CLOSED"

        results = many(target, VIEWERS, watch)
    assert results["BLIND"] + results["CLOSED"] == 0, results
    return list_counts(results)


@attack("S2", "a stream that is open while its token is revoked", in_soak=False)
def revoked_token(target: Target) -> str:
    """It ends within 15 s."""
    with target.client(target.mallory) as client:
        job_id = start_job(target, client, max_steps=100_000)
        token = client.post("/api/v1/tokens", json={"name": "short", "scopes": ["read"]}).json()
        headers = {"Authorization": f"Bearer {token['token']}"}
        url = target.installation.url(f"/api/v1/jobs/{job_id}/events")
        with httpx.stream("GET", url, headers=headers, timeout=40) as stream:
            lines = stream.iter_lines()
            next(lines)
            client.delete(f"/api/v1/tokens/{token['id']}").raise_for_status()
            begin = time.monotonic()
            for _line in lines:
                assert time.monotonic() - begin < REVOKED_SECONDS + 5, "the stream goes on"
        seconds = time.monotonic() - begin
        client.post(f"/api/v1/jobs/{job_id}/cancel")
    return f"it ended after {seconds:.1f} s"


@attack("S3", f"{MAX_OPEN + MORE} streams at once by one user, who may have {MAX_OPEN:,}", seconds=90)
def too_many_streams(target: Target) -> str:
    """Those above the limit are refused, with a time to try again; others are answered as fast as before."""
    slowest = 0.0
    with target.client(target.mallory) as client, target.client(target.bob) as bob:
        job_id = start_job(target, client, max_steps=100_000)
        client.post(f"/api/v1/jobs/{job_id}/pause").raise_for_status()  # S1 has the events of one that trains
        turn = asyncio.Semaphore(OPENED_AT_ONCE)  # so that each sends its head in time, however slow this process is
        statuses, is_over = Counter[int](), asyncio.Event()

        async def watch(target: Target, index: int) -> str:
            async with turn:
                reader, writer = await asyncio.open_connection("127.0.0.1", target.installation.port, limit=2**20)
                writer.write(request(target, f"/api/v1/jobs/{job_id}/events", "Accept: text/event-stream"))
            try:
                answer = RawAnswer(0, {})
                with suppress(asyncio.IncompleteReadError, OSError):
                    answer = parse_head(await reader.readuntil(b"\r\n\r\n"))
                fault = fault_of(answer.status, answer.headers)
                target.faults += [f"a stream: {fault}"] if fault else []
                statuses[answer.status] += 1
                if statuses.total() == MAX_OPEN + MORE:
                    await asyncio.to_thread(others)
                    is_over.set()
                await is_over.wait()
            finally:
                writer.close()
            return str(answer.status)

        def others() -> None:
            nonlocal slowest
            for _number in range(OTHER_REQUESTS):
                begin = time.monotonic()
                bob.get("/api/v1/jobs").raise_for_status()
                slowest = max(slowest, time.monotonic() - begin)

        results = many(target, MAX_OPEN + MORE, watch)
        until(slowly(lambda: client.get("/api/v1/jobs").is_success), 10, "the end of the streams")
        client.post(f"/api/v1/jobs/{job_id}/cancel")
    assert results == {"200": MAX_OPEN, "503": MORE}, results
    assert slowest < MAX_OTHER_SECONDS, f"another user waited {slowest:.1f} s for a list"
    return f"{list_counts(results)}; a list of another user took {slowest * 1000:.0f} ms at most"
