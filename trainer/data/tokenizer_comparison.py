"""What tokenizers make of a text, to compare them. Imports transformers, never torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from trainer.data.encoding_budget import encoding_budget, enforced
from trainer.data.token_bytes import TokenBytes
from trainer.data.token_views import TokenViews
from trainer.processes.child_limits import data_bytes


def compare(directories: Sequence[Path], text: str) -> list[list[dict[str, Any]] | None]:
    """The tokens of a text (see TokenViews.encode), without those put around it, by the tokenizer of each directory;
    with the `bytes` of each token that is no text by itself, in hexadecimal.

    None instead of a tokenizer that needs too much memory. One that exceeds its time ends this process by SIGPROF.
    """
    return [_tokens(directory, text) for directory in directories]


def _tokens(directory: Path, text: str) -> list[dict[str, Any]] | None:
    tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(directory, local_files_only=True)
    token_bytes = TokenBytes(tokenizer.backend_tokenizer)
    views = TokenViews(tokenizer, token_bytes)
    try:
        with enforced(encoding_budget(len(text.encode())), data_bytes()):
            tokens = views.encode(text, with_special_tokens=False)
            return [{**token, "bytes": token_bytes.hex(token["id"])} for token in tokens]
    except MemoryError:
        return None
