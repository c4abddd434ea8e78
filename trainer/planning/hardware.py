"""What a plan knows of the machine: devices with their published rates, memory, links, power. Pydantic only.

Rates are the makers' dense figures, without sparsity. What a node really reaches is for a probe to say.
"""

from typing import Literal

from pydantic import BaseModel

GIGA, TERA = 10**9, 10**12
# Of one core with AVX2 at 2.9 GHz: two fused multiply-adds of eight values. bf16 is emulated, hundreds of times slower.
CPU_CORE_FLOPS = {"fp32": 70e9, "bf16": 0.25e9}
CPU_MEMORY_BANDWIDTH = 14e9
DISK_BANDWIDTH = 0.7e9


class Device(BaseModel):
    """A kind of GPU: operations a second by precision, bytes a second of its memory and of its link to a neighbour."""

    flops: dict[str, float]
    bandwidth: float
    link: float
    watts: float


def _gpu(bf16: float | None, fp32: float, bandwidth: float, link: float, watts: float) -> Device:
    rates = {"fp32": fp32 * TERA} | ({"bf16": bf16 * TERA} if bf16 is not None else {})
    return Device(flops=rates, bandwidth=bandwidth * GIGA, link=link * GIGA, watts=watts)


# By a part of the name that NVML gives; the first that occurs in it counts. NVLink and PCIe count one direction.
DEVICES = {
    "B200": _gpu(2250, 75, 7700, 900, 1000),
    "H200": _gpu(989, 67, 4800, 450, 700),
    "H100 PCIe": _gpu(756, 51, 2000, 64, 350),
    "H100": _gpu(989, 67, 3350, 450, 700),
    "H800": _gpu(989, 67, 3350, 200, 700),
    "H20": _gpu(148, 44, 4000, 450, 400),
    "A100": _gpu(312, 19.5, 2039, 300, 400),
    "A800": _gpu(312, 19.5, 2039, 200, 400),
    "L40S": _gpu(362, 91.6, 864, 32, 350),
    "L40": _gpu(181, 90.5, 864, 32, 300),
    "L4": _gpu(121, 30.3, 300, 32, 72),
    "A6000": _gpu(155, 38.7, 768, 32, 300),
    "A10G": _gpu(70, 31.5, 600, 32, 150),
    "A10": _gpu(125, 31.2, 600, 32, 150),
    "5090": _gpu(210, 105, 1792, 64, 575),
    "4090": _gpu(165, 82.6, 1008, 32, 450),
    "3090": _gpu(71, 35.6, 936, 16, 350),
    "V100": _gpu(None, 15.7, 900, 150, 300),
    "T4": _gpu(None, 8.1, 320, 16, 70),
}
DEFAULT_GPU = _gpu(100, 25, 800, 16, 300)  # of the middle, with a wide interval


class Node(BaseModel):
    """A machine that may run a job. `memory_bytes` is that of each GPU, or of the whole machine where it has none.

    What a probe or earlier jobs measured is put in `gemm_flops` (operations a second of one device at the job's
    precision) and in the corrections, which multiply what the arithmetic says.
    """

    kind: Literal["cpu", "cuda"] = "cpu"
    name: str = ""  # of its devices
    count: int = 1  # of its GPUs
    memory_bytes: int
    num_cpus: int = 2
    host_memory_bytes: int | None = None
    gemm_flops: float | None = None
    memory_correction: float = 1.0
    time_correction: float = 1.0
    num_earlier_jobs: int = 0  # that the corrections come from
    watts: float | None = None  # of one GPU, or of the whole machine, under load; else the maker's figure
    price_per_hour: float | None = None  # of the whole machine
    price_per_kwh: float | None = None

    @property
    def device(self) -> Device:
        """The kind of each of its devices; all cores together count as one."""
        if self.kind == "cuda":
            return next((kind for part, kind in DEVICES.items() if part.lower() in self.name.lower()), DEFAULT_GPU)
        rates = {precision: self.num_cpus * rate for precision, rate in CPU_CORE_FLOPS.items()}
        return Device(flops=rates, bandwidth=CPU_MEMORY_BANDWIDTH, link=CPU_MEMORY_BANDWIDTH / 4, watts=0)

    @property
    def is_known(self) -> bool:
        """Whether its rates are published."""
        return self.kind == "cpu" or self.device is not DEFAULT_GPU

    def precision(self, asked: str) -> str:
        """fp32 or bf16: `auto` takes bf16 where a GPU has it."""
        if asked != "auto":
            return asked
        return "bf16" if self.kind == "cuda" and "bf16" in self.device.flops else "fp32"

    def memory_per_process(self, num_processes: int) -> int:
        """A GPU's own, or a share of the machine's."""
        return self.memory_bytes if self.kind == "cuda" else self.memory_bytes // num_processes
