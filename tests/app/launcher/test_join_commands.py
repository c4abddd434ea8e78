"""A machine becomes a node by the commands of docs/nodes.md: a real worker, with a configuration of its own."""

import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from app.core import storage
from tests import web_server
from tests.app.jobs import factories
from tests.environment import HOME
from tests.stack import ROOT
from tests.users import Person
from tests.waiting import until

SHELL = 'athanor() { "$PYTHON" -m app.launcher.cli "$@"; }\n'  # the one of this checkout
SECONDS = 400  # at most, of a command


def blocks() -> list[str]:
    """The commands of docs/nodes.md."""
    return re.findall(r"^```sh\n(.*?)^```$", (ROOT / "docs/nodes.md").read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def variables(database: str, alice_user: Person, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of an owner who is logged in at a panel, on a machine without settings of its own."""
    names = ("DATABASE_URL", "REDIS_URL", "ATHANOR_DATA")
    inherited = {name: value for name, value in os.environ.items() if name not in names}
    runtime = HOME / "second"  # short: sockets lie in it
    runtime.mkdir()
    with web_server.running() as url:
        yield {
            **inherited,
            "PYTHON": sys.executable,
            "ATHANOR_URL": url,
            "ATHANOR_TOKEN": alice_user.token(),
            "XDG_CONFIG_HOME": str(tmp_path / "configuration"),
            "XDG_RUNTIME_DIR": str(runtime),
        }


def run(script: str, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a block of the document."""
    command = ["bash", "-euo", "pipefail", "-c", SHELL + script]
    return subprocess.run(
        command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=SECONDS, check=False
    )


def live_nodes(variables: dict[str, str]) -> set[str]:
    """The names of the nodes that are online."""
    headers = {"Authorization": f"Bearer {variables['ATHANOR_TOKEN']}"}
    answer = httpx.get(f"{variables['ATHANOR_URL']}/api/v1/nodes", headers=headers, timeout=30).raise_for_status()
    return {node["name"] for node in answer.json()["data"] if node["live"]}


def test_a_machine_joins_by_the_documented_commands(variables: dict[str, str], tmp_path: Path) -> None:
    add, documented, look = blocks()
    printed = run(add, variables)
    line = printed.stdout.strip()
    assert re.fullmatch(r"athanor join https?://[\w.:]+ ath_join_[\w-]{43}", line)
    assert re.fullmatch(r"athanor join https?://[\w.:]+ ath_join_[\w-]{43}\n", documented)
    assert "DATABASE_URL" in printed.stderr, "the hint that no other machine can join"

    arguments = f"exec {line.replace('athanor', '$PYTHON -m app.launcher.cli', 1)} --name second"
    log = tmp_path / "node.log"
    with log.open("wb") as output:
        node = subprocess.Popen(["bash", "-c", arguments], cwd=ROOT, env=variables, stdout=output, stderr=output)

    def is_online() -> bool:
        assert node.poll() is None, log.read_text()
        return "second" in live_nodes(variables)

    try:
        until(is_online, SECONDS, "the second node")
        factories.node("first")
        assert live_nodes(variables) == {"first", "second"}
        shown = run(look, variables).stdout
        assert re.search(r"^first\t.*\nsecond\tTrue\t.*\n\w{16}\tused\tsecond\tAlice\t", shown), shown
        assert line.split()[-1] not in " ".join(psutil.Process(node.pid).cmdline()), "the token is no argument any more"
        check_stored(Path(variables["XDG_CONFIG_HOME"]) / "athanor/node.json")
        again = run(line, variables)
        assert (again.returncode, "it was used or revoked" in again.stderr) == (1, True)
    finally:
        node.terminate()
        node.wait(SECONDS)


def check_stored(path: Path) -> None:
    """Only this user can read what the node stored."""
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    stored = json.loads(path.read_text())
    assert stored.keys() == {"DATABASE_URL", "REDIS_URL", "ATHANOR_DATA", "ATHANOR_NODE_NAME", "key_sha256"}
    assert (stored["ATHANOR_DATA"], stored["ATHANOR_NODE_NAME"]) == (str(storage.data()), "second")
