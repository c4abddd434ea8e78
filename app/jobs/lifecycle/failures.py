"""What can befall a job, in words: for each code its cause and what to do or what happens next, in both languages.

docs/failures.md is the same table for readers; a test holds the two together.
"""

from dataclasses import dataclass
from typing import Any

from app.core.formatting import file_size
from app.core.i18n import _, gettext_noop, translate


@dataclass(frozen=True)
class Failure:
    """English sentences with {values}; the Chinese ones are in the catalogue."""

    cause: str
    next_step: str


# How a job ends when it fails.
FAILURES = {
    "config_invalid": Failure(
        gettext_noop("The trainer refused the field {field}: {why}."),
        gettext_noop("Correct this field and submit the job again."),
    ),
    "data_empty": Failure(
        gettext_noop("The chosen corpora hold no text."),
        gettext_noop("Choose a corpus with text in it."),
    ),
    "data_short": Failure(
        gettext_noop("The text has {found} tokens; one training and one validation sequence need at least {needed}."),
        gettext_noop("Add text, or choose a smaller sequence length."),
    ),
    "records_few": Failure(
        gettext_noop(
            "The corpora have {found} records to learn from, but training and validation need two. "
            "{dropped} were left out."
        ),
        gettext_noop("Add records. Left out are those without an answer, and those whose text spells a special token."),
    ),
    "records_empty": Failure(
        gettext_noop("No record of the corpora has anything to learn; {dropped} were left out."),
        gettext_noop("See that answers are not empty, and that prompts leave room for them in the sequence length."),
    ),
    "label_unknown": Failure(
        gettext_noop("The held-out label {label} is none of those that are trained on: {labels}."),
        gettext_noop("Correct the label, or add records with it to the corpora that are trained on."),
    ),
    "chat_template_unusable": Failure(
        gettext_noop("The chat template of the base model cannot be used: {why}."),
        gettext_noop("Choose another base model, or one whose template writes each message the same whatever follows."),
    ),
    "check_failed": Failure(
        gettext_noop("A check at the first step failed: {check} is {found}, but must lie between {least} and {most}."),
        gettext_noop(
            "Nothing was learnt yet. See that the records have something to learn; else report it with the log."
        ),
    ),
    "data_changed": Failure(
        gettext_noop("The text is not the one the checkpoint was trained on: it is {found}, but must be {needed}."),
        gettext_noop("Bring the corpora back as they were, or train on the new text from scratch."),
    ),
    "vocab_too_large": Failure(
        gettext_noop("A vocabulary of {asked} tokens was asked for, but this text gives at most {largest}."),
        gettext_noop("Ask for at most {largest} tokens, or let the text decide (auto in the form, null in the API)."),
    ),
    "tokenizer_mismatch": Failure(
        gettext_noop("The chosen tokenizer cannot be used: it is {found}, but must be {needed}."),
        gettext_noop("Choose another tokenizer, or none to train one on the corpora."),
    ),
    "base_damaged": Failure(
        gettext_noop("The base model cannot be used: {why}."),
        gettext_noop("Import the model again or choose another one, then submit the job again."),
    ),
    "nan_loss": Failure(
        gettext_noop("The series {series} became {value} at step {step}: training diverged."),
        gettext_noop("Continue from the last checkpoint with half the learning rate or another order of the text."),
    ),
    "loss_diverged": Failure(
        gettext_noop("The loss leapt to {loss} at step {step}, from a median of {median}: training diverged."),
        gettext_noop("Continue from the last checkpoint with half the learning rate or another order of the text."),
    ),
    "oom_gpu": Failure(
        gettext_noop("The GPU ran out of memory at step {step}, and the micro-batch cannot be made smaller."),
        gettext_noop(
            "Switch on gradient checkpointing, raise the ZeRO stage, or choose shorter sequences or a smaller model."
        ),
    ),
    "oom_host": Failure(
        gettext_noop("The machine ran out of memory at step {step}, and the micro-batch cannot be made smaller."),
        gettext_noop("Choose shorter sequences or a smaller model, or run fewer jobs on this node at once."),
    ),
    "trainer_bug": Failure(
        gettext_noop("The training program was ended by an exception of its own."),
        gettext_noop("The last lines of its log name it. Report them; the checkpoints saved so far can be used."),
    ),
    "checkpoint_unreadable": Failure(
        gettext_noop("The checkpoint to go on from cannot be read: {why}."),
        gettext_noop("Continue from an older checkpoint, or bring the files back from a backup."),
    ),
    "no_valid_ckpt": Failure(
        gettext_noop("Every checkpoint that this job could go on from is damaged. None was deleted."),
        gettext_noop(
            "The history says what is damaged. Bring the files back from a backup, run athanor rescan and continue "
            "from one of them; or train from scratch."
        ),
    ),
    "disk_full": Failure(
        gettext_noop("The disk is full: the checkpoint of step {step} needs {needed}, but only {free} are free."),
        gettext_noop("Free some space in the data directory, then let the job go on."),
    ),
    "no_space": Failure(
        gettext_noop("The disk filled up while the job worked ({what})."),
        gettext_noop("Free some space in the data directory, then let the job go on."),
    ),
    "crash_loop": Failure(
        gettext_noop("{attempts} attempts in a row ended without a newer checkpoint. The last one: {last}"),
        gettext_noop("Mend what ended the last attempt (the end of the log shows more), then submit the job again."),
    ),
    "internal": Failure(
        gettext_noop("Athanor made a mistake of its own while it ran this job."),
        gettext_noop("Submit the job again. The file supervisor.log in its run directory tells more."),
    ),
}

_FROM_NEWEST = gettext_noop(
    "It goes on from its newest checkpoint after a short pause, up to three times without progress."
)
_AT_ONCE = gettext_noop("It goes on from its newest checkpoint at once.")

# Why an attempt was given up; the job goes on with another one.
SETBACKS = {
    "shutdown": Failure(gettext_noop("The node was shut down."), gettext_noop("It goes on when a node is back.")),
    "supervisor_lost": Failure(gettext_noop("The attempt fell silent: its supervisor is gone."), _FROM_NEWEST),
    "node_lost": Failure(
        gettext_noop("The node {node} fell silent."),
        gettext_noop("It goes on from its newest checkpoint as soon as a node has room."),
    ),
    "worker_lost": Failure(
        gettext_noop("The worker could not start the attempt."),
        gettext_noop("Another attempt is made after a short pause."),
    ),
    "wish_changed": Failure(gettext_noop("It was to pause, but is to go on after all."), _AT_ONCE),
    "gpu_busy": Failure(
        gettext_noop("A process of an earlier attempt still holds the GPU."),
        gettext_noop("It goes on as soon as that process lets go. If it never does, end it on the node."),
    ),
    "gang_rank_died": Failure(gettext_noop("A training process ended unexpectedly ({how})."), _FROM_NEWEST),
    "trainer_killed": Failure(gettext_noop("A training process was killed ({how})."), _FROM_NEWEST),
    "trainer_segfault": Failure(gettext_noop("A training process crashed inside native code ({how})."), _FROM_NEWEST),
    "trainer_abort": Failure(gettext_noop("A training process aborted itself ({how})."), _FROM_NEWEST),
    "trainer_exit": Failure(gettext_noop("A training process left without saying why ({how})."), _FROM_NEWEST),
    "hang": Failure(
        gettext_noop("Training hung at step {step}; the stacks of its processes are in the log."), _FROM_NEWEST
    ),
    "oom_gpu_retry": Failure(
        gettext_noop("The GPU ran out of memory at step {step}: the micro-batch goes from {before} to {after}."),
        gettext_noop("It goes on with the same samples and the same batch, in smaller pieces."),
    ),
    "oom_host_retry": Failure(
        gettext_noop("The machine ran out of memory at step {step}: the micro-batch goes from {before} to {after}."),
        gettext_noop("It goes on with the same samples and the same batch, in smaller pieces."),
    ),
    "checkpoint_failed": Failure(
        gettext_noop("The checkpoint of step {step} could not be published: {why}."), _FROM_NEWEST
    ),
    "internal": Failure(FAILURES["internal"].cause, _FROM_NEWEST),
    "step_skipped": Failure(
        gettext_noop("Step {step} diverged: it is passed over from the last checkpoint on."),
        gettext_noop("If more steps diverge, continue with a lower learning rate."),
    ),
}
STOPPED = ("shutdown", "paused", "cancelled", "wish_changed")
AT_ONCE = (*STOPPED, "oom_gpu_retry", "oom_host_retry", "step_skipped")  # no back-off
FREE = (*AT_ONCE, "supervisor_lost", "node_lost", "worker_lost", "gpu_busy")  # cost no retry

# What troubles a job while it goes on.
TROUBLES = {
    "save_failed": Failure(
        gettext_noop("The checkpoint of step {step} was not saved: {free} free, {needed} needed."),
        gettext_noop("Training goes on and saves again later. Free some space: after three failures the job pauses."),
    ),
    "checkpoint_corrupt": Failure(
        gettext_noop("The checkpoint of step {step} is damaged and was passed over: {why}."),
        gettext_noop("An older one is used. Look after the disk: files there have changed by themselves."),
    ),
}

CODES = {**SETBACKS, **TROUBLES, **FAILURES}
# What is checked at the first step.
CHECKS = {
    "blind_loss": gettext_noop("the loss before anything is learnt"),
    "trained_share": gettext_noop("the share of the labels that count"),
    "whole_loss": gettext_noop("the loss of a batch added up from its parts"),
}
_WITH_SIZES = ("save_failed", "disk_full")  # their `free` and `needed` are bytes

# Other reasons in a job's history, which call for nothing.
REASONS = {
    "submitted": gettext_noop("Submitted."),
    "rescanned": gettext_noop("Found again on the disk after the database was lost; checkpoints: {n}."),
    "claimed": gettext_noop("The worker on {node} took the job."),
    "first_step": gettext_noop("The first step is done."),
    "continued": gettext_noop("Submitted, to go on from step {step} of another job."),
    "wish_cancel": gettext_noop("Cancelling was asked for."),
    "wish_pause": gettext_noop("A pause was asked for."),
    "wish_run": gettext_noop("Resuming was asked for."),
    "resumed": gettext_noop("Goes on from step {step}; {repeated} steps are trained again."),
    "stopped": gettext_noop("All processes have ended."),
    "paused": gettext_noop("It ended because its job was to pause."),
    "cancelled": gettext_noop("It ended because its job was cancelled."),
    "back_off_over": gettext_noop("Waiting for another attempt."),
    "finished": gettext_noop("All steps are done."),
    "finished_first": gettext_noop(
        "All steps were done before the job heard that it was to be cancelled: it succeeded."
    ),
}


class _Known(dict[str, Any]):
    def __missing__(self, key: str) -> str:
        return "?"  # an old row may lack a number that a newer sentence names


def _shown(code: str, values: dict[str, Any]) -> _Known:
    """The values as people read them."""
    found = _Known(values)
    for name, value in values.items():
        if code in _WITH_SIZES and name in ("free", "needed") and isinstance(value, int):
            found[name] = file_size(value)
        elif isinstance(value, float):
            found[name] = f"{value:.4g}"
    if code == "check_failed" and values.get("check") in CHECKS:
        found["check"] = translate(CHECKS[values["check"]])
    if code == "crash_loop":
        found["last"] = explain(values.get("last"), values.get("last_values", {})) or "?"
    return found


def describe(code: str, values: dict[str, Any], *, goes_on: bool = False) -> dict[str, str]:
    """A code for people: with its cause and next step in the reader's language, where a job ends or goes on."""
    codes = {**CODES, **SETBACKS} if goes_on else CODES
    failure = codes.get(code, FAILURES["internal"])
    known = _shown(code, values)
    cause, next_step = (translate(text).format_map(known) for text in (failure.cause, failure.next_step))
    if code in FAILURES and isinstance(values.get("last_checkpoint"), int):
        next_step = _(
            "{sentence} The last checkpoint is that of step {step}.", sentence=next_step, step=values["last_checkpoint"]
        )
    return {"code": code, "cause": cause, "next_step": next_step}


def explain(reason: str | None, values: dict[str, Any]) -> str | None:
    """The sentence of one line of a job's history, or of an attempt's end."""
    if reason in CODES:
        return describe(reason, values)["cause"]
    return translate(REASONS[reason]).format_map(_shown(reason, values)) if reason in REASONS else reason


def advise(reason: str | None, values: dict[str, Any], *, goes_on: bool = False) -> str | None:
    """What to do about one line of a job's history, or what happens next; none where it calls for nothing."""
    return describe(reason, values, goes_on=goes_on)["next_step"] if reason in CODES else None
