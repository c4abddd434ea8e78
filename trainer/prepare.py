"""Makes a run ready to train: a tokenizer, tokenised text, and a note where they are. Never imports torch."""

from pathlib import Path

from pydantic import BaseModel

from trainer import cache, data, tokenizer
from trainer.report import Report
from trainer.rundir import RunDir, write_atomically
from trainer.samples import Samples, open_samples
from trainer.spec import TrainSpec


class Prepared(BaseModel):
    """Where the ranks find what `prepare` made (`prepared.json` of the attempt)."""

    tokenizer: str
    tokenizer_sha256: str
    tokens: str
    data_sha256: str


def prepare(run_dir: RunDir, fence: int, report: Report) -> Prepared:
    """Train the tokenizer or take the given one, and tokenise the corpora, as far as the cache does not have it.

    Raises Failure for text or a tokenizer that no run can use.
    """
    report.phase("prepare", 0, 1)
    spec, inputs = run_dir.spec(), run_dir.inputs(fence)
    cache_path = Path(inputs.cache)
    if inputs.tokenizer:
        made = Path(inputs.tokenizer)
    else:
        made = tokenizer.ensure(
            inputs.corpora, spec.vocab_size, cache_path, lambda done, total: report.phase("prepare", done, total)
        )
    opened, sha256 = tokenizer.load(made), tokenizer.sha256(made)
    copied = run_dir.tokenizer_path(fence)
    cache.copy(made, copied)
    report.event(
        "tokenizer",
        path=str(copied.relative_to(run_dir.path)),
        sha256=sha256,
        vocab_size=opened.get_vocab_size(),
        trained=inputs.tokenizer is None,
    )
    report.phase("prepare", 1, 1)
    report.phase("tokenise", 0, 1)
    tokens = data.ensure(
        inputs.corpora, opened, sha256, cache_path, lambda done, total: report.phase("tokenise", done, total)
    )
    report.phase("tokenise", 1, 1)
    samples = open_samples(tokens, spec, opened)
    _report_data(report, spec, samples)
    prepared = Prepared(
        tokenizer=str(copied),
        tokenizer_sha256=sha256,
        tokens=str(tokens),
        data_sha256=samples.sha256,
    )
    write_atomically(_path(run_dir, fence), prepared.model_dump_json())
    return prepared


def read(run_dir: RunDir, fence: int) -> Prepared:
    """What `prepare` made for this attempt."""
    return Prepared.model_validate_json(_path(run_dir, fence).read_text())


def _path(run_dir: RunDir, fence: int) -> Path:
    return run_dir.attempt_path(fence) / "prepared.json"


def _report_data(report: Report, spec: TrainSpec, samples: Samples) -> None:
    report.event(
        "data",
        num_tokens=samples.num_tokens,
        num_train_sequences=samples.num_train,
        num_validation_sequences=samples.num_validation,
        bytes_per_token=samples.bytes_per_token,
    )
    report.line(
        f"{samples.num_tokens} tokens: {samples.num_train} sequences of {spec.sequence_length} to train on, "
        f"{samples.num_validation} to validate, {samples.bytes_per_token:.2f} bytes a token"
    )
