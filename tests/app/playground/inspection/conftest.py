"""Imported models of each family, with random weights, and a node that looks into them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.app.playground.test_api import imported
from tests.trainer.bases import random_checkpoint
from tests.users import Person


class Family:
    """An imported model: the directory of its files, and its ID."""

    def __init__(self, owner: Person, home: Path, model_type: str, objective: str) -> None:
        self.files, _loaded = random_checkpoint(home, model_type, objective, sequence_length=128)
        self.id = imported(owner, self.files, model_type, is_classifier=objective == "classification")


Families = Callable[..., Family]


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory, alice_user: Person, database: str) -> Families:
    """Gives a model of a family, the same each time."""
    created: dict[tuple[str, str], Family] = {}

    def get(model_type: str, objective: str) -> Family:
        key = (model_type, objective)
        if key not in created:
            created[key] = Family(alice_user, tmp_path_factory.mktemp(model_type), model_type, objective)
        return created[key]

    return get


@pytest.fixture
def decoder(families: Families) -> Family:
    """A Llama."""
    return families("llama", "causal")


@pytest.fixture
def api(alice_api: TestClient, node: str) -> TestClient:
    """Alice's program, with a node at work."""
    return alice_api
