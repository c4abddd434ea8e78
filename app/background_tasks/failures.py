"""Why a background task failed, and what to do: the sentence of each code."""

from typing import Any

from app.base_models import limits, problems
from app.core import job_failures
from app.core.formatting import file_size
from app.core.i18n import _, gettext_noop
from app.core.json_shapes import FailureReason, Problem
from trainer.limits import MESSAGES as MESSAGES_OF_LIMITS
from trainer.limits import Limit

MESSAGES = {
    "worker_lost": gettext_noop("The worker was lost three times while running this task. See the health page."),
    "process_died": gettext_noop(
        "The process exited with status {status} and no message. The node may be short of memory."
    ),
    "process_memory": gettext_noop(
        "The process was stopped: it needed more memory than the {limit} that it may use. Choose a smaller model or "
        "less text."
    ),
    "text_slow": gettext_noop(
        "The tokenizer or the chat template of the model needs far more computing time than a text of its length may "
        "take. Look for an endless loop or a slow regular expression in it."
    ),
    "process_slow": gettext_noop(
        "The process took more computing time than its limit. The setting ATHANOR_EVALUATE_CPU_SECONDS raises it."
    ),
    "export_differs": gettext_noop(
        "Loaded in a fresh process, the export does not reproduce the checkpoint's logits: they differ by "
        "{largest}, and {tolerance} is allowed. It was discarded."
    ),
    "export_impossible": gettext_noop("This checkpoint cannot be exported in this format: {why}."),
    "result_unstorable": gettext_noop("The result could not be stored ({why}). Start the task again."),
    "rejected": gettext_noop("What was uploaded or downloaded cannot be used. Its page says why."),
    "bad_input": gettext_noop("The task failed: {why}"),
    "disk_filled_up": gettext_noop(
        "The disk of the data directory became full, so the task was stopped. Free some space, then start another one."
    ),
    "corpus_changed": gettext_noop("The corpus was deleted or read again meanwhile. Count it again."),
    "statistics_memory": gettext_noop(
        "Counting took more memory than its limit of {limit}. The setting ATHANOR_PARSE_MEMORY_BYTES raises it."
    ),
    "judge_gone": gettext_noop("The model that judges was deleted. Start another evaluation."),
    "generation_gone": gettext_noop("The records were deleted meanwhile."),
    "source_changed": gettext_noop("The corpus was read again or deleted meanwhile. Generate from its present text."),
    "endpoint_gone": gettext_noop("The model endpoint was deleted. Start another generation with another one."),
    "endpoint_changed": gettext_noop("The model endpoint has another address or model now. Start another generation."),
    "endpoint_away": gettext_noop(
        "The model did not answer, though it was asked several times ({why}). Continue later."
    ),
    "endpoint_refused": gettext_noop("The model refused to answer ({why}). Correct that, then continue."),
    # the archive of a run
    "run_archive_foreign": gettext_noop(
        "This is not the archive of a job. Choose a .tar that Athanor wrote: “Export this job” on the page of the job."
    ),
    "run_archive_incomplete": gettext_noop("The archive is cut short or damaged. Export the job again."),
    "run_archive_version": gettext_noop(
        "The archive has the format version {version}; this installation reads {supported}. Import it into an "
        "installation that is at least as new as the one that wrote it."
    ),
    "run_file_unexpected": gettext_noop("The archive contains {file}, which is not part of a job. Export it again."),
    "run_file_missing": gettext_noop("The archive lacks {file}, which its manifest names. Export the job again."),
    "run_file_differs": gettext_noop(
        "{file} differs from its size or SHA-256 in the manifest of the archive. Export the job again."
    ),
    "run_file_invalid": gettext_noop(
        "{file} in the archive is not as Athanor writes it: {why}. Export the job again, or update this installation "
        "if a newer one wrote it."
    ),
    "run_curves_large": gettext_noop(
        "metrics.csv in the archive has more than {max_values} values or {max_bytes} bytes, the most that is imported. "
        "Unpack the archive and import a checkpoint of it as a base model."
    ),
    "run_samples_large": gettext_noop(
        "samples.jsonl in the archive has more than {max_samples} samples or {max_bytes} bytes, the most that is "
        "imported. Unpack the archive and import a checkpoint of it as a base model."
    ),
    # evaluations: the codes of trainer/inference/evaluation.py
    "questions_unjudged": gettext_noop(
        "A corpus has questions whose answers a model judges. Start another evaluation and choose that model."
    ),
    "kind_unevaluated": gettext_noop(
        "A corpus was read again meanwhile, as records of a kind that models are not evaluated on."
    ),
    "examples_few": gettext_noop(
        "A corpus has too few documents ({found}) to show examples ({shown}) and ask about others. Start another "
        "evaluation with fewer examples."
    ),
    "corpus_gone": gettext_noop("A corpus of this evaluation was deleted. Start another evaluation."),
}


def sentence(failure: FailureReason) -> str:
    """The sentence of a failure in the reader's language."""
    if failure.code in MESSAGES_OF_LIMITS:
        return limits.sentence(Limit(code=failure.code, values=failure.values))
    if failure.code not in MESSAGES and failure.code in job_failures.FAILURES:  # what a job would end with, too
        described = job_failures.describe(failure.code, failure.values)
        return f"{described['cause']} {described['next_step']}"
    if failure.code not in MESSAGES and failure.code in problems.MESSAGES:
        return problems.sentence(Problem.model_validate({**failure.values, "code": failure.code}))
    values: dict[str, Any] = {"why": failure.code, **failure.values}
    if "limit_bytes" in values:
        values["limit"] = file_size(values["limit_bytes"])
    return _(MESSAGES.get(failure.code, MESSAGES["bad_input"]), **values)
