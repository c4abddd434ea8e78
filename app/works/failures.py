"""Why an export or an evaluation failed, and what to do: the sentence of each code."""

from app.core.i18n import _, gettext_noop
from app.core.json_shapes import FailureReason

MESSAGES = {
    "worker_lost": gettext_noop(
        "The worker was lost three times while it worked on this. See the health of the parts."
    ),
    "process_died": gettext_noop(
        "The process ended with status {status} and said nothing more. The node may lack memory."
    ),
    "export_differs": gettext_noop(
        "The artefact, opened in a fresh process, gives other logits than the checkpoint: they differ by {largest}, "
        "and {tolerance} is allowed. It was not published."
    ),
    "export_impossible": gettext_noop("This checkpoint cannot be exported so: {why}."),
    "bad_input": gettext_noop("It cannot be done: {why}"),
    "corpus_gone": gettext_noop("A corpus that was to be asked about is gone. Start another evaluation."),
}


def sentence(failure: FailureReason) -> str:
    """The sentence of a failure in the reader's language."""
    return _(MESSAGES.get(failure.code, MESSAGES["bad_input"]), **{"why": failure.code, **failure.values})
