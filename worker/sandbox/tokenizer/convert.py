"""The sandboxed child process that imports a tokenizer, without credentials or network.

`python -m worker.sandbox.tokenizer.convert DIRECTORY --memory=BYTES --budget=BYTES --keep-free=BYTES [--end=TOKEN]`

DIRECTORY holds what was uploaded: a tokenizer.json, a SentencePiece model or an archive of tokenizer files. It becomes
a directory in Hugging Face layout. The closing report is a JSON line on standard output: {"result": {...}} or
{"failed": {"problems": [...]}}.
"""

import argparse
import shutil
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from trainer.data import chat_template, tokenizer
from trainer.processes import child_limits
from worker.sandbox.closing_report import MAX_WHY, closing_report
from worker.sandbox.model_import import tokenizer_checks
from worker.sandbox.model_import.archive import unpack
from worker.sandbox.model_import.safetensors_scan import InvalidModel
from worker.sandbox.reporting import report
from worker.sandbox.tokenizer import sentencepiece_model

SENTENCEPIECE = ("tokenizer.model", "spiece.model")
# The end-of-text tokens of well-known tokenizers, for a file that does not name its own.
END_TOKENS = ("<|endoftext|>", "</s>", "<|end_of_text|>", "<eos>", "[EOS]")
ALGORITHMS = {"BPE": "bpe", "Unigram": "unigram", "WordPiece": "wordpiece", "WordLevel": "wordlevel"}


def import_tokenizer(directory: Path, budget: int, keep_free: int, end: str | None) -> dict[str, Any]:
    """Check and convert the uploaded files of a directory. Returns what its row stores. Raises InvalidModel.

    `budget` are the bytes that an archive may unpack to, `keep_free` those that must stay free on the disk, `end` is
    the end-of-text token, if its user names it.
    """
    unpack(directory, budget, keep_free)
    opened = _open(directory)
    _name_end(opened, end)
    chat = chat_template.default_template(opened)
    opened.chat_template = chat
    if opened.pad_token is None:
        opened.pad_token_id = tokenizer.document_separator_id(opened)
    target = directory / "converted"
    target.mkdir(exist_ok=True)
    tokenizer.save_pretrained(opened, target)
    tokenizer_checks.check_rules(target)
    tokenizer_checks.probe(tokenizer.open_base(target))
    _replace_files(directory, target)
    backend = opened.backend_tokenizer
    kind = ALGORITHMS.get(type(backend.model).__name__, "other")
    return {
        "vocab_size": backend.get_vocab_size(),
        "sha256": tokenizer.sha256(directory),
        "facts": {
            "algorithm": "byte_level_bpe" if kind == "bpe" and "ByteLevel" in repr(backend.decoder) else kind,
            "end_of_text": opened.eos_token or opened.sep_token,
            "has_chat_template": chat is not None,
        },
    }


def _open(directory: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of tokenizer.json, or of a SentencePiece model where there is none."""
    if (directory / tokenizer.FILE).is_file():
        tokenizer_checks.check_rules(directory)
        try:
            opened: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(directory, local_files_only=True)
            opened.get_vocab()
        except Exception as error:  # the library raises what it likes
            raise InvalidModel("tokenizer_unreadable", why=_first_line(error, directory)) from None
        return opened
    model = next((directory / name for name in SENTENCEPIECE if (directory / name).is_file()), None)
    if model is None:
        raise InvalidModel("tokenizer_missing")
    return sentencepiece_model.convert(model)


def _name_end(opened: PreTrainedTokenizerFast, end: str | None) -> None:
    """Set the end-of-text token: the one that the user names, the tokenizer's own, or a well-known one."""
    vocab = opened.get_vocab()
    if end and end not in vocab:
        raise InvalidModel("end_unknown", token=end)
    if end:
        opened.eos_token = end
    if opened.eos_token is not None or opened.sep_token is not None:
        return
    usual = next((token for token in END_TOKENS if token in vocab), None)
    if usual is not None:
        opened.eos_token = usual
    elif "[SEP]" in vocab:
        opened.sep_token = "[SEP]"  # noqa: S105 - of BERT
    else:
        raise InvalidModel("end_missing")


def _replace_files(directory: Path, target: Path) -> None:
    """Put the converted files in place of the uploaded ones."""
    for path in directory.iterdir():
        if path.is_file() and not path.name.startswith("."):
            path.unlink()
    for path in target.iterdir():
        path.rename(directory / path.name)
    shutil.rmtree(target)


def _first_line(error: Exception, directory: Path) -> str:
    """The message of an error without paths of this machine."""
    lines = str(error).replace(str(directory), "").strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:MAX_WHY]


def report_result(directory: Path, memory: int, budget: int, keep_free: int, end: str | None) -> dict[str, Any]:
    """The closing report for a result or an error."""
    return closing_report(lambda: import_tokenizer(directory, budget, keep_free, end), memory)


def main() -> None:
    """Import the tokenizer that the arguments name, under resource limits, and report the result."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("directory", type=Path)
    arguments.add_argument("--memory", type=int, required=True)
    arguments.add_argument("--budget", type=int, required=True)
    arguments.add_argument("--keep-free", type=int, required=True)
    arguments.add_argument("--end")
    options = arguments.parse_args()
    child_limits.limit_memory(options.memory)
    report(report_result(options.directory, options.memory, options.budget, options.keep_free, options.end))


if __name__ == "__main__":
    main()
