"""Generating text: one completion, or a conversation."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Annotated

import typer

from ..api import Client
from ..errors import AthanorError
from ..generation import GenerationOptions
from ..language import _
from .terminal import AsJson, ModelId, connect, hint, print_json, printable

with suppress(ImportError):
    import readline  # noqa: F401 - lets people edit their lines

MaxTokens = Annotated[int | None, typer.Option(min=1, help="Tokens at most.")]
Temperature = Annotated[float | None, typer.Option(min=0, max=2, help="0 takes the most likely token each time.")]
TopP = Annotated[float | None, typer.Option(help="Most likely tokens with this total probability.")]
TopK = Annotated[int | None, typer.Option(min=0, help="So many most likely tokens; 0: all.")]
Seed = Annotated[int | None, typer.Option(min=0, help="The same seed gives the same text.")]
Stop = Annotated[list[str] | None, typer.Option(help="Text that ends the answer; may be repeated.")]

Message = dict[str, str]


def generate(
    model: ModelId,
    prompt: Annotated[str | None, typer.Argument(help="The text to continue; read from standard input if -.")] = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    top_k: TopK = None,
    seed: Seed = None,
    stop: Stop = None,
    as_json: AsJson = False,
) -> None:
    """Continue a text with a checkpoint or base model. Ctrl-C stops it."""
    text = sys.stdin.read() if prompt == "-" else prompt or ""
    options = _options(max_tokens, temperature, top_p, top_k, seed, stop)
    with connect() as client:
        if as_json:
            print_json(client.generate(model, text, **options))
            return
        for piece in _pieces(client, model, options, prompt=text):
            _write(piece)
        _write("\n")


def chat(
    model: ModelId,
    system: Annotated[str | None, typer.Option(help="What the model is told before the conversation.")] = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    top_k: TopK = None,
    seed: Seed = None,
    stop: Stop = None,
    as_json: AsJson = False,
) -> None:
    """Talk to a checkpoint or base model. Ctrl-C stops an answer, Ctrl-D ends the conversation."""
    options = _options(max_tokens, temperature, top_p, top_k, seed, stop)
    conversation: list[Message] = [{"role": "system", "content": system}] if system else []
    if sys.stdin.isatty():
        hint(_("Ctrl-C stops an answer, Ctrl-D ends the conversation."))
    with connect() as client:
        for line in _lines():
            conversation.append({"role": "user", "content": line})
            answer = _answer(client, model, conversation, options, is_silent=as_json)
            if answer is None:
                conversation.pop()  # so that the next question starts where this one did
            else:
                conversation.append({"role": "assistant", "content": answer})
    if as_json:
        print_json({"messages": conversation})


def _options(
    max_tokens: int | None,
    temperature: float | None,
    top_p: float | None,
    top_k: int | None,
    seed: int | None,
    stop: Sequence[str] | None,
) -> GenerationOptions:
    options: GenerationOptions = {"stop": [*stop] if stop else []}
    if max_tokens is not None:
        options["max_tokens"] = max_tokens
    if temperature is not None:
        options["temperature"] = temperature
    if top_p is not None:
        options["top_p"] = top_p
    if top_k is not None:
        options["top_k"] = top_k
    if seed is not None:
        options["seed"] = seed
    return options


def _lines() -> Iterator[str]:
    """What the user types, line by line, until Ctrl-D; Ctrl-C empties the line."""
    prompt = "> " if sys.stdin.isatty() else ""
    while True:
        try:
            line = input(prompt)
        except KeyboardInterrupt:
            _write("\n")
            continue
        except EOFError:
            _write("\n" if prompt else "")
            return
        if line.strip():
            yield line


def _answer(
    client: Client, model: str, conversation: list[Message], options: GenerationOptions, *, is_silent: bool
) -> str | None:
    """The answer, written while it arrives; what there is of it if Ctrl-C stops it; None if there is none."""
    text = ""
    try:
        for piece in _pieces(client, model, options, messages=conversation):
            text += piece
            _write("" if is_silent else piece)
    except KeyboardInterrupt:
        _write("\n")
        hint(_("Stopped."))
        return text or None
    except AthanorError as error:
        if not sys.stdin.isatty():
            raise
        hint(str(error))  # such as a conversation that has become too long
        return None
    _write("" if is_silent else "\n")
    return text


def _pieces(
    client: Client, model: str, options: GenerationOptions, prompt: str = "", messages: Sequence[Message] | None = None
) -> Iterator[str]:
    """The pieces of a text while the model generates it; why it does not begin yet stands on standard error."""
    with client.stream(model, prompt, messages=messages, **options) as events:
        for name, data in events:
            if name == "waiting":
                hint(data["message"])
            elif name == "piece":
                yield data["text"]


def _write(text: str) -> None:
    sys.stdout.write(printable(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()
