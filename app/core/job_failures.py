"""Job failure codes: for each its cause, and what to do or what happens next.

docs/failures.md is the same table; a test keeps the two in sync.
"""

from dataclasses import dataclass
from typing import Any

from app.core.formatting import file_size
from app.core.i18n import Plural, _, gettext_noop, translate
from trainer.formats.messages import Message


@dataclass(frozen=True)
class FailureText:
    """The messages of a code, with {placeholders}; app/locales has the translations."""

    cause: str | Plural
    next_step: str


# Why a job failed.
FAILURES = {
    "config_invalid": FailureText(
        gettext_noop("The trainer rejected the field {field}: {why}."),
        gettext_noop("Correct this field and submit the job again."),
    ),
    "data_empty": FailureText(
        gettext_noop("The selected corpora contain no text."),
        gettext_noop("Choose a corpus that contains text."),
    ),
    "data_short": FailureText(
        Plural(
            "The text has {found} token; the job needs at least {needed}.",
            "The text has {found} tokens; the job needs at least {needed}.",
            "found",
        ),
        gettext_noop("Add text, or reduce the sequence length."),
    ),
    "records_few": FailureText(
        gettext_noop(
            "The corpora have too few usable records, {found}: training and validation need at least two. Skipped "
            "records: {dropped}."
        ),
        gettext_noop(
            "Add records. Records without an answer, and records that the chat template refuses, are skipped; the log "
            "names them."
        ),
    ),
    "split_empty": FailureText(
        gettext_noop(
            "Documents that would be held out: {held_out} of {documents}, so that one side of the split has none."
        ),
        gettext_noop("Change the validation fraction or the split, or add documents."),
    ),
    "split_unnamed": FailureText(
        Plural(
            "The column of {documents} document names neither train nor validation.",
            "The column of {documents} documents names neither train nor validation.",
            "documents",
        ),
        gettext_noop("Correct the column, or choose another split."),
    ),
    "groups_missing": FailureText(
        gettext_noop("The corpus {corpus} was read without a column of groups."),
        gettext_noop("Choose the column on the page of the corpus, under “Read it differently”, or another split."),
    ),
    "corpus_short": FailureText(
        gettext_noop("The corpus {corpus} has no training sample of its own, so it cannot have a share."),
        gettext_noop(
            "Choose a split by documents, which holds out some of each corpus in place of the last text, add text to "
            "the corpus, or leave the corpus weights and the temperature empty."
        ),
    ),
    "records_empty": FailureText(
        gettext_noop("No record of the corpora has tokens to learn; skipped: {dropped}."),
        gettext_noop(
            "Make sure that answers are not empty and that prompts leave room for them within the sequence length."
        ),
    ),
    "record_refused": FailureText(
        gettext_noop("Record {record} of corpus {corpus} cannot be used: {why}."),
        gettext_noop(
            "Correct the record, choose another chat template, or set the field “On unusable records” "
            "(on_record_error) to skip."
        ),
    ),
    "records_refused": FailureText(
        gettext_noop("None of the records ({dropped}) can be used. Record {record} of corpus {corpus}: {why}."),
        gettext_noop("Choose another chat template for the job (chat_template), or correct the records."),
    ),
    "label_unknown": FailureText(
        gettext_noop("The validation label {label} does not occur in the training data, which has: {labels}."),
        gettext_noop("Correct the label, or add records with this label to the training corpora."),
    ),
    "labels_one": FailureText(
        gettext_noop("All records have the label {label}, so there is nothing to tell apart."),
        gettext_noop("Add records with other labels to the training corpora."),
    ),
    "answers_equal": FailureText(
        gettext_noop("Within {length} tokens the chosen and the rejected answers of all pairs ({count}) are equal."),
        gettext_noop("Increase the sequence length, or correct the pairs."),
    ),
    "chat_template_unusable": FailureText(
        gettext_noop("The chat template cannot be used: {why}."),
        gettext_noop("Choose another chat template for the job: a preset, or a corrected Jinja template."),
    ),
    "check_failed": FailureText(
        gettext_noop(
            "A sanity check at the first step failed: {check} is {found}, but must be between {least} and {most}."
        ),
        gettext_noop(
            "Nothing has been learned yet. Check that the records contain answers; otherwise report this with the log."
        ),
    ),
    "data_changed": FailureText(
        gettext_noop(
            "The text differs from the one the checkpoint was trained on: it is {found}, but must be {needed}."
        ),
        gettext_noop("Restore the original corpora, or train on the new text from scratch."),
    ),
    "vocab_too_large": FailureText(  # of earlier versions
        gettext_noop("A vocabulary of {asked} tokens was requested, but this text yields at most {largest}."),
        gettext_noop("Submit the job again: its vocabulary will have the tokens that the text yields."),
    ),
    "tokenizer_mismatch": FailureText(
        gettext_noop("The chosen tokenizer cannot be used: it is {found}, but must be {needed}."),
        gettext_noop("Choose another tokenizer, or leave it out to train one on the corpora."),
    ),
    "base_damaged": FailureText(
        gettext_noop("The base model cannot be used: {why}."),
        gettext_noop("Import the model again or choose another one, then submit the job again."),
    ),
    "nan_loss": FailureText(
        gettext_noop("The series {series} became {value} at step {step}: training diverged."),
        gettext_noop("Train further from the last checkpoint with half the learning rate or with another seed."),
    ),
    "loss_diverged": FailureText(
        gettext_noop("The loss jumped to {loss} at step {step}, from a median of {median}: training diverged."),
        gettext_noop("Train further from the last checkpoint with half the learning rate or with another seed."),
    ),
    "oom_gpu": FailureText(
        gettext_noop("The GPU ran out of memory at step {step}, and the micro-batch cannot be made smaller."),
        gettext_noop(
            "Enable gradient checkpointing, raise the ZeRO stage, or choose shorter sequences or a smaller model."
        ),
    ),
    "oom_host": FailureText(
        gettext_noop("The machine ran out of memory at step {step}, and the micro-batch cannot be made smaller."),
        gettext_noop("Choose shorter sequences or a smaller model, or run fewer jobs on this node at once."),
    ),
    "trainer_bug": FailureText(
        gettext_noop("The trainer stopped with an unexpected exception."),
        gettext_noop(
            "The last lines of the log show it. Please report them. The checkpoints saved so far remain usable."
        ),
    ),
    "checkpoint_unreadable": FailureText(
        gettext_noop("The checkpoint to resume from cannot be read: {why}."),
        gettext_noop("Train further from an older checkpoint, or restore the files from a backup."),
    ),
    "no_valid_ckpt": FailureText(
        gettext_noop("Every checkpoint that this job could resume from is damaged. None was deleted."),
        gettext_noop(
            "The history shows what is damaged. Restore the files from a backup, run athanor rescan and "
            "train further from one of the checkpoints, or train from scratch."
        ),
    ),
    "disk_full": FailureText(
        gettext_noop("The disk is full: the checkpoint of step {step} needs {needed}, but only {free} are free."),
        gettext_noop("Free some space in the data directory, then resume the job."),
    ),
    "no_space": FailureText(
        gettext_noop("The disk filled up while the job was running ({what})."),
        gettext_noop("Free some space in the data directory, then resume the job."),
    ),
    "crash_loop": FailureText(
        gettext_noop("{attempts} attempts in a row ended without a newer checkpoint. The last one: {last}"),
        gettext_noop("Fix what ended the last attempt (see the end of the log), then submit the job again."),
    ),
    "internal": FailureText(
        gettext_noop("An internal error of Athanor ended this job."),
        gettext_noop("Submit the job again. The file supervisor.log in its run directory has details."),
    ),
}

_FROM_NEWEST = gettext_noop(
    "It resumes from its newest checkpoint after a short delay, up to three times without progress."
)
_AT_ONCE = gettext_noop("It resumes from its newest checkpoint at once.")

# Why an attempt ended early; the job retries.
SETBACKS = {
    "shutdown": FailureText(
        gettext_noop("The node was shut down."), gettext_noop("It resumes when a node is available.")
    ),
    "supervisor_lost": FailureText(
        gettext_noop("The attempt stopped responding: its supervisor is gone."), _FROM_NEWEST
    ),
    "node_lost": FailureText(
        gettext_noop("The node {node} stopped responding."),
        gettext_noop("It resumes from its newest checkpoint as soon as a node has capacity."),
    ),
    "worker_lost": FailureText(
        gettext_noop("The worker could not start the attempt."),
        gettext_noop("Another attempt starts after a short delay."),
    ),
    "wish_changed": FailureText(gettext_noop("A pause was requested and then withdrawn."), _AT_ONCE),
    "gpu_busy": FailureText(
        gettext_noop("A process of an earlier attempt still occupies the GPU."),
        gettext_noop("It resumes as soon as that process exits. If it never does, end the process on the node."),
    ),
    "gang_rank_died": FailureText(gettext_noop("A training process ended unexpectedly ({how})."), _FROM_NEWEST),
    "trainer_killed": FailureText(gettext_noop("A training process was killed ({how})."), _FROM_NEWEST),
    "trainer_segfault": FailureText(
        gettext_noop("A training process crashed inside native code ({how})."), _FROM_NEWEST
    ),
    "trainer_abort": FailureText(gettext_noop("A training process aborted itself ({how})."), _FROM_NEWEST),
    "trainer_exit": FailureText(
        gettext_noop("A training process exited without giving a reason ({how})."), _FROM_NEWEST
    ),
    "hang": FailureText(
        gettext_noop("Training hung at step {step}; the stacks of its processes are in the log."), _FROM_NEWEST
    ),
    "oom_gpu_retry": FailureText(
        gettext_noop("The GPU ran out of memory at step {step}: the micro-batch is reduced from {before} to {after}."),
        gettext_noop("It resumes with the same samples and the same batch size, in smaller micro-batches."),
    ),
    "oom_host_retry": FailureText(
        gettext_noop(
            "The machine ran out of memory at step {step}: the micro-batch is reduced from {before} to {after}."
        ),
        gettext_noop("It resumes with the same samples and the same batch size, in smaller micro-batches."),
    ),
    "checkpoint_failed": FailureText(
        gettext_noop("The checkpoint of step {step} could not be published: {why}."), _FROM_NEWEST
    ),
    "internal": FailureText(FAILURES["internal"].cause, _FROM_NEWEST),
    "step_skipped": FailureText(
        gettext_noop("Step {step} diverged: the job resumes from the last checkpoint and skips this step."),
        gettext_noop("If more steps diverge, continue with a lower learning rate."),
    ),
}
STOPPED = ("shutdown", "paused", "cancelled", "wish_changed")
AT_ONCE = (*STOPPED, "oom_gpu_retry", "oom_host_retry", "step_skipped")  # no back-off
FREE = (*AT_ONCE, "supervisor_lost", "node_lost", "worker_lost", "gpu_busy")  # cost no retry

# Warnings of a job that continues.
TROUBLES = {
    "save_failed": FailureText(
        gettext_noop("The checkpoint of step {step} was not saved: {free} free, {needed} needed."),
        gettext_noop("Training continues and saves again later. Free some space: after three failures the job pauses."),
    ),
    "checkpoint_corrupt": FailureText(
        gettext_noop("The checkpoint of step {step} is damaged and was skipped: {why}."),
        gettext_noop("An older checkpoint is used. Check the disk: files on it changed without being written."),
    ),
}

CODES = {**SETBACKS, **TROUBLES, **FAILURES}
# The sanity checks at the first step.
CHECKS = {
    "blind_loss": gettext_noop("the initial loss"),
    "trained_share": gettext_noop("the fraction of tokens with labels"),
    "whole_loss": gettext_noop("the batch loss summed over micro-batches"),
}
_WITH_SIZES = ("save_failed", "disk_full")  # `free` and `needed` are bytes

# Other reasons in a job's history, which need no action.
REASONS: dict[str, str | Plural] = {
    "submitted": gettext_noop("Submitted."),
    "rescanned": gettext_noop("Restored from the disk after the database was lost; checkpoints: {n}."),
    "imported": gettext_noop("Imported from the archive {filename}."),
    "claimed": gettext_noop("The worker on {node} took the job."),
    "first_step": gettext_noop("The first step is done."),
    "continued": gettext_noop("Submitted to train further from step {step} of another job."),
    "wish_cancel": gettext_noop("Cancellation requested."),
    "cancelled_by": gettext_noop("{name}, who manages this installation, requested cancellation."),
    "wish_pause": gettext_noop("Pause requested."),
    "wish_run": gettext_noop("Resume requested."),
    "search_stopped": gettext_noop(
        "Stopped early: at step {step} the validation loss was not among the best third of its hyperparameter search."
    ),
    "resumed": Plural(
        "Resumed from step {step}; {repeated} step is trained again.",
        "Resumed from step {step}; {repeated} steps are trained again.",
        "repeated",
    ),
    "stopped": gettext_noop("All processes have ended."),
    "paused": gettext_noop("It ended because its job was paused."),
    "cancelled": gettext_noop("It ended because its job was cancelled."),
    "back_off_over": gettext_noop("Waiting for another attempt."),
    "finished": gettext_noop("All steps are done."),
    "finished_early": Plural(
        "Training ended after step {step}, as {patience} evaluation brought no better validation loss.",
        "Training ended after step {step}, as {patience} evaluations in a row brought no better validation loss.",
        "patience",
    ),
    "evaluation_refused": gettext_noop("The evaluation at its end was not started: {why}"),
    "finished_first": gettext_noop("All steps were done before the cancellation arrived: the job succeeded."),
}


class _Values(dict[str, Any]):
    def __missing__(self, key: str) -> str:
        return "?"  # an old row may lack a value that a newer message names


def _formatted(code: str, values: dict[str, Any]) -> _Values:
    """The values with sizes, numbers and codes formatted for display."""
    formatted = _Values(values)
    for name, value in values.items():
        if code in _WITH_SIZES and name in ("free", "needed") and isinstance(value, int):
            formatted[name] = file_size(value)
        elif isinstance(value, float):
            formatted[name] = f"{value:.4g}"
        elif isinstance(value, dict) and "template" in value:  # a message within the sentence
            inner = Message.model_validate(value)
            formatted[name] = _(inner.template, **inner.values)
    if code == "check_failed" and values.get("check") in CHECKS:
        formatted["check"] = translate(CHECKS[values["check"]])
    if code == "crash_loop":
        formatted["last"] = explain(values.get("last"), values.get("last_values", {})) or "?"
    return formatted


def describe(code: str, values: dict[str, Any], *, is_retried: bool = False) -> dict[str, str]:
    """The code, cause and next step of a failure in the reader's language.

    If the job `is_retried`, the next step says what happens next.
    """
    codes = {**CODES, **SETBACKS} if is_retried else CODES
    failure = codes.get(code, FAILURES["internal"])
    formatted = _formatted(code, values)
    cause = translate(failure.cause, values).format_map(formatted)
    next_step = translate(failure.next_step).format_map(formatted)
    if code in FAILURES and isinstance(values.get("last_checkpoint"), int):
        next_step = _(
            "{sentence} The last checkpoint is from step {step}.", sentence=next_step, step=values["last_checkpoint"]
        )
    return {"code": code, "cause": cause, "next_step": next_step}


def explain(reason: str | None, values: dict[str, Any]) -> str | None:
    """The cause of one event of a job's history, or of the end of an attempt."""
    if reason in CODES:
        return describe(reason, values)["cause"]
    if reason not in REASONS:
        return reason
    return translate(REASONS[reason], values).format_map(_formatted(reason, values))


def advise(reason: str | None, values: dict[str, Any], *, is_retried: bool = False) -> str | None:
    """What to do about one event of a job's history, or what happens next; None if it needs no action."""
    return describe(reason, values, is_retried=is_retried)["next_step"] if reason in CODES else None
