"""What a recipe would do with the first documents of a corpus, found out by a child process with limits."""

import json
import os
from dataclasses import replace
from typing import Any

from app.checkpoints import usable_models
from app.core import db
from app.core.errors import PanelError, bad_field
from app.core.i18n import _
from app.core.json_shapes import CleaningModel, Problem
from app.core.principal import Principal
from app.corpora import problems
from app.corpora import service as corpora_service
from app.corpora.cleaning import service
from app.corpora.cleaning.recipe import SCRATCH_BYTES, StepSettings
from app.web import preview_process

DEFAULT_DOCUMENTS = 200
REFUSALS = ("ngrams_many", "reference_short", "scoring_memory", "scoring_model_gone", "scoring_model_unreadable")
MAX_DOCUMENTS = 2000


def preview(principal: Principal, corpus_id: str, steps: list[StepSettings], num_documents: int) -> dict[str, Any]:
    """Counts and examples of each step on the first documents. Raises PanelError.

    Nothing is written but the scores of a model, which are kept for the cleaning after it, if the corpus is the user's.
    """
    with db.transaction() as session:
        parent = corpora_service.get_corpus(session, principal=principal, corpus_id=corpus_id)
        others = service.check(session, principal, parent, steps)
        recipe = service.recipe_of(parent, [step.model_dump() for step in steps], others)
        models = service.scoring_models(session, principal, steps)
        recipe["is_score_cache_read_only"] = parent.owner_id != principal.user_id
        text = json.dumps({**recipe, "models": service.model_places(session, models)})
    module, option = "worker.sandbox.cleaning.clean", f"--preview={num_documents}"
    try:
        printed = preview_process.run(module, option, too_slow=_too_slow, text=text, **_resources(models))
    except preview_process.PreviewRefused as refused:
        code = next(code for code in REFUSALS if code == str(refused))
        raise bad_field("steps", code, problems.sentence(Problem(code=code))) from None
    answer: dict[str, Any] = json.loads(printed)
    return answer


def _resources(models: dict[str, CleaningModel]) -> dict[str, Any]:
    """What the child may use, as options of `preview_process.run`."""
    limits = replace(preview_process.LIMITS, file_bytes=SCRATCH_BYTES)
    if not models:
        return {"limits": limits}
    num_threads = os.cpu_count() or 1
    needed = usable_models.memory_bytes(sum(model.num_bytes for model in models.values()))
    memory_bytes = preview_process.MEMORY_BYTES + needed
    # Twice the memory, as mapped weights count without taking any.
    cpu_seconds = int(preview_process.WAIT_SECONDS) * num_threads
    limits = replace(limits, memory_bytes=2 * memory_bytes, cpu_seconds=cpu_seconds)
    return {"limits": limits, "memory_bytes": memory_bytes, "num_threads": num_threads, "no_room": _no_room}


def _no_room() -> PanelError:
    message = _(
        "The machine has no memory for the model now. Try again later, or start the cleaning, which waits for it."
    )
    return PanelError(503, "preview_busy", message, headers={"Retry-After": "30"})


def _too_slow() -> PanelError:
    message = _("The preview takes too much time or memory. Ask for fewer documents.")
    return bad_field("num_documents", "preview_slow", message)
