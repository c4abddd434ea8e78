"""Why a tracker did not take a batch: the sentence of each code. What a library says stays as it is, in English."""

from app.core.i18n import Plural, gettext_noop, translate
from app.core.json_shapes import FailureReason

MESSAGES: dict[str, str | Plural] = {
    "no_answer": gettext_noop("The tracker did not answer within {seconds} s."),
    "process_ended": gettext_noop("The process that sends to the tracker has ended."),
    "event_file_changed": gettext_noop(
        "The event file was deleted or changed by another program. It is written again from the start."
    ),
    "wandb_rows_lost": Plural(
        "W&B has {rows} of the {num_rows} row that it took. It is sent again.",
        "W&B has {rows} of the {num_rows} rows that it took. All are sent again.",
        "num_rows",
    ),
    "swanlab_refused": gettext_noop("SwanLab answered {status} to {path}: {text}"),
}


def explain(error: FailureReason) -> str:
    """The sentence of an error in the language of the reader."""
    if error.code not in MESSAGES:
        return str(error.values.get("text", error.code))
    return translate(MESSAGES[error.code], error.values).format(**error.values)
