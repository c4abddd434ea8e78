"""The client installed alone: what it needs, what it leaves out, and an editable install."""

import ast
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest

from tests.app.client import environment

HEAVY = ("torch", "transformers", "numpy", "fastapi", "sqlalchemy", "babel", "celery", "app", "worker", "trainer")


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return environment.create(tmp_path_factory.mktemp("installation"))


def output(command: list[str], directory: Path) -> str:
    run = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False, env={"LANG": "C.UTF-8"})
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def test_a_client_alone_runs_without_the_servers_packages(programs: Path, tmp_path: Path) -> None:
    code = f"""
import importlib.util, sys
from athanor import Client, NotLoggedIn
Client("http://localhost").close()
print([name for name in {HEAVY!r} if importlib.util.find_spec(name) or name in sys.modules])
"""
    assert output([str(programs / "python"), "-c", code], tmp_path).strip() == "[]"


def test_the_command_line_of_a_client_alone_lists_the_clients_commands(programs: Path, tmp_path: Path) -> None:
    listed = output([str(programs / "athanor"), "--help"], tmp_path)
    assert {"login", "submit", "watch", "chat", "pull", "corpora"} <= set(listed.split())
    assert "scheduler" not in listed.split()
    refused = subprocess.run([programs / "athanor", "up"], capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "up" in refused.stderr


def test_an_editable_install_finds_client_and_server(root: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "checkout", symlinks=True, with_pip=False)
    packages = next(tmp_path.glob("checkout/lib/python*/site-packages"))
    (packages / "tests.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    python = str(tmp_path / "checkout/bin/python")
    environment.pip("--python", python, "install", "--no-deps", "--no-build-isolation", "--no-index", "-e", str(root))
    code = """
import athanor.commands.main, app.launcher.cli, worker.celery_app, trainer.spec
print(athanor.__file__, athanor.commands.main.LAUNCHER.exists(), trainer.__file__)
"""
    where = output([python, "-c", code], tmp_path).split()
    assert where == [str(root / "app/client/__init__.py"), "True", str(root / "trainer/__init__.py")]


def test_the_client_imports_itself_and_what_it_declares(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    declared = {line.partition(">")[0] for line in project["dependencies"]}
    for path in (root / "app/client").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            for name in names:
                assert name.partition(".")[0] in declared | sys.stdlib_module_names, f"{path}: {name}"


def test_what_the_server_needs_is_pinned(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    pinned = {line.partition("==")[0].lower() for line in (root / "requirements.txt").read_text().splitlines()}
    needed = [*project["dependencies"], *project["optional-dependencies"]["server"]]
    names = {line.partition(";")[0].partition(">")[0].partition("[")[0].lower().replace("-", "_") for line in needed}
    assert names - {name.replace("-", "_") for name in pinned} == set()
