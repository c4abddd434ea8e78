"""The texts of the charts on the job page, in the reader's language."""

from collections.abc import Sequence
from typing import Protocol

from app.core.i18n import _


class NamedJob(Protocol):
    """What the words of a comparison need of a job."""

    id: str
    name: str


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
        "memory_bytes": _("Memory of the largest process"),
        "gpu_memory_bytes": _("Memory of the fullest GPU"),
        "cpu_percent": _("Processor cores"),
        "gpu_percent": _("GPUs"),
        "mfu_percent": _("Share of the measured rate of matrix products (MFU)"),
        "gpu_watts": _("Power of the GPUs"),
        "disk_free_bytes": _("Free disk space"),
    }


def chart_words() -> dict[str, str]:
    """The names of the curves, and texts with {placeholders} that static/js/chart.js fills in."""
    return {
        **{f"series.{name}": word for name, word in series_words().items()},
        **_axis_words(),
        "resumed": _("Resumed after step {step}"),
        "pause": _("Paused"),
        "recovery": _("Recovered"),
        "checkpoint": _("Checkpoint at step {step}"),
        "planned": _("plan {value}"),
        "blind": _("blind guessing"),
        "unigram": _("guessing by frequency"),
        "best": _("best earlier run"),
        "forecast": _("about {value} ({low}–{high})"),
    }


def comparison_words(jobs: Sequence[NamedJob]) -> dict[str, str]:
    """The names of jobs as those of curves, and how a place on each axis is written."""
    return {
        **{f"series.{job.id}": job.name for job in jobs},
        **_axis_words(),
    }


def _axis_words() -> dict[str, str]:
    """How a place on each axis is written."""
    return {
        "step": _("step {step}"),
        "tokens": _("tokens: {n}"),
        "seconds": _("after {duration}"),
        "flops": _("{n} FLOPs"),
    }
