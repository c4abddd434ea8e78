"""The inference process of a node: keeps models in memory and generates text, one thread per request.

The worker keeps one connection to it and passes a socket over it for every generation (SCM_RIGHTS): one JSON line in,
JSON lines out, closed by either side to stop. The process exits when the worker's connection closes. It has no
credentials and no database access.
"""

import argparse
import logging
import os
import select
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from app.playground.schemas import GenerationMessage
from trainer import jsonlines
from trainer.data.record_encoding import RecordRefused
from trainer.data.tokenizer_process import CallStopped
from trainer.inference import generation
from worker.inference.models import GenerationRefused, Models, SandboxedModel, is_memory_error

log = logging.getLogger(__name__)

IDLE_SECONDS = 600.0  # the process exits after so long without a generation, to free memory


def _pick_device() -> str:
    """The GPU with the most memory free, or the CPU."""
    count = torch.cuda.device_count()
    return f"cuda:{max(range(count), key=lambda i: int(torch.cuda.mem_get_info(i)[0]))}" if count else "cpu"


# ---- one generation -------------------------------------------------------------------------------------------------


def _answer(conn: socket.socket, models: Models) -> None:
    """Read a request and send the generated text; stop early if the peer closes the connection."""
    with conn, suppress(BrokenPipeError, ConnectionResetError, CallStopped):
        request = jsonlines.receive(conn)
        if request is None:
            return
        try:
            with models.acquire(Path(request["path"]), lambda: _is_closed(conn)) as model:
                _write(conn, model, request)
        except GenerationRefused as refusal:
            _send(conn, GenerationMessage(event="failure", code=refusal.code, values=refusal.values))
        except (BrokenPipeError, ConnectionResetError, CallStopped):
            raise
        except Exception as error:  # whatever a library makes of a strange model
            _send(conn, _failure(error, request["id"], models.memory_limit))


def _failure(error: Exception, request_id: str, memory_limit: int) -> GenerationMessage:
    """What an unforeseen exception of a library is for the user."""
    if is_memory_error(error):
        log.warning("generation %s needed more memory than %s bytes", request_id, memory_limit)
        return GenerationMessage(event="failure", code="memory_exceeded", values={"limit_bytes": memory_limit})
    log.exception("generation %s failed", request_id, exc_info=error)
    values = {"id": request_id, "why": f"{type(error).__name__}: {error}"[:200]}
    return GenerationMessage(event="failure", code="inference_failed", values=values)


def _write(conn: socket.socket, model: SandboxedModel, request: dict[str, Any]) -> None:
    torch.set_num_threads(request["num_threads"])
    started = time.perf_counter()
    keys = ("max_tokens", "temperature", "top_p", "top_k", "seed", "stop")
    options = {key: request[key] for key in keys}
    try:
        prompt = model.encode_chat(request["messages"]) if request.get("messages") else request["prompt"]
        for piece in generation.stream(model, prompt, is_stopped=lambda: _is_closed(conn), **options):
            _send_piece(conn, piece, time.perf_counter() - started)
    except RecordRefused as error:
        raise _refusal(error, is_chat=bool(request.get("messages"))) from None
    except generation.PromptTooLong as error:
        raise GenerationRefused("prompt_too_long", num_tokens=error.num_tokens, limit=error.limit) from None


def _refusal(error: RecordRefused, *, is_chat: bool) -> GenerationRefused:
    """Why the chat template or the tokenizer refuses a prompt."""
    if error.message.code == "no_template":
        return GenerationRefused("chat_template_missing")
    return GenerationRefused("messages_refused" if is_chat else "prompt_refused", why=str(error))


def _send_piece(conn: socket.socket, piece: generation.TextPiece, seconds: float) -> None:
    if piece.text:
        _send(conn, GenerationMessage(event="piece", text=piece.text, num_tokens=piece.num_tokens))
    if piece.finish_reason:
        done = GenerationMessage(
            event="done",
            finish_reason=piece.finish_reason,
            num_tokens=piece.num_tokens,
            tokens_per_second=round(piece.num_tokens / seconds, 1),
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
