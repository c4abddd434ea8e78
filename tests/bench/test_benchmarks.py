"""Every benchmark runs and prints figures: with tiny sizes, two at a time, or on the installation of the tests."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from bench import cancel, submit, upload
from tests.stack import Stack

ROOT = Path(__file__).parents[2]
FIGURE = re.compile(r"\d+\.\d|\d+ ?(?:ms|%|s\b|MB)|: \d")
ON_AN_INSTALLATION = {"cancel", "submit", "upload"}
ALONE = sorted({path.stem for path in ROOT.glob("bench/*.py")} - ON_AN_INSTALLATION)
SECONDS = 300  # on a machine that is busy with other tests

Running = dict[str, "Future[subprocess.CompletedProcess[str]]"]


def smoke(name: str) -> subprocess.CompletedProcess[str]:
    """Run a benchmark as a command with tiny sizes."""
    environment = {**os.environ, "PYTHONPATH": ".", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", f"bench/{name}.py", "--smoke"]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=SECONDS)


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    """All benchmarks that need no installation: two run while the tests wait for each in turn."""
    with ThreadPoolExecutor(2) as pool:
        yield {name: pool.submit(smoke, name) for name in ALONE}


@pytest.mark.parametrize("name", ALONE)
def test_a_benchmark_prints_figures(name: str, running: Running) -> None:
    completed = running[name].result()

    assert completed.returncode == 0, completed.stderr[-3000:]
    assert len(FIGURE.findall(completed.stdout)) >= 2, completed.stdout


def test_stopping_jobs_is_measured(running_stack: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    cancel.measure(running_stack, 1)

    assert len(FIGURE.findall(capsys.readouterr().out)) >= 8


def test_the_first_loss_of_a_job_is_measured(
    running_stack: Stack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    submit.measure(running_stack, 1, tmp_path)

    assert len(FIGURE.findall(capsys.readouterr().out)) >= 4


def test_uploads_are_measured(
    running_stack: Stack, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload, "LAPS", 1)
    for path in upload.texts(tmp_path, 1):
        upload.measure(running_stack.client, path)

    assert capsys.readouterr().out.count("upload_mb_per_second") == len(upload.SAMPLES)
