"""The Celery task `playground.generate`: lets those who wait for text have it, as many at once as the node has slots.

A message is only a doorbell. The task returns at once; each generation is relayed by a thread of its own between the
inference process and the generation's stream in Valkey.
"""

import json
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
from app.playground.generation_queue import Line
from app.playground.schemas import GenerationTask
from worker.inference.client import Inference

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.25  # how often a quiet relay looks whether its reader is still there
BEATS = 4  # looks between two signs of life

inference = Inference()
_slots = threading.BoundedSemaphore(settings().generation_slots)


@celery.task(name=GENERATE)  # type: ignore[untyped-decorator]
def generate() -> None:
    """Start as many waiting generations as there are free slots."""
    while _slots.acquire(blocking=False):
        order = None
        try:
            order = generation_queue.dequeue()
        finally:
            if order is None:
                _slots.release()
        if order is None:
            return
        threading.Thread(target=_run, args=(order,), name=f"generate-{order.id}", daemon=True).start()


def _run(order: GenerationTask) -> None:
    try:
        relay(order)
    except RedisError as error:
        log.warning("generation %s: broker not reachable: %s", order.id, error)
    finally:
        _slots.release()
    try:
        generate()  # whoever waited for this slot
    except RedisError as error:
        log.warning("broker not reachable: %s", error)


def relay(order: GenerationTask) -> None:
    """Carry the text of one generation from the inference process to its reader, until either has enough."""
    if not generation_queue.write(order.id, [{"event": "start"}]):
        return
    ending = _relay_one(order)
    if ending == "unheard":  # the process may have gone home at the very moment it was asked: ask the next one
        ending = _relay_one(order)
    if ending != "over":
        generation_queue.write(order.id, [{"event": "failure", "code": "inference_lost"}])


def _relay_one(order: GenerationTask) -> Literal["over", "broken", "unheard"]:
    asked = {**order.model_dump(), "path": str(storage.checkpoint(order.path))}
    heard = False
    try:
        with inference.writing(asked) as conn:
            for lines in _json_line_batches(conn):
                wanted = generation_queue.write(order.id, lines)
                if not wanted or (lines and lines[-1]["event"] in ("done", "failure")):
                    return "over"
                heard = heard or any(each["event"] == "piece" for each in lines)
    except OSError as error:
        log.warning("generation %s: inference process lost: %s", order.id, error)
    return "broken" if heard else "unheard"


def _json_line_batches(conn: socket.socket) -> Iterator[list[Line]]:
    """The lines, as they come; while none does, nothing, and now and then a beat. Ends where the socket does."""
    rest = b""
    quiet = 0
    while True:
        if not select.select([conn], [], [], LOOK_SECONDS)[0]:
            quiet += 1
            yield [{"event": "beat"}] if quiet % BEATS == 0 else []
            continue
        data = conn.recv(65536)
        if not data:
            return
        *whole, rest = (rest + data).split(b"\n")
        yield [json.loads(text) for text in whole]
