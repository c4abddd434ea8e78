"""A training whose checkpoints are read while it goes on has the losses of one that nobody disturbs, bit by bit."""

import threading
from pathlib import Path

from app.playground.schemas import GenerationTask
from tests.app.playground.conftest import STEPS, a_spec
from tests.trainer.gangs import GangForkServer
from tests.trainer.runs import series
from trainer.formats import jsonlines
from trainer.run_dir import RunDir
from worker.runtime import current_worker


def test_readers_of_checkpoints_do_not_change_the_losses(
    trained: Path, tmp_path: Path, fork_server: GangForkServer, node: str
) -> None:
    alone = RunDir(trained.parents[1])
    run_dir = RunDir(tmp_path / "run")
    run_dir.path.mkdir()
    run_dir.create(a_spec(save_steps=STEPS // 8), alone.inputs(1), fence=1)
    is_over = threading.Event()
    texts: set[tuple[str, str]] = set()  # by the checkpoint

    def read() -> None:
        while not is_over.wait(0.05):
            for path in run_dir.path.glob("checkpoints/step-*"):
                task = GenerationTask(id="reader", path=str(path), prompt="In the", max_tokens=8, temperature=0)
                with current_worker().inference.writing(task.model_dump()) as connection:
                    while (message := jsonlines.receive(connection)) and message["event"] != "done":
                        if message["event"] == "piece":
                            texts.add((path.name, message["text"]))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        done = fork_server.command("trainer", "train", str(run_dir.path), OMP_NUM_THREADS="1").result()
    finally:
        is_over.set()
        reader.join()
    assert done.returncode == 0, done.stderr
    assert len(texts) > 1, "checkpoints were read"
    expected = series(alone, "loss")
    assert list(expected) == list(range(1, STEPS + 1))
    assert series(run_dir, "loss") == expected
