"""The installation under attack and its people: Alice, the owner; Bob, who wants to work; Mallory, who attacks."""

import math
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx

from app.core.models import TERMINAL
from app.web.security_headers import SECURITY_HEADERS
from tests.faults.runs import SPEC, TEXT
from tests.faults.stack import Installation
from tests.users import PASSWORD
from tests.waiting import until

MEMBER_PASSWORD = f"{PASSWORD} on seven logs"
MODEL_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
MAX_STORED_BYTES = 100_000_000  # more than before, when all has ended
NOT_OF_USERS = ("postgres", "valkey", "logs", "runs")  # folders
SWEEP_SECONDS = 60  # until what was deleted for good is gone
TASK_SECONDS = 240  # for the import and the export before the first row
DONE = ("ready", "failed")


@dataclass
class Account:
    """A user with the secrets of a login session and of API tokens, by their scopes."""

    name: str
    password: str
    cookie: str
    tokens: dict[str, str]

    @property
    def token(self) -> str:
        """The token that may do everything."""
        return self.tokens["read submit admin"]


@dataclass
class Target:
    """The installation, its accounts, and the faults of its responses since the row began."""

    installation: Installation
    alice: Account = field(init=False)
    bob: Account = field(init=False)
    mallory: Account = field(init=False)
    bob_corpus: str = field(init=False)
    faults: list[str] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    doing: str = ""  # what the attack does at the moment, for its row if it fails
    deadline: float = math.inf  # on the monotonic clock; from then on no client sends a request

    def prepare(self) -> None:
        """Create the accounts, Bob's corpus and Alice's rows, and run one job of his, so that all caches are warm."""
        for name in ("Bob", "Mallory"):
            body = {"name": name, "password": MEMBER_PASSWORD}
            self.installation.post("/api/v1/users", json=body).raise_for_status()
        self.alice = self._log_in("Alice", PASSWORD)
        self.bob = self._log_in("Bob", MEMBER_PASSWORD)
        self.mallory = self._log_in("Mallory", MEMBER_PASSWORD)
        with self.client(self.bob) as bob:
            self.bob_corpus = self.upload(bob, "sheep.txt", TEXT.encode())
            self.run_job(bob, self.bob_corpus)
        assert self.ids

    def _log_in(self, name: str, password: str) -> Account:
        with httpx.Client(base_url=self.installation.url(""), timeout=30) as browser:
            cookie = self._open_session(browser, name, password)
            tokens = {}
            for scopes in ("read", "submit", "read submit", "read submit admin"):
                body = {"name": scopes, "scopes": scopes.split()}
                tokens[scopes] = browser.post("/api/v1/tokens", json=body).raise_for_status().json()["token"]
        return Account(name, password, cookie, tokens)

    @staticmethod
    def _open_session(browser: httpx.Client, name: str, password: str) -> str:
        answer = browser.post("/api/v1/login", json={"name": name, "password": password})
        return str(answer.raise_for_status().headers["Set-Cookie"].partition(";")[0].partition("=")[2])

    def _session(self, account: Account) -> str:
        """The login session of an account, a new one if an earlier attack has ended it."""
        with httpx.Client(base_url=self.installation.url(""), timeout=30) as browser:
            cookies = {"Cookie": f"athanor_session={account.cookie}"}
            if browser.get("/api/v1/me", headers=cookies).status_code == 401:
                account.cookie = self._open_session(browser, account.name, account.password)
        return account.cookie

    # ---- requests ---------------------------------------------------------------------------------------------------

    def client(
        self, account: Account | None = None, *, scopes: str = "", cookie: bool = False, timeout: float = 30
    ) -> httpx.Client:
        """A client whose responses are checked: of a visitor, or an account by its token or cookie."""
        headers = {"Accept-Language": "en"}
        if account is not None and not cookie:
            headers["Authorization"] = f"Bearer {account.tokens[scopes] if scopes else account.token}"
        elif account is not None:
            headers["Cookie"] = f"athanor_session={self._session(account)}"
            headers["Origin"] = self.installation.url("")
        hooks = {"request": [self.stop_in_time], "response": [self.check]}
        url = self.installation.url("")
        return httpx.Client(base_url=url, headers=headers, timeout=timeout, event_hooks=hooks)

    def stop_in_time(self, request: httpx.Request) -> None:
        """Raise TimeoutError after the deadline, instead of sending a request."""
        if time.monotonic() > self.deadline:
            raise TimeoutError("the attack takes too long")

    def check(self, response: httpx.Response) -> None:
        """Note a status 5xx (503 with Retry-After and 507 are allowed), and headers that are missing."""
        self.statuses[response.status_code] = self.statuses.get(response.status_code, 0) + 1
        fault = fault_of(response.status_code, {name.lower(): value for name, value in response.headers.items()})
        if fault:
            self.faults.append(f"{response.request.method} {response.request.url.path[:80]}: {fault}")

    def list_statuses(self) -> str:
        """How many responses had which status, since the row began."""
        return list_counts(self.statuses)

    # ---- rows of users ----------------------------------------------------------------------------------------------

    def upload(self, client: httpx.Client, filename: str, content: bytes, state: str = "ready", **more: str) -> str:
        """Upload a corpus and wait until it has been parsed; returns its ID."""
        answer = client.post("/api/v1/corpora", params={"filename": filename, **more}, content=content)
        corpus_id = str(answer.raise_for_status().json()["id"])
        corpus = self.until_done(client, f"/api/v1/corpora/{corpus_id}")
        assert not state or corpus["state"] == state, corpus
        return corpus_id

    def import_model(self, client: httpx.Client, name: str, files: dict[str, bytes]) -> str:
        """Upload the files of a model and start its import; returns its ID."""
        model_id = str(client.post("/api/v1/models", json={"name": name}).raise_for_status().json()["id"])
        for filename, content in files.items():
            client.put(f"/api/v1/models/{model_id}/files/{filename}", content=content)
        client.post(f"/api/v1/models/{model_id}/import")
        return model_id

    def until_done(self, client: httpx.Client, path: str, seconds: float = 60) -> dict[str, Any]:
        """Wait until a corpus or model is ready or has failed, and return it."""

        def row_if_done() -> dict[str, Any] | None:
            row: dict[str, Any] = client.get(path).raise_for_status().json()
            return row if row["state"] in DONE else None

        row = until(slowly(row_if_done), seconds, f"the end of {path}")
        assert row is not None
        return row

    def run_job(self, client: httpx.Client, corpus: str, **fields: Any) -> dict[str, Any]:
        """Train to the end; returns the job."""
        spec = {**SPEC, "corpora": [corpus], "max_steps": 2, "warmup_steps": 1, **fields}
        job_id = client.post("/api/v1/jobs", json=spec).raise_for_status().json()["id"]

        def job_if_over() -> dict[str, Any] | None:
            job: dict[str, Any] = client.get(f"/api/v1/jobs/{job_id}").raise_for_status().json()
            return job if job["state"] in TERMINAL else None

        job = until(slowly(job_if_over), 120, "the end of a job")
        assert job is not None
        assert job["state"] == "succeeded", job
        return job

    @cached_property
    def ids(self) -> dict[str, str]:
        """One row of each kind of Alice's, by the name of its parameter in a route."""
        with self.client(self.alice, timeout=60) as alice:
            corpus_id = self.upload(alice, "hers.txt", TEXT.encode(), name="Sesame corpus")
            job_id = self.run_job(alice, corpus_id, name="Sesame job")["id"]
            checkpoint_id = alice.get("/api/v1/checkpoints", params={"job": job_id}).json()["data"][0]["id"]
            ids = {
                "corpus_id": corpus_id,
                "job_id": job_id,
                "checkpoint_id": checkpoint_id,
                "tokenizer_id": alice.get("/api/v1/tokenizers").json()["data"][0]["id"],
                "token_id": alice.get("/api/v1/tokens").json()["data"][0]["id"],
            }
            ids["model_id"] = self.import_model(alice, "Sesame model", self._checkpoint_files(checkpoint_id))
            model = self.until_done(alice, f"/api/v1/models/{ids['model_id']}", TASK_SECONDS)
            assert model["state"] == "ready", model["problems"]
            body = {"checkpoint": checkpoint_id, "format": "safetensors"}
            task = alice.post("/api/v1/exports", json=body).raise_for_status().json()
            path = f"/api/v1/tasks/{task['id']}"
            is_over = slowly(lambda: alice.get(path).json()["state"] not in ("queued", "running"))
            until(is_over, TASK_SECONDS, "the end of an export")
            return {**ids, "task_id": task["id"]}

    @cached_property
    def model_files(self) -> dict[str, bytes]:
        """The files of a small model that is in order, to be damaged."""
        return self._checkpoint_files(self.ids["checkpoint_id"])

    def _checkpoint_files(self, checkpoint_id: str) -> dict[str, bytes]:
        row = self.installation.rows("SELECT path FROM checkpoint WHERE id = %s", checkpoint_id)[0]
        directory = self.installation.data / row["path"]
        return {name: (directory / name).read_bytes() for name in MODEL_FILES if (directory / name).exists()}

    # ---- between rows -----------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Forget the responses of the row before."""
        self.faults.clear()
        self.statuses.clear()
        self.doing = ""

    def clean_up(self) -> None:
        """Cancel and delete what Mallory has left, so that the next row does not wait for it."""
        with suppress(httpx.HTTPError), self.client(self.mallory) as mallory:
            for job in mallory.get("/api/v1/jobs", params={"limit": 100}).json()["data"]:
                if job["state"] not in TERMINAL:
                    mallory.post(f"/api/v1/jobs/{job['id']}/cancel")
            for task in mallory.get("/api/v1/tasks", params={"limit": 100}).json()["data"]:
                mallory.post(f"/api/v1/tasks/{task['id']}/cancel")
            for kind in ("corpora", "models"):
                while sum(mallory.delete(path).is_success for path in self.own_rows(mallory, kind)):
                    pass
        self.faults.clear()

    @staticmethod
    def own_rows(client: httpx.Client, kind: str) -> list[str]:
        """The paths of up to 100 corpora or models of a user."""
        rows = client.get(f"/api/v1/{kind}", params={"limit": 100}).json()["data"]
        return [f"/api/v1/{kind}/{row['id']}" for row in rows if not row.get("shipped")]

    def dead_programs(self) -> list[str]:
        """The programs that have ended."""
        return [role for role, program in self.installation.programs.items() if not program.alive()]

    def stored(self) -> dict[Path, int]:
        """The size of each file of users, without runs, of which another user's jobs leave more all the time."""
        sizes = {}
        for directory, folders, names in os.walk(self.installation.data):
            folders[:] = [name for name in folders if name not in NOT_OF_USERS]
            sizes |= {path: size_of(path) for name in names for path in [Path(directory, name)]}
        return sizes

    def check_stored(self, before: dict[Path, int]) -> int:
        """How many bytes more than before are stored, once the sweep has removed what was deleted. Raises
        AssertionError if these are too many.
        """
        after: dict[Path, int] = {}

        def more_bytes() -> int:
            after.clear()
            after.update(self.stored())
            return sum(after.values()) - sum(before.values())

        with suppress(AssertionError):
            until(slowly(lambda: more_bytes() < MAX_STORED_BYTES), SWEEP_SECONDS, "the sweep")
        more = sum(after.values()) - sum(before.values())
        new = sorted(after.keys() - before.keys(), key=lambda path: -after[path])
        names = [f"{path.relative_to(self.installation.data)}: {after[path]}" for path in new[:5]]
        assert more < MAX_STORED_BYTES, f"{more / 1e6:.0f} MB were left on the disk, such as {names}"
        return more


def list_counts(counts: Mapping[Any, int]) -> str:
    """How often each thing was counted, as text."""
    return ", ".join(f"{number} × {name}" for name, number in sorted(counts.items()))


def fault_of(status: int, headers: dict[str, str]) -> str:
    """What is wrong with a response, by its status and its headers in small letters; empty if nothing is."""
    if status >= 500 and status != 507 and not (status == 503 and "retry-after" in headers):
        return f"status {status}"
    missing = [name for name in SECURITY_HEADERS if name.lower() not in headers]
    return f"status {status} without {', '.join(missing)}" if missing else ""


def slowly(look: Callable[[], Any]) -> Callable[[], Any]:
    """The same function, called five times a second at most, so that polling is no attack of its own."""

    def look_slowly() -> Any:
        time.sleep(0.2)
        return look()

    return look_slowly


def size_of(path: Path) -> int:
    """The size of a file on disk in bytes; 0 if it has gone."""
    with suppress(OSError):
        return path.stat().st_blocks * 512
    return 0
