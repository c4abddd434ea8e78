"""Fixtures of all tests: servers (servers.py), users (users.py), a whole installation as processes (stack.py)."""

import importlib
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from starlette.testclient import TestClient

from tests import environment, servers, stack, users  # environment first: it is read when ours is imported
from tests.servers import Servers
from tests.stack import Stack
from tests.users import Person

HERE = Path(__file__).parent
# Paths below tests/ that train, load torch, open a browser, start a whole installation or many processes. Worker
# processes get files in this order: the slowest first, so that no long one is left for the end.
SLOW = (
    "attack",
    "faults",
    "browser",
    "app/jobs/test_state_machine.py",
    "trainer/training",
    "bench",
    "trainer/engines",
    "trainer/modeling",
    "trainer/datasets",
    "worker/supervisor",
    "trainer/export",
    "trainer/launch",
    "journeys",
    "app/jobs/test_journey.py",
    "app/playground",
    "app/background_tasks",
    "app/overview/test_api_conformance.py",
    "app/launcher",
    "trainer/inference",
    "trainer/test_main.py",
    "worker/inference",
    "app/openai",
    "worker/sandbox",
    "worker/test_fork_server.py",
    "app/tokenizers/test_api.py",
    "app/jobs/test_metrics_api.py",
    "app/jobs/searches",
    "app/jobs/forwarding",
    "app/jobs/archives",
    "app/jobs/previews",
    "app/jobs/test_pages.py",
    "app/jobs/test_concurrency.py",
    "app/corpora/cleaning",
    "app/evaluations",
    "app/synthetic/test_own_model.py",
    "app/notices",
    "app/client/test_installation.py",
    "trainer/data/test_tokenizer_process.py",
    "app/web/test_rights.py",
    "app/core/test_principal.py",
    "test_architecture.py",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --fast."""
    parser.addoption(
        "--fast", action="store_true", help="leave out what trains, opens a browser or starts `athanor up`"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Keep temporary files next to the servers: PostgreSQL's user may not enter pytest's own directory.

    Under xdist this runs in each worker process, and each has its own HOME.
    """
    if hasattr(config, "workerinput") or not config.option.basetemp:
        config.option.basetemp = environment.HOME / "tmp"
    settings.register_profile("no deadline", deadline=None)  # a busy machine is slow, not wrong
    settings.load_profile("no deadline")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With --fast, slow files are not even imported."""
    return True if config.option.fast and slow_rank(collection_path) < len(SLOW) else None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put slow files first."""
    items.sort(key=lambda item: slow_rank(item.path))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Hand out files, and folders that share an installation, to the worker processes."""
    return importlib.import_module("tests.scheduling").FolderScheduling(config, log)


@cache
def slow_rank(path: Path) -> int:
    """The index of a file's entry in SLOW; len(SLOW) for one that is fast."""
    place = f"{path.relative_to(HERE).as_posix()}/"
    return next((index for index, prefix in enumerate(SLOW) if place.startswith(f"{prefix}/")), len(SLOW))


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove this process's directory."""
    shutil.rmtree(environment.HOME, ignore_errors=True)


@pytest.fixture(scope="session")
def running_servers() -> Iterator[Servers]:
    """PostgreSQL and Valkey, started at first use."""
    with servers.running() as both:
        yield both


@pytest.fixture(scope="module")
def database(running_servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An empty, migrated database and an empty data directory for one test module; answers the database's address."""
    with servers.fresh_database(running_servers, tmp_path_factory.mktemp("data")) as url:
        yield url


@pytest.fixture(scope="module")
def web(database: str) -> Iterator[TestClient]:
    """The application in this process, with its hub running. Streams without end need `stack`.

    All modules share it, as its routes take half a second to prepare.
    """
    application = importlib.import_module("app.main").app
    with TestClient(application, base_url=users.ORIGIN) as client:
        yield client


@pytest.fixture(scope="module")
def alice_user(database: str) -> Person:
    """Alice, the owner."""
    return users.enter("Alice", "owner")


@pytest.fixture(scope="module")
def bob_user(database: str) -> Person:
    """Bob, a member."""
    return users.enter("Bob", "member")


@pytest.fixture
def visitor(web: TestClient) -> TestClient:
    """A browser that is not logged in."""
    return users.client(web)


@pytest.fixture
def alice(web: TestClient, alice_user: Person) -> TestClient:
    """Alice's browser, logged in."""
    return users.client(web, cookie=alice_user.cookie())


@pytest.fixture
def bob(web: TestClient, bob_user: Person) -> TestClient:
    """Bob's browser, logged in."""
    return users.client(web, cookie=bob_user.cookie())


@pytest.fixture
def alice_api(web: TestClient, alice_user: Person) -> TestClient:
    """Alice's program, with an API token of all scopes."""
    return users.client(web, token=alice_user.token())


@pytest.fixture
def bob_api(web: TestClient, bob_user: Person) -> TestClient:
    """Bob's program, with an API token of all scopes."""
    return users.client(web, token=bob_user.token())


@pytest.fixture(scope="session")
def running_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """What `athanor up` runs: every process, its own data directory, a free port, Alice already the owner."""
    with stack.running(tmp_path_factory.mktemp("stack"), ATHANOR_ENDPOINT_HOSTS="127.0.0.1") as whole:
        whole.sign_up("Alice")
        yield whole


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """Show the logs of the installation if a test that used it fails."""
    report = yield
    whole = getattr(item, "funcargs", {}).get("running_stack")
    if report.failed and isinstance(whole, Stack):
        report.sections.append(("logs of athanor up", whole.logs()))
    return report


@pytest.fixture(scope="session")
def fork_server() -> Iterator[Any]:
    """The GangForkServer that all runs and commands of a session share."""
    server = importlib.import_module("tests.trainer.gangs").GangForkServer()
    yield server
    server.close()


@pytest.fixture(scope="module")
def inference_fork_server(database: str, fork_server: Any) -> Iterator[None]:
    """A fork server for this process as a worker, so that its inference processes start at once."""
    path = importlib.import_module("worker.environment").fork_server_socket()
    budget = importlib.import_module("app.core.node_budget").node_budget()
    with fork_server.serving_worker(path, budget.environment()):
        yield


@pytest.fixture(scope="session")
def root() -> Path:
    """The root of the repository."""
    return Path(__file__).parents[1]
