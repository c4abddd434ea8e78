"""OpenAI's own Python client, majors 1 and 3, and a node that generates for it."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests import web_server
from tests.app.openai.clients import ClientCalls, client_calls
from tests.app.playground.conftest import (  # noqa: F401 - fixtures
    StoreCheckpoint,
    StoredCheckpoint,
    address,
    checkpoint,
    node,
    store_checkpoint,
    trained,
)
from tests.users import Person

HERE = Path(__file__).parent
MAJORS = {"1": f"{sys.prefix}/openai-1", "3": None}  # where the client is installed, if not beside everything else
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message.content }}{% if not loop.last %} {% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ ' beginning' }}{% endif %}"
)

# As Qwen's, but short: the model has no more than 256 positions.
TOOL_TEMPLATE = (
    "{% if tools %}{% for tool in tools %}{{ tool.function.name }} {% endfor %}{% endif %}"
    "{% for m in messages %}{{ m.role[0] }}{{ m.content or '' }}{% for call in m.tool_calls or [] %}"
    "<tool_call>{{ call.function.name }} {{ call.function.arguments.word }}</tool_call>{% endfor %}{% endfor %}"
)


CLIENTS = ("openai", "alice_client")  # the fixtures that are parametrized by the kind of client
NUM_PAIRS = 4  # of a major and a way of calling it
MIN_ROWS = 3  # of a table, from which on its rows take turns with the kinds of clients


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Try each row of a long table with one kind of client, and the next row with the next one; all else with each
    major and each way of calling it, but not with all their pairs.
    """
    tables: dict[str, dict[str, list[pytest.Item]]] = {}
    for item in items:
        spec = getattr(item, "callspec", None)
        if item.path.parent == HERE and spec is not None and set(CLIENTS) & set(spec.params):
            row = repr({name: value for name, value in spec.params.items() if name not in CLIENTS})
            tables.setdefault(item.nodeid.partition("[")[0], {}).setdefault(row, []).append(item)
    left_out = set[pytest.Item]()
    for table_number, rows in enumerate(tables.values()):
        for number, (_row, clients) in enumerate(sorted(rows.items())):
            clients.sort(key=lambda item: item.nodeid)
            if len(rows) >= MIN_ROWS:
                left_out |= set(clients) - {clients[number % len(clients)]}
            elif len(clients) == NUM_PAIRS:  # in the order 1 async, 1 sync, 3 async, 3 sync
                left_out |= {clients[index] for index in ((0, 3), (1, 2))[(table_number + number) % 2]}
    config.hook.pytest_deselected(items=list(left_out))
    items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="module", params=MAJORS)
def openai(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The client library, in each major."""
    others = _forget()
    path = MAJORS[request.param]
    if path is not None:
        sys.path.insert(0, path)
    library = importlib.import_module("openai")
    assert library.__version__.startswith(f"{request.param}.")
    yield library
    if path is not None:
        sys.path.remove(path)
    _forget()
    sys.modules.update(others)  # LangChain's adapter has imported them


def _forget() -> dict[str, ModuleType]:
    """Make the next import of the client load it anew. Returns the modules that were loaded."""
    names = [name for name in sys.modules if name.partition(".")[0] == "openai"]
    return {name: sys.modules.pop(name) for name in names}


@pytest.fixture(scope="module")
def key(alice_user: Person) -> str:
    """Alice's API key."""
    return alice_user.token()


@pytest.fixture
def client(openai: Any, address: str, key: str) -> Iterator[Any]:  # noqa: F811
    """Alice's client, which repeats nothing."""
    with openai.OpenAI(base_url=f"{address}/v1", api_key=key, max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def talking(store_checkpoint: StoreCheckpoint, alice_user: Person) -> StoredCheckpoint:  # noqa: F811
    """A checkpoint with a chat template: a conversation is its texts, and the answer goes on after ` beginning`."""
    stored = store_checkpoint(alice_user)
    (stored.path / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    return stored


@pytest.fixture(scope="module")
def calling(store_checkpoint: StoreCheckpoint, alice_user: Person) -> StoredCheckpoint:  # noqa: F811
    """A checkpoint whose chat template knows tools."""
    stored = store_checkpoint(alice_user)
    (stored.path / "chat_template.jinja").write_text(TOOL_TEMPLATE)
    return stored


# ---- the training half of the API, which needs no node --------------------------------------------------------------


@pytest.fixture(scope="module")
def server(database: str) -> Iterator[str]:
    """The address of the application on a real socket."""
    with web_server.running() as url:
        yield url


@pytest.fixture(params=("sync", "async"))
def alice_client(request: pytest.FixtureRequest, openai: Any, server: str, key: str) -> Iterator[ClientCalls]:
    """Alice's client, called synchronously and asynchronously."""
    with client_calls(openai, server, key, is_async=request.param == "async") as calls:
        yield calls


@pytest.fixture
def bob_client(openai: Any, server: str, bob_user: Person) -> Iterator[ClientCalls]:
    """Bob's client."""
    with client_calls(openai, server, bob_user.token(), is_async=False) as calls:
        yield calls
