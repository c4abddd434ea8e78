"""The client of tokenizer_server.py: encodes records and prompts and decodes tokens in a child process with limits.

A chat template is a program, and a tokenizer.json can be one: both may compute for ever or fill the memory. No torch.
"""

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import chain, repeat
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from trainer.data import tokenizer as tokenizers
from trainer.data.encoding_budget import encoding_budget
from trainer.data.record_encoding import Segment
from trainer.data.record_refused import RecordRefused
from trainer.data.server_process import IsStopped, ServerProcess, refusal
from trainer.failure import Failure

SERVER = "trainer.data.tokenizer_server"
MAX_DEATHS = 10  # of the children of a process or pool, before it gives up


class TokenizerProcess(ServerProcess):
    """A child process with the tokenizer of a directory, or with the one that is passed. Start at once, wait at use.

    Only one thread may use it at a time. All calls raise RecordRefused if the template or the tokenizer refuses the
    text or exceeds its budget, and Failure if the tokenizer cannot be opened or too many children died.
    """

    def __init__(self, source: Path | PreTrainedTokenizerFast) -> None:
        self._resources = ExitStack()
        if not isinstance(source, Path):
            directory = Path(self._resources.enter_context(tempfile.TemporaryDirectory(prefix="tokenizer-")))
            tokenizers.save_pretrained(source, directory)
            source = directory
        super().__init__(SERVER, source)

    def close(self) -> None:
        """End the process, whatever it is doing."""
        super().close()
        self._resources.close()

    # ---- what it is asked -------------------------------------------------------------------------------------------

    def segments(self, objective: str, records: Sequence[str]) -> Iterator[list[Segment] | RecordRefused]:
        """Encode records, as JSON texts: each with its segments, or with the reason why it cannot be used."""
        calls = [("segments", len(record.encode()), (objective, record)) for record in records]
        for answer in self._answers(calls, is_stopped=lambda: False):
            yield answer if isinstance(answer, RecordRefused) else [_unpacked(*segment) for segment in answer]

    def call(self, name: str, *arguments: Any, is_stopped: IsStopped = lambda: False) -> Any:
        """The result of a method of TokenizerServer. Raises CallStopped soon after `is_stopped`."""
        return self.call_all([(name, arguments)], is_stopped=is_stopped)[0]

    def call_all(
        self, calls: Sequence[tuple[str, Sequence[Any]]], *, is_stopped: IsStopped = lambda: False
    ) -> list[Any]:
        """The results of several calls, which are sent together. Raises the first refusal, and CallStopped."""
        sized = [(name, _size(arguments), arguments) for name, arguments in calls]
        results = list(self._answers(sized, is_stopped))
        for result in results:
            if isinstance(result, RecordRefused):
                raise result
        return results

    # ---- calls ------------------------------------------------------------------------------------------------------

    def _answers(self, calls: Sequence[tuple[str, int, Sequence[Any]]], is_stopped: IsStopped) -> Iterator[Any]:
        """One answer per call; the rest of the calls are sent again to a new process where one ends the process."""
        done = 0
        try:
            while done < len(calls):
                self.wait_until_ready(is_stopped)
                try:
                    self._connection.send_bytes(json.dumps({"calls": calls[done:]}).encode())
                    for call in calls[done:]:
                        message = json.loads(self._receive(encoding_budget(call[1]).cpu_seconds, is_stopped))
                        done += 1
                        yield refusal(message["refused"]) if "refused" in message else message["result"]
                except (EOFError, OSError):
                    done += 1
                    refused = self._death(encoding_budget(calls[done - 1][1]))
                    if len(self.deaths) > MAX_DEATHS:
                        raise Failure("chat_template_unusable", why=refused.message) from None
                    yield refused
        finally:
            if done < len(calls):  # answers that nobody reads must not be taken for those of later calls
                self._end()


def _size(arguments: Sequence[Any]) -> int:
    """The bytes of the arguments of a call, by which its budget is measured."""
    return len(json.dumps(arguments, ensure_ascii=False).encode(errors="replace"))


def _unpacked(ids: list[int], runs: list[tuple[float, int]]) -> Segment:
    return Segment(ids, list(chain.from_iterable(repeat(weight, count) for weight, count in runs)))
