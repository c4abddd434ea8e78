"""Safetensors files by their specification: whatever a header says, it is read as it is or refused with its place."""

import json
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file

from worker.sandbox.model_import import safetensors_scan
from worker.sandbox.model_import.safetensors_scan import InvalidModel


def written(path: Path, header: Any, data: bytes = b"", *, length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def entry(shape: list[int], begin: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def problem(path: Path) -> dict[str, Any]:
    with pytest.raises(InvalidModel) as caught:
        safetensors_scan.hash_and_check_finite(path, safetensors_scan.read_header(path), lambda count: None)
    return caught.value.problem


def test_files_of_the_library_are_read_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    expected = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.ones(5, np.float16), "n": np.arange(3)}
    save_file(expected, path)
    tensors = {tensor.name: tensor for tensor in safetensors_scan.read_header(path)}
    data = path.read_bytes()
    for name, array in expected.items():
        assert tensors[name].shape == array.shape
        assert data[tensors[name].start : tensors[name].end] == array.tobytes()
    read: list[int] = []
    safetensors_scan.hash_and_check_finite(path, safetensors_scan.read_header(path), read.append)
    assert sum(read) == len(data)


CASES: list[tuple[str, Any, bytes, dict[str, Any]]] = [
    ("beyond the file", {"w": entry([4], 0, 16)}, b"\0" * 8, {"code": "offsets", "tensor": "w"}),
    ("overlap", {"v": entry([2], 0, 8), "w": entry([2], 4, 12)}, b"\0" * 12, {"code": "overlap", "tensor": "w"}),
    ("gap", {"v": entry([1], 0, 4), "w": entry([1], 8, 12)}, b"\0" * 12, {"code": "gap", "tensor": "w"}),
    ("rest", {"w": entry([1], 0, 4)}, b"\0" * 8, {"code": "trailing"}),
    ("wrong size", {"w": entry([3], 0, 8)}, b"\0" * 8, {"code": "size", "found": 8, "expected": 12}),
    ("backwards", {"w": entry([1], 4, 0)}, b"\0" * 4, {"code": "size"}),
    ("number format", {"w": entry([4], 0, 4, "F8_E4M3")}, b"\0" * 4, {"code": "dtype", "found": "F8_E4M3"}),
    ("negative", {"w": entry([-1], 0, 4)}, b"\0" * 4, {"code": "header_entry", "why": "shape"}),
    ("huge", {"w": entry([2**60, 2**60], 0, 4)}, b"\0" * 4, {"code": "header_entry", "why": "shape"}),
    ("no list", {"w": {"dtype": "F32", "shape": 3, "data_offsets": [0, 4]}}, b"\0" * 4, {"code": "header_entry"}),
    ("truth", {"w": entry([True], 0, 4)}, b"\0" * 4, {"code": "header_entry"}),
    ("too much", {"w": {**entry([1], 0, 4), "code": "x"}}, b"\0" * 4, {"code": "header_entry"}),
    ("a list", [], b"", {"code": "not_object"}),
    ("no JSON", b'{"w": }', b"", {"code": "header_json", "byte": 14}),
    ("twice", b'{"w": {}, "w": {}}', b"", {"code": "header_json"}),
    ("no text", b'{"\xff": 1}', b"", {"code": "header_json", "byte": 10}),
    ("deep", b"[" * 100_000, b"", {"code": "header_json"}),
]


@pytest.mark.parametrize(("header", "data", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_an_invalid_header_is_rejected_with_its_position(
    tmp_path: Path, header: Any, data: bytes, expected: dict[str, Any]
) -> None:
    assert expected.items() <= problem(written(tmp_path / "w.safetensors", header, data)).items()


@pytest.mark.parametrize(("content", "code"), [(b"", "header_short"), (b"\0" * 7, "header_short")])
def test_a_file_truncated_in_its_header_is_rejected(tmp_path: Path, content: bytes, code: str) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    assert problem(path) == {"code": code, "file": "w.safetensors", "byte": len(content)}


@pytest.mark.parametrize("length", [3, 2**63, 2**40])
def test_a_header_longer_than_the_file_is_rejected_before_reading(tmp_path: Path, length: int) -> None:
    assert problem(written(tmp_path / "w.safetensors", b"{}", length=length))["code"] == "header_length"


@pytest.mark.parametrize(
    ("dtype", "bits", "size"),
    [("F32", 0x7FC00000, 4), ("F32", 0xFF800000, 4), ("F16", 0x7C00, 2), ("BF16", 0xFF80, 2), ("F64", 0x7FF << 52, 8)],
)
def test_a_non_finite_value_is_reported_with_its_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, bits: int, size: int
) -> None:
    monkeypatch.setattr(safetensors_scan, "CHUNK_BYTES", 64)
    data = b"\0" * (33 * size) + bits.to_bytes(size, "little") + b"\0" * (16 * size)
    path = written(tmp_path / "w.safetensors", {"w": entry([50], 0, 50 * size, dtype)}, data)
    begin = path.stat().st_size - len(data)
    assert problem(path) == {"code": "nonfinite", "file": path.name, "tensor": "w", "byte": begin + 33 * size}


def scanned_as_by_the_library(path: Path) -> bool:
    """Whether the scan accepts a file. One that it accepts, the library accepts too, with the same names."""
    try:
        tensors = safetensors_scan.read_header(path)
        safetensors_scan.hash_and_check_finite(path, tensors, lambda count: None)
    except InvalidModel:
        return False
    with safe_open(path, "numpy") as file:
        assert set(file.keys()) == {tensor.name for tensor in tensors}
    return True


@settings(max_examples=200, deadline=None)
@given(header=st.binary(max_size=80), data=st.binary(max_size=40), length=st.integers(0, 120) | st.none())
def test_arbitrary_bytes_are_rejected_without_a_crash(
    tmp_path_factory: pytest.TempPathFactory, header: bytes, data: bytes, length: int | None
) -> None:
    scanned_as_by_the_library(written(tmp_path_factory.getbasetemp() / "fuzz.safetensors", header, data, length=length))


@pytest.mark.parametrize("metadata", ['{"a": 1}', "[]", '"a"', "1"])
def test_metadata_must_be_strings(tmp_path: Path, metadata: str) -> None:
    path = written(tmp_path / "m.safetensors", f'{{"__metadata__": {metadata}}}'.encode())
    assert (problem(path)["code"], problem(path)["tensor"]) == ("header_entry", "__metadata__")


SHAPES = st.lists(st.integers(0, 3), max_size=3)
TENSORS = st.dictionaries(
    st.sampled_from(["a", "b", "", "__metadata__"]),
    st.tuples(SHAPES, st.sampled_from(["F32", "U8", "BOOL", "F8"]), st.integers(-1, 1), st.integers(-1, 1)),
    max_size=3,
)


@settings(max_examples=300, deadline=None)
@given(described=TENSORS, surplus=st.integers(-1, 1), padding=st.sampled_from(["", " ", "    ", "\n"]))
def test_files_accepted_by_the_scan_load_in_the_library(
    tmp_path_factory: pytest.TempPathFactory, described: dict[str, Any], surplus: int, padding: str
) -> None:
    begin, header = 0, {}
    for name, (shape, dtype, shift, growth) in described.items():
        end = begin + math.prod(shape) * (4 if dtype == "F32" else 1)
        rarely = shift == growth == 1  # most descriptions are right, so that many files are accepted
        header[name] = entry(shape, begin + rarely, end + (growth if shift == -1 else 0), dtype)
        begin = end
    data = b"\0" * max(0, begin + (surplus if len(described) == 3 else 0))
    text = (json.dumps(header) + padding).encode()
    scanned_as_by_the_library(written(tmp_path_factory.getbasetemp() / "fuzz.safetensors", text, data))


@pytest.mark.parametrize("word", ["1e400", "-1e999", "NaN", "Infinity", "-Infinity"])
def test_a_configuration_with_a_number_that_is_not_finite_is_rejected(word: str) -> None:
    with pytest.raises(InvalidModel) as caught:
        safetensors_scan.read_json(f'{{"rope_theta": [{word}]}}'.encode(), "config.json")
    assert caught.value.problem == {"code": "number_infinite", "file": "config.json", "word": word}
