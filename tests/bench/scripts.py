"""Runs scripts in processes that have their libraries already."""

import importlib
import json
import os
import runpy
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def run_script(script: str, directory: Path, environment: dict[str, str]) -> None:
    """Do what `PYTHONPATH=. python SCRIPT --smoke` does; the output goes to `stdout` and `stderr` in a directory."""
    os.environ.update(environment)
    tempfile.tempdir = str(directory)
    os.chdir(ROOT)
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        with (directory / name).open("wb") as file:
            os.dup2(file.fileno(), descriptor)
    sys.argv = [script, "--smoke"]
    sys.path[:0] = [str(Path(script).parent), str(ROOT)]
    sys.modules["torch"].set_num_threads(1)
    runpy.run_path(script, run_name="__main__")


def measure_memory(path: Path, kinds: list[tuple[dict[str, Any], int]]) -> None:
    """Measure specs with a large vocabulary, by kind of training and micro-batch, as bench/accuracy.py does; writes a
    list of figures and errors into a JSON file.
    """
    accuracy = importlib.import_module("bench.accuracy")
    accuracy.STEPS, accuracy.SIDE = 1, 64
    results = []
    for kind, batch_size in kinds:
        spec = accuracy.large_vocabulary({**kind, "num_hidden_layers": 2, "hidden_size": 64}, batch_size)
        measured = accuracy.measure(spec)
        results.append({**measured, **accuracy.compare(spec, measured)})
    path.write_text(json.dumps(results))
