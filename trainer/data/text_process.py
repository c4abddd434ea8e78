"""The client of text_server.py: encodes plain text in a child process with limits. Imports no torch."""

import json
from collections.abc import Sequence
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np

from trainer.data.encoding_budget import LOADING, encoding_budget
from trainer.data.fast_encoding import TokenIds
from trainer.data.record_refused import RecordRefused
from trainer.data.server_process import ServerProcess, refusal

SERVER = "trainer.data.text_server"


class TextProcess(ServerProcess):
    """A child process with the tokenizer of a directory, for text without special tokens.

    Its methods raise Failure if the tokenizer cannot be opened.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__(SERVER, directory)

    def fast(self, texts: Sequence[str]) -> list[TokenIds | RecordRefused]:
        """The tokens of each text by gigatoken; refusals if that cannot encode all of them."""
        try:
            return [*self._call(texts, is_fast=True)]
        except RecordRefused as refused:
            return [refused] * len(texts)

    def exact(self, texts: Sequence[str]) -> list[TokenIds | RecordRefused]:
        """The tokens of each text by the tokenizers library, or the reason why it cannot be encoded."""
        try:
            return [*self._call(texts, is_fast=False)]
        except RecordRefused as refused:
            return [refused] if len(texts) == 1 else [one for text in texts for one in self.exact([text])]

    def fast_or_exact(self, texts: Sequence[str]) -> list[TokenIds | RecordRefused]:
        """The same by gigatoken; what it refuses, as its cache leaves a call less memory, by the library."""
        try:
            return [*self._call(texts, is_fast=True)]
        except RecordRefused:
            return self.exact(texts)

    def _call(self, texts: Sequence[str], *, is_fast: bool) -> list[TokenIds]:
        """The tokens of each text. Raises RecordRefused if that takes too much, without saying which text did."""
        if not texts:
            return []
        data = [text.encode() for text in texts]
        sizes = [len(each) for each in data]
        self.wait_until_ready()
        try:
            self._connection.send_bytes(json.dumps({"is_fast": is_fast, "sizes": sizes}).encode())
            self._connection.send_bytes(b"".join(data))
            seconds = LOADING.cpu_seconds + encoding_budget(max(sizes), sum(sizes)).cpu_seconds
            answer = json.loads(self._receive(seconds))
            if "refused" in answer:
                raise refusal(answer["refused"])
            ids = np.frombuffer(self._receive(1.0), dtype="<u4")
        except (EOFError, OSError):
            raise self._death(sum(sizes)) from None
        return [ids[start:end] for start, end in pairwise(accumulate(answer["counts"], initial=0))]
