"""Sharded initialization: rank 0 creates the weights, each rank gets its shard, and training is equivalent."""

import json
import os
import subprocess
import sys
from typing import Any

from trainer.launch.environment import free_port


def shard() -> list[dict[str, Any]]:
    """What each of two ranks says."""
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.trainer.sharded"],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [rank.communicate(timeout=120)[0] for rank in ranks]
    assert all(rank.returncode == 0 for rank in ranks)
    return [json.loads(next(line for line in text.splitlines() if line.startswith("{"))) for text in said]


def test_rank_0_initializes_the_values_and_each_rank_gets_its_half() -> None:
    first, second = shard()

    assert (first["holds"], second["holds"]) == (first["parameters"], 0)
    assert first["share"] == second["share"] >= first["values"] // 2
    assert first["share"] <= first["values"] // 2 + first["parameters"]  # the last of an odd number is padded
    assert first["buffers"] == second["buffers"]
    assert first["is_tied"]
    assert second["is_tied"]
    assert first["steps"] == second["steps"]
    assert first["steps"][0][0] > first["steps"][1][0]
    assert first["broadcast"] == second["broadcast"] == [0, "天", None]
