"""The child process that encodes plain text with a tokenizer that may be hostile. Imports neither torch nor
transformers, so that it starts at once.

`python -m trainer.data.text_server FD DIRECTORY` answers calls over an inherited socket until that closes. Frames: JSON
from here first, {} or {"failed"}; then from the client JSON {"is_fast", "sizes": [bytes of each text]} and the texts in
UTF-8, one after another. The answer is JSON {"counts": [tokens of each text]} and the ids of all as <u4; or {"refused"}
alone (see record_refused.MESSAGES). Each text of a call has its own time (encoding_budget.py), all have the memory of
the longest. A text that exceeds its time ends this process, and the client starts another.
"""

import json
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from itertools import accumulate, pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from trainer.data.encoding_budget import LOADING, answer_within, enforced, reason, text_budget
from trainer.data.fast_encoding import TokenIds, fast_encoder
from trainer.data.record_refused import RecordRefused
from trainer.data.special_tokens import for_plain_text
from trainer.processes.child_limits import data_bytes


class TextServer:
    """A tokenizer, by its library and, once that is asked for, by gigatoken."""

    def __init__(self, directory: Path) -> None:
        self._tokenizer = for_plain_text(Tokenizer.from_file(str(directory / "tokenizer.json")))
        self._fast: Callable[[str], TokenIds] | None = None
        self._has_tried_fast = False
        self._base_bytes = data_bytes()

    def answer(self, header: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
        """The frames that answer a call."""
        if header["is_fast"] and not self._has_tried_fast:
            self._open_fast()
        sizes = header["sizes"]
        answer = answer_within(
            text_budget(max(sizes)), self._base_bytes, lambda: self._encode(header["is_fast"], sizes, data)
        )
        if "refused" in answer:
            return answer, b""
        ids = answer["result"]
        return {"counts": [len(one) for one in ids]}, np.concatenate(ids).tobytes()

    def _open_fast(self) -> None:
        """Open gigatoken with nothing in its cache, unless it cannot encode as the tokenizer does."""
        self._has_tried_fast = True
        opened = answer_within(LOADING, self._base_bytes, lambda: fast_encoder(self._tokenizer))
        self._fast = opened.get("result")
        self._base_bytes = data_bytes()  # a second vocabulary is no memory of the calls that follow

    def _encode(self, is_fast: bool, sizes: list[int], data: bytes) -> list[np.ndarray[tuple[int], np.dtype[Any]]]:
        if is_fast and self._fast is None:
            raise RecordRefused("crash", why="gigatoken does not know this tokenizer")
        encode = self._fast if is_fast and self._fast is not None else self._exact
        ids: list[np.ndarray[tuple[int], np.dtype[Any]]] = []
        for start, end in pairwise(accumulate(sizes, initial=0)):
            signal.setitimer(signal.ITIMER_PROF, text_budget(end - start).cpu_seconds)
            ids.append(np.asarray(encode(data[start:end].decode()), dtype="<u4"))
        return ids

    def _exact(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids


def serve(connection: "Connection[Any, Any]", directory: Path) -> None:
    """Answer calls until the client closes the connection."""
    try:
        with enforced(LOADING, data_bytes()):
            server = TextServer(directory)
    except BaseException as error:
        connection.send_bytes(json.dumps({"failed": reason(error)}).encode())
        return
    connection.send_bytes(b"{}")
    while True:
        header = json.loads(connection.recv_bytes())
        answer, ids = server.answer(header, connection.recv_bytes())
        connection.send_bytes(json.dumps(answer).encode())
        if "refused" not in answer:
            connection.send_bytes(ids)


def main() -> None:
    """Serve the connection of the arguments."""
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the client closed the connection
        serve(Connection(int(sys.argv[1])), Path(sys.argv[2]))


if __name__ == "__main__":
    main()
