"""How fast plans are made, beside a round trip of the same spec through JSON. Goal: a thousand in less than a second.

Run: python bench/plan.py [--smoke]
"""

import time
from collections.abc import Callable

from bench.support.arguments import IS_SMOKE
from trainer.planning.hardware import NodeHardware
from trainer.planning.plan import plan
from trainer.planning.proposals import BUDGETS, TextData, propose, propose_each
from trainer.planning.training_data import TrainingData
from trainer.spec import TrainSpec, resolve

PLANS, REPEATS = 1000, 5
GB = 10**9
CPU = NodeHardware(memory_bytes=16 * GB, num_cpus=2)
CARDS = NodeHardware(kind="cuda", name="NVIDIA RTX 4090", count=4, memory_bytes=24 * GB, host_memory_bytes=256 * GB)


def milliseconds(work: Callable[[], object], count: int) -> float:
    """CPU time of one, the best of a few repeats."""
    times = []
    for _repeat in range(REPEATS):
        begin = time.process_time()
        for _call in range(count):
            work()
        times.append(time.process_time() - begin)
    return min(times) / count * 1000


def main() -> None:
    """Print a line for each kind of plan."""
    tiny = resolve({"recipe": "tiny", "corpora": ["c"]})
    seven = resolve({"recipe": "llama-7b", "corpora": ["c"], "num_processes": 4})
    text = TextData(num_bytes=GB)
    trip = milliseconds(lambda: TrainSpec.model_validate_json(tiny.model_dump_json()), PLANS)
    print(f"{'round trip of a spec through JSON':48} {trip:8.3f} ms")
    for name, work, count in (
        ("a plan that fits", lambda: plan(tiny, 2048, CPU, TrainingData(num_bytes=4_000_000)), PLANS),
        (
            "a plan that does not, with the cheapest change",
            lambda: plan(seven, 32_000, CARDS, TrainingData(num_bytes=GB)),
            PLANS,
        ),
        ("a proposal for a text and a time", lambda: propose(text, CARDS, 86_400), min(20, PLANS)),
        ("proposals for all times of the curve", lambda: propose_each(text, CARDS, BUDGETS), min(20, PLANS)),
    ):
        each = milliseconds(work, count)
        print(f"{name:48} {each:8.3f} ms, {each / trip:6.1f} x the round trip, a thousand in {each:.2f} s")


if __name__ == "__main__":
    if IS_SMOKE:
        PLANS, REPEATS = 2, 1
    main()
