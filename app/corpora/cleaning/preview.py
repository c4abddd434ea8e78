"""What a recipe would do with the first documents of a corpus, found out by a child process with limits."""

import json
from dataclasses import replace
from typing import Any

from app.core import db
from app.core.errors import PanelError, bad_field
from app.core.i18n import _
from app.core.json_shapes import Problem
from app.core.principal import Principal
from app.corpora import problems
from app.corpora import service as corpora_service
from app.corpora.cleaning import service
from app.corpora.cleaning.recipe import SCRATCH_BYTES, StepSettings
from app.web import preview_process

DEFAULT_DOCUMENTS = 200
MAX_DOCUMENTS = 2000


def preview(principal: Principal, corpus_id: str, steps: list[StepSettings], num_documents: int) -> dict[str, Any]:
    """Counts and examples of each step on the first documents. Nothing is written. Raises PanelError."""
    with db.transaction() as session:
        parent = corpora_service.get_corpus(session, principal=principal, corpus_id=corpus_id)
        others = service.check(session, principal, parent, steps)
        recipe = service.recipe_of(parent, [step.model_dump() for step in steps], others)
    module, option = "worker.sandbox.cleaning.clean", f"--preview={num_documents}"
    limits = replace(preview_process.LIMITS, file_bytes=SCRATCH_BYTES)
    text = json.dumps(recipe)
    try:
        printed = preview_process.run(module, option, too_slow=_too_slow, text=text, limits=limits)
    except preview_process.PreviewRefused as refused:
        message = problems.sentence(Problem(code=str(refused)))
        if str(refused) == "reference_short":
            raise bad_field("steps", "reference_short", message) from None
        raise bad_field("steps", "ngrams_many", message) from None
    answer: dict[str, Any] = json.loads(printed)
    return answer


def _too_slow() -> PanelError:
    message = _("The preview takes too much time or memory. Ask for fewer documents.")
    return bad_field("num_documents", "preview_slow", message)
