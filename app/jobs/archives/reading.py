"""Reads the small files of an unpacked archive of a run: run.json, spec.json, metrics.csv and samples.jsonl.

What they hold may come from anybody: all of it is checked. Raises InvalidArchive.
"""

import csv
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.core.json_shapes import Value
from app.jobs.archives.description import FORMAT, FORMAT_VERSION, ArchivedCheckpoint, RunDescription
from trainer.events import SampleSplit
from trainer.formats import strict_json
from trainer.spec import MAX_STEPS, TrainSpec

T = TypeVar("T", bound=BaseModel)

ARCHIVE = "archive.tar"  # in the directory of the task that imports it
UNPACKED = "run"  # beside it: the files of the archive
RUN, SPEC, METRICS, SAMPLES = "run.json", "spec.json", "metrics.csv", "samples.jsonl"
CHECKPOINT = re.compile(r"checkpoints/step-(0|[1-9]\d{0,9})-([1-9]\d{0,9})", re.ASCII)
MAX_JSON_BYTES = 4 << 20
MAX_LINE_BYTES = 1 << 20  # of the curves and of the samples
MAX_SERIES = 1_000
MAX_VALUES = 5_000_000  # of all curves
MAX_CURVES_BYTES = 1 << 30
MAX_SAMPLES = 100_000
MAX_SAMPLES_BYTES = 128 << 20
MAX_INTEGER = 2**31 - 1  # of a step in the database
_SERIES = re.compile(r"[\x21-\x7e]{1,200}")
_WORDS = ("nan", "inf", "-inf")


class InvalidArchive(ValueError):
    """An archive cannot be imported: a code of app/background_tasks/failures.py and the values of its sentence."""

    def __init__(self, code: str, **values: Any) -> None:
        super().__init__(code)
        self.problem = {"code": code, **values}


@dataclass(frozen=True)
class CurveRow:
    """A line of metrics.csv: the values of series at a step, and when it was trained, where that is known."""

    step: int
    at: datetime | None
    values: dict[str, Value]


class ArchivedSample(BaseModel):
    """A line of samples.jsonl."""

    model_config = ConfigDict(extra="ignore")

    step: int = Field(ge=0, le=MAX_INTEGER)
    split: SampleSplit = "validation"  # as of archives of earlier versions
    prompt: str
    text: str


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file."""
    if not path.is_file():
        raise InvalidArchive("run_file_missing", file=path.name)
    if path.stat().st_size > MAX_JSON_BYTES:
        raise _invalid(path, f"> {MAX_JSON_BYTES} bytes")
    try:
        value = strict_json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise _invalid(path, "JSON") from None
    if not isinstance(value, dict):
        raise _invalid(path, "JSON object")
    return value


def check_format(raw: dict[str, Any]) -> None:
    """Check that run.json or MANIFEST.json is of an archive in the version that is read here."""
    if raw.get("format") != FORMAT:
        raise InvalidArchive("run_archive_foreign")
    if raw.get("format_version") != FORMAT_VERSION:
        version = str(raw.get("format_version"))[:20]
        raise InvalidArchive("run_archive_version", version=version, supported=str(FORMAT_VERSION))


def description(directory: Path) -> RunDescription:
    """What run.json says of the job."""
    path = directory / RUN
    raw = read_json(path)
    check_format(raw)
    run = _validated(RunDescription, raw, path)
    steps = [run.job.step, run.job.max_steps or 0, *(entry.step for entry in run.checkpoints)]
    if not all(0 <= step <= MAX_INTEGER for step in steps):
        raise _invalid(path, "step")
    times = [run.exported_at, run.job.created_at, run.job.started_at, run.job.finished_at]
    if any(time is not None and time.tzinfo is None for time in times):
        raise _invalid(path, "time zone")
    directories = [entry.directory for entry in run.checkpoints]
    if len(set(directories)) < len(directories) or not all(map(_names_its_step, run.checkpoints)):
        raise _invalid(path, "checkpoints.directory")
    return run


def _names_its_step(entry: ArchivedCheckpoint) -> bool:
    named = CHECKPOINT.fullmatch(entry.directory)
    return named is not None and int(named[1]) == entry.step and int(named[2]) <= MAX_INTEGER


def spec(directory: Path) -> TrainSpec:
    """The spec of the job."""
    path = directory / SPEC
    return _validated(TrainSpec, read_json(path), path)


def _validated(shape: type[T], raw: dict[str, Any], path: Path) -> T:
    try:
        return shape.model_validate_json(json.dumps(raw))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise _invalid(path, f"{place}: {first['msg']}") from None


def curve_rows(directory: Path) -> Iterator[CurveRow]:
    """The lines of metrics.csv, by their steps."""
    path = directory / METRICS
    too_large = InvalidArchive("run_curves_large", max_values=MAX_VALUES, max_bytes=MAX_CURVES_BYTES)
    names: list[str] | None = None
    before, num_values = -1, 0
    for number, line in _lines(path, MAX_CURVES_BYTES, too_large):
        try:
            (fields,) = csv.reader([line.decode()], strict=True)  # alone, so that no value goes on in the next line
            if names is None:
                names = _series(fields)
                continue
            row = _curve_row(fields, names)
            if row.step <= before:
                raise ValueError("step")
        except (ValueError, csv.Error):
            raise _invalid(path, f"line {number}") from None
        before, num_values = row.step, num_values + len(row.values)
        if num_values > MAX_VALUES:
            raise too_large
        yield row
    if names is None:
        raise _invalid(path, "line 1")


def _lines(path: Path, max_bytes: int, too_large: InvalidArchive) -> Iterator[tuple[int, bytes]]:
    """The lines of a file of so many bytes at most with their numbers, each of MAX_LINE_BYTES at most."""
    if not path.is_file():
        raise InvalidArchive("run_file_missing", file=path.name)
    if path.stat().st_size > max_bytes:
        raise too_large
    with path.open("rb") as file:
        number = 0
        while line := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(line) > MAX_LINE_BYTES:
                raise _invalid(path, f"line {number}: > {MAX_LINE_BYTES} bytes")
            yield number, line


def _series(header: list[str]) -> list[str]:
    names = header[2:]
    is_valid = header[:2] == ["step", "time"] and len(set(names)) == len(names) <= MAX_SERIES
    if not is_valid or not all(_SERIES.fullmatch(name) for name in names):
        raise ValueError("header")
    return names


def _curve_row(line: list[str], names: list[str]) -> CurveRow:
    step, time, *texts = line
    at = datetime.fromisoformat(time) if time else None
    if not 0 <= int(step) <= MAX_STEPS or (at is not None and at.tzinfo is None):
        raise ValueError("step or time")
    return CurveRow(int(step), at, {name: _value(text) for name, text in zip(names, texts, strict=True) if text != ""})


def _value(text: str) -> Value:
    if text in _WORDS:
        return text  # type: ignore[return-value]
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def samples(directory: Path) -> Iterator[ArchivedSample]:
    """What the model wrote."""
    path = directory / SAMPLES
    too_large = InvalidArchive("run_samples_large", max_samples=MAX_SAMPLES, max_bytes=MAX_SAMPLES_BYTES)
    for number, line in _lines(path, MAX_SAMPLES_BYTES, too_large):
        if number > MAX_SAMPLES:
            raise too_large
        try:
            sample = ArchivedSample.model_validate(strict_json.loads(line))
        except (ValueError, RecursionError):
            raise _invalid(path, f"line {number}") from None
        yield sample


def _invalid(path: Path, why: str) -> InvalidArchive:
    return InvalidArchive("run_file_invalid", file=path.name, why=why[:200])
