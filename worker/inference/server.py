"""The inference process of a node: keeps models in memory and generates text, in one batch per model.

The worker keeps one connection to it and passes a socket over it for every generation (SCM_RIGHTS): one JSON line in,
JSON lines out, closed by either side to stop. The process exits when the worker's connection closes. It has no
credentials and no database access.
"""

import argparse
import json
import logging
import math
import os
import select
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from app.playground.schemas import (
    GeneratedToken,
    GeneratedToolCall,
    GenerationMessage,
    GenerationTask,
    TokenProbability,
)
from trainer.data.record_refused import RecordRefused
from trainer.data.server_process import CallStopped
from trainer.formats import jsonlines
from trainer.inference import generation, grammar_check, inspection
from trainer.inference.grammar import GrammarConstraint
from trainer.inference.inspection import TokenScore
from trainer.inference.sampling import SamplingSettings, TokenChoice
from trainer.inference.text_pieces import MarkedDecoder, TextPiece, TokenDecoder, text_pieces
from trainer.inference.tool_calls import ToolCallParser
from trainer.inference.tool_grammar import call_grammar
from worker.inference.inspection_tasks import INSPECTIONS, num_tokens_read
from worker.inference.models import GenerationRefused, Models, SandboxedModel
from worker.inference.priority import Priority

log = logging.getLogger(__name__)

MAX_TARGET_TOKENS = 4_096  # that an encoder-decoder writes, whose positions have no end
MIN_PROBABILITY = 1e-38  # whose logarithm is written for those that fp32 rounds to 0
PIECE_SECONDS = 0.04  # the tokens of so long are decoded and sent together, after the first one
WHOLE_PIECE_SECONDS = 1.0  # the same where nobody sees the text before its end: each message costs a training time
PROGRESS_SECONDS = 0.25  # between two messages of how far a model is loaded
IDLE_SECONDS = 600.0  # the process exits after so long without a generation, to free memory


# ---- one request ----------------------------------------------------------------------------------------------------


def _answer(conn: socket.socket, models: Models) -> None:
    """Read a request and send its result; stop early if the peer closes the connection."""
    with conn, suppress(BrokenPipeError, ConnectionResetError, CallStopped):
        request = jsonlines.receive(conn)
        if request is None:
            return
        if "keep" in request:
            states = models.keep([Path(path) for path in request["keep"]])
            jsonlines.send(conn, {"states": {str(path): state for path, state in states.items()}})
            return
        task = GenerationTask.model_validate(request)
        try:
            with ExitStack() as stack:
                with _progress_told(conn, models, Path(task.path)):
                    model = stack.enter_context(models.acquire(Path(task.path), lambda: _is_closed(conn)))
                for message in TASKS[task.task](model, task):
                    _send(conn, message)
        except (BrokenPipeError, ConnectionResetError, CallStopped):
            raise
        except Exception as error:  # whatever a library makes of a strange model
            _send(conn, _failure(error, task, models.memory_limit))


@contextmanager
def _progress_told(conn: socket.socket, models: Models, path: Path) -> Iterator[None]:
    """Send how far a model is loaded, whoever loads it, until the end of the block."""
    if models.loading_percent(path) is None:
        yield
        return
    is_over = threading.Event()

    def tell() -> None:
        last_percent = None
        with suppress(OSError):  # its reader has left, which the generation notices as well
            while not is_over.wait(PROGRESS_SECONDS):
                percent = models.loading_percent(path)
                if percent not in (None, last_percent):
                    _send(conn, GenerationMessage(event="loading", percent=percent))
                last_percent = percent

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def _failure(error: Exception, task: GenerationTask, memory_limit: int) -> GenerationMessage:
    """What a refusal, or an unforeseen exception of a library, is for the user."""
    if not Path(task.path).is_dir():  # it was deleted while it was loaded
        return GenerationMessage(event="failure", code="checkpoint_gone")
    if isinstance(error, GenerationRefused):
        return GenerationMessage(event="failure", code=error.code, values=error.values)
    if generation.is_memory_error(error):
        log.warning("generation %s needed more memory than %s bytes", task.id, memory_limit)
        return GenerationMessage(event="failure", code="memory_exceeded", values={"limit_bytes": memory_limit})
    log.exception("generation %s failed", task.id, exc_info=error)
    values = {"id": task.id, "why": f"{type(error).__name__}: {error}"[:200]}
    return GenerationMessage(event="failure", code="inference_failed", values=values)


def _send(conn: socket.socket, message: GenerationMessage) -> None:
    jsonlines.send(conn, message.model_dump(exclude_unset=True))


def _is_closed(conn: socket.socket) -> bool:
    # The peer sends nothing after its request, so readable means closed.
    return bool(select.select([conn], [], [], 0)[0])


# ---- generation -----------------------------------------------------------------------------------------------------


def _generate(model: SandboxedModel, task: GenerationTask) -> Iterator[GenerationMessage]:
    """The text that follows a prompt or answers a conversation. Raises GenerationRefused."""
    began = time.perf_counter()
    prompt, max_tokens = _prompt(model, task)
    unknown = [number for number in task.logit_bias if number >= model.model.config.vocab_size]
    if unknown:
        raise GenerationRefused("token_unknown", token=unknown[0], limit=model.model.config.vocab_size)
    stop_token_ids, constraint = _constraint(model, task)
    tool_format = model.constant("tool_format") if task.tools else None
    functions = [tool["function"] for tool in task.tools or []]
    calls = ToolCallParser(tool_format, functions) if tool_format else None
    generation = model.engine.submit(
        prompt, _settings(task), max_tokens=max_tokens, stop_token_ids=stop_token_ids, constraint=constraint
    )
    try:
        if task.echo:
            yield _echo(model, task, prompt)
        is_seen = task.stream or task.stop  # what follows a text to stop at is generated in vain
        batches = generation.batches(model.is_stopped, PIECE_SECONDS if is_seen else WHOLE_PIECE_SECONDS)
        decoder: TokenDecoder = model.decoder(prompt)
        if calls is not None:
            decoder = MarkedDecoder(lambda: model.decoder(prompt), model.constant("tool_marks"))
        for piece in text_pieces(batches, decoder, stop_token_ids, task.stop, model.is_stopped):
            message = _piece_message(model, task, piece, calls)
            if message.text or message.tokens or message.tool_calls:
                yield message
            if constraint is not None and constraint.error:
                raise GenerationRefused("schema_refused", why=constraint.error)
            if piece.finish_reason:
                yield GenerationMessage(
                    event="done",
                    finish_reason=piece.finish_reason,
                    num_tokens=piece.num_tokens,
                    num_prompt_tokens=len(prompt),
                    tokens_per_second=round(piece.num_tokens / (time.perf_counter() - began), 1),
                )
    finally:
        model.engine.cancel(generation)


def _echo(model: SandboxedModel, task: GenerationTask, ids: Sequence[int]) -> GenerationMessage:
    """The prompt as a piece of the text."""
    decoder = model.decoder([])
    text = "".join(decoder.push_all(ids)) + decoder.rest() if task.prompt_ids else task.prompt
    message = GenerationMessage(event="piece", text=text, is_prompt=True)
    if task.top_logprobs is not None:
        if model.model.config.is_encoder_decoder:
            raise GenerationRefused("score_unfit", model_type=model.model.config.model_type)
        scored = inspection.score(model.model, ids, task.top_logprobs)
        choices = [TokenChoice(ids[0]), *(_choice(number, one) for number, one in zip(ids[1:], scored, strict=True))]
        message.tokens = _generated_tokens(model, choices)
    return message


def _choice(number: int, scored: TokenScore) -> TokenChoice:
    """A token of a prompt as if it had been chosen."""
    top = tuple((one.id, math.log(max(one.probability, MIN_PROBABILITY))) for one in scored.top)
    return TokenChoice(number, scored.log_prob, top)


def _constraint(model: SandboxedModel, task: GenerationTask) -> tuple[frozenset[int], GrammarConstraint | None]:
    """The tokens that end a text, and the grammar of a text that has to have one. Raises GenerationRefused."""
    try:
        grammar = _grammar(model, task, {})
        if grammar is None:
            return model.stop_token_ids, None
        grammar_check.check(grammar)  # without the IDs of special tokens, which it does not know
        grammar = _grammar(model, task, model.constant("tool_marks")) or grammar
    except ValueError as error:
        raise GenerationRefused("schema_refused", why=str(error)) from None
    vocabulary = model.tokenizer.vocabulary(model.is_stopped)
    # A model that never ends its texts ends one that is complete with a token that is no text.
    stop_token_ids = model.stop_token_ids or frozenset(vocabulary.without_text[:1])
    return stop_token_ids, GrammarConstraint(vocabulary, grammar, stop_token_ids)


def _grammar(model: SandboxedModel, task: GenerationTask, marks: Mapping[str, int]) -> str | None:
    """The grammar of the text, with the IDs of special tokens around tool calls. Raises ValueError."""
    functions = task.required_functions or (task.strict_functions if task.json_schema is None else [])
    tool_format = model.constant("tool_format") if functions else None
    if task.required_functions and tool_format is None:
        raise GenerationRefused("tool_format_unknown")
    if tool_format is not None:
        is_required = bool(task.required_functions)
        return call_grammar(tool_format, functions, grammar_check.JSON_OPTIONS, marks, is_required=is_required)
    return None if task.json_schema is None else grammar_check.json_grammar(task.json_schema)


def _prompt(model: SandboxedModel, task: GenerationTask) -> tuple[list[int], int]:
    """The tokens of a prompt, and how many may follow it. Raises GenerationRefused."""
    try:
        if task.prompt_ids:
            ids: list[int] = task.prompt_ids
            if max(ids) >= model.model.config.vocab_size:
                raise GenerationRefused("prompt_refused", why=f"it has no token {max(ids)}")
        elif task.messages:
            messages = [{"content": None, **message.model_dump(exclude_none=True)} for message in task.messages]
            ids = model.call("chat", messages, task.prefill, task.tools)
        else:
            ids = model.encode(task.prompt)
    except RecordRefused as error:
        raise _refusal(error, is_chat=bool(task.messages)) from None
    if len(ids) > model.context:
        raise GenerationRefused("prompt_too_long", num_tokens=len(ids), limit=model.context)
    is_encoder_decoder = model.model.config.is_encoder_decoder
    longest = MAX_TARGET_TOKENS if is_encoder_decoder else model.context - len(ids) + 1
    return ids, min(task.max_tokens, longest)


def _settings(task: GenerationTask) -> SamplingSettings:
    return SamplingSettings(**{field.name: getattr(task, field.name) for field in fields(SamplingSettings)})


def _refusal(error: RecordRefused, *, is_chat: bool) -> GenerationRefused:
    """Why the chat template or the tokenizer refuses a prompt."""
    if error.message.code == "no_template":
        return GenerationRefused("chat_template_missing")
    if error.message.code == "tools":
        return GenerationRefused("tools_refused")
    return GenerationRefused("messages_refused" if is_chat else "prompt_refused", why=str(error))


def _piece_message(
    model: SandboxedModel, task: GenerationTask, piece: TextPiece, calls: ToolCallParser | None
) -> GenerationMessage:
    message = GenerationMessage(event="piece", text=piece.text, num_tokens=piece.num_tokens)
    if calls is not None:
        parts = [calls.push(piece.text), *([calls.rest()] if piece.finish_reason else [])]
        message.text = "".join(part.text for part in parts)
        message.tool_calls = [
            GeneratedToolCall(name=call.name, arguments=call.arguments) for part in parts for call in part.calls
        ]
    if task.top_logprobs is not None:
        message.tokens = _generated_tokens(model, piece.choices)
    return message


def _generated_tokens(model: SandboxedModel, choices: Sequence[TokenChoice]) -> list[GeneratedToken]:
    ids = sorted({choice.token for choice in choices} | {number for choice in choices for number, _ in choice.top})
    data = dict(zip(ids, model.call("token_bytes", ids), strict=True))

    def probability(number: int, logprob: float) -> dict[str, Any]:
        text = bytes(data[number]).decode(errors="replace")
        return {"id": number, "text": text, "bytes": data[number], "logprob": round(logprob, 6)}

    return [
        GeneratedToken(
            **probability(choice.token, choice.logprob or 0.0),
            top=[TokenProbability(**probability(*alternative)) for alternative in choice.top],
        )
        for choice in choices
    ]


def _inspect(model: SandboxedModel, task: GenerationTask) -> Iterator[GenerationMessage]:
    """The answer of a look inside a model, as JSON: no process between here and the client has to read it."""
    model.pause()
    answer = INSPECTIONS[task.task](model, **task.arguments)
    num_tokens = num_tokens_read(answer)
    yield GenerationMessage(event="done", result=json.dumps(answer, allow_nan=False), num_prompt_tokens=num_tokens)


Task = Callable[[SandboxedModel, GenerationTask], Iterator[GenerationMessage]]

TASKS: dict[str, Task] = {"generate": _generate, **dict.fromkeys(INSPECTIONS, _inspect)}


# ---- the process ----------------------------------------------------------------------------------------------------


def serve(leash: socket.socket) -> None:
    """Serve the generations whose sockets arrive over this connection, until it closes or is idle for long."""
    priority = Priority()
    torch.set_num_threads(os.cpu_count() or 1)
    models = Models(generation.pick_device(), priority)
    streams: list[threading.Thread] = []
    idle_since = time.monotonic()
    while True:
        readable = bool(select.select([leash], [], [], 1.0)[0])
        streams = [stream for stream in streams if stream.is_alive()]
        models.give_way()
        priority.set_session()
        if readable:
            data, descriptors, _flags, _address = socket.recv_fds(leash, 1, 1)
            if not data:
                return
            stream = threading.Thread(target=_answer, args=(socket.socket(fileno=descriptors[0]), models), daemon=True)
            stream.start()
            streams.append(stream)
        if streams or models.is_keeping:
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
