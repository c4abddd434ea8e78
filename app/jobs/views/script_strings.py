"""The sentences that the scripts of the job page need, in the reader's language."""

from app.core.i18n import _
from app.core.models import STATES


def state_word(state: str) -> str:
    """A state as people read it."""
    return {
        "queued": _("Queued"),
        "starting": _("Starting"),
        "running": _("Running"),
        "pausing": _("Pausing"),
        "paused": _("Paused"),
        "cancelling": _("Cancelling"),
        "recovering": _("Recovering"),
        "succeeded": _("Succeeded"),
        "failed": _("Failed"),
        "cancelled": _("Cancelled"),
    }[state]


def phase_words() -> dict[str, str]:
    """The phases of a run in their order."""
    return {
        "prepare": _("Prepare"),
        "tokenise": _("Tokenize"),
        "load": _("Load"),
        "train": _("Train"),
        "evaluate": _("Evaluate"),
        "save": _("Save"),
    }


def series_words() -> dict[str, str]:
    """The names of the curves."""
    return {
        "loss": _("Training loss"),
        "eval_loss": _("Validation loss"),
        "learning_rate": _("Learning rate"),
        "grad_norm": _("Gradient norm"),
        "tokens_per_second": _("Tokens per second"),
        "bits_per_byte": _("Bits per byte"),
        "eval_bits_per_byte": _("Validation bits per byte"),
        "eval_accuracy": _("Validation accuracy"),
        "eval_f1": _("Validation F1"),
        "eval_reward_accuracy": _("Validation reward accuracy"),
        "eval_reward_margin": _("Validation reward margin"),
    }


def script_words() -> dict[str, str]:
    """Sentences with {places} that the job page's scripts fill in themselves."""
    return {
        **{f"state.{state}": state_word(state) for state in STATES},
        **{f"phase.{name}": word for name, word in phase_words().items()},
        **{f"series.{name}": word for name, word in series_words().items()},
        "step_of": _("Step {step} of {total}"),
        "left": _("about {time} left"),
        "took": _("{time} in all"),
        "step": _("step {step}"),
        "try_step": _("Try step {step}"),
        "onward_step": _("Continue from step {step}"),
        "pin_step": _("Pin step {step}"),
        "kept.best": _("best"),
        "kept.pinned": _("pinned"),
        "kept.regular": _("kept regularly"),
        "kept.corrupt": _("damaged"),
        "attempt": _("Attempt {n}"),
        "from_step": _("from step {step}"),
        "resumed": _("Went on behind step {step}"),
        "recovered": _("Recovered {n}×: {why} Steps trained again: {steps}."),
        "micro_batch": _("Memory was short: the micro-batch is {n} now, with the same batch and samples."),
        "skipped": _("Steps passed over because they diverged: {steps}."),
        "zip_step": _("Download step {step}"),
        "checkpoint": _("Checkpoint at step {step}"),
        "now": _("The job is now: {state}"),
    }
