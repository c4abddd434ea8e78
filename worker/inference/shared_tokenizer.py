"""The tokenizer process of a model, shared by all its generations: a call waits until the one before it is answered."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from trainer.data.server_process import LOOK_SECONDS, CallStopped, IsStopped
from trainer.data.tokenizer_process import TokenizerProcess
from trainer.failure import Failure
from trainer.inference.grammar import Vocabulary

PART_TOKENS = 4_096  # of the vocabulary that are read at once


class SharedTokenizer:
    """A tokenizer process for any number of threads. See TokenizerServer for what can be called."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._process = TokenizerProcess(directory)
        self._lock = threading.Lock()
        self._constants: dict[str, Any] = {}
        self._vocabulary: Vocabulary | None = None
        self._vocabulary_lock = threading.Lock()
        self._texts = count()

    @property
    def is_ready(self) -> bool:
        """Whether the process has opened its directory."""
        return self._process.is_ready

    @property
    def process_id(self) -> int:
        """The ID of the process."""
        return self._process.process_id

    def wait_until_ready(self, is_stopped: IsStopped) -> None:
        """Wait until the process has opened its directory. Raises Failure, and CallStopped soon after `is_stopped`."""
        with self._turn(is_stopped) as process:
            process.wait_until_ready(is_stopped)

    def call(self, name: str, *arguments: Any, is_stopped: IsStopped) -> Any:
        """The result of a call. Raises RecordRefused, Failure, and CallStopped soon after `is_stopped`."""
        with self._turn(is_stopped) as process:
            return process.call(name, *arguments, is_stopped=is_stopped)

    def constant(self, name: str, is_stopped: IsStopped) -> Any:
        """The result of a call without arguments that is always the same: it is asked once. Raises as `call`."""
        if name not in self._constants:
            self._constants[name] = self.call(name, is_stopped=is_stopped)
        return self._constants[name]

    def decoder(self, prompt: Sequence[int], is_stopped: IsStopped) -> "SharedDecoder":
        """A decoder of the tokens that follow a prompt."""
        return SharedDecoder(self, str(next(self._texts)), list(prompt), is_stopped)

    def decode(self, decoder: "SharedDecoder", name: str, *arguments: Any) -> Any:
        """The result of `push_all` or `rest`. A process that was started anew is told the text so far first."""
        with self._turn(decoder.is_stopped) as process:
            calls: list[tuple[str, Sequence[Any]]] = [(name, (decoder.id, *arguments))]
            process.wait_until_ready(decoder.is_stopped)  # which starts the next one after a call that was stopped
            if decoder.process_number != process.number:
                before = ("begin", (decoder.id, decoder.prompt)), ("push_all", (decoder.id, decoder.tokens))
                calls = [*before, *calls]
            results = process.call_all(calls, is_stopped=decoder.is_stopped)
            decoder.process_number = process.number
            return results[-1]

    def vocabulary(self, is_stopped: IsStopped) -> Vocabulary:
        """All tokens, read once."""
        with self._vocabulary_lock:
            if self._vocabulary is None:
                tokens: list[bytes] = []
                while part := self.call("vocabulary", len(tokens), len(tokens) + PART_TOKENS, is_stopped=is_stopped):
                    tokens += map(bytes.fromhex, part)
                self._vocabulary = Vocabulary(tokens)
            return self._vocabulary

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._process.close()

    @contextmanager
    def _turn(self, is_stopped: IsStopped) -> Iterator[TokenizerProcess]:
        while not self._lock.acquire(timeout=LOOK_SECONDS):
            if is_stopped():
                raise CallStopped
        try:
            yield self._process
        except Failure:  # it died too often
            self._process.close()
            self._process = TokenizerProcess(self._directory)
            raise
        finally:
            self._lock.release()


@dataclass
class SharedDecoder:
    """Decodes one text (a TokenDecoder)."""

    tokenizer: SharedTokenizer
    id: str
    prompt: list[int]
    is_stopped: IsStopped
    tokens: list[int] = field(default_factory=list)
    process_number: int = -1  # of the process that has been told of the tokens

    def push_all(self, tokens: Sequence[int]) -> list[str]:
        """Add tokens. Returns the text that is certain after each."""
        texts: list[str] = self.tokenizer.decode(self, "push_all", list(tokens)) if tokens else []
        self.tokens += tokens
        return texts

    def rest(self, *, is_cut: bool = False) -> str:
        """The text still held at the end."""
        return str(self.tokenizer.decode(self, "rest", is_cut))
