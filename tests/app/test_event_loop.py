"""No async function calls what blocks: a database session, the broker, files, a sleep. One waiting would stop all.

Calls are followed through the whole of `app/`: a function that calls one that blocks blocks too. What is passed to
`to_thread.run_sync` or to a pool is a reference and no call; what is awaited does not block.
"""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from app.main import create_app
from tests.users import ORIGIN

ROOT = Path(__file__).parents[2]
# What blocks, by the names it is called by: from other packages, or methods of their objects.
BLOCKING = {
    "app.core.db.transaction",
    "app.core.db.engine",
    "app.core.live.valkey",
    "app.core.queue.send",
    "app.web.auth.identify",
    "time.sleep",
    "subprocess.run",
    "subprocess.Popen",
    "socket.create_connection",
    "urllib.request.urlopen",
    "os.fsync",
    "shutil.rmtree",
    "shutil.copyfile",
    "shutil.copytree",
    "shutil.disk_usage",
}
BLOCKING_METHODS = {
    *("commit", "execute", "scalar", "scalars", "begin_nested", "get_one", "flush"),  # of a session
    *("open", "read_text", "read_bytes", "write_text", "write_bytes", "mkdir", "unlink", "rename", "stat", "exists"),
    *("hash", "verify"),  # of passwords
}


class Module:
    """The functions of a file, the names that it imports, and what each function calls."""

    def __init__(self, name: str, tree: ast.Module) -> None:
        self.name = name
        self.imports = dict(imports(tree))
        self.calls: dict[str, set[tuple[str, int]]] = defaultdict(set)
        self.is_async: set[str] = set()
        self.is_cached: set[str] = set()
        self._visit(tree, name)

    def _visit(self, node: ast.AST, inside: str, class_name: str = "") -> None:
        for child in ast.iter_child_nodes(node):
            name = inside
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                name = f"{inside}.{child.name}"
                for decorator in child.decorator_list:
                    self._visit(decorator, inside)
                if isinstance(child, ast.AsyncFunctionDef):
                    self.is_async.add(name)
                if any(isinstance(item, ast.Name) and item.id == "cache" for item in child.decorator_list):
                    self.is_cached.add(name)
            elif isinstance(child, ast.Lambda):
                continue  # passed on: called elsewhere
            elif isinstance(child, ast.Call) and not isinstance(node, ast.Await):
                called = self.resolve(child.func)
                if called:
                    self.calls[inside].add((called, child.lineno))
                if method := own_method(child.func):
                    self.calls[inside].add((f"{class_name}.{method}", child.lineno))
            self._visit(child, name, name if isinstance(child, ast.ClassDef) else class_name)

    def resolve(self, function: ast.expr) -> str:
        """What a call names: a dotted path, or `.method` of an unknown object."""
        parts: list[str] = []
        while isinstance(function, ast.Attribute):
            parts.insert(0, function.attr)
            function = function.value
        if not isinstance(function, ast.Name):
            return f".{parts[-1]}" if parts else ""
        if function.id in self.imports:
            return ".".join([self.imports[function.id], *parts])
        return f".{parts[-1]}" if parts else f"{self.name}.{function.id}"


def own_method(function: ast.expr) -> str:
    """The method of its own class that a method calls, if any."""
    if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name) and function.value.id == "self":
        return function.attr
    return ""


@cache
def parsed(name: str, text: str) -> Module:
    return Module(name, ast.parse(text))


def imports(tree: ast.AST) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.asname or alias.name.partition(".")[0], alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((alias.asname or alias.name, f"{node.module}.{alias.name}") for alias in node.names)


def blocking_calls(sources: dict[str, str]) -> list[str]:
    """Every call from an async function of something that blocks, as `module.function:line calls name`."""
    modules = [parsed(name, text) for name, text in sources.items()]
    calls = {caller: called for module in modules for caller, called in module.calls.items()}
    is_async = {name for module in modules for name in module.is_async}
    # What is cached is read once: settings, templates, catalogs.
    steady = is_async | {name for module in modules for name in module.is_cached}
    blocking = set(BLOCKING) | {f".{name}" for name in BLOCKING_METHODS}

    def blocks(called: str) -> bool:
        return called in blocking or called.endswith(".open")

    size = -1
    while len(blocking) != size:
        size = len(blocking)
        blocking |= {
            caller
            for caller, names in calls.items()
            if caller not in steady and any(blocks(called) for called, _line in names)
        }
    return sorted(
        f"{caller}:{line} calls {called}"
        for caller in is_async
        for called, line in calls.get(caller, ())
        if blocks(called)
    )


def app_sources() -> dict[str, str]:
    paths = [path for path in (ROOT / "app").rglob("*.py") if path.name != "__init__.py"]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts): path.read_text() for path in paths}


def test_no_async_function_calls_what_blocks() -> None:
    assert blocking_calls(app_sources()) == []


PLANTED = {
    "a session": "from app.core import db\nasync def start():\n    with db.transaction() as session:\n        pass",
    "a session, two calls away": (
        "from app.core import db\ndef read():\n    with db.transaction():\n        pass\n"
        "def page():\n    return read()\nasync def start():\n    return page()"
    ),
    "the outbox": "from app.core import queue\nasync def start():\n    queue.flush_outbox()",
    "a sleep": "import time\nasync def start():\n    time.sleep(1)",
    "a method": (
        "class Page:\n    def read(self, path):\n        path.read_text()\n"
        "    async def start(self):\n        self.read()"
    ),
    "a statement": "async def start(session):\n    session.execute('select 1')",
    "a file": "async def start(path):\n    return path.read_text()",
}


@pytest.mark.parametrize("kind", PLANTED)
def test_a_planted_call_that_blocks_is_detected(kind: str) -> None:
    calls = blocking_calls({**app_sources(), "app.planted": PLANTED[kind]})
    assert [call for call in calls if re.match(r"app\.planted\.(Page\.)?start:", call)]


def test_what_is_passed_to_a_thread_is_no_call() -> None:
    text = "from anyio import to_thread\nfrom app.core import queue\nasync def start():\n    await to_thread.run_sync("
    for passed in ("queue.flush_outbox)", "lambda: queue.flush_outbox())"):
        assert blocking_calls({**app_sources(), "app.planted": text + passed}) == blocking_calls(app_sources())


def test_the_first_request_of_a_route_prepares_none(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with TestClient(create_app(), base_url=ORIGIN) as client:

        def refuse(**_context: object) -> None:
            pytest.fail("a request waits until a route is prepared")

        monkeypatch.setattr("fastapi.routing._EffectiveRouteContext.from_api_route", refuse)
        assert client.get("/nowhere").status_code == 404
