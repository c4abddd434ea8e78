"""Every benchmark and proof runs as a command and prints its figures, with tiny sizes."""

import json
import re
from multiprocessing.context import ForkServerContext
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests import environment
from tests.bench.scripts import ROOT, run_script
from tests.stack import Stack

SUPPORT = ROOT / "bench/support"  # modules that scripts share
SCRIPTS = sorted(
    path.relative_to(ROOT).as_posix() for path in ROOT.glob("bench/**/*.py") if SUPPORT not in path.parents
)
OF_INSTALLATIONS = [script for script in SCRIPTS if "import installation" in (ROOT / script).read_text()]
FIGURE = re.compile(r"(?<![\w.])\d[\d.]*")
# How many figures each prints at least, with --smoke.
NUM_FIGURES = {
    "bench/accuracy.py": 8,
    "bench/adapters.py": 10,
    "bench/beside_training.py": 6,
    "bench/cancel.py": 10,
    "bench/dial.py": 10,
    "bench/encoder_memory.py": 8,
    "bench/export.py": 4,
    "bench/first_paint.py": 36,
    "bench/large_corpus.py": 12,
    "bench/load.py": 8,
    "bench/log.py": 3,
    "bench/long_run.py": 20,
    "bench/many_jobs.py": 44,
    "bench/near_dedup.py": 8,
    "bench/paint.py": 8,
    "bench/parse.py": 14,
    "bench/plan.py": 10,
    "bench/proofs/cases.py": 2,
    "bench/proofs/cross_tool.py": 8,
    "bench/proofs/encoder.py": 8,
    "bench/proofs/facts.py": 8,
    "bench/proofs/lens.py": 32,
    "bench/proofs/llamacpp.py": 20,
    "bench/proofs/packing.py": 5,
    "bench/proofs/sentiment.py": 6,
    "bench/queued.py": 10,
    "bench/race.py": 20,
    "bench/save.py": 6,
    "bench/serve.py": 24,
    "bench/submit.py": 4,
    "bench/tokenize_text.py": 13,
    "bench/upload.py": 24,
    "bench/viewers.py": 12,
}
SECONDS = 900  # on a machine that is busy with other tests


@pytest.mark.parametrize("script", [script for script in SCRIPTS if script not in OF_INSTALLATIONS])
def test_a_benchmark_prints_its_figures(script: str, fork_server: ForkServerContext, tmp_path: Path) -> None:
    check_figures(script, fork_server, tmp_path)


@pytest.mark.parametrize("script", OF_INSTALLATIONS)
def test_a_benchmark_of_an_installation_prints_its_figures(
    script: str, fork_server: ForkServerContext, tmp_path: Path, running_stack: Stack
) -> None:
    names = [running_stack.base_url, running_stack.token, str(running_stack.data)]
    check_figures(script, fork_server, tmp_path, BENCH_INSTALLATION=json.dumps(names))


def check_figures(script: str, fork_server: ForkServerContext, tmp_path: Path, **variables: str) -> None:
    """Run a script with tiny sizes and count what it prints."""
    with TemporaryDirectory(dir=environment.HOME) as short:  # a path of more characters is too long for Chromium
        given = {"OMP_NUM_THREADS": "1", "TMPDIR": short, **variables}
        process = fork_server.Process(target=run_script, args=(script, tmp_path, given))
        process.start()
        process.join(SECONDS)
        process.kill()
    output, errors = ((tmp_path / name).read_text() for name in ("stdout", "stderr"))

    assert process.exitcode == 0, errors[-5000:]
    assert len(FIGURE.findall(output)) >= NUM_FIGURES[script], output
