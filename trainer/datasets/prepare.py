"""Makes a run ready to train: a tokenizer, tokenised text, and a note where they are. Never imports torch."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel
from transformers import PreTrainedTokenizerFast

from trainer.data import cache, tokenized_records, tokenized_text, tokenizer
from trainer.data.record_encoding import CHAT_TEMPLATE
from trainer.datasets.base import Dataset
from trainer.datasets.factory import open_dataset
from trainer.failure import Failure
from trainer.report import Reporter
from trainer.run_dir import CorpusInput, RunDir, sha256_file, write_atomically
from trainer.spec import TEXT_OBJECTIVES, TrainSpec

CONVERSES = ("chat", "dpo")


class Prepared(BaseModel):
    """Where the ranks find what `prepare` made (`prepared.json` of the attempt)."""

    tokenizer: str
    tokenizer_sha256: str
    tokens: str
    data_sha256: str
    held_out: dict[str, str] = {}  # tokenised corpora that are held out whole, by their id
    base_sha256: str | None = None  # of the model that the run starts from


def prepare(run_dir: RunDir, fence: int, report: Reporter) -> Prepared:
    """Train the tokenizer or take the given one, and tokenise the corpora, as far as the cache does not have it.

    Raises Failure for text or a tokenizer that no run can use.
    """
    report.phase("prepare", 0, 1)
    spec, inputs = run_dir.spec(), run_dir.inputs(fence)
    cache_path = Path(inputs.cache)
    if spec.base_model is not None and inputs.base is None:
        raise Failure(
            "config_invalid", field="base_model", why="is named, but inputs.json has no directory of it as base"
        )
    if inputs.base:
        made = tokenizer.import_tokenizer(Path(inputs.base), cache_path)
    elif inputs.tokenizer:
        made = Path(inputs.tokenizer)
    else:
        made = tokenizer.train_cached(
            inputs.corpora,
            spec.vocab_size,
            cache_path,
            lambda done, total: report.phase("prepare", done, total),
            spec.model_type,
        )
    opened, sha256 = tokenizer.load(made), tokenizer.sha256(made)
    copied = run_dir.tokenizer_path(fence)
    cache.replace_directory(made, copied)
    report.event(
        "tokenizer",
        path=str(copied.relative_to(run_dir.path)),
        sha256=sha256,
        vocab_size=opened.get_vocab_size(),
        trained=inputs.tokenizer is None and inputs.base is None,
    )
    report.phase("prepare", 1, 1)
    report.phase("tokenise", 0, 1)
    whole = _with_template(copied, spec)
    tokenizer.require_special_tokens(whole, spec.objective)

    def tokenised(sources: list[CorpusInput], labels: Sequence[str] | None = None) -> Path:
        def progress(done: int, total: int) -> None:
            report.phase("tokenise", done, total)

        if spec.objective in TEXT_OBJECTIVES:
            return tokenized_text.tokenize_cached(
                sources, opened, sha256, cache_path, progress, tokenizer.document_separator_id(whole)
            )
        return tokenized_records.tokenize_cached(sources, spec, whole, sha256, cache_path, progress, labels)

    tokens = tokenised(inputs.corpora)
    samples = open_dataset(tokens, spec, whole)
    held_out = {source.id: str(tokenised([source], samples.labels or None)) for source in inputs.validation}
    report.phase("tokenise", 1, 1)
    _report_data(report, spec, samples)
    prepared = Prepared(
        tokenizer=str(copied),
        tokenizer_sha256=sha256,
        tokens=str(tokens),
        data_sha256=samples.sha256,
        held_out=held_out,
        base_sha256=_base_sha256(Path(inputs.base)) if inputs.base else None,
    )
    write_atomically(_path(run_dir, fence), prepared.model_dump_json())
    return prepared


def _with_template(directory: Path, spec: TrainSpec) -> PreTrainedTokenizerFast:
    """The tokenizer of the run, with a chat template where the objective needs one."""
    opened: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(directory, local_files_only=True)
    if spec.objective in CONVERSES and opened.chat_template is None:
        opened.chat_template = CHAT_TEMPLATE
        (directory / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    return opened


def read(run_dir: RunDir, fence: int) -> Prepared:
    """What `prepare` made for this attempt."""
    return Prepared.model_validate_json(_path(run_dir, fence).read_text())


def _path(run_dir: RunDir, fence: int) -> Path:
    return run_dir.attempt_path(fence) / "prepared.json"


def _base_sha256(directory: Path) -> str:
    """The identity of a base model: of its configuration and its weights."""
    paths = [directory / "config.json", *sorted(directory.glob("*.safetensors"))]
    return cache.cache_key(**{path.name: sha256_file(path) for path in paths if path.is_file()})


def _report_data(report: Reporter, spec: TrainSpec, samples: Dataset) -> None:
    report.event(
        "data",
        num_tokens=samples.num_tokens,
        num_train_sequences=samples.num_train,
        num_validation_sequences=samples.num_validation,
        bytes_per_token=samples.bytes_per_token,
        num_cut=samples.num_cut,
        num_dropped=samples.num_dropped,
    )
    report.line(
        f"{samples.num_tokens} tokens: {samples.num_train} sequences of {spec.sequence_length} to train on, "
        f"{samples.num_validation} to validate, {samples.bytes_per_token:.2f} bytes a token"
    )
    if samples.num_cut or samples.num_dropped:
        report.line(
            f"{samples.num_cut} records are longer than a sequence and were cut, {samples.num_dropped} were left out"
        )
