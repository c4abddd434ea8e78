"""Sharded initialization: rank 0 creates the weights, each rank gets its shard, and training is equivalent."""

import json
from typing import Any

from tests.trainer.gangs import GangForkServer
from trainer.launch.environment import free_port


def shard(fork_server: GangForkServer) -> list[dict[str, Any]]:
    """What each of two ranks says."""
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    ranks = [
        fork_server.command(
            "tests.trainer.sharded", **shared, RANK=str(rank), LOCAL_RANK=str(rank), OMP_NUM_THREADS="1"
        )
        for rank in range(2)
    ]
    ended = [rank.result() for rank in ranks]
    assert [rank.returncode for rank in ended] == [0, 0], ended
    return [json.loads(next(line for line in rank.stdout.splitlines() if line.startswith("{"))) for rank in ended]


def test_rank_0_initializes_the_values_and_each_rank_gets_its_half(fork_server: GangForkServer) -> None:
    first, second = shard(fork_server)

    assert (first["holds"], second["holds"]) == (first["parameters"], 0)
    assert first["share"] == second["share"] >= first["values"] // 2
    assert first["share"] <= first["values"] // 2 + first["parameters"]  # the last of an odd number is padded
    assert first["buffers"] == second["buffers"]
    assert first["is_tied"]
    assert second["is_tied"]
    assert first["steps"] == second["steps"]
    assert first["steps"][0][0] > first["steps"][1][0]
    assert first["broadcast"] == second["broadcast"] == [0, "天", None]
