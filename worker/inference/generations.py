"""Runs the generations that wait in Valkey, as many at once as the node has slots.

A thread waits for the next request; a thread per generation relays between the inference process and the generation's
stream in Valkey.
"""

import logging
import select
import socket
import threading
from collections.abc import Iterator
from typing import Literal

from redis import RedisError

from app.core import storage
from app.core.settings import settings
from app.playground import generation_queue
from app.playground.schemas import GenerationMessage, GenerationTask
from trainer.formats import jsonlines
from worker.inference.client import Inference

log = logging.getLogger(__name__)

WAIT_SECONDS = 1.0  # for a request or a free slot, before the thread looks whether it has to stop
LOOK_SECONDS = 0.25  # how often a relay without new text checks that its reader is still connected
BEATS = 4  # checks between two beats


class GenerationRunner:
    """Runs the generations of a worker."""

    def __init__(self, inference: Inference) -> None:
        self._inference = inference
        self.num_slots = settings().generation_slots
        self._num_running = 0
        self._change = threading.Condition()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._is_away = False

    @property
    def num_free(self) -> int:
        """How many more could run now."""
        return self.num_slots - self._num_running

    def start(self) -> None:
        """Take requests until `stop`."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._take_all, name="generations", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Take no more requests. Those that run continue as long as this process lives."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(2 * WAIT_SECONDS)

    def _take_all(self) -> None:
        while not self._stop.is_set():
            try:
                self._take_next()
                self._is_away = False
            except RedisError as error:
                if not self._is_away:
                    log.warning("Valkey is unreachable; generations wait: %s", error)
                self._is_away = True
                self._stop.wait(WAIT_SECONDS)
            except Exception:  # the next one may be another
                log.exception("a generation could not be started")

    def _take_next(self) -> None:
        """Start the next request; return after WAIT_SECONDS without a free slot or a request."""
        with self._change:
            if not self._change.wait_for(lambda: self.num_free > 0, WAIT_SECONDS):
                return
        task = generation_queue.dequeue(settings().node_name, WAIT_SECONDS)
        if task is not None and self._stop.is_set():
            generation_queue.put_back(task)
        elif task is not None:
            thread = threading.Thread(target=self._run, args=(task,), name=f"generate-{task.id}", daemon=True)
            self._count(1)
            try:
                thread.start()
            except RuntimeError:  # too many threads
                self._count(-1)
                raise

    def _count(self, change: int) -> None:
        with self._change:
            self._num_running += change
            self._change.notify()

    def _run(self, task: GenerationTask) -> None:
        try:
            self._relay(task)
        except RedisError as error:
            log.warning("generation %s: broker not reachable: %s", task.id, error)
        finally:
            self._count(-1)

    def _relay(self, task: GenerationTask) -> None:
        """Relay a text from the inference process to its reader until it ends or the reader leaves.

        The start is told with the first text, or after LOOK_SECONDS: telling it takes computing time, which the first
        text waits for where processors are few.
        """
        untold = [GenerationMessage(event="start")]
        ending = self._relay_one(task, untold)
        if ending == "no_output":  # the process may have exited when idle just as it was asked: try a new one
            ending = self._relay_one(task, untold)
        if ending != "over":
            generation_queue.write(task.id, [GenerationMessage(event="failure", code="inference_lost")])

    def _relay_one(
        self, task: GenerationTask, untold: list[GenerationMessage]
    ) -> Literal["over", "broken", "no_output"]:
        task_with_path = {**task.model_dump(), "path": str(storage.checkpoint(task.path))}
        has_text = False
        try:
            with self._inference.writing(task_with_path) as conn:
                for messages in _message_batches(conn):
                    has_reader = generation_queue.write(task.id, [*untold, *messages])
                    untold.clear()
                    if not has_reader or (messages and messages[-1].is_last):
                        return "over"
                    has_text = has_text or any(message.event == "piece" for message in messages)
        except OSError as error:
            log.warning("generation %s: inference process lost: %s", task.id, error)
        return "broken" if has_text else "no_output"


def _message_batches(conn: socket.socket) -> Iterator[list[GenerationMessage]]:
    """Messages as they arrive; every LOOK_SECONDS without any an empty list, at times with a beat. Ends with the
    connection.
    """
    splitter = jsonlines.LineSplitter()
    quiet = 0
    while True:
        if not select.select([conn], [], [], LOOK_SECONDS)[0]:
            quiet += 1
            yield [GenerationMessage(event="beat")] if quiet % BEATS == 0 else []
            continue
        data = conn.recv(65536)
        if not data:
            return
        yield [GenerationMessage.model_validate(message) for message in splitter.messages(data)]
