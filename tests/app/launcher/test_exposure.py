"""What a running installation shows to other users of the machine and to the network: as little as it can."""

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from app.core import own_directories
from app.core.own_directories import UnsafeDirectory, make_private, make_tree_private
from app.corpora.shipped import SHIPPED
from tests import stack
from tests.stack import Stack
from tests.waiting import until

SECRET = "hf_secret_of_the_worker"
CLIENT_SECRET = "oidc_secret_of_the_web_process"
TRACKER_TOKEN = "ink-of-the-scribe"
SMALL = {"recipe": "tiny", "num_hidden_layers": 1, "per_device_batch_size": 4, "sequence_length": 64, "vocab_size": 512}
LOOPBACK = {"127.0.0.1", "::1"}


@dataclass
class Observed:
    """A process as others see it."""

    command: str
    environment: bytes
    umask: str
    listens_on: set[str]


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One whose data directory an earlier version left open, and that knows three secrets."""
    home = tmp_path_factory.mktemp("exposed")
    old = home / "data/cache/old"
    old.mkdir(parents=True)
    (old / "tokens.bin").write_bytes(b"1")
    for path in (old / "tokens.bin", old, old.parent, home / "data"):
        path.chmod(0o755)
    secrets = {"HF_TOKEN": SECRET, "ATHANOR_OIDC_CLIENT_SECRET": CLIENT_SECRET, "ATHANOR_MLFLOW_TOKEN": TRACKER_TOKEN}
    with stack.running(home, **secrets) as running:
        running.sign_up("Alice")
        yield running


@pytest.fixture(scope="module")
def observed(installation: Stack) -> list[Observed]:
    """All processes while a job of one process trains, and while one of two does."""
    text = SHIPPED[0].corpus_id
    until(lambda: get(installation, f"corpora/{text}")["state"] == "ready", 60, "the sample corpus")
    processes = []
    for num_processes in (1, 2):
        spec = {"name": "observed", "corpora": [text], "num_processes": num_processes, **SMALL}
        answer = installation.client.post("/api/v1/jobs", json=spec)
        job = answer.raise_for_status().json()["id"]
        journal = installation.data / "runs" / job
        until(lambda: any('"loss"' in path.read_text() for path in journal.rglob("events.jsonl")), 120, "a step")  # noqa: B023
        running = psutil.Process(installation.process.pid).children(recursive=True)
        processes += [one for process in running if (one := observe(process)) is not None]
        installation.client.post(f"/api/v1/jobs/{job}/cancel").raise_for_status()
        until(lambda: get(installation, f"jobs/{job}")["state"] == "cancelled", 60, "the end of the job")  # noqa: B023
    return processes


def get(installation: Stack, path: str) -> dict[str, object]:
    answer: dict[str, object] = installation.client.get(f"/api/v1/{path}").raise_for_status().json()
    return answer


def observe(process: psutil.Process) -> Observed | None:
    """A process as it is now; None if it ends meanwhile, as connections of the database and tokenizer processes do."""
    entry = Path(f"/proc/{process.pid}")
    try:
        listening = [each for each in process.net_connections("inet") if each.status == psutil.CONN_LISTEN]
        return Observed(
            " ".join(process.cmdline()),
            (entry / "environ").read_bytes(),
            re.findall(r"Umask:\s*(\d+)", (entry / "status").read_text())[0],
            {each.laddr.ip for each in listening},
        )
    except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
        return None


def test_no_process_listens_beyond_loopback(observed: list[Observed]) -> None:
    for part in ("cli web", "scheduler", "celery", "fork_server", "worker.supervisor", "postgres", "valkey"):
        assert any(part in process.command for process in observed), part
    assert {process.command: process.listens_on for process in observed if process.listens_on - LOOPBACK} == {}


@pytest.mark.parametrize(
    ("secret", "command"),
    [(SECRET, "celery"), (CLIENT_SECRET, "cli web"), (TRACKER_TOKEN, "scheduler")],
    ids=["hub", "login", "tracker"],
)
def test_only_the_process_that_needs_a_secret_has_it(observed: list[Observed], secret: str, command: str) -> None:
    holders = {process.command for process in observed if secret.encode() in process.environment}
    assert len(holders) == 1
    assert command in holders.pop()


def test_every_process_closes_the_files_that_it_creates(observed: list[Observed]) -> None:
    assert {process.command for process in observed if process.umask != "0077"} == set()


@pytest.mark.usefixtures("observed")
def test_no_other_user_can_read_anything_below_the_data_directory(installation: Stack) -> None:
    inside = [path for path in installation.data.rglob("*") if not path.is_symlink()]
    opened = [path for path in inside if path.exists() and path.lstat().st_mode & 0o077]
    assert opened == []
    assert installation.data.stat().st_mode & own_directories.OTHERS == 0
    assert (installation.data / "cache/old/tokens.bin").read_bytes() == b"1"


# ---- directories of our own -----------------------------------------------------------------------------------------


def test_a_new_directory_is_closed_and_an_open_one_is_closed_too(tmp_path: Path) -> None:
    make_private(tmp_path / "a/new")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    make_private(tmp_path / "open")

    for path in (tmp_path / "a/new", tmp_path / "open"):
        assert stat.S_IMODE(path.stat().st_mode) & own_directories.OTHERS == 0


@pytest.mark.parametrize("target", ["directory", "nowhere", "file"])
def test_a_link_or_a_file_in_place_of_a_directory_is_refused(tmp_path: Path, target: str) -> None:
    (tmp_path / "directory").mkdir()
    path = tmp_path / "own"
    if target == "file":
        path.touch()
    else:
        path.symlink_to(tmp_path / target)

    with pytest.raises(UnsafeDirectory, match="must be a directory"):
        make_private(path)


def test_a_directory_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    monkeypatch.setattr(own_directories, "ROOT_USER", -1)
    monkeypatch.setattr(os, "getuid", lambda: 12_345)

    for make, name in ((make_private, "data"), (make_tree_private, "data"), (make_tree_private, "link")):
        with pytest.raises(UnsafeDirectory, match="belongs to another user"):
            make(tmp_path / name)


def test_files_in_an_open_directory_are_closed_and_links_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("1")
    (tmp_path / "data/runs").mkdir(parents=True)
    (tmp_path / "data/runs/file").write_text("1")
    (tmp_path / "data/runs/link").symlink_to(outside)
    for path in (outside, tmp_path / "data/runs/file", tmp_path / "data/runs", tmp_path / "data"):
        path.chmod(0o755)
    (tmp_path / "link").symlink_to(tmp_path / "data")

    make_tree_private(tmp_path / "link")

    assert stat.S_IMODE((tmp_path / "data/runs").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "data/runs/file").stat().st_mode) == 0o700
    assert stat.S_IMODE(outside.stat().st_mode) == 0o755
