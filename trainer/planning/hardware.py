"""The machine a plan is for: GPUs with their published rates, memory, links and power. Pydantic only.

Rates are the vendors' dense figures, without sparsity; a benchmark on the node replaces them (see `gemm_flops`).
"""

from typing import Literal

from pydantic import BaseModel

GIGA, TERA = 10**9, 10**12
# One core with AVX2 at 2.9 GHz: two fused multiply-adds of eight fp32 values a cycle. bf16 is emulated, much slower.
CPU_CORE_FLOPS = {"fp32": 70e9, "bf16": 0.25e9}
CPU_MEMORY_BANDWIDTH = 14e9  # bytes per second
DISK_BANDWIDTH = 0.7e9  # bytes per second


class Device(BaseModel):
    """A GPU model: FLOPs per second by precision, bytes per second of its memory and of its link, watts under load."""

    flops: dict[str, float]
    bandwidth: float
    link: float
    watts: float


def _gpu(bf16: float | None, fp32: float, bandwidth: float, link: float, watts: float) -> Device:
    rates = {"fp32": fp32 * TERA} | ({"bf16": bf16 * TERA} if bf16 is not None else {})
    return Device(flops=rates, bandwidth=bandwidth * GIGA, link=link * GIGA, watts=watts)


# Keyed by a part of the name that NVML reports; the first match wins. Bandwidth of NVLink and PCIe is one direction's.
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
DEFAULT_GPU = _gpu(100, 25, 800, 16, 300)  # a mid-range GPU, for devices that are not in the table


class NodeHardware(BaseModel):
    """A machine that may run a job. `memory_bytes` is the memory of each GPU, or of the machine if it has none.

    `gemm_flops` is what a benchmark measured on one device, in FLOPs per second at the job's precision. The corrections
    are factors learned from earlier jobs on this machine, by which estimates of memory and time are multiplied.
    """

    kind: Literal["cpu", "cuda"] = "cpu"
    name: str = ""  # of its GPUs
    count: int = 1  # GPUs
    memory_bytes: int
    num_cpus: int = 2
    host_memory_bytes: int | None = None
    gemm_flops: float | None = None
    memory_correction: float = 1.0
    time_correction: float = 1.0
    num_earlier_jobs: int = 0  # on which the corrections are based
    watts: float | None = None  # of one GPU, or of the whole machine, under load; None takes the published figure
    price_per_hour: float | None = None  # of the whole machine
    price_per_kwh: float | None = None

    @property
    def device(self) -> Device:
        """The published rates of each GPU; all cores of a CPU count as one device."""
        if self.kind == "cuda":
            return next((kind for part, kind in DEVICES.items() if part.lower() in self.name.lower()), DEFAULT_GPU)
        rates = {precision: self.num_cpus * rate for precision, rate in CPU_CORE_FLOPS.items()}
        return Device(flops=rates, bandwidth=CPU_MEMORY_BANDWIDTH, link=CPU_MEMORY_BANDWIDTH / 4, watts=0)

    @property
    def has_published_rates(self) -> bool:
        """Whether the device is a CPU or a GPU of the table."""
        return self.kind == "cpu" or self.device is not DEFAULT_GPU

    def precision(self, requested: str) -> str:
        """Resolve a spec's precision to fp32 or bf16: `auto` is bf16 on GPUs that support it."""
        if requested != "auto":
            return requested
        return "bf16" if self.kind == "cuda" and "bf16" in self.device.flops else "fp32"

    def memory_per_process(self, num_processes: int) -> int:
        """Bytes available to each process: one GPU's memory, or an equal share of the machine's."""
        return self.memory_bytes if self.kind == "cuda" else self.memory_bytes // num_processes
