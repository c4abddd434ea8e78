"""Damaged files of each format: each ends with a reason or is read; none hangs the reader or writes elsewhere."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.core.json_shapes import Problem
from app.corpora import problems
from tests.worker.sandbox.corpus.fuzz import outcome
from tests.worker.sandbox.corpus.sample_files import SAMPLES
from trainer.processes.child_limits import ChildLimits, limited_command

NUM_FILES = int(os.environ.get("FUZZ_FILES", "6"))
SEED = int(os.environ.get("FUZZ_SEED", "1"))
SECONDS_PER_FILE = 5  # of computing
MEMORY = 2 << 30


@pytest.mark.parametrize("form", SAMPLES)
def test_damaged_files_end_with_a_reason(tmp_path: Path, form: str) -> None:
    inside = tmp_path / "corpus"
    inside.mkdir()
    command = [sys.executable, "-m", "tests.worker.sandbox.corpus.fuzz", form, str(NUM_FILES), str(SEED), str(inside)]
    limits = ChildLimits(memory_bytes=MEMORY, cpu_seconds=20 + SECONDS_PER_FILE * NUM_FILES, file_bytes=64 << 20)
    child = subprocess.run(limited_command(limits, command), capture_output=True, text=True, check=False)

    ends = [json.loads(line)["outcome"] for line in child.stdout.splitlines()]
    assert child.returncode == 0, f"file {len(ends)} ended the reader: {child.stderr[-2000:]}"
    assert len(ends) == NUM_FILES
    assert [end for end in ends if end != "ready" and end not in problems.MESSAGES] == []
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]
    assert {path.name for path in inside.iterdir()} <= {"upload", "text.bin", "index.bin"}


@pytest.mark.parametrize("form", SAMPLES)
def test_the_undamaged_file_is_read(tmp_path: Path, form: str) -> None:
    assert outcome(tmp_path, form, SAMPLES[form]) == "ready"


def test_the_sentence_of_each_new_problem_can_be_filled() -> None:
    values = {"limit_bytes": 5, "ratio": 100, "limit": 5, "why": "a", "pages": 2, "numbers": "1", "encoding": "utf-8"}
    for code in problems.MESSAGES:
        if code.startswith(("file_", "archive_", "pages_", "pdf_", "expands")):
            assert "{" not in problems.sentence(Problem(code=code, file="a", **values))
