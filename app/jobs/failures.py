"""Why a job failed, in words: for each failure code its cause and the next step, both translated when shown."""

from dataclasses import dataclass
from typing import Any

from app.i18n import mark, translate


@dataclass(frozen=True)
class Failure:
    """English sentences with {values}; the Chinese ones are in the catalogue."""

    cause: str
    next_step: str


FAILURES = {
    "config_invalid": Failure(
        mark("The trainer refused the field {field}: {why}."),
        mark("Correct this field and submit the job again."),
    ),
    "data_empty": Failure(
        mark("The chosen corpora hold no text."),
        mark("Choose a corpus with text in it."),
    ),
    "data_short": Failure(
        mark("The text has {found} tokens; one training and one validation sequence need at least {needed}."),
        mark("Add text, or choose a smaller sequence length."),
    ),
    "vocab_too_large": Failure(
        mark("A vocabulary of {asked} tokens was asked for, but this text gives at most {largest}."),
        mark("Ask for at most {largest} tokens, or let the text decide (auto in the form, null in the API)."),
    ),
    "tokenizer_mismatch": Failure(
        mark("The chosen tokenizer cannot be used: it is {found}, but must be {needed}."),
        mark("Choose another tokenizer, or none to train one on the corpora."),
    ),
    "nan_loss": Failure(
        mark("The series {series} became {value} at step {step}: training diverged."),
        mark("Try a third of the learning rate, more warm-up steps, or gradient clipping at 1."),
    ),
    "oom_gpu": Failure(
        mark("The GPU ran out of memory at step {step}."),
        mark("Halve the micro-batch, switch on gradient checkpointing, or raise the ZeRO stage."),
    ),
    "oom_host": Failure(
        mark("The machine ran out of memory at step {step}."),
        mark("Halve the micro-batch or the sequence length, or run fewer jobs on this node at once."),
    ),
    "trainer_bug": Failure(
        mark("The trainer stopped on an error that it does not know."),
        mark("The end of the log shows it. Report it with the log; the last checkpoint can be used."),
    ),
    "checkpoint_failed": Failure(
        mark("The checkpoint of step {step} could not be published: {why}."),
        mark("Check the disk of the data directory, then submit the job again."),
    ),
    "crash_loop": Failure(
        mark("{attempts} attempts in a row ended without a newer checkpoint."),
        mark("The history and the end of the log show how they ended. Often memory is short: use a smaller model."),
    ),
    "internal": Failure(
        mark("Athanor made a mistake of its own while it ran this job."),
        mark("Submit the job again. The file supervisor.log in its run directory tells more."),
    ),
}

# Why an attempt was given up; the job goes on with another one.
SETBACKS = {
    "shutdown": mark("The node was shut down; the job goes on when a node is back."),
    "supervisor_lost": mark("The attempt fell silent: its supervisor is gone."),
    "node_lost": mark("The node {node} fell silent."),
    "worker_lost": mark("The worker could not start the attempt."),
    "wish_changed": mark("It was to pause, but is to go on after all."),
    "gpu_busy": mark("A process of an earlier attempt still holds the GPU; waiting for it to let go."),
    "gang_rank_died": mark("A training process ended unexpectedly ({how})."),
    "trainer_killed": mark("A training process was killed ({how})."),
    "trainer_segfault": mark("A training process crashed inside native code ({how})."),
    "trainer_abort": mark("A training process aborted itself ({how})."),
    "trainer_exit": mark("A training process left without saying why ({how})."),
    "hang": mark("Training hung at step {step}; the stacks of its processes are in the log."),
    "oom_gpu_retry": mark("The GPU ran out of memory at step {step}: the micro-batch goes from {before} to {after}."),
    "oom_host_retry": mark(
        "The machine ran out of memory at step {step}: the micro-batch goes from {before} to {after}."
    ),
    "step_skipped": mark("Step {step} diverged: it is passed over from the last checkpoint on."),
}
AT_ONCE = ("shutdown", "wish_changed", "oom_gpu_retry", "oom_host_retry", "step_skipped")  # no back-off
FREE = (*AT_ONCE, "supervisor_lost", "node_lost", "worker_lost", "gpu_busy")  # cost no retry

# Other reasons in a job's history.
REASONS = {
    "submitted": mark("Submitted."),
    "claimed": mark("The worker on {node} took the job."),
    "first_step": mark("The first step is done."),
    "continued": mark("Submitted, to go on from step {step} of another job."),
    "wish_cancel": mark("Cancelling was asked for."),
    "wish_pause": mark("A pause was asked for."),
    "wish_run": mark("It is to go on."),
    "resumed": mark("Goes on from step {step}; {repeated} steps are trained again."),
    "checkpoint_corrupt": mark("The checkpoint of step {step} is damaged and was passed over: {why}."),
    "save_failed": mark("The checkpoint of step {step} was not saved: {free} free, {needed} needed."),
    "disk_full": mark("Paused: the disk is full. {free} free, {needed} needed for a checkpoint."),
    "stopped": mark("All processes have ended."),
    "back_off_over": mark("Waiting for another attempt."),
    "finished": mark("All steps are done."),
    "finished_first": mark("All steps were done before the job heard that it was to be cancelled: it succeeded."),
    **SETBACKS,
}


class _Known(dict[str, Any]):
    def __missing__(self, key: str) -> str:
        return "?"  # an old row may lack a number that a newer sentence names


def describe(code: str, values: dict[str, Any]) -> dict[str, str]:
    """A failure for people: its code, cause and next step in the reader's language."""
    failure = FAILURES.get(code, FAILURES["internal"])
    known = _Known(values)
    cause, next_step = (translate(text).format_map(known) for text in (failure.cause, failure.next_step))
    return {"code": code, "cause": cause, "next_step": next_step}


def explain(reason: str | None, values: dict[str, Any]) -> str | None:
    """The sentence of one line of a job's history."""
    if reason is None:
        return None
    if reason in FAILURES:
        return describe(reason, values)["cause"]
    return translate(REASONS[reason]).format_map(_Known(values)) if reason in REASONS else reason
