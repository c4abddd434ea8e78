"""The sandboxed child process that reads the archive of a run, without credentials or network.

`python -m worker.sandbox.run_archive DIRECTORY --memory=BYTES --keep-free=BYTES`

DIRECTORY holds archive.tar, which is unpacked to DIRECTORY/run: only files that such an archive has, each with the size
and the SHA-256 that its manifest says. Then all of them are read: spec, curves, samples, tokenizer, and every byte of
the weights. The closing report is a JSON line on standard output: {"result": {...}} or {"failed": {"problems": [...]}}.
"""

import argparse
import hashlib
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from peft import LoraConfig
from pydantic import ValidationError
from transformers import PreTrainedTokenizerFast

from app.base_models import names
from app.core.json_shapes import Manifest
from app.jobs.archives import reading
from app.jobs.archives.reading import ARCHIVE, CHECKPOINT, UNPACKED, InvalidArchive
from trainer.data import tokenizer as tokenizers
from trainer.modeling import architectures, lora
from trainer.processes import child_limits
from trainer.run_dir import MANIFEST
from trainer.spec import TrainSpec
from worker.sandbox.closing_report import closing_report
from worker.sandbox.model_import import hf_config, safetensors_scan, tokenizer_checks, validate
from worker.sandbox.model_import.archive import BROKEN, MAX_MEMBERS, require_space
from worker.sandbox.model_import.safetensors_scan import CHUNK_BYTES, InvalidModel
from worker.sandbox.reporting import ProgressReporter, report

STATE = "trainer_state.json"  # of a checkpoint
ADAPTER = (f"{lora.DIRECTORY}/adapter_config.json", f"{lora.DIRECTORY}/{lora.WEIGHTS}", f"{lora.DIRECTORY}/README.md")
# What an adapter of ours may say that is not peft's default. Others could have peft import what they name.
ADAPTER_OPTIONS = frozenset(
    {"r", "lora_alpha", "lora_dropout", "target_modules", "modules_to_save", "inference_mode"}
    | {"task_type", "peft_type", "peft_version"}
)
Files = dict[str, tuple[int, str]]  # size and SHA-256 by name
Progress = Callable[[int], None]


def read_archive(directory: Path, memory: int, keep_free: int) -> dict[str, Any]:
    """Unpack and check the archive in a directory. Returns what its job needs. Raises InvalidModel.

    `memory` are the bytes that this process may use, `keep_free` those that must stay free on the disk.
    """
    try:
        return _read_archive(directory, memory, keep_free)
    except InvalidArchive as invalid:
        raise InvalidModel(**invalid.problem) from None


def _read_archive(directory: Path, memory: int, keep_free: int) -> dict[str, Any]:
    archive, target = directory / ARCHIVE, directory / UNPACKED
    shutil.rmtree(target, ignore_errors=True)
    progress = _Progress(2 * archive.stat().st_size)  # it is read once, and then its files
    files = _unpack(archive, target, keep_free, progress)
    _compare(files, reading.read_json(target / MANIFEST))
    run, spec = reading.description(target), reading.spec(target)
    named = [[corpus.id for corpus in corpora] for corpora in (run.corpora, run.validation_corpora)]
    if named != [spec.corpora, spec.validation_corpora]:
        raise InvalidArchive("run_file_invalid", file=reading.RUN, why="corpora")
    for rows in (reading.curve_rows(target), reading.samples(target)):
        for _row in rows:
            pass
    directories = {place[0] for name in files if (place := CHECKPOINT.match(name))}
    described = {entry.directory for entry in run.checkpoints}
    if directories != described:
        raise InvalidArchive("run_file_invalid", file=reading.RUN, why=min(directories ^ described))
    # Mapping weights takes no memory, but counts.
    child_limits.limit_memory(memory + sum(size for name, (size, _sha256) in files.items() if _is_weights(name)))
    for name in sorted(described):
        _check_checkpoint(target / name, _below(files, name), spec, progress)
    return {"tokenizer": _tokenizer(target / "tokenizer") if _below(files, "tokenizer") else None}


class _Progress:
    """Reports the number of bytes that were read."""

    def __init__(self, total: int) -> None:
        self._report, self._done = ProgressReporter(total), 0

    def __call__(self, count: int) -> None:
        self._done += count
        self._report(self._done)


# ---- files ----------------------------------------------------------------------------------------------------------


def _unpack(archive: Path, target: Path, keep_free: int, progress: Progress) -> Files:
    """Write the files of an archive, of names that it may have only; returns what they turned out to be."""
    num_bytes = archive.stat().st_size
    require_space(archive.parent, num_bytes, keep_free)
    files: Files = {}
    try:
        with tarfile.open(archive, "r|") as members:  # not compressed, so that it holds no more than its own size
            for info in members:
                if info.isdir():
                    continue
                _check_member(info, files, num_bytes)
                source = members.extractfile(info)
                assert source is not None
                files[info.name] = _write(source, target / info.name, progress)
                if files[info.name][0] != info.size:
                    raise InvalidArchive("run_archive_incomplete")
    except (*BROKEN, OverflowError, UnicodeError):
        raise InvalidArchive("run_archive_incomplete") from None
    if MANIFEST not in files:
        raise InvalidArchive("run_archive_incomplete" if files else "run_archive_foreign")
    return files


def _check_member(info: tarfile.TarInfo, files: Files, archive_bytes: int) -> None:
    name = info.name[:200]
    if names.is_unsafe(info.name):
        raise InvalidModel("archive_unsafe", file=name)
    if not info.isfile():
        raise InvalidModel("archive_link", file=name)
    # A sparse file has any size in a few bytes, by GNU's type or by PAX headers.
    if info.issparse() or any(key.startswith("GNU.sparse.") for key in info.pax_headers):
        raise InvalidModel("archive_sparse", file=name)
    if not _is_expected(info.name) or len(files) >= MAX_MEMBERS:
        raise InvalidArchive("run_file_unexpected", file=name)
    if info.name in files:
        raise InvalidModel("archive_twice", file=name)
    if not 0 <= info.size <= archive_bytes:
        raise InvalidArchive("run_archive_incomplete")


def _is_expected(name: str) -> bool:
    if name in (reading.RUN, reading.SPEC, reading.METRICS, reading.SAMPLES, MANIFEST):
        return True
    folder, _slash, file = name.partition("/")
    if folder == "tokenizer":
        return names.is_known(file) and not _is_weights(file)
    place = CHECKPOINT.match(name)
    if place is None or name[place.end() : place.end() + 1] != "/":
        return False
    file = name[place.end() + 1 :]
    return names.is_known(file) or file in (STATE, MANIFEST, *ADAPTER)


def _write(source: BinaryIO | Any, path: Path, progress: Progress) -> tuple[int, str]:
    path.parent.mkdir(parents=True, exist_ok=True)
    digest, size = hashlib.sha256(), 0
    with path.open("xb") as target:
        while data := source.read(CHUNK_BYTES):
            digest.update(data)
            target.write(data)
            size += len(data)
            progress(len(data))
    return size, digest.hexdigest()


def _compare(files: Files, manifest: dict[str, Any]) -> None:
    """Compare what was unpacked with the manifest of the archive."""
    reading.check_format(manifest)
    listed = _listed(manifest, MANIFEST)
    if extra := files.keys() - listed.keys() - {MANIFEST}:
        raise InvalidArchive("run_file_unexpected", file=min(extra))
    for name, expected in listed.items():
        if name not in files:
            raise InvalidArchive("run_file_missing", file=name[:200])
        if files[name] != expected:
            raise InvalidArchive("run_file_differs", file=name)


def _listed(manifest: dict[str, Any], name: str) -> Files:
    try:
        return {file.name: (file.size, file.sha256) for file in Manifest.model_validate(manifest).files}
    except ValidationError:
        raise InvalidArchive("run_file_invalid", file=name, why="files") from None


def _below(files: Files, directory: str) -> Files:
    start = f"{directory}/"
    return {name.removeprefix(start): file for name, file in files.items() if name.startswith(start)}


def _is_weights(name: str) -> bool:
    return name.endswith(names.WEIGHTS)


# ---- models ---------------------------------------------------------------------------------------------------------


def _check_checkpoint(directory: Path, files: Files, spec: TrainSpec, progress: Progress) -> None:
    """Check a checkpoint as an import of a base model does, but change none of its files."""
    name = f"{directory.name}/{MANIFEST}"
    if _listed(reading.read_json(directory / MANIFEST), name) != {n: f for n, f in files.items() if n != MANIFEST}:
        raise InvalidArchive("run_file_invalid", file=name, why="files")
    probe = directory.with_name(f".{directory.name}")  # an import would repair these files
    probe.mkdir()
    for path in _small_files(directory):
        shutil.copy(path, probe)
    config, remarks = hf_config.read_config(probe)
    hf_config.spec_fields(config)
    fields = architectures.network_fields(config)
    differing = [field for field, value in fields.items() if getattr(spec, field) != value]
    if differing:
        raise InvalidArchive("run_file_invalid", file=f"{directory.name}/{names.CONFIG}", why=differing[0])
    weights, tensors = validate.headers(directory)
    hf_config.check_dtypes(tensors)
    for path, inside in weights.items():
        safetensors_scan.hash_and_check_finite(path, inside, progress)
    hf_config.check_tensors(directory, config, tensors, is_classifier=spec.objective == "classification")
    if paths := hf_config.path_settings(directory):
        raise InvalidArchive("run_file_invalid", file=f"{directory.name}/tokenizer_config.json", why=paths[0])
    remarks += hf_config.check_tokenizer(probe, config)
    _check_unrepaired(directory, probe, remarks)
    shutil.rmtree(probe)
    if any(file in files for file in ADAPTER):
        _check_adapter(directory, progress)


def _small_files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.iterdir() if path.is_file() and not _is_weights(path.name))


def _check_unrepaired(directory: Path, probe: Path, remarks: list[dict[str, Any]]) -> None:
    """Raise InvalidArchive if an import of a base model repaired the copy of a checkpoint's files in `probe`.

    The files of every job come back: a Qwen 2 names no token for unknown text, which transformers' class would add, and
    where that class splits text in another way, tokenizer.json holds here.
    """
    for path in _small_files(probe):
        original = directory / path.name
        if not original.is_file() or _content(original) != _content(path):
            raise InvalidArchive("run_file_invalid", file=f"{directory.name}/{path.name}", why="repaired")
    codes = [remark["code"] for remark in remarks if remark["code"] != "tokenizer_replaced"]
    if codes:
        raise InvalidArchive("run_file_invalid", file=directory.name, why=codes[0])


def _content(path: Path) -> bytes | dict[str, Any]:
    if path.name != "tokenizer_config.json":
        return path.read_bytes()
    return {key: value for key, value in hf_config.read(path).items() if key != "unk_token"}


def _check_adapter(directory: Path, progress: Progress) -> None:
    """Check the adapter of a LoRA job beside its merged weights."""
    options = hf_config.read(directory / ADAPTER[0]) if (directory / ADAPTER[0]).is_file() else None
    weights = directory / ADAPTER[1]
    if options is None or not weights.is_file():
        raise InvalidArchive("run_file_missing", file=ADAPTER[0 if options is None else 1])
    defaults = LoraConfig().to_dict()
    for option, value in options.items():
        if option in defaults and option not in ADAPTER_OPTIONS and (value or None) != (defaults[option] or None):
            raise InvalidArchive("run_file_invalid", file=ADAPTER[0], why=option)
    safetensors_scan.hash_and_check_finite(weights, safetensors_scan.read_header(weights), progress)


def _tokenizer(directory: Path) -> dict[str, Any]:
    """Hash and size of the vocabulary of the job's tokenizer."""
    tokenizer_checks.check_rules(directory)
    if paths := hf_config.path_settings(directory):
        raise InvalidArchive("run_file_invalid", file="tokenizer/tokenizer_config.json", why=paths[0])
    try:
        opened: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(directory, local_files_only=True)
        vocab_size = opened.backend_tokenizer.get_vocab_size()
    except Exception:  # the library raises what it likes
        raise InvalidModel("tokenizer_unreadable", why=names.TOKENIZER) from None
    tokenizer_checks.probe(opened)
    return {"sha256": tokenizers.sha256(directory), "vocab_size": vocab_size}


def report_result(directory: Path, memory: int, keep_free: int) -> dict[str, Any]:
    """The closing report for a result or an error."""
    return closing_report(lambda: read_archive(directory, memory, keep_free), memory)


def main() -> None:
    """Read the archive in the directory that the arguments name, under resource limits, and report the result."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("directory", type=Path)
    arguments.add_argument("--memory", type=int, required=True)
    arguments.add_argument("--keep-free", type=int, required=True)
    options = arguments.parse_args()
    child_limits.limit_memory(options.memory)
    report(report_result(options.directory, options.memory, options.keep_free))


if __name__ == "__main__":
    main()
