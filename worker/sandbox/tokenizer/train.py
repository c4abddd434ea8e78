"""The sandboxed child process that trains a tokenizer.

`python -m worker.sandbox.tokenizer.train DIRECTORY --memory=BYTES`

It reads the request in DIRECTORY and writes the tokenizer there, in Hugging Face layout. It reports by JSON lines on
standard output: {"done", "total"} while it reads the text, at last {"result": {...}} or {"failed": {"problems":
[...]}}.
"""

import argparse
import logging
from pathlib import Path
from typing import Any

from trainer.data import tokenizer, tokenizer_training
from trainer.failure import Failure
from trainer.families import END_OF_TEXT, MASK, SENTINELS
from worker.sandbox.disk_space import storage_problem
from worker.sandbox.reporting import ProgressReporter, report
from worker.sandbox.tokenizer.request import REQUEST, TrainingRequest

log = logging.getLogger(__name__)

SPECIAL: dict[str, list[str]] = {"decoder": [], "encoder": [MASK], "encoder_decoder": SENTINELS}


def train(directory: Path) -> dict[str, Any]:
    """Train the tokenizer of the request in a directory. Returns the closing report."""
    request = TrainingRequest.model_validate_json((directory / REQUEST).read_bytes())
    progress: list[ProgressReporter] = []

    def advance(done: int, total: int) -> None:
        if not progress:
            progress.append(ProgressReporter(total))
        progress[0](done)

    special = list(dict.fromkeys([*SPECIAL[request.model_kind], *request.special_tokens]))
    trained, facts = tokenizer_training.train_on_sample(
        request.corpora, request.vocab_size, special, request.sample_bytes, advance
    )
    tokenizer.save(trained, directory)
    return {
        "result": {
            "vocab_size": trained.get_vocab_size(),
            "sha256": tokenizer.sha256(directory),
            "facts": {"algorithm": "byte_level_bpe", "end_of_text": END_OF_TEXT, **facts.model_dump()},
        }
    }


def report_result(directory: Path, memory: int) -> dict[str, Any]:
    """The closing report for a result or an error."""
    try:
        return train(directory)
    except Failure as failure:
        problem: dict[str, Any] = {"code": failure.code}
    except FileNotFoundError:
        problem = {"code": "corpus_gone"}
    except MemoryError:
        problem = {"code": "out_of_memory", "limit_bytes": memory}
    except OSError as error:
        problem = storage_problem(error)
    except Exception as error:
        log.exception("the training failed")
        problem = {"code": "unforeseen", "why": type(error).__name__}
    return {"failed": {"problems": [problem]}}


def main() -> None:
    """Train the tokenizer that the arguments name, under resource limits, and report the result."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("directory", type=Path)
    arguments.add_argument("--memory", type=int, required=True)
    options = arguments.parse_args()
    report(report_result(options.directory, options.memory))


if __name__ == "__main__":
    main()
