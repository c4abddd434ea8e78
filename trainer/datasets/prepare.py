"""Prepares a run: its tokenizer, tokenized corpora, and a file that says where they are. Never imports torch."""

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Literal

from pydantic import BaseModel
from transformers import PreTrainedTokenizerFast

from trainer.data import cache, tokenized_records, tokenized_text, tokenizer
from trainer.data.chat_template import job_template
from trainer.data.record_refused import RecordRefused
from trainer.data.splits import Split, split_documents
from trainer.data.tokenizer_process import TokenizerProcess
from trainer.datasets.base import Dataset, RecordDataset
from trainer.datasets.factory import open_dataset
from trainer.datasets.unigram import unigram_loss
from trainer.events import CorpusUse, RecordRemark
from trainer.failure import Failure, config_invalid
from trainer.families import CHAT_OBJECTIVES, TEXT_OBJECTIVES, TOKEN_OBJECTIVES
from trainer.modeling.base_identity import base_sha256
from trainer.report import Reporter
from trainer.run_dir import CorpusInput, Inputs, RunDir, write_atomically
from trainer.spec import MAX_STEPS, TrainSpec
from trainer.spec_errors import SpecError

_FILE = "prepared.json"

# What the samples of a run on text continue: the tokens of the spec's prompt; "opening", a sentence of the validation
# text; or None, if the spec's prompt cannot be encoded, and in runs of older versions, which continue that text's first
# tokens.
SamplePrompt = list[int] | Literal["opening"] | None


class Prepared(BaseModel):
    """Paths and hashes of a prepared run, `prepared.json` of the attempt."""

    tokenizer: str
    tokenizer_sha256: str
    tokens: str
    data_sha256: str
    max_steps: int  # of the run; those of num_train_epochs, if the spec sets them
    held_out: dict[str, str] = {}  # paths of tokenized validation corpora by corpus ID
    base_sha256: str | None = None  # of the base model
    sample_prompt: SamplePrompt = None


def prepare(run_dir: RunDir, fence: int, report: Reporter) -> Prepared:
    """Import or train the tokenizer and tokenize the corpora, unless they are in the cache.

    Raises Failure for unusable text, tokenizers or inputs.
    """
    report.phase("prepare", 0, 1)
    spec, inputs = run_dir.spec(), run_dir.inputs(fence)
    cache_path = Path(inputs.cache)
    source = _tokenizer_directory(spec, inputs, report)
    encoder, sha256 = tokenizer.load(source), tokenizer.sha256(source)
    directory = run_dir.tokenizer_path(fence)
    cache.replace_directory(source, directory)
    report.event(
        "tokenizer",
        path=str(directory.relative_to(run_dir.path)),
        sha256=sha256,
        vocab_size=encoder.get_vocab_size(),
        trained=inputs.tokenizer is None and inputs.base is None,
    )
    if inputs.tokenizer is None and inputs.base is None and encoder.get_vocab_size() < (spec.vocab_size or 0):
        report.warning(f"vocabulary: {encoder.get_vocab_size()} tokens, all that the text yields of {spec.vocab_size}")
    report.phase("prepare", 1, 1)
    report.phase("tokenise", 0, 1)
    hf_tokenizer = _with_chat_template(directory, spec)
    is_foreign = inputs.base is not None or inputs.tokenizer is not None  # not trained by this preparation
    tokenizer.require_special_tokens(hf_tokenizer, spec.objective)

    split = split_documents(inputs.corpora, spec)

    def tokenize(sources: list[CorpusInput], labels: Sequence[str] | None = None, split: Split | None = None) -> Path:
        def progress(done: int, total: int) -> None:
            report.phase("tokenise", done, total)

        if spec.objective in TEXT_OBJECTIVES:
            separator = tokenizer.document_separator_id(hf_tokenizer)
            start = tokenizer.start_ids(hf_tokenizer) if spec.objective == "causal" else []
            hostile = directory if is_foreign else None
            return tokenized_text.tokenize_cached(
                sources, encoder, sha256, cache_path, progress, separator, start, hostile, split
            )
        return tokenized_records.tokenize_cached(
            sources, spec, hf_tokenizer, sha256, cache_path, progress, labels, split
        )

    tokens = tokenize(inputs.corpora, split=split)
    dataset = open_dataset(tokens, spec, hf_tokenizer)
    held_out = {corpus.id: str(tokenize([corpus], dataset.labels or None)) for corpus in inputs.validation}
    report.phase("tokenise", 1, 1)
    validation = {
        name: open_dataset(Path(path), spec, hf_tokenizer, is_held_out=True) for name, path in held_out.items()
    }
    spec = with_counted_steps(spec, dataset.num_train)
    remarks = remarks_on(dataset, [corpus.id for corpus in inputs.corpora])
    held_out_remarks = {name: remarks_on(other, [name]) for name, other in validation.items()}
    uses = _corpus_uses(spec, dataset, [corpus.id for corpus in inputs.corpora])
    _report_data(report, spec, dataset, validation, (remarks, held_out_remarks), uses)
    for remark in [*remarks, *chain.from_iterable(held_out_remarks.values())]:
        report.warning(f"record {remark.record} of corpus {remark.corpus} ({remark.kind}): {remark.why}")
    prepared = Prepared(
        tokenizer=str(directory),
        tokenizer_sha256=sha256,
        tokens=str(tokens),
        data_sha256=dataset.sha256,
        max_steps=spec.total_steps,
        held_out=held_out,
        base_sha256=base_sha256(Path(inputs.base)) if inputs.base else None,
        sample_prompt=_sample_prompt(spec, directory, report) if spec.sample_prompt else _default_prompt(run_dir),
    )
    write_atomically(_path(run_dir, fence), prepared.model_dump_json())
    return prepared


def _tokenizer_directory(spec: TrainSpec, inputs: Inputs, report: Reporter) -> Path:
    """The base model's tokenizer, the given one, or a newly trained one. Raises Failure."""
    cache_path = Path(inputs.cache)
    if spec.base_model is not None and inputs.base is None:
        raise config_invalid("base_model", "base_missing")
    if inputs.base:
        return tokenizer.import_tokenizer(Path(inputs.base), cache_path, spec.new_tokens)
    if inputs.tokenizer:
        return Path(inputs.tokenizer)

    def progress(done: int, total: int) -> None:
        report.phase("prepare", done, total)

    return tokenizer.train_cached(inputs.corpora, spec.vocab_size, cache_path, progress, spec.model_type)


def _with_chat_template(directory: Path, spec: TrainSpec) -> PreTrainedTokenizerFast:
    """The run's tokenizer, for conversations with the template of the job."""
    loaded: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(directory, local_files_only=True)
    if spec.objective in CHAT_OBJECTIVES:
        template = job_template(spec.chat_template, loaded)
        if loaded.chat_template != template:
            loaded.chat_template = template
            (directory / "chat_template.jinja").write_text(template)
    return loaded


def _sample_prompt(spec: TrainSpec, directory: Path, report: Reporter) -> list[int] | None:
    """The tokens of the spec's prompt; None, and a line in the log, if its tokenizer or template refuses it."""
    try:
        with TokenizerProcess(directory) as process:
            if spec.objective in TEXT_OBJECTIVES:
                return list(process.call("prompt", spec.sample_prompt))
            return list(process.call("sample", spec.objective, spec.sample_prompt))
    except RecordRefused as refused:
        report.warning(f"no sample: {refused}")
        return None


def _default_prompt(run_dir: RunDir) -> SamplePrompt:
    """What samples start from without a prompt of the spec: all attempts of a run alike."""
    for earlier in run_dir.path.glob(f"attempts/*/{_FILE}"):
        return Prepared.model_validate_json(earlier.read_text()).sample_prompt
    return "opening"


def with_counted_steps(spec: TrainSpec, num_train_samples: int) -> TrainSpec:
    """The spec with the steps that its epochs take over so many samples. Raises Failure if they contradict it."""
    if spec.max_steps is not None:
        return spec
    steps = spec.steps_for_epochs(num_train_samples)
    if steps > MAX_STEPS:
        values = {"steps": steps, "batch_size": spec.train_batch_size, "longest": MAX_STEPS}
        raise config_invalid("num_train_epochs", "epochs", **values)
    try:
        return spec.with_steps(steps)
    except SpecError as error:
        problem = error.problems[0]
        raise Failure("config_invalid", field=problem.field, why=problem.message) from None


def read(run_dir: RunDir, fence: int) -> Prepared:
    """Read `prepared.json` of an attempt."""
    return Prepared.model_validate_json(_path(run_dir, fence).read_text())


def _path(run_dir: RunDir, fence: int) -> Path:
    return run_dir.attempt_path(fence) / _FILE


def remarks_on(dataset: Dataset, corpora: Sequence[str]) -> list[RecordRemark]:
    """The remarks on records of a dataset, with the IDs of their corpora."""
    remarks = dataset.records.meta.remarks if isinstance(dataset, RecordDataset) else []
    return [RecordRemark(corpus=corpora[remark.corpus], **remark.model_dump(exclude={"corpus"})) for remark in remarks]


def _corpus_uses(spec: TrainSpec, dataset: Dataset, corpora: Sequence[str]) -> list[CorpusUse]:
    """What the run sees of each corpus."""
    shares = dataset.shares(spec.total_steps * spec.train_batch_size)
    return [
        CorpusUse(corpus=corpus, num_tokens=num_tokens, **share.model_dump())
        for corpus, num_tokens, share in zip(corpora, dataset.corpus_tokens, shares, strict=True)
    ]


def _report_data(
    report: Reporter,
    spec: TrainSpec,
    dataset: Dataset,
    validation: Mapping[str, Dataset],
    remarks: tuple[list[RecordRemark], Mapping[str, list[RecordRemark]]],
    uses: Sequence[CorpusUse],
) -> None:
    """Report the size of the training corpora and the remarks on them; of the validation corpora by their IDs."""
    records = dataset if isinstance(dataset, RecordDataset) else None
    repeated, *of_validation = dataset.count_trained_on([dataset, *validation.values()])
    repeated_by_name = dict(zip(validation, of_validation, strict=True))
    unvalidated = records.records.unvalidated_labels if records else []
    report.event(
        "data",
        num_tokens=dataset.num_tokens,
        num_train_sequences=dataset.num_train,
        num_validation_sequences=dataset.num_validation,
        max_steps=spec.total_steps,
        num_epochs=spec.total_steps * spec.train_batch_size / dataset.num_train,
        bytes_per_token=dataset.bytes_per_token,
        unigram_loss=unigram_loss(dataset) if spec.objective in TOKEN_OBJECTIVES else None,
        num_cut=dataset.num_cut,
        num_dropped=dataset.num_dropped,
        num_equal=dataset.num_equal,
        num_refused=dataset.num_refused,
        remarks=[remark.model_dump() for remark in remarks[0]],
        num_validation_in_training=repeated,
        unvalidated_labels=unvalidated,
        corpora=[use.model_dump() for use in uses],
        held_out={
            name: {
                "num_sequences": other.num_validation,
                "num_cut": other.num_cut,
                "num_dropped": other.num_dropped,
                "num_refused": other.num_refused,
                "num_in_training": repeated_by_name[name],
                "remarks": [remark.model_dump() for remark in remarks[1][name]],
            }
            for name, other in validation.items()
        },
    )
    report.line(
        f"{dataset.num_tokens} tokens in sequences of {spec.sequence_length}, for training: {dataset.num_train}, "
        f"for validation: {dataset.num_validation}; {dataset.bytes_per_token:.2f} bytes per token"
    )
    for name, other in [("", dataset), *((f"{name}: ", other) for name, other in validation.items())]:
        if other.num_cut or other.num_dropped:
            report.warning(
                f"{name}truncated records, longer than a sequence: {other.num_cut}; "
                f"records that were left out: {other.num_dropped}"
            )
    for use in uses if len(uses) > 1 else ():
        report.line(f"corpus {use.corpus}: {use.share:.1%} of the tokens, {use.num_epochs:.2f} epochs")
    noun = "records" if records else "documents"
    for prefix, count in [("", repeated), *((f"{name}: ", count) for name, count in repeated_by_name.items())]:
        if count:
            report.warning(f"{prefix}validation {noun} that also occur in the training data: {count}")
    if unvalidated:
        report.warning(f"labels with a single record, which are not validated: {', '.join(unvalidated)}")
