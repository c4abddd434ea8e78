"""The Celery task `playground.generate`: runs queued generations, as many at once as the node has slots.

A message is only a notification. The task returns at once; a thread per generation relays between the
inference process and the generation's stream in Valkey.
"""

import logging
import select
import socket
import threading
from collections.abc import Iterator
from typing import Literal

from redis import RedisError

from app.core import storage
from app.core.queue import GENERATE, celery
from app.core.settings import settings
from app.playground import generation_queue
from app.playground.schemas import GenerationMessage, GenerationTask
from trainer.formats import jsonlines
from worker.runtime import current_worker

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.25  # how often a relay without new text checks that its reader is still connected
BEATS = 4  # checks between two beats


@celery.task(name=GENERATE)  # type: ignore[untyped-decorator]
def generate() -> None:
    """Start as many waiting generations as there are free slots."""
    slots = current_worker().generation_slots
    while slots.acquire(blocking=False):
        task = None
        try:
            task = generation_queue.dequeue(settings().node_name)
        finally:
            if task is None:
                slots.release()
        if task is None:
            return
        threading.Thread(target=_run, args=(task,), name=f"generate-{task.id}", daemon=True).start()


def _run(task: GenerationTask) -> None:
    try:
        relay(task)
    except RedisError as error:
        log.warning("generation %s: broker not reachable: %s", task.id, error)
    finally:
        current_worker().generation_slots.release()
    try:
        generate()  # the next one in the queue
    except RedisError as error:
        log.warning("broker not reachable: %s", error)


def relay(task: GenerationTask) -> None:
    """Relay the text of one generation from the inference process to its reader until it ends or the reader leaves."""
    if not generation_queue.write(task.id, [GenerationMessage(event="start")]):
        return
    ending = _relay_one(task)
    if ending == "no_output":  # the process may have exited when idle just as it was asked: try a new one
        ending = _relay_one(task)
    if ending != "over":
        generation_queue.write(task.id, [GenerationMessage(event="failure", code="inference_lost")])


def _relay_one(task: GenerationTask) -> Literal["over", "broken", "no_output"]:
    task_with_path = {**task.model_dump(), "path": str(storage.checkpoint(task.path))}
    has_text = False
    try:
        with current_worker().inference.writing(task_with_path) as conn:
            for messages in _message_batches(conn):
                has_reader = generation_queue.write(task.id, messages)
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
