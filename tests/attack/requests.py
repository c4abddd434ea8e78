"""Requests that are malformed, point outside of directories, or carry programs for a browser."""

import re
from itertools import product
from pathlib import Path
from urllib.parse import quote

from tests.attack.attacks import attack
from tests.attack.raw import refuse, request
from tests.attack.target import Target
from tests.routes import ENDLESS, routes

CANARY = "escaped-1b7f"  # the name of files that an upload tries to write elsewhere
STEPS = ("../", "..%2f", "%2e%2e/", "%2e%2e%2f", "..%252f", "..\\", "..%5c", "....//", "..;/", "%c0%ae%c0%ae/", "./../")
SECRETS = ("etc/passwd", "data/keys/signing.key", "proc/self/environ", "app/core/settings.py")
SCRIPTS = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'-alert(1)-'",
    "</title><svg onload=alert(1)>",
    "{{7*7}}${7*7}<%= 7*7 %>",
    "javascript:alert(1)//",
    "</script><script>alert(1)</script>",
    "\u202e<b>\u2028</b>",
)


@attack("H1", "malformed hosts, origins, paths, lengths, encodings, methods and versions")
def malformed(target: Target) -> str:
    """A status 4xx or a redirect with all headers, never a 5xx or a dropped connection."""
    paths = [
        "/jobs/日",
        "/jobs/%00",
        "/jobs/%",
        "/jobs/%ff",
        "/%80",
        "//",
        "/./",
        "/" + "a" * 20_000,
        "/?" + "&" * 9_000,
    ]
    paths += [
        "/api/v1/jobs?after=" + "9" * 400,
        "/api/v1/jobs?limit=1e400",
        "/api/v1/jobs?state=%F0%9F",
        "*",
        "http://[/",
    ]
    headers = ["Host: [abc", "Host:", "Host: a b", "Host: localhost:99999999", "Host: localhost@x", "Host: \x7f"]
    headers += [
        "Origin: http://[",
        "Origin: null",
        "Origin: \x01",
        "Cookie: athanor_session=\xff",
        "Cookie: " + ";" * 5000,
    ]
    headers += [
        "Accept-Language: " + "a," * 5000,
        "Range: bytes=9-1",
        "Last-Event-ID: \ud83d".encode("utf-8", "replace").decode(),
    ]
    headers += [
        "Content-Length: -1",
        "Content-Length: 1e9",
        "Transfer-Encoding: gzip",
        "Expect: 200-fine",
        "Content-Type: ;;;",
    ]
    for path in paths:
        refuse(target, path[:40], request(target, path))
    for header, method in product(headers, ("GET", "POST")):
        refuse(target, f"{method} {header[:40]}", request(target, "/api/v1/jobs", header, method=method))
    two_lengths = request(target, "/api/v1/jobs", "Content-Length: 3", "Content-Length: 5", method="POST")
    for data in (b"GET\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"BREW / HTTP/9.9\r\n\r\n", two_lengths):
        refuse(target, repr(data[:30]), data)
    for body in (b"{" * 100_000, b'{"a":' * 5_000, b"\xff\xfe{}", b"[1e400]", b'"\\ud800"', b"nul", b"9" * 10_000):
        header = "Content-Type: application/json"
        refuse(target, repr(body[:20]), request(target, "/api/v1/jobs", header, method="POST", body=body))
    return target.list_statuses()


@attack("P1", "paths out of directories, at static files and every route with a parameter", seconds=120)
def traversal(target: Target) -> str:
    """No response holds a file from elsewhere."""
    bases = ["/static/", "/static/x/css/"]
    bases += [re.sub(r"\{(\w+)(:path)?\}.*", "", path) for _method, path in routes() if "{" in path]
    leaks = []
    with target.client(target.mallory) as client:
        for base, step, secret in product(sorted(set(bases)), STEPS, SECRETS):
            answer = client.get(base + step * 6 + secret)
            if answer.status_code == 200 and re.search(rb"root:x:|BEGIN|ATHANOR_|pydantic", answer.content):
                leaks.append(base + step)
    assert not leaks, leaks[:3]
    return target.list_statuses()


@attack("P2", "names of files that lead out of directories, at every upload")
def names(target: Target) -> str:
    """Each is refused, or stored under a name of ours."""
    ups = [step * 5 + f"tmp/{CANARY}" for step in ("../", "..\\", "....//", "%2e%2e%2f")]
    all_names = [
        *ups,
        f"/tmp/{CANARY}",
        f"C:\\{CANARY}",
        ".",
        "..",
        "\0",
        f"{CANARY}\0.json",
        "a" * 255,
        "con",
        "~",
        "-rf",
    ]
    with target.client(target.mallory) as client:
        model_id = client.post("/api/v1/models", json={"name": "names"}).json()["id"]
        for name in all_names:
            for suffix in ("", ".txt", ".json", ".safetensors"):
                parameters = {"filename": name + suffix, "name": name[:100]}
                client.post("/api/v1/corpora", params=parameters, content=b"A line of text.\n")
                client.put(f"/api/v1/models/{model_id}/files/{quote(name + suffix, safe='')}", content=b"{}")
    check_escapes(target)
    return target.list_statuses()


def check_escapes(target: Target) -> None:
    """Raise AssertionError if a file of an attack lies outside of the directories of uploads."""
    inside = [path for path in target.installation.home.rglob(f"*{CANARY}*") if "postgres" not in path.parts]
    outside = [path for place in (Path("/tmp"), Path("/"), Path.cwd()) for path in place.glob(f"*{CANARY}*")]
    assert not inside, inside
    assert not outside, outside


@attack("X1", "programs for a browser in every name, shown on every page of a list")
def scripts(target: Target) -> str:
    """No page contains one as it was sent."""
    with target.client(target.mallory) as client, target.client(target.mallory, cookie=True) as browser:
        for script in SCRIPTS:
            client.post("/api/v1/models", json={"name": script})
            client.post("/api/v1/corpora", params={"filename": "a.txt", "name": script}, content=script.encode())
        lists = [path for method, path in routes() if method == "GET" and "{" not in path]
        pages = [path for path in lists if not path.startswith(("/api/", "/v1/")) and path != ENDLESS]
        for page in pages:
            text = browser.get(page).text
            raw = [script for script in SCRIPTS if "<" in script and script in text]
            assert not raw, f"{page} contains {raw[0]}"
            assert "49${7*7}" not in text
        for query in ("/login?next={}", "/jobs?state={}", "/tasks?subject={}", "/playground?checkpoint={}", "/{}"):
            for script in SCRIPTS:
                assert "<" not in script or script not in browser.get(query.format(quote(script))).text
    return target.list_statuses()
