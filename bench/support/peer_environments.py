"""Other tracking tools with the same long curve, each in a Python environment made for it, from the package index."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.support import metric_peer

PACKAGES = {"tensorboard": "tensorboard==2.21.0", "mlflow": "mlflow==3.17.2", "trackio": "trackio==0.43.0"}
# Points that a tool stores in a minute or two, at most.
MAX_POINTS = {"tensorboard": 1_000_000, "mlflow": 100_000, "trackio": 100_000}


def measure(tool: str, request: dict[str, Any]) -> dict[str, Any]:
    """What bench/support/metric_peer.py prints for a tool."""
    with tempfile.TemporaryDirectory(prefix="athanor-bench-") as home:
        python, data = Path(home) / "venv/bin/python", Path(home) / "data"
        data.mkdir()
        subprocess.run([sys.executable, "-m", "venv", python.parents[1]], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "setuptools<81", PACKAGES[tool]], check=True)
        variables = {"PATH": os.environ["PATH"], "HOME": home, "TRACKIO_DIR": str(data)}
        command = [python, metric_peer.__file__, tool, data]
        child = subprocess.run(command, input=json.dumps(request), env=variables, text=True, capture_output=True)
        assert child.returncode == 0, child.stderr[-3000:]
        figures: dict[str, Any] = json.loads(child.stdout.splitlines()[-1])
        return figures
