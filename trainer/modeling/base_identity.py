"""Which base model a run started from: its manifests name it by a hash. Standard library only."""

from pathlib import Path

from trainer.data.cache import cache_key
from trainer.run_dir import sha256_file


def base_sha256(directory: Path) -> str:
    """The identity of a base model: a hash of its configuration and weights, which are read."""
    paths = [directory / "config.json", *sorted(directory.glob("*.safetensors"))]
    return cache_key(**{path.name: sha256_file(path) for path in paths if path.is_file()})
