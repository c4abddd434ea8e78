"""Paths below the data directory. The only module that turns an id into a path."""

from pathlib import Path

from app.core.own_directories import make_tree_private
from app.core.settings import settings

DOWNLOAD_PART = "download.part"  # in the directory of a corpus


def data() -> Path:
    """The data directory: shared by all nodes of an installation."""
    return settings().data.resolve()


def prepare() -> None:
    """Create the data directory, and close it and all in it to other users. Raises UnsafeDirectory."""
    make_tree_private(settings().data)


def corpus(corpus_id: str) -> Path:
    """Holds `upload` (the first file as sent), `upload.1` and so on, `text.bin` and `index.bin` (parsed)."""
    return data() / "corpora" / corpus_id


def corpus_download(corpus_id: str) -> Path:
    """What has arrived of the file of a corpus that is downloaded; renamed to `upload` once it is complete."""
    return corpus(corpus_id) / DOWNLOAD_PART


def num_bytes(path: Path) -> int:
    """The size of a file; 0 if there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def corpus_file(corpus_id: str, position: int) -> Path:
    """A file of a corpus as it was sent, by its position from 0."""
    return corpus(corpus_id) / (f"upload.{position}" if position else "upload")


def upload(upload_id: str) -> Path:
    """The bytes of an upload in progress: its parts, each under its ID, or `data`, what has arrived of the file."""
    return data() / "uploads" / upload_id


def tokenizer(tokenizer_id: str) -> Path:
    """A tokenizer in Hugging Face layout."""
    return data() / "tokenizers" / tokenizer_id


def base_model(model_id: str) -> Path:
    """An imported model in Hugging Face layout; during an upload, the files received so far."""
    return data() / "base_models" / model_id


def run(job_id: str) -> Path:
    """A job's run directory, see trainer/run_dir.py."""
    return data() / "runs" / job_id


def background_task(task_id: str) -> Path:
    """The directory of an export or evaluation: its inputs, its log and its result."""
    return data() / "works" / task_id  # the name in existing data directories


def exported_files(task_id: str) -> Path:
    """The directory of the files that an export offers for download."""
    return background_task(task_id) / "artefact"  # the name in existing data directories


def cache() -> Path:
    """Tokenized corpora and trained vocabularies, by content hash: may be deleted while no job is starting."""
    return data() / "cache"


def ballast() -> Path:
    """The file that is deleted when the disk is almost full, see app/core/disk.py."""
    return data() / "ballast"


def checkpoint(path: str) -> Path:
    """A checkpoint by its stored path."""
    return data() / path
