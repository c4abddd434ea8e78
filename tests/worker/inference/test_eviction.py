"""Which models leave the memory of the inference process: the least recently used, those that are no longer deployed,
and all idle ones when a training needs their memory. What looks inside a model gives way to trainings, too.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.core.node_budget import NodeBudget
from tests.trainer.bases import random_checkpoint
from tests.waiting import until
from tests.worker.inference.test_server import ServerRequest, write_model
from trainer.data import tokenizer
from trainer.data.server_process import CallStopped
from worker.inference import models as module
from worker.inference.inspection_tasks import INSPECTIONS
from worker.inference.models import LIBRARY_BYTES, TOKENIZER_BYTES, Models

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a small model."""
    return lambda name: write_model(tmp_path / name, tokenizer.untrained())


@pytest.fixture
def budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NodeBudget:
    """16 GiB, of which the half is shared."""
    sizes = {"total_bytes": 16 << 30, "shared_bytes": 8 << 30, "num_processes": 32}
    budget = NodeBudget(directory=tmp_path / "reservations", **sizes)
    monkeypatch.setattr(module, "node_budget", lambda: budget)
    return budget


@pytest.fixture
def models(budget: NodeBudget, monkeypatch: pytest.MonkeyPatch) -> Iterator[Models]:
    monkeypatch.setattr(module, "limit_memory", lambda _limit: None)
    models = Models("cpu")
    yield models
    for model in list(models._models.values()):
        model.close()
    models._reservation.close()


def use(models: Models, path: Path) -> None:
    with models.acquire(path, lambda: False):
        pass


def deploy(models: Models, *paths: Path) -> None:
    until(lambda: {state for state, _code, _percent in models.keep(paths).values()} == {"ready"}, 60, "the deployments")
    until(lambda: not models._loading, 10, "the threads that load them")


def test_the_least_recently_used_model_leaves(models: Models, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MODELS_KEPT", 3)
    deployed, first, second, third, fourth = (write(name) for name in ("deployed", "1", "2", "3", "4"))
    deploy(models, deployed)
    for path in (first, second, third, first):
        use(models, path)
    assert models._models.keys() == {deployed, first, second, third}, "as many stay, besides those of deployments"
    use(models, fourth)
    assert models._models.keys() == {deployed, first, third, fourth}
    use(models, second)
    assert models._models.keys() == {deployed, first, fourth, second}


def test_a_model_that_is_no_longer_deployed_leaves_with_its_memory(models: Models, write: Write) -> None:
    path = write("deployed")
    deploy(models, path)
    kept = models._models[path]
    assert models._reservation.use.memory_bytes > LIBRARY_BYTES + TOKENIZER_BYTES
    assert models.keep([]) == {}
    assert models._models == {}
    assert (kept.engine, kept.network, kept.weights.network) == (None, None, None)
    assert models._reservation.use.memory_bytes == 0
    deploy(models, path)
    with models.acquire(path, lambda: False):
        models.keep([])
        assert path in models._models, "it is in use"
    assert models._models == {}
    assert models._reservation.use.memory_bytes == 0


def test_idle_models_leave_when_a_training_needs_their_memory(models: Models, write: Write, budget: NodeBudget) -> None:
    idle, deployed, used = write("idle"), write("deployed"), write("used")
    deploy(models, deployed)
    use(models, idle)
    with models.acquire(used, lambda: False) as model:
        with budget.reserve(4 << 30, is_training=True):
            models.give_way()
        assert models._models.keys() == {idle, deployed, used}, "there is room for all"
        free = (LIBRARY_BYTES + 2 * TOKENIZER_BYTES) + (64 << 20)
        with budget.reserve((16 << 30) - free, is_training=True):
            models.give_way()
            assert models._models.keys() == {deployed, used}, "the deployed one leaves last"
            assert models._reservation.use.memory_bytes <= free
            assert models.keep([deployed]) == {deployed: ("ready", None, None)}
        with budget.reserve(16 << 30, is_training=True):
            models.give_way()
            assert models._models.keys() == {used}
            assert model.engine.model is not None, "what is in use stays"

            def state() -> tuple[str, str | None]:
                return models.keep([deployed])[deployed][:2]

            until(lambda: state()[0] == "failed", 60, "the refusal")
            assert state() == ("failed", "memory_short")
            assert models._models.keys() == {used}


@pytest.mark.parametrize("task", ["embed", "score", "attention", "classify"])
def test_looks_inside_a_model_wait_for_their_share_of_the_processors(models: Models, tmp_path: Path, task: str) -> None:
    kinds = {"classify": ("bert", "classification"), "score": ("bert", "masked")}
    path, _loaded = random_checkpoint(tmp_path / task, *kinds.get(task, ("llama", "causal")))
    fields = {"embed": {"texts": ["a", "b c"]}, "attention": {"layer": 0}, "score": {"top_k": 1, "source": ""}}
    arguments = {**({} if task == "embed" else {"text": "a b c"}), **fields.get(task, {})}
    pauses: list[bool] = []
    models._pause = lambda is_wanted: pauses.append(is_wanted())

    (answer,) = ServerRequest(models, path, task=task, arguments=arguments).messages()

    assert (answer["event"], answer["num_prompt_tokens"] > 0) == ("done", True)
    assert pauses
    assert all(pauses)
    if task in ("embed", "score"):
        assert len(pauses) > 2, "also between texts or tokens"
    with models.acquire(path, lambda: True) as model, pytest.raises(CallStopped):
        INSPECTIONS["embed"](model, texts=[[1]])
