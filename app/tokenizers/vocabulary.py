"""A sample of the vocabulary of a tokenizer, read by a child process with limits: its file may be large or hostile."""

import json
import threading
from functools import lru_cache
from pathlib import Path

from app.core import storage
from app.core.errors import PanelError
from app.web import preview_process
from trainer.processes.child_limits import ChildLimits

MEMORY_BYTES = 512 << 20
LIMITS = ChildLimits(memory_bytes=MEMORY_BYTES, cpu_seconds=5, file_bytes=1 << 20, niceness=0)
MAX_CACHED = 256
_READERS = threading.BoundedSemaphore(2)  # at once, as requests wait for them


def sample(tokenizer_id: str) -> list[str] | None:
    """Tokens as text, evenly spread from the first to the last; None if they cannot be read now, or at all."""
    path = storage.tokenizer(tokenizer_id) / "tokenizer.json"
    if not path.exists():
        return []
    try:
        return _sample(path)
    except (PanelError, preview_process.PreviewRefused):
        return None


@lru_cache(MAX_CACHED)  # of what was read: an error is not kept
def _sample(path: Path) -> list[str]:
    if not _READERS.acquire(blocking=False):
        raise preview_process.busy()
    try:
        printed = preview_process.run(
            "trainer.formats.vocabulary_sample",
            str(path),
            too_slow=preview_process.busy,
            limits=LIMITS,
            memory_bytes=MEMORY_BYTES,
        )
    finally:
        _READERS.release()
    tokens: list[str] = json.loads(printed)["tokens"]
    return tokens
