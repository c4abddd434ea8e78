"""The inference process of a node: keeps models in memory and generates text, one thread per request.

The worker keeps one connection to it and passes a socket over it for every generation (SCM_RIGHTS): one JSON line in,
JSON lines out, closed by either side to stop. The process exits when the worker's connection closes. It has no
credentials and no database access.
"""

import argparse
import gc
import logging
import os
import select
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch
from safetensors import SafetensorError

from app.playground.schemas import GenerationMessage
from trainer import jsonlines
from trainer.data.record_encoding import RecordRefused
from trainer.inference import generation

log = logging.getLogger(__name__)

IDLE_SECONDS = 600.0  # the process exits after so long without a generation, to free memory
MODELS_KEPT = 2


class GenerationRefused(Exception):
    """A generation is impossible: `code` is one of app/playground/failures.py."""

    def __init__(self, code: str, **values: Any) -> None:
        super().__init__(code)
        self.code = code
        self.values = values


# ---- models ---------------------------------------------------------------------------------------------------------


@dataclass
class _Model:
    num_bytes: int
    loading: threading.Lock = field(default_factory=threading.Lock)
    loaded: generation.LoadedModel | None = None
    users: int = 0
    used_at: float = field(default_factory=time.monotonic)


class Models:
    """The models in memory: those in use and the most recently used."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._lock = threading.Lock()
        self._models: dict[Path, _Model] = {}

    @contextmanager
    def acquire(self, path: Path) -> Iterator[generation.LoadedModel]:
        """The model of a checkpoint, loaded at first use and not dropped inside the block. Raises GenerationRefused."""
        if not path.is_dir():
            raise GenerationRefused("checkpoint_gone")
        with self._lock:
            model = self._models.setdefault(path, _Model(_num_bytes(path)))
            model.users += 1
        try:
            with model.loading:
                if model.loaded is None:
                    self._evict_idle(model)
                    model.loaded = _load(path, self._device)
            yield model.loaded
        finally:
            with self._lock:
                model.users -= 1
                model.used_at = time.monotonic()
                if model.loaded is None and not model.users:
                    del self._models[path]

    def _evict_idle(self, incoming: _Model) -> None:
        with self._lock:
            while len(self._models) > MODELS_KEPT or _free_bytes(self._device) < incoming.num_bytes:
                idle = [path for path, model in self._models.items() if not model.users]
                if not idle:
                    break
                del self._models[min(idle, key=lambda path: self._models[path].used_at)]
                gc.collect()
        free = _free_bytes(self._device)
        if free < incoming.num_bytes:
            raise GenerationRefused("memory_short", free=free, needed=incoming.num_bytes)


def _num_bytes(path: Path) -> int:
    # On a CPU 16-bit weights become fp32, twice the size; the rest is for the KV cache and logits.
    return int(2.5 * sum(file.stat().st_size for file in path.glob("*.safetensors")))


def _free_bytes(device: str) -> int:
    return int(torch.cuda.mem_get_info(device)[0]) if device != "cpu" else int(psutil.virtual_memory().available)


def _load(path: Path, device: str) -> generation.LoadedModel:
    try:
        return generation.load(path, device)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        log.warning("checkpoint %s cannot be opened: %s", path, error)
        raise GenerationRefused("checkpoint_broken") from error


def _pick_device() -> str:
    """The GPU with the most memory free, or the CPU."""
    count = torch.cuda.device_count()
    return f"cuda:{max(range(count), key=lambda i: int(torch.cuda.mem_get_info(i)[0]))}" if count else "cpu"


# ---- one generation -------------------------------------------------------------------------------------------------


def _answer(conn: socket.socket, models: Models) -> None:
    """Read a request and send the generated text; stop early if the peer closes the connection."""
    with conn, suppress(BrokenPipeError, ConnectionResetError):
        request = jsonlines.receive(conn)
        if request is None:
            return
        try:
            with models.acquire(Path(request["path"])) as loaded:
                _write(conn, loaded, request)
        except GenerationRefused as refusal:
            _send(conn, GenerationMessage(event="failure", code=refusal.code, values=refusal.values))
        except (BrokenPipeError, ConnectionResetError):
            raise
        except Exception as error:  # whatever a library makes of a strange model
            log.exception("generation %s failed", request["id"])
            values = {"id": request["id"], "why": f"{type(error).__name__}: {error}"[:200]}
            _send(conn, GenerationMessage(event="failure", code="inference_failed", values=values))


def _write(conn: socket.socket, loaded: generation.LoadedModel, request: dict[str, Any]) -> None:
    torch.set_num_threads(request["num_threads"])
    started = time.perf_counter()
    keys = ("max_tokens", "temperature", "top_p", "top_k", "seed", "stop")
    try:
        prompt = loaded.encode_chat(request["messages"]) if request.get("messages") else request["prompt"]
        pieces = generation.stream(
            loaded, prompt, is_stopped=lambda: _is_closed(conn), **{key: request[key] for key in keys}
        )
    except generation.NoChatTemplate:
        raise GenerationRefused("chat_template_missing") from None
    except RecordRefused as error:
        raise GenerationRefused("messages_refused", why=str(error)) from None
    except generation.PromptTooLong as error:
        raise GenerationRefused("prompt_too_long", num_tokens=error.num_tokens, limit=error.limit) from None
    for piece in pieces:
        if piece.text:
            _send(conn, GenerationMessage(event="piece", text=piece.text, num_tokens=piece.num_tokens))
        if piece.finish_reason:
            rate = piece.num_tokens / (time.perf_counter() - started)
            done = GenerationMessage(
                event="done",
                finish_reason=piece.finish_reason,
                num_tokens=piece.num_tokens,
                tokens_per_second=round(rate, 1),
            )
            _send(conn, done)


def _send(conn: socket.socket, message: GenerationMessage) -> None:
    jsonlines.send(conn, message.model_dump(exclude_unset=True))


def _is_closed(conn: socket.socket) -> bool:
    # The peer sends nothing after its request, so readable means closed.
    return bool(select.select([conn], [], [], 0)[0])


# ---- the process ----------------------------------------------------------------------------------------------------


def serve(leash: socket.socket) -> None:
    """Serve the generations whose sockets arrive over this connection, until it closes or is idle for long."""
    models = Models(_pick_device())
    streams: list[threading.Thread] = []
    idle_since = time.monotonic()
    while True:
        readable = bool(select.select([leash], [], [], 1.0)[0])
        streams = [stream for stream in streams if stream.is_alive()]
        if readable:
            data, descriptors, _flags, _address = socket.recv_fds(leash, 1, 1)
            if not data:
                return
            stream = threading.Thread(target=_answer, args=(socket.socket(fileno=descriptors[0]), models), daemon=True)
            stream.start()
            streams.append(stream)
        if streams:
            idle_since = time.monotonic()
        elif time.monotonic() - idle_since > IDLE_SECONDS:
            return


def main() -> None:
    """`python -m worker.inference.server --fd N`: the same without a fork server."""
    parser = argparse.ArgumentParser(description="Serve generations over an inherited socket.")
    parser.add_argument("--fd", type=int, required=True)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    with socket.socket(fileno=parser.parse_args().fd) as leash, suppress(BrokenPipeError, ConnectionResetError):
        serve(leash)
    sys.stdout.flush()
    os._exit(0)  # do not wait for abandoned streams


if __name__ == "__main__":
    main()
