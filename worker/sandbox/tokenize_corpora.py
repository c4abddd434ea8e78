"""Tokenizes the corpora of a run directory into the cache, by the code that prepares a run. Never imports torch.

`python -m worker.sandbox.tokenize_corpora RUN_DIR FENCE` reports its progress, and then how many tokens there are.
"""

import sys
from pathlib import Path
from typing import Any

from trainer.datasets.job_preview import without_weights
from trainer.datasets.prepare import prepare
from trainer.events import EXIT_OUT_OF_MEMORY, FULL
from trainer.failure import Failure
from trainer.report import Reporter
from trainer.run_dir import RunDir
from worker.sandbox.reporting import report

RESULT = ("num_tokens", "num_train_sequences", "num_validation_sequences", "bytes_per_token", "num_cut", "num_dropped")


class TokenizingReporter(Reporter):
    """Sends the progress of tokenizing to the parent process, and keeps what is reported of the data."""

    def __init__(self) -> None:
        super().__init__(None)
        self.data: dict[str, Any] = {}

    def event(self, kind: str, **fields: Any) -> None:
        """Send or keep an event. While nothing is known of the size, as while another process tokenizes, it is 1."""
        if kind == "phase" and fields["phase"] == "tokenise" and fields["total"] > 1:
            report({"done": fields["done"], "total": fields["total"]})
        elif kind == "data":
            self.data = fields


def tokenize(run_dir: RunDir, fence: int) -> dict[str, Any]:
    """Tokenize, unless it was done before. Returns the closing report."""
    spec, inputs = run_dir.spec(), run_dir.inputs(fence)
    base = without_weights(Path(inputs.base), run_dir.path / "base") if inputs.base else None
    run_dir.create(spec.model_copy(update={"sample_prompt": ""}), inputs.model_copy(update={"base": base}), fence)
    reporter = TokenizingReporter()
    try:
        prepare(run_dir, fence, reporter)
    except Failure as failure:
        return {"failed": {"code": failure.code, "values": failure.values}}
    except OSError as error:
        if error.errno not in FULL:
            raise
        return {"failed": {"code": "disk_filled_up", "values": {}}}
    except MemoryError:
        sys.exit(EXIT_OUT_OF_MEMORY)
    return {"result": {name: reporter.data[name] for name in RESULT}}


if __name__ == "__main__":
    report(tokenize(RunDir(sys.argv[1]), int(sys.argv[2])))
