"""The tensors in a directory of safetensors: found by name, read on demand. Imports torch."""

from pathlib import Path
from typing import Any

from safetensors import safe_open


def opened(directory: Path) -> dict[str, Any]:
    """The open file that holds each tensor, to be asked with `get_tensor(name)` or `get_slice(name)`."""
    files: list[Any] = [safe_open(path, framework="pt") for path in sorted(directory.glob("*.safetensors"))]
    return {name: file for file in files for name in file.keys()}  # noqa: SIM118 - not a dictionary
