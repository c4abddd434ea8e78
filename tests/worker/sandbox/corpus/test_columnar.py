"""Columns of Parquet files: values of any type leave the others readable, and bytes that are no text are named."""

import io
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from tests.worker.sandbox.corpus.test_formats import read, refused

EXTENSIONS = {
    "uuid": pyarrow.array([bytes(16)] * 2, pyarrow.uuid()),
    "json": pyarrow.array(['{"a": 1}'] * 2, pyarrow.json_()),
    "bool8": pyarrow.ExtensionArray.from_storage(pyarrow.bool8(), pyarrow.array([1, 0], pyarrow.int8())),
    "tensor": pyarrow.FixedShapeTensorArray.from_numpy_ndarray(np.zeros((2, 3), "f4")),
    "a date that Python does not know": pyarrow.array([2**60, None], pyarrow.timestamp("us")),
    "a day that Python does not know": pyarrow.array([-(2**30), 0], pyarrow.date32()),
    "bytes": pyarrow.array([b"\xff\xd8", b"png"]),
}


@pytest.mark.parametrize("name", EXTENSIONS)
def test_a_column_of_any_type_leaves_the_others_readable(tmp_path: Path, name: str) -> None:
    table = pyarrow.table({"text": ["First.", "Second."], "other": EXTENSIONS[name]})
    documents, result = read(tmp_path, as_parquet(table), "parquet")
    assert documents == ["First.", "Second."]
    assert result["progress"]["unused_keys"] == {"other": 2}


def test_bytes_that_are_no_text_are_bad_rows_and_others_are_text(tmp_path: Path) -> None:
    table = pyarrow.table({"text": pyarrow.array(["Bär".encode(), b"caf\xe9"])})
    (problem,) = refused(tmp_path, as_parquet(table), "parquet")
    assert (problem["code"], problem["line"]) == ("surrogate", 2)
    assert read(tmp_path, as_parquet(table.slice(0, 1)), "parquet")[0] == ["Bär"]


def as_parquet(table: pyarrow.Table) -> bytes:
    file = io.BytesIO()
    pyarrow.parquet.write_table(table, file)
    return file.getvalue()
