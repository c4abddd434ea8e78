"""The machine that a plan counts on."""

import pytest

from app.core import db
from app.core.settings import settings
from app.jobs.cluster import nodes
from tests.app.jobs import factories
from trainer.planning.hardware import NodeHardware


def planned(num_processes: int) -> NodeHardware | None:
    with db.transaction() as session:
        return nodes.for_a_plan(session, num_processes)


@pytest.fixture(autouse=True)
def _no_machines(database: str) -> None:
    factories.forget_nodes()


def test_without_nodes_the_hardware_is_undecided() -> None:
    assert planned(1) is None


def test_processes_on_a_cpu_node_share_its_memory() -> None:
    factories.node("ada")
    node = planned(2)
    assert node is not None
    assert (node.kind, node.num_cpus, node.memory_bytes) == ("cpu", 2, 8 * 2**30)
    assert node.memory_per_process(2) == 4 * 2**30


def test_gpus_are_preferred_to_cpus_if_there_are_enough() -> None:
    factories.node("ada")
    factories.node("grace", gpus=2)
    two, three = planned(2), planned(3)
    assert two is not None
    assert three is not None
    assert (two.kind, two.count, two.memory_bytes, two.host_memory_bytes) == ("cuda", 2, 80 * 2**30, 8 * 2**30)
    assert three.kind == "cpu"


def test_prices_and_power_come_from_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    factories.node("ada")
    plain = planned(1)
    assert plain is not None
    assert (plain.price_per_hour, plain.price_per_kwh, plain.watts) == (None, None, None)

    told = settings().model_copy(update={"price_per_hour": 2.0, "price_per_kwh": 0.3, "watts": 65.0})
    monkeypatch.setattr(nodes, "settings", lambda: told)
    priced = planned(1)
    assert priced is not None
    assert (priced.price_per_hour, priced.price_per_kwh, priced.watts) == (2.0, 0.3, 65.0)
