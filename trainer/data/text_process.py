"""The client of text_server.py: encodes plain text in a child process with limits. Imports no torch."""

import json
from collections.abc import Sequence
from contextlib import suppress
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np

from trainer.data.encoding_budget import LOADING, text_budget
from trainer.data.fast_encoding import TokenIds
from trainer.data.record_refused import RecordRefused
from trainer.data.server_process import ServerProcess, refusal

SERVER = "trainer.data.text_server"
MAX_DEATHS = 10  # of the children of a process or pool, before gigatoken is no longer tried


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
        """The tokens of each text by the tokenizers library, up to the first that cannot be encoded: then its reason.

        A run ends there, so that a tokenizer can cost it little more time than one text may take.
        """
        try:
            return [*self._call(texts, is_fast=False)]
        except RecordRefused as refused:
            if len(texts) == 1:
                return [refused]
        answers: list[TokenIds | RecordRefused] = []
        for text in texts:
            answers += self.exact([text])
            if isinstance(answers[-1], RecordRefused):
                break
        return answers

    def fast_or_exact(self, texts: Sequence[str]) -> list[TokenIds | RecordRefused]:
        """The same by gigatoken; what it refuses, as its cache leaves a call less memory, by the library."""
        if len(self.deaths) <= MAX_DEATHS:
            with suppress(RecordRefused):
                return [*self._call(texts, is_fast=True)]
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
            seconds = LOADING.cpu_seconds + text_budget(sum(sizes)).cpu_seconds
            answer = json.loads(self._receive(seconds))
            if "refused" in answer:
                raise refusal(answer["refused"])
            ids = np.frombuffer(self._receive(1.0), dtype="<u4")
        except (EOFError, OSError):
            raise self._death(text_budget(max(sizes))) from None
        return [ids[start:end] for start, end in pairwise(accumulate(answer["counts"], initial=0))]
