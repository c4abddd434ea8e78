"""Why an export or an evaluation failed, and what to do: the sentence of each code."""

from collections.abc import Mapping
from typing import Any

from app.core.i18n import _, mark

SENTENCES = {
    "worker_lost": mark("The worker was lost three times while it worked on this. See the health of the parts."),
    "process_died": mark("The process ended with status {status} and said nothing more. The node may lack memory."),
    "export_differs": mark(
        "The artefact, opened in a fresh process, gives other logits than the checkpoint: they differ by {largest}, "
        "and {tolerance} is allowed. It was not published."
    ),
    "export_impossible": mark("This checkpoint cannot be exported so: {why}."),
    "bad_input": mark("It cannot be done: {why}"),
    "corpus_gone": mark("A corpus that was to be asked about is gone. Start another evaluation."),
}


def sentence(failure: Mapping[str, Any]) -> str:
    """The sentence of a failure in the reader's language."""
    return _(SENTENCES.get(failure["code"], SENTENCES["bad_input"]), **{"why": failure["code"], **failure["values"]})
