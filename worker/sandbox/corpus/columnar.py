"""Records of Parquet and Arrow files, and rows of spreadsheets. Each library is imported when a file needs it."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from worker.sandbox.corpus.containers import MAX_RATIO, max_expanded_bytes
from worker.sandbox.corpus.documents import check_office
from worker.sandbox.corpus.fields import BadLine, Record

BATCH_ROWS = 1_000
CELL_BYTES = 16  # of memory at least, also of an empty cell between the first and the last row and column

_ZIP = b"PK\x03\x04"


def arrow_records(path: Path, form: str, progress: Callable[[int], None]) -> Iterator[Record]:
    """The rows of a Parquet, Arrow or Feather file, a batch at a time. Raises BadLine for a file that is none."""
    import pyarrow

    pyarrow.set_memory_pool(pyarrow.system_memory_pool())  # which fails at the limit instead of reserving beyond it
    pyarrow.set_cpu_count(1)
    pyarrow.set_io_thread_count(1)
    try:
        for batch in _batches(path, form):
            batch.validate(full=True)  # whose offsets would be followed anywhere otherwise
            for start in range(0, batch.num_rows, BATCH_ROWS):
                progress(0)
                for row in _rows(batch.slice(start, BATCH_ROWS)):
                    yield {str(name): plain(value) for name, value in row.items()}
    except MemoryError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError, TypeError, OverflowError) as error:
        raise BadLine("file_broken", why=(str(error) or type(error).__name__)[:200]) from None


def _batches(path: Path, form: str) -> Iterator[Any]:
    import pyarrow

    if form == "parquet":
        from pyarrow import parquet

        with parquet.ParquetFile(path, memory_map=True, pre_buffer=False) as file:
            yield from file.iter_batches(BATCH_ROWS, use_threads=False)
        return
    with pyarrow.memory_map(str(path)) as source:
        try:
            file = pyarrow.ipc.open_file(source)
        except pyarrow.ArrowInvalid:
            source.seek(0)
            yield from pyarrow.ipc.open_stream(source)
            return
        for number in range(file.num_record_batches):
            yield file.get_batch(number)


def _rows(batch: Any) -> list[Record]:
    """The rows of a batch. Dates that Python does not know, such as in the year 38505, are as Arrow writes them."""
    import pyarrow

    try:
        return list(batch.to_pylist())
    except (ValueError, OverflowError):
        columns = [
            column.cast(pyarrow.string()) if pyarrow.types.is_temporal(column.type) else column
            for column in batch.columns
        ]
        return list(pyarrow.RecordBatch.from_arrays(columns, names=batch.schema.names).to_pylist())


def plain(value: Any) -> Any:
    """A value as JSON has it: no number is null, bytes are text, and dates and the like their usual form.

    Bytes that are no UTF-8 become lone surrogates, which are refused in what is kept of a record.
    """
    if value is None or type(value) in (str, int, bool):
        return value
    if type(value) is float:
        return None if math.isnan(value) else value
    if type(value) is bytes:
        return value.decode("utf-8", "surrogateescape")
    if type(value) is dict:
        return {str(name): plain(part) for name, part in value.items()}
    if type(value) in (list, tuple):
        return [plain(part) for part in value]
    return str(value)


def sheet_rows(path: Path) -> Iterator[Iterator[tuple[int, list[str]]]]:
    """The rows of each sheet of a spreadsheet, with their numbers from 1. Raises BadLine for a file that is none."""
    import python_calamine

    with path.open("rb") as file:
        if file.read(len(_ZIP)) == _ZIP:
            check_office(path)
    limit = max_expanded_bytes(path.stat().st_size)
    try:
        book = python_calamine.CalamineWorkbook.from_path(str(path))
        for name in book.sheet_names:
            sheet = book.get_sheet_by_name(name)
            if sheet.start is not None:
                if sheet.height * sheet.width * CELL_BYTES > limit:
                    raise BadLine("file_expands_too_much", limit_bytes=limit, ratio=MAX_RATIO)
                rows = enumerate(sheet.iter_rows(), start=sheet.start[0] + 1)
                yield ((number, [cell_text(cell) for cell in row]) for number, row in rows)
    except python_calamine.PasswordError:
        raise BadLine("file_encrypted") from None
    except (python_calamine.CalamineError, OSError, ValueError, OverflowError) as error:
        raise BadLine("file_broken", why=(str(error) or type(error).__name__)[:200]) from None


def cell_text(cell: Any) -> str:
    """A cell as a CSV file has it: whole numbers without a fraction, dates in ISO 8601."""
    if type(cell) is float and cell.is_integer():
        return str(int(cell))
    return str(cell)
