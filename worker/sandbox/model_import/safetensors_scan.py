"""Reads .safetensors files by their specification: checks the header, the offsets, and that every value is finite.

Standard library and numpy only, in constant memory, so that a malicious file can do no harm.
"""

import errno
import hashlib
import json
import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from trainer.formats import strict_json

MAX_HEADER_BYTES = 16_000_000  # 100,000 tensors; the library itself takes 100 MB, of which Python makes 3 GB
CHUNK_BYTES = 16 << 20
FLOATS = {"F32": 4, "BF16": 2, "F16": 2, "F64": 8}
ITEM_BYTES = {**FLOATS, "BOOL": 1, "U8": 1, "I8": 1, "U16": 2, "I16": 2, "U32": 4, "I32": 4, "U64": 8, "I64": 8}
# Of a number that is not finite all bits of the exponent are set.
EXPONENTS: dict[str, tuple[str, int]] = {
    "F16": ("<u2", 0x7C00),
    "BF16": ("<u2", 0x7F80),
    "F32": ("<u4", 0x7F800000),
    "F64": ("<u8", 0x7FF0000000000000),
}


class InvalidModel(Exception):
    """A model file is invalid: a code of app/base_models/problems.py and the values of its sentence."""

    def __init__(self, code: str, **values: Any) -> None:
        super().__init__(code)
        self.problem = {"code": code, **values}


@dataclass(frozen=True)
class Tensor:
    """One tensor as the header describes it; `start` and `end` count from the beginning of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def read_header(path: Path) -> list[Tensor]:
    """The tensors of a file in the order of their offsets. Raises InvalidModel."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if size < 8:
            raise InvalidModel("header_short", file=path.name, byte=size)
        (length,) = struct.unpack("<Q", file.read(8))
        if length > min(MAX_HEADER_BYTES, size - 8):
            raise InvalidModel("header_length", file=path.name, length=length)
        text = file.read(length)
    described = read_json(text, path.name, "header_json", 8)
    _check_metadata(path.name, described.pop("__metadata__", None))
    tensors = [_tensor(path.name, name, entry, 8 + length) for name, entry in described.items()]
    tensors.sort(key=lambda tensor: (tensor.start, tensor.end))
    _check_places(path.name, tensors, 8 + length, size)
    return tensors


def same_bytes(directory: Path, first: tuple[str, Tensor], second: tuple[str, Tensor]) -> bool:
    """Whether two tensors, each with its file, hold the same values in the same type and shape."""
    (first_file, a), (second_file, b) = first, second
    if (a.dtype, a.shape) != (b.dtype, b.shape):
        return False
    with (directory / first_file).open("rb") as left, (directory / second_file).open("rb") as right:
        left.seek(a.start)
        right.seek(b.start)
        sizes = (min(CHUNK_BYTES, a.end - start) for start in range(a.start, a.end, CHUNK_BYTES))
        return all(left.read(size) == right.read(size) for size in sizes)


def read_json(text: bytes, name: str, code: str = "not_json", offset: int = 0) -> dict[str, Any]:
    """Parse a JSON object without duplicate keys. Raises InvalidModel with the byte of the error."""
    try:
        value = strict_json.loads(text)
    except UnicodeDecodeError as error:
        raise InvalidModel(code, file=name, byte=offset + error.start) from None
    except json.JSONDecodeError as error:
        raise InvalidModel(
            code, file=name, byte=offset + len(error.doc[: error.pos].encode(errors="replace"))
        ) from None
    except (strict_json.InvalidConstant, strict_json.InfiniteNumber) as error:
        raise InvalidModel("number_infinite", file=name, word=error.word) from None
    except (ValueError, RecursionError):  # duplicate keys, a number of thousands of digits, too deep
        raise InvalidModel(code, file=name, byte=offset) from None
    if not isinstance(value, dict):
        raise InvalidModel("not_object", file=name)
    return value


def _check_metadata(file: str, metadata: Any) -> None:
    if metadata is None or (isinstance(metadata, dict) and all(isinstance(text, str) for text in metadata.values())):
        return
    raise InvalidModel("header_entry", file=file, tensor="__metadata__", why="strings")


def _tensor(file: str, name: str, entry: Any, data: int) -> Tensor:
    def wrong(why: str) -> InvalidModel:
        return InvalidModel("header_entry", file=file, tensor=name[:200], why=why)

    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise wrong("dtype, shape, data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if dtype not in ITEM_BYTES:
        raise InvalidModel("dtype", file=file, tensor=name[:200], found=str(dtype)[:20], expected=", ".join(FLOATS))
    if not isinstance(shape, list) or not all(type(n) is int and 0 <= n < 2**48 for n in shape) or len(shape) > 8:
        raise wrong("shape")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(type(n) is int and n >= 0 for n in offsets):
        raise wrong("data_offsets")
    needed = math.prod(shape) * ITEM_BYTES[dtype]
    if offsets[1] - offsets[0] != needed:
        raise InvalidModel("size", file=file, tensor=name[:200], found=offsets[1] - offsets[0], expected=needed)
    return Tensor(name, dtype, tuple(shape), data + offsets[0], data + offsets[1])


def _check_places(file: str, tensors: list[Tensor], begin: int, size: int) -> None:
    """Check that every byte after the header belongs to exactly one tensor. Raises InvalidModel."""
    at = begin
    for tensor in tensors:
        place = {"file": file, "tensor": tensor.name[:200], "byte": tensor.start}
        if tensor.end > size:
            raise InvalidModel("offsets", **{**place, "byte": size})
        if tensor.start != at:
            raise InvalidModel("overlap" if tensor.start < at else "gap", **place)
        at = tensor.end
    if at != size:
        raise InvalidModel("trailing", file=file, byte=at)


def hash_and_check_finite(path: Path, tensors: list[Tensor], progress: Callable[[int], None]) -> str:
    """Read a file once and return its hash. Raises InvalidModel for a value that is not finite."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for _data in _pieces(file, tensors[0].start if tensors else path.stat().st_size, digest, progress):
            pass
        for tensor in tensors:
            at = tensor.start
            for data in _pieces(file, tensor.end - tensor.start, digest, progress):
                _check_finite(path.name, tensor, data, at)
                at += len(data)
    return digest.hexdigest()


def _pieces(file: BinaryIO, count: int, digest: "hashlib._Hash", progress: Callable[[int], None]) -> Iterator[bytes]:
    while count:
        data = file.read(min(CHUNK_BYTES, count))
        if not data:
            raise OSError(errno.EIO, "the file became shorter while it was read")
        digest.update(data)
        yield data
        count -= len(data)
        progress(len(data))


def _check_finite(file: str, tensor: Tensor, data: bytes, at: int) -> None:
    """Check a chunk of complete values of a tensor, which starts at this byte. Raises InvalidModel."""
    if tensor.dtype not in EXPONENTS:
        return
    kind, mask = EXPONENTS[tensor.dtype]
    bits = np.frombuffer(data, kind)
    bad = (bits & np.array(mask, kind)) == mask
    if bad.any():
        byte = at + int(bad.argmax()) * bits.itemsize
        raise InvalidModel("nonfinite", file=file, tensor=tensor.name[:200], byte=byte)
