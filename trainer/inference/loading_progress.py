"""How far the weights of a model are loaded, from 0 to 1.

transformers maps safetensors files into memory and counts the tensors that it has taken from them. Tensors that keep
their type are read only when they are first used: its count ends in an instant, and the first text waits for the disk.
So the files are read once before, into the page cache, and counted in bytes: the first half. The tensors, which are
converted on the way where the model gets another type, are the second one.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers.utils import logging as transformers_logging

OnProgress = Callable[[float], None]

CHUNK_BYTES = 8 << 20


@contextmanager
def loading_progress(directory: Path, on_progress: OnProgress) -> Iterator[None]:
    """Read the weights of a checkpoint, and tell how far they are; in the block transformers opens them. One at a time
    in a process.
    """

    def count_tensors(make_bar: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        if options.get("desc") != "Loading weights":
            return make_bar(*arguments, **options)
        return _counted(arguments[0], lambda part: on_progress(0.5 + part / 2))

    _read(sorted(directory.glob("*.safetensors")), lambda part: on_progress(part / 2))
    previous = transformers_logging.set_tqdm_hook(count_tensors)
    try:
        yield
    finally:
        transformers_logging.set_tqdm_hook(previous)


def _read(files: list[Path], on_progress: OnProgress) -> None:
    total = sum(file.stat().st_size for file in files)
    buffer, done = bytearray(CHUNK_BYTES), 0
    for path in files:
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(buffer):
                done += count
                on_progress(done / total)


def _counted(items: Collection[Any], on_progress: OnProgress) -> Iterator[Any]:
    for number, item in enumerate(items, 1):
        yield item
        on_progress(number / len(items))
