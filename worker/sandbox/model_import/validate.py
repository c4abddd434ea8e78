"""The sandboxed child process that validates a base model, without credentials or network.

`python -m worker.sandbox.model_import.validate DIRECTORY ...`

It reports by JSON lines on standard output: {"done", "total"} while it reads, at last {"result": {...}} or
{"failed": {"problems": [...]}}. It unpacks an archive, reads every byte of the weights once, and compares names and
shapes with the network that the configuration describes. Nothing of what was sent is ever run.
"""

import argparse
import hashlib
import re
from pathlib import Path
from typing import Any

from app.base_models import names
from trainer.processes import child_limits
from trainer.run_dir import sha256_file
from worker.sandbox.closing_report import closing_report
from worker.sandbox.model_import import hf_config, safetensors_scan
from worker.sandbox.model_import.archive import unpack
from worker.sandbox.model_import.safetensors_scan import InvalidModel, Tensor
from worker.sandbox.model_import.traits import find_traits
from worker.sandbox.reporting import ProgressReporter, report

TensorFiles = dict[str, tuple[str, Tensor]]


def validate_model(directory: Path, budget: int, memory: int, keep_free: int = 0) -> dict[str, Any]:
    """The facts about the model in a directory, as its row stores them. Raises InvalidModel.

    `budget` are the bytes that an archive may unpack to, `memory` those that this process may use, `keep_free`
    those that must stay free on the disk.
    """
    unpack(directory, budget, keep_free)
    remarks = _drop_copies(directory)
    # Mapping weights takes no memory, but counts.
    child_limits.limit_memory(memory + sum(path.stat().st_size for path in directory.glob(f"*{names.WEIGHTS}")))
    config, about_config = hf_config.read_config(directory)
    hf_config.spec_fields(config)  # before the weights: it is quicker, and says more
    weights, tensors = headers(directory)
    remarks += about_config + hf_config.untie(directory, config, tensors)
    fields = hf_config.spec_fields(config)
    dtype = hf_config.check_dtypes(tensors)
    advance = _Teller(sum(path.stat().st_size for path in weights))
    hashes = {
        path.name: safetensors_scan.hash_and_check_finite(path, inside, advance) for path, inside in weights.items()
    }
    num_parameters, about_tensors = hf_config.check_tensors(directory, config, tensors)
    remarks += about_tensors + hf_config.check_tokenizer(directory, config)
    facts = {**fields, **find_traits(directory, config), "num_parameters": num_parameters, "dtype": dtype}
    if dtype in ("F16", "BF16"):
        remarks.append({"code": "weights_16_bit"})
    files = [
        {"name": path.name, "size": path.stat().st_size, "sha256": hashes.get(path.name) or sha256_file(path)}
        for path in _files(directory)
    ]
    listing = "\n".join(f"{file['sha256']}  {file['name']}" for file in files)
    return {
        "facts": {**facts, "license": license_of(directory)},
        "files": files,
        "sha256": hashlib.sha256(listing.encode()).hexdigest(),
        "num_bytes": sum(file["size"] for file in files),
        "problems": remarks,
    }


def _drop_copies(directory: Path) -> list[dict[str, Any]]:
    """Remove weights in the layout of another program, where transformers' own are there too; with remarks."""
    has_own = any(path.name.startswith("model") for path in directory.glob(f"*{names.WEIGHTS}"))
    copies = sorted(directory.glob(f"consolidated*{names.WEIGHTS}*")) if has_own else []
    for path in copies:
        path.unlink()
    return [{"code": "weights_skipped", "file": path.name} for path in copies if path.name.endswith(names.WEIGHTS)]


def _files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.iterdir() if path.is_file() and names.is_known(path.name))


def headers(directory: Path) -> tuple[dict[Path, list[Tensor]], TensorFiles]:
    """The tensors by weights file, and the file of each tensor. Raises InvalidModel if the index disagrees."""
    weights = {
        path: safetensors_scan.read_header(path) for path in _files(directory) if path.name.endswith(names.WEIGHTS)
    }
    if not weights:
        raise InvalidModel("weights_missing")
    tensors: TensorFiles = {}
    for path, inside in weights.items():
        for tensor in inside:
            if tensor.name in tensors:
                raise InvalidModel(
                    "tensor_twice", tensor=tensor.name[:200], file=tensors[tensor.name][0], part=path.name
                )
            tensors[tensor.name] = (path.name, tensor)
    _check_index(directory, [path.name for path in weights], tensors)
    return weights, tensors


def _check_index(directory: Path, parts: list[str], tensors: TensorFiles) -> None:
    """Check that the index names each tensor's file, as transformers reads it. Raises InvalidModel.

    A single file `model.safetensors` needs no index.
    """
    path = directory / f"model{names.INDEX}"
    if parts == ["model.safetensors"] and not path.exists():
        return
    if not path.exists():
        if len(parts) == 1:
            raise InvalidModel("file_missing", file="model.safetensors")
        raise InvalidModel("index_needed", count=len(parts))
    weight_map = hf_config.read(path).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(part, str) for part in weight_map.values()):
        raise InvalidModel("index_tensor", file=path.name, tensor="weight_map", part="–")
    for tensor, part in weight_map.items():
        if part not in parts:
            raise InvalidModel("index_missing", file=path.name, part=part[:200])
        if tensors.get(tensor, ("",))[0] != part:
            raise InvalidModel("index_tensor", file=path.name, tensor=tensor[:200], part=part)
    for name, (part, _tensor) in tensors.items():
        if name not in weight_map:
            raise InvalidModel("tensor_unexpected", file=part, tensor=name[:200], model_type=path.name)
    for part in parts:
        if part not in weight_map.values():
            raise InvalidModel("index_extra", file=path.name, part=part)


def license_of(directory: Path) -> str | None:
    """The license in the front matter of the model card."""
    path = directory / "README.md"
    if not path.is_file():
        return None
    with path.open(encoding="utf-8", errors="replace") as file:
        text = file.read(1 << 16)
    front = re.match(r"---[^\S\n]*\n(.*?)\n---", text, re.DOTALL)
    license_line = re.search(r"^license:\s*[\"']?([\w.+-]+)", front[1], re.MULTILINE) if front else None
    return license_line[1][:60] if license_line else None


class _Teller:
    """Reports the number of bytes that were read as progress."""

    def __init__(self, total: int) -> None:
        self._report, self._done = ProgressReporter(total), 0

    def __call__(self, count: int) -> None:
        self._done += count
        self._report(self._done)


def main() -> None:
    """Validate the model that the arguments name, under resource limits, and report the result."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("directory", type=Path)
    arguments.add_argument("--budget", type=int, required=True)
    arguments.add_argument("--keep-free", type=int, required=True)
    arguments.add_argument("--memory", type=int, required=True)
    options = arguments.parse_args()
    child_limits.limit_memory(options.memory)
    report(report_result(options.directory, options.budget, options.memory, options.keep_free))


def report_result(directory: Path, budget: int, memory: int, keep_free: int = 0) -> dict[str, Any]:
    """The closing report for a result or an error."""
    return closing_report(lambda: validate_model(directory, budget, memory, keep_free), memory)


if __name__ == "__main__":
    main()
