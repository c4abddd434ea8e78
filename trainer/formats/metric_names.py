"""What series of metrics are called in experiment trackers and event files."""

SYSTEM_SERIES = (
    *("memory_bytes", "gpu_memory_bytes", "disk_free_bytes"),
    *("cpu_percent", "gpu_percent", "mfu_percent", "gpu_watts"),
)


def tag_of(series: str) -> str:
    """The name of a series in TensorBoard, which groups by what stands before the slash, as transformers calls it."""
    if series in SYSTEM_SERIES:
        return f"system/{series}"
    is_of_validation = series.startswith("eval_")
    return f"eval/{series.removeprefix('eval_')}" if is_of_validation else f"train/{series}"
