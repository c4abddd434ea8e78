"""Checks of a job before anything is tokenized. Each raises an error at the field that is wrong."""

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy.orm import Session

from app.checkpoints.service import RESUME
from app.core import disk, names, quotas
from app.core.errors import bad_field
from app.core.formatting import number
from app.core.i18n import _, gettext_noop, translate
from app.core.models import Checkpoint, Corpus, Job
from app.core.principal import Principal
from app.corpora.record_kinds import kind_names
from app.jobs.planning.answers import localize
from trainer.families import NETWORK_FIELDS
from trainer.formats.corpus_kinds import CORPUS_KINDS_BY_OBJECTIVE, TRAIN_NAMES, VALIDATION_NAMES
from trainer.planning.plan import Plan
from trainer.spec import MAX_STEPS, TrainSpec


def check_text(fields: dict[str, Any]) -> None:
    """Refuse control characters and unpaired surrogates, in names of fields too."""
    for field, value in fields.items():
        printable = "".join(character if character.isprintable() else "?" for character in field)
        for text in _texts([field, value]):
            names.check_text(printable, text)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from _texts([*value.keys(), *value.values()])
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)


def check_kinds(spec: TrainSpec, corpora: Sequence[Corpus], field: str = "corpora") -> None:
    """Refuse corpora of a kind that the objective cannot use."""
    wanted = CORPUS_KINDS_BY_OBJECTIVE[spec.objective]
    for corpus in corpora:
        if corpus.kind not in wanted:
            message = _(
                "The corpus “{name}” is of the kind {kind}, but this objective learns from {kinds}. Choose another "
                "corpus or another objective.",
                name=corpus.name,
                kind=kind_names([corpus.kind]),
                kinds=kind_names(wanted),
            )
            raise bad_field(field, "kind_unfit", message)


def check_labels(spec: TrainSpec, corpora: Sequence[Corpus], validation: Sequence[Corpus]) -> None:
    """Refuse to train a classifier on records of one label, or to validate it with labels that it cannot learn.

    Corpora with more labels than their row has are left to the trainer, which reads all records.
    """
    if spec.objective != "classification" or any(_has_more_labels(corpus) for corpus in corpora):
        return
    labels = {label for corpus in corpora for label in corpus.progress.labels}
    if len(labels) == 1:
        message = _(
            "All records have the label {label}, so there is nothing to tell apart. Choose corpora with two labels or "
            "more.",
            label=next(iter(labels)),
        )
        raise bad_field("corpora", "labels_one", message)
    for corpus in validation:
        unknown = next((label for label in corpus.progress.labels if label not in labels), None)
        if unknown is not None:
            message = _(
                "The label {label} of the corpus “{name}” does not occur in the training corpora. Choose another "
                "validation corpus, or add records with this label.",
                label=unknown,
                name=corpus.name,
            )
            raise bad_field("validation_corpora", "label_unknown", message)


def check_split(spec: TrainSpec, corpora: Sequence[Corpus]) -> None:
    """Refuse a split by groups or by a column of corpora that were read without one, or whose column is another.

    Corpora with more groups than their row has are left to the trainer, which reads all of them.
    """
    if spec.split not in ("group", "column"):
        return
    for corpus in corpora:
        report = corpus.progress
        if report.group_column is None:
            message = _(
                "The corpus “{name}” was read without a column of groups. Choose one on its page, under “Read it "
                "differently”, or another split.",
                name=corpus.name,
            )
            if corpus.cleaning is not None:  # its groups are those of the version that was cleaned
                message = _(
                    "The corpus “{name}” was cleaned from a version without a column of groups. Choose one on the page "
                    "of version {version}, under “Read it differently”, and clean it again, or choose another split.",
                    name=corpus.name,
                    version=corpus.cleaning.parent_version,
                )
            raise bad_field("split", "groups_missing", message)
        unknown = [name for name in report.groups if name not in (*TRAIN_NAMES, *VALIDATION_NAMES)]
        if spec.split == "column" and (unknown or report.num_ungrouped):
            message = _(
                "The column {column} of the corpus “{name}” has the value “{value}”, which is neither train nor "
                "validation. Correct the file, or choose another split.",
                column=report.group_column,
                name=corpus.name,
                value=unknown[0] if unknown else "",
            )
            raise bad_field("split", "split_unnamed", message)
    if any((corpus.progress.num_groups or 0) > len(corpus.progress.groups) for corpus in corpora):
        return
    names = {name for corpus in corpora for name in corpus.progress.groups}
    if spec.split == "column" and (names.isdisjoint(TRAIN_NAMES) or _lacks_validation(spec, names)):
        message = _("The column names only one side of the split. Correct the file, or choose another split.")
        raise bad_field("split", "split_empty", message)


def _lacks_validation(spec: TrainSpec, names: set[str]) -> bool:
    return names.isdisjoint(VALIDATION_NAMES) and not spec.validation_corpora


def _has_more_labels(corpus: Corpus) -> bool:
    return (corpus.progress.num_labels or 0) > len(corpus.progress.labels)


def check_memory(plan: Plan) -> None:
    """Refuse a job whose lowest memory estimate exceeds every node; the message says what would fit."""
    if plan.is_impossible:
        raise bad_field(plan.field, "memory_short", localize(plan.verdict))


TWO_CHECKPOINTS = gettext_noop(
    "Two checkpoints of this job need {needed} of disk space, but only {free} is left. Free some space, or choose a "
    "smaller model."
)


def check_disk(session: Session, principal: Principal, plan: Plan) -> None:
    """Refuse a job whose checkpoints the disk, or the user's quota, cannot hold: a new one is written before an old
    one may go.
    """
    num_bytes = 2 * (plan.checkpoint_bytes + plan.resume_bytes)
    disk.require_room(num_bytes, TWO_CHECKPOINTS)
    quotas.check_disk(session, principal.user_id, num_bytes)


# What a job that continues from a checkpoint shares with the job that wrote it: weight shapes and sample order.
FIELDS_FIXED_ON_RESUME = (
    "objective",
    "base_model",
    "new_tokens",
    "tuning",
    "lora_rank",
    "lora_alpha",
    "optimizer",
    "packing",
    "chat_template",
    "on_record_error",
    "mlm_probability",
    "noise_density",
    "mean_noise_span_length",
    "dpo_beta",
    "corpora",
    "corpus_weights",
    "corpus_temperature",
    "vocab_size",
    "sequence_length",
    "validation_fraction",
    "split",
    *NETWORK_FIELDS,
    "train_batch_size",
)


ORIGIN_GONE = gettext_noop("The files of this checkpoint are missing or damaged. Choose another one.")


def is_resumable(checkpoint: Checkpoint) -> bool:
    """Whether a checkpoint holds the optimizer state as well as the weights."""
    return any(file.name.startswith(RESUME) for file in checkpoint.manifest.files)


def with_steps_of(spec: TrainSpec, before: Job) -> TrainSpec:
    """The spec with the steps that its epochs take over the samples that the job it continues has counted."""
    if spec.num_train_epochs is None or before.facts.num_train_sequences is None:
        return spec
    steps = spec.steps_for_epochs(before.facts.num_train_sequences)
    _check_number(spec, steps)
    return spec.with_steps(steps)


def check_steps(spec: TrainSpec, plan: Plan) -> None:
    """Refuse epochs that take too many steps, or too few for other fields, even at the end of their interval."""
    if spec.max_steps is None:
        steps = plan.figures["max_steps"]
        _check_number(spec, int(steps.low))
        spec.with_steps(min(MAX_STEPS, int(steps.high)))


def _check_number(spec: TrainSpec, steps: int) -> None:
    if steps > MAX_STEPS:
        message = _(
            "num_train_epochs {epochs} takes {steps} steps, but at most {most} are possible. Choose fewer epochs or a "
            "larger train_batch_size.",
            epochs=number(spec.num_train_epochs),
            steps=number(steps),
            most=number(MAX_STEPS),
        )
        raise bad_field("num_train_epochs", "steps_many", message)


def check_resumable(origin: Checkpoint) -> None:
    """Refuse a checkpoint that no job can continue from."""
    if origin.state != "ready":
        raise bad_field("resume_from_checkpoint", "checkpoint_missing", translate(ORIGIN_GONE))
    if not is_resumable(origin):
        message = _(
            "This checkpoint has weights only, without the optimizer state. Choose a later one, or start from its "
            "weights: name it as base_model, with corpora of your choice."
        )
        raise bad_field("resume_from_checkpoint", "checkpoint_unresumable", message)


def check_origin(spec: TrainSpec, before: TrainSpec, tokenizer_id: str | None, origin: Checkpoint) -> None:
    """Refuse a job that cannot continue from its checkpoint as it is specified."""
    changed = next((name for name in FIELDS_FIXED_ON_RESUME if getattr(spec, name) != getattr(before, name)), None)
    if changed is None and spec.tokenizer not in (tokenizer_id, before.tokenizer):
        changed = "tokenizer"
    if changed is not None:
        message = _(
            "{field} cannot change when a job continues from a checkpoint. Leave it out, or start from scratch.",
            field=changed,
        )
        raise bad_field(changed, "origin_differs", message)
    if spec.max_steps is None:
        message = _("The number of samples of the earlier job is not known, so set max_steps in place of epochs.")
        raise bad_field("num_train_epochs", "epochs_uncounted", message)
    if spec.max_steps <= origin.step:
        message = _(
            "max_steps is {max_steps}, but the checkpoint is already at step {step}. Choose a larger max_steps.",
            max_steps=spec.max_steps,
            step=origin.step,
        )
        raise bad_field("max_steps", "steps_done", message)
