"""What a worker does with generations that wait in a real Valkey."""

import threading

import pytest

from app.core import live
from app.core.model_base import new_id
from app.playground import generation_queue
from app.playground.schemas import GenerationTask
from tests.waiting import until
from worker.inference.client import Inference
from worker.inference.generations import GenerationRunner

pytestmark = pytest.mark.usefixtures("database")


def test_a_request_that_comes_while_a_worker_stops_stays_in_the_queue() -> None:
    live.valkey().flushall()
    task = GenerationTask(id=new_id(), path="x")
    runner = GenerationRunner(Inference())
    runner.start()
    stopping = threading.Thread(target=runner.stop)
    stopping.start()
    until(runner._stop.is_set, what="the order to stop")
    assert generation_queue.enqueue(task)
    stopping.join()
    assert generation_queue.dequeue("another", 0.01) == task
