"""Fixtures of the trainer's tests."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from tests.trainer.gangs import GangForkServer
from tests.trainer.runs import make_run
from trainer.data.record_encoding import RecordEncoder
from trainer.data.record_refused import RecordRefused
from trainer.run_dir import RunDir


class EncoderInProcess:
    """Encodes as tokenizer_process.py does (test_tokenizer_process.py compares them), without a second's start."""

    def __init__(self, directory: Path) -> None:
        self._tokenizer = PreTrainedTokenizerFast.from_pretrained(directory, local_files_only=True)

    def segments(self, objective: str, records: Iterable[str]) -> Iterator[Any]:
        encoder = RecordEncoder(objective, self._tokenizer)
        for record in records:
            try:
                yield encoder.segments(json.loads(record))
            except RecordRefused as refused:
                yield refused

    def stop(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """Nothing runs."""


@pytest.fixture
def encodes_in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of what becomes of encoded records."""
    monkeypatch.setattr("trainer.data.tokenized_records.TokenizerProcess", EncoderInProcess)


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for runs that share a cache."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="session")
def trained(fork_server: GangForkServer, home: Path) -> RunDir:
    """A finished run: 150 steps, evaluated every 50, saved at 100 and 150."""
    run_dir = make_run(home, "trained", max_steps=150, eval_steps=50, save_steps=100, learning_rate=0.01)
    assert fork_server.run(run_dir) == 0, run_dir.log_path.read_text()
    return run_dir
