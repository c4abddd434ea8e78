"""Every benchmark and proof runs as a command and prints its figures, with tiny sizes."""

import json
import re
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

from tests.bench.scripts import ROOT, run_script

SUPPORT = ROOT / "bench/support"  # modules that scripts share
SCRIPTS = sorted(
    path.relative_to(ROOT).as_posix() for path in ROOT.glob("bench/**/*.py") if SUPPORT not in path.parents
)
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
    "bench/large_corpus.py": 12,
    "bench/load.py": 8,
    "bench/log.py": 3,
    "bench/long_run.py": 20,
    "bench/many_jobs.py": 44,
    "bench/near_dedup.py": 8,
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


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_benchmark_prints_its_figures(
    script: str, fork_server: ForkServerContext, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    environment = {"OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)}
    if "import installation" in Path(ROOT, script).read_text():
        stack = request.getfixturevalue("running_stack")
        environment["BENCH_INSTALLATION"] = json.dumps([stack.base_url, stack.token, str(stack.data)])
    process = fork_server.Process(target=run_script, args=(script, tmp_path, environment))
    process.start()
    process.join(SECONDS)
    process.kill()
    output, errors = ((tmp_path / name).read_text() for name in ("stdout", "stderr"))

    assert process.exitcode == 0, errors[-5000:]
    assert len(FIGURE.findall(output)) >= NUM_FIGURES[script], output
