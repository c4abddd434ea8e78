"""Uploads that are made to harm: archives, models and corpora."""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from tests.attack import hostile_files, hostile_models
from tests.attack.attacks import attack
from tests.attack.floods import check_growth, role_bytes
from tests.attack.hostile_models import Files
from tests.attack.requests import check_escapes
from tests.attack.target import Target, list_counts, slowly
from tests.waiting import until

MAX_IMPORT_SECONDS = 60
MAX_PARSE_SECONDS = 30
AT_ONCE = 10  # imports of one user
CANCEL_SECONDS = 2 + 1  # the processes of a cancelled task end in two


# ---- models ---------------------------------------------------------------------------------------------------------


def imports(target: Target, hostile: Iterable[tuple[str, Files]]) -> str:
    """Import models, some at a time, each to its end; returns how many ended how."""
    states = Counter[str]()
    before = target.stored()
    models = list(hostile)
    with target.client(target.mallory, timeout=60) as client:
        for start in range(0, len(models), AT_ONCE):
            part = models[start : start + AT_ONCE]
            ids = [target.import_model(client, name[:60], files) for name, files in part]
            for (name, _files), model_id in zip(part, ids, strict=True):
                target.doing = f"import of {name}, after {states.total()} of {len(models)}"
                states[end_of(target, client, name, model_id)] += 1
            for model_id in ids:
                client.delete(f"/api/v1/models/{model_id}")
        client.delete("/api/v1/trash")
    check_escapes(target)
    target.check_stored(before)
    return list_counts(states)


def end_of(target: Target, client: object, name: str, model_id: str) -> str:
    """The state in which an import ends; a failed one names its problems in sentences."""
    model = target.until_done(client, f"/api/v1/models/{model_id}", AT_ONCE * MAX_IMPORT_SECONDS)  # type: ignore[arg-type]
    problems = [problem["message"] for problem in model["problems"]]
    assert model["state"] == "ready" or problems, f"{name}: failed without a reason"
    return str(model["state"])


def attack_by_import(row: str, what: str, hostile: Callable[[Files], Iterator[tuple[str, Files]]]) -> None:
    """Add an attack that imports each of some hostile models."""

    def run(target: Target) -> str:
        return imports(target, hostile(target.model_files))

    run.__name__ = f"import_{hostile.__name__}"
    attack(row, what, seconds=360)(run)


attack_by_import("A1", "archives that write elsewhere, with links and devices", hostile_models.archives)
attack_by_import("A2", "zip bombs, a sparse tar of 5 GB, 20,000 members, broken archives", hostile_models.bombs)
attack_by_import("M1", "weights with lying headers, pickles", hostile_models.weights)
attack_by_import("M2", "configurations with absurd sizes, code, shapes", hostile_models.configurations)


# ---- corpora --------------------------------------------------------------------------------------------------------


def shapes() -> Iterator[tuple[str, bytes]]:
    """Hostile files by name."""
    chance = random.Random(7)
    message = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": %s}]}\n'
    yield "deep.jsonl", b"[" * 200_000 + b"\n" + b'{"text": "a"}\n'
    yield "deep.json", b'{"a":' * 200_000
    yield "line.jsonl", b'{"text": "' + b"x" * 20_000_000
    yield "line.txt", b"x" * 30_000_000
    yield "nul.txt", bytes(5_000_000)
    yield "noise.txt", chance.randbytes(2_000_000)
    yield "noise.jsonl", chance.randbytes(2_000_000)
    yield "utf16.txt", "\ufeff".encode("utf-16-le") + chance.randbytes(1_000_001)
    yield "quote.csv", b'a,b\n"' + b"x,y\n" * 2_000_000
    yield "columns.csv", b",".join(b"c%d" % n for n in range(200_000)) + b"\n" + b"1," * 200_000
    yield "empty.json", b"[" + b"{}," * 500_000 + b"{}]"
    yield "keys.jsonl", b"".join(b'{"k%d": 1, "text": "a"}\n' % n for n in range(100_000))
    yield "weights.jsonl", b"".join((message % value).encode() for value in ("1e400", "-1e400", "1e-400", "9" * 5_000))
    yield "surrogates.jsonl", b'{"text": "\\ud800"}\n' * 50_000
    yield "marks.txt", "\ufeff".encode() * 500_000
    yield "lines.jsonl", b"\n" * 3_000_000
    yield "accents.txt", ("a" + "\u0301" * 100_000).encode() * 10


@attack("C1", "150,000 bad lines, as JSON, as records and as a table", seconds=150, other="job,parse")
def bad_lines(target: Target) -> str:
    """Each is rejected in seconds: the time is linear in the bytes."""
    slowest = 0.0
    files = {
        "a.jsonl": b"x\n" * 150_000,
        "b.jsonl": b'{"messages": 1}\n' * 150_000,
        "c.csv": b"a,b\n" + b"x,y,z\n" * 150_000,
    }
    with target.client(target.mallory, timeout=60) as client:
        for name, content in files.items():
            begin = time.monotonic()
            target.upload(client, name, content, state="", kind="chat" if name == "b.jsonl" else "")
            slowest = max(slowest, time.monotonic() - begin)
    assert slowest < MAX_PARSE_SECONDS, f"a file of 300 kB took {slowest:.0f} s"
    return f"the slowest took {slowest:.1f} s"


@attack(
    "C2",
    "depth, endless lines, zeros, noise, quotes, columns, keys, infinities, surrogates",
    seconds=240,
    other="job,parse",
)
def hostile_corpora(target: Target) -> str:
    """Each is parsed or rejected with a sentence."""
    states = Counter[str]()
    slowest = ("", 0.0)
    with target.client(target.mallory, timeout=60) as client:
        for name, content in shapes():
            target.doing = name
            begin = time.monotonic()
            corpus_id = target.upload(client, name, content, state="")
            slowest = max(slowest, (name, time.monotonic() - begin), key=lambda pair: pair[1])
            corpus = client.get(f"/api/v1/corpora/{corpus_id}").json()
            assert corpus["state"] == "ready" or corpus["problems"], f"{name}: failed without a reason"
            assert "Infinity" not in str(corpus)
            states[corpus["state"]] += 1
            client.get(f"/api/v1/corpora/{corpus_id}/documents")
            client.delete(f"/api/v1/corpora/{corpus_id}").raise_for_status()
    assert slowest[1] < MAX_PARSE_SECONDS, f"{slowest[0]} took {slowest[1]:.0f} s"
    return f"{list_counts(states)}; the slowest, {slowest[0]}, took {slowest[1]:.1f} s"


@attack(
    "C3", "200 corpora at once, 20 of them of 10 MB, all deleted while they are parsed", seconds=150, other="job,parse"
)
def many_corpora(target: Target) -> str:
    """Another user's parse starts at once, and no process outlives its corpus."""
    ids = []
    with target.client(target.mallory, timeout=60) as client:
        for number in range(200):
            content = b"A line of text, and another one.\n" * (300_000 if number % 10 == 0 else 3)
            parameters = {"filename": "a.txt", "name": str(number)}
            answer = client.post("/api/v1/corpora", params=parameters, content=content)
            ids += [answer.json()["id"]] if answer.status_code == 201 else []
        for corpus_id in ids:
            client.delete(f"/api/v1/corpora/{corpus_id}").raise_for_status()
        begin = time.monotonic()
        parameters = {"kind": "parse", "limit": "100"}

        def is_over() -> bool:
            tasks = client.get("/api/v1/tasks", params=parameters).json()["data"]
            return not [task for task in tasks if task["state"] in ("queued", "running")]

        until(slowly(is_over), CANCEL_SECONDS + 10, "the end of the parses of deleted corpora")
        seconds = time.monotonic() - begin
    assert seconds <= CANCEL_SECONDS, f"parses of deleted corpora went on for {seconds:.1f} s"
    return f"{len(ids)} uploaded and deleted; the last parse ended {seconds:.1f} s after that; {target.list_statuses()}"


def upload_at_once(target: Target, files: dict[str, bytes]) -> str:
    """Upload all files at once as corpora of one user, and wait for the end of each: it is read, or has failed for a
    reason. Neither web nor worker grows, and nothing is left.
    """
    states = Counter[str]()
    before = target.stored()
    roles = {role: role_bytes(target, role) for role in ("web", "worker")}
    with target.client(target.mallory, timeout=60) as client, ThreadPoolExecutor(AT_ONCE) as pool:

        def upload(name: str) -> tuple[str, str]:
            answer = client.post("/api/v1/corpora", params={"filename": name}, content=files[name])
            return name, str(answer.raise_for_status().json()["id"])

        begin = time.monotonic()
        for name, corpus_id in list(pool.map(upload, files)):
            target.doing = f"{name}, after {states.total()} of {len(files)}"
            corpus = target.until_done(client, f"/api/v1/corpora/{corpus_id}", MAX_IMPORT_SECONDS)
            assert corpus["state"] == "ready" or corpus["problems"], f"{name}: failed without a reason"
            assert all(problem["message"] for problem in corpus["problems"]), name
            states[corpus["state"]] += 1
            for role, size in roles.items():
                check_growth(target, size, role=role)
            client.delete(f"/api/v1/corpora/{corpus_id}").raise_for_status()
        seconds = time.monotonic() - begin
        client.delete("/api/v1/trash")
    check_escapes(target)
    target.check_stored(before)
    return f"{list_counts(states)}, after {seconds:.0f} s"


@attack(
    "A3",
    "archives at once: bombs, 50 within each other, 20,000 members, paths out of directories, links and devices",
    seconds=60,
    other="job,parse",
)
def archives_at_once(target: Target) -> str:
    """Each is read or refused; none writes elsewhere."""
    return upload_at_once(target, dict(hostile_files.archives()))


@attack(
    "C4",
    "documents at once: PDF, Word, EPUB, sheets of the largest size, HTML; deep, endless, with entities and bombs",
    seconds=150,
    other="job,parse",
)
def documents_at_once(target: Target) -> str:
    """Each is read or refused by a child with limits."""
    return upload_at_once(target, dict(hostile_files.documents()))
