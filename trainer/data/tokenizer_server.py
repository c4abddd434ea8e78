"""The child process that holds a tokenizer and its chat template, which may be hostile: both are programs.

`python -m trainer.data.tokenizer_server FD DIRECTORY` answers calls over an inherited socket until that closes.
Frames are JSON: first {"base_bytes"} or {"failed"} from here, then {"calls": [[name, size, arguments], ...]} from the
client, each call answered by {"result"} or {"refused"} with a reason (see record_refused.MESSAGES). Each call has the
budget of encoding_budget.py; one that exceeds its time ends this process, and the client starts another.
"""

import json
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import groupby
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from trainer.data import chat_template
from trainer.data import tokenizer as tokenizers
from trainer.data.detokenizer import Detokenizer
from trainer.data.encoding_budget import LOADING, answer_within, encoding_budget, enforced, reason
from trainer.data.record_encoding import RecordEncoder, Segment
from trainer.data.record_refused import RecordRefused
from trainer.data.token_bytes import TokenBytes
from trainer.data.token_views import TokenViews
from trainer.data.tool_formats import special_marks, tool_format
from trainer.processes.child_limits import data_bytes

MAX_TEXTS = 1024  # that are decoded at once


class TokenizerServer:
    """What a client may call."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        self._encoders: dict[str, RecordEncoder] = {}
        self._token_bytes = TokenBytes(tokenizer.backend_tokenizer)
        self._views = TokenViews(tokenizer, self._token_bytes)
        self._decoders: dict[str, Detokenizer] = {}  # by the ID that the client gives a text
        self.calls: dict[str, Callable[..., Any]] = {
            "segments": self.segments,
            "sample": lambda objective, text: self._encoder(objective).encode_prompt(text),
            "chat": self.chat,
            "prompt": self.prompt,
            "source": lambda text: self._encoder("seq2seq").segments({"source": text, "target": ""})[0].ids,
            "stop_ids": lambda: chat_template.tokenizer_stop_ids(tokenizer),
            "begin": self.begin,
            "push_all": lambda text, tokens: self._decoders[text].push_all(tokens),
            "rest": lambda text, is_cut: self._decoders.pop(text).rest(is_cut=is_cut),
            "token_bytes": self.token_bytes,
            "vocabulary": self.vocabulary,
            "tool_format": lambda: tool_format(chat_template.default_template(tokenizer)),
            "tool_marks": lambda: special_marks(_special_tokens(tokenizer)),
            "tokens": lambda text, special: self._views.encode(text, with_special_tokens=special),
            "masked_tokens": lambda text: self._views.masked(text),
            "token_texts": lambda ids: self._views.texts(ids),
            "vocab_size": lambda: self._views.size,
        }

    def segments(self, objective: str, text: str) -> list[Any]:
        """The segments of a record: token ids, and their weights as runs of [weight, count]."""
        return [_packed(segment) for segment in self._encoder(objective).segments(json.loads(text))]

    def chat(
        self, messages: list[dict[str, Any]], prefill: str = "", tools: list[Mapping[str, Any]] | None = None
    ) -> list[int]:
        """The tokens of a conversation up to the answer, or up to the end of the text that the answer begins with."""
        if chat_template.default_template(self._tokenizer) is None:
            raise RecordRefused("no_template")
        encoder = self._encoder("chat")
        return [*encoder.prompt(messages, tools), *(encoder.encode_text(prefill) if prefill else [])]

    def prompt(self, text: str) -> list[int]:
        """The tokens of a text to continue."""
        return tokenizers.encode_prompt(self._tokenizer, text)

    def begin(self, text: str, prompt: list[int]) -> None:
        """Decode the tokens of a text that follow a prompt: `push_all`, then `rest`."""
        while len(self._decoders) >= MAX_TEXTS:  # of clients that left without `rest`
            del self._decoders[next(iter(self._decoders))]
        self._decoders[text] = Detokenizer(self._tokenizer.backend_tokenizer, prompt)

    def token_bytes(self, ids: list[int]) -> list[list[int]]:
        """The bytes that each token stands for."""
        return [list(self._token_bytes[number]) for number in ids]

    def vocabulary(self, start: int, stop: int) -> list[str]:
        """What the tokens of a range add to a text, in hexadecimal: nothing for special ones. Ends with the last
        token.
        """
        special = set(self._tokenizer.all_special_ids)
        ids = range(start, min(stop, len(self._tokenizer)))
        return ["" if number in special else self._token_bytes[number].hex() for number in ids]

    def _encoder(self, objective: str) -> RecordEncoder:
        if objective not in self._encoders:
            self._encoders[objective] = RecordEncoder(objective, self._tokenizer)
        return self._encoders[objective]


def _special_tokens(tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    """The tokens that decoding leaves out, with their IDs."""
    added = tokenizer.backend_tokenizer.get_added_tokens_decoder()
    return {token.content: number for number, token in added.items() if token.special}


def _packed(segment: Segment) -> list[Any]:
    return [segment.ids, [[weight, len(list(run))] for weight, run in groupby(segment.weights)]]


def _answer(server: TokenizerServer, base_bytes: int, call: list[Any]) -> dict[str, Any]:
    """The result of a call, or why there is none. Whatever a template or a library raises is a reason."""
    name, size, arguments = call
    return answer_within(encoding_budget(size), base_bytes, lambda: server.calls[name](*arguments))


def serve(connection: "Connection[Any, Any]", directory: Path) -> None:
    """Answer calls until the client closes the connection."""

    def send(message: dict[str, Any]) -> None:
        # Lone surrogates, which a template may write, cannot be encoded: escapes can.
        connection.send_bytes(json.dumps(message).encode())

    try:
        with enforced(LOADING, data_bytes()):
            server = TokenizerServer(PreTrainedTokenizerFast.from_pretrained(directory, local_files_only=True))
    except BaseException as error:
        send({"failed": reason(error)})
        return
    base_bytes = data_bytes()
    send({"base_bytes": base_bytes})
    while True:
        for call in json.loads(connection.recv_bytes())["calls"]:
            send(_answer(server, base_bytes, call))


def main() -> None:
    """Serve the connection of the arguments."""
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the client closed the connection
        serve(Connection(int(sys.argv[1])), Path(sys.argv[2]))


if __name__ == "__main__":
    main()
