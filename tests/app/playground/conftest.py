"""A checkpoint from a short real training, and a node that serves generations from it."""

import shutil
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import func
from starlette.testclient import TestClient

from app.checkpoints import service as checkpoints
from app.core import db, storage
from app.core.models import Job, Node
from app.core.settings import settings
from tests import web_server
from tests.trainer.gangs import GangForkServer
from tests.users import Person
from tests.waiting import until
from trainer import run_dir as rundir
from trainer.run_dir import CorpusInput, Inputs, RunDir
from trainer.spec import TrainSpec, resolve
from worker.runtime import current_worker

STEPS = 160
TEXT = (
    "In the beginning the furnace was cold, and the alchemist was patient.\n"
    "She fed it charcoal by the handful, and the fire fed itself.\n"
    "起初,炉火是冷的,炼金术士很有耐心。\n她一把一把地添炭,火便自己燃起来。\n"
)


def a_spec(**fields: object) -> TrainSpec:
    """A model of a few thousand weights that learns the text above in seconds."""
    small: dict[str, object] = {
        "corpora": ["text"],
        "vocab_size": 300,
        "sequence_length": 256,
        "num_hidden_layers": 2,
        "hidden_size": 64,
        "intermediate_size": 128,
        "max_steps": STEPS,
        "train_batch_size": 4,
        "per_device_batch_size": 4,
        "learning_rate": 0.01,
        "warmup_steps": 5,
        "eval_steps": STEPS,
        "save_steps": STEPS,
    }
    return resolve({**small, **fields})


SLOTS = 2  # concurrent generations


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, fork_server: GangForkServer) -> Path:
    """The directory of a published checkpoint."""
    home = tmp_path_factory.mktemp("trained")
    text = (TEXT * 60).encode()
    (home / "text.bin").write_bytes(text)
    (home / "index.bin").write_bytes(array("Q", [len(text)]).tobytes())
    run_dir = RunDir(home / "run")
    run_dir.path.mkdir()
    inputs = Inputs(corpora=[CorpusInput(id="text", path=str(home), sha256="0" * 64)], cache=str(home / "cache"))
    run_dir.create(a_spec(), inputs, fence=1)
    done = fork_server.command("trainer", "train", str(run_dir.path), OMP_NUM_THREADS="1").result()
    assert done.returncode == 0, done.stderr
    return run_dir.checkpoint_path(STEPS, 1)


@dataclass(frozen=True)
class StoredCheckpoint:
    """A checkpoint in the database and on disk."""

    id: str
    path: Path


StoreCheckpoint = Callable[[Person], StoredCheckpoint]


@pytest.fixture(scope="module")
def store_checkpoint(database: str, trained: Path) -> StoreCheckpoint:
    """Gives a user a checkpoint."""

    def give(person: Person) -> StoredCheckpoint:
        spec = a_spec(name="Furnace")
        with db.transaction() as session:
            job = Job(
                owner_id=person.id,
                name=spec.name,
                recipe=spec.recipe,
                spec=spec,
                spec_sha256=spec.sha256(),
                body_sha256="",
                max_steps=spec.max_steps,
            )
            session.add(job)
            session.flush()
            path = storage.run(job.id) / "checkpoints" / f"step-{STEPS}-1"
            shutil.copytree(trained, path)
            checkpoint = checkpoints.record(
                session,
                owner_id=person.id,
                job_id=job.id,
                step=STEPS,
                fence=1,
                path=str(path.relative_to(storage.data())),
                manifest=rundir.verify(path),
                metrics={"loss": 0.21, "eval_loss": 0.25},
            )
        return StoredCheckpoint(checkpoint.id, path)

    return give


@pytest.fixture(scope="module")
def checkpoint(store_checkpoint: StoreCheckpoint, alice_user: Person) -> StoredCheckpoint:
    """Alice's checkpoint."""
    return store_checkpoint(alice_user)


@pytest.fixture(scope="module")
def node(database: str, inference_fork_server: None) -> Iterator[str]:
    """A node that serves generations: this process relays them, an inference process of its own writes them."""
    with db.transaction() as session:
        seen = {"started_at": func.now(), "last_seen_at": func.now() + func.make_interval(0, 0, 1)}
        session.add(Node(name=settings().node_name, num_cpus=2, memory_bytes=2**30, gpus=[], slots=1, **seen))
    generations = current_worker().generations
    generations.num_slots = SLOTS
    generations.start()
    yield settings().node_name
    generations.stop()
    current_worker().inference.close()


@pytest.fixture
def api(alice_api: TestClient, checkpoint: StoredCheckpoint, node: str) -> Iterator[TestClient]:
    """Alice's program, with a node at work; all slots are free again when the test ends."""
    yield alice_api
    until(lambda: free_slots() == SLOTS, what="a free slot")


def free_slots() -> int:
    """How many more generations could start now."""
    return current_worker().generations.num_free


@pytest.fixture(scope="module")
def address(node: str) -> Iterator[str]:
    """The application on a real socket: only there can a reader leave in the middle."""
    with web_server.running() as url:
        yield url
