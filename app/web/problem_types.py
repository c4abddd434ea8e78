"""Every code of an error response: the HTTP statuses it comes with, and what it means. docs/api.md lists them."""

from typing import Any

from app.core.errors import PanelError

PROBLEM_TYPES: dict[str, tuple[tuple[int, ...], str]] = {
    # any request
    "address_unknown": ((404,), "There is nothing at this address."),
    "body_too_large": ((413,), "The body is longer than the limit."),
    "database_away": ((503,), "The database cannot be reached."),
    "conflict": ((409,), "Something that the request refers to was deleted or added at the same moment."),
    "host_not_allowed": ((400,), "The Host header names a host that is not allowed."),
    "body_slow": ((408,), "The body did not arrive in time."),
    "busy": ((503,), "Too much is being done at once; Retry-After says when to try again."),
    "headers_too_large": ((431,), "The headers are too many or too long."),
    "http_error": ((400,), "The request cannot be served; the title says why."),
    "internal": ((500,), "An internal error; the server's log has details under the ID of the request."),
    "method_not_allowed": ((405,), "The address does not support the method; Allow lists those it supports."),
    "not_found": ((404,), "There is no such row, or it belongs to another user."),
    "not_logged_in": ((401,), "The request has neither a token nor the cookie of a session."),
    "not_storable": ((400,), "The request contains a character or number that cannot be stored."),
    "origin_not_allowed": ((403,), "A browser sends the request from another site."),
    "path_invalid": ((400,), "The address contains characters that no address here has."),
    "request_invalid": ((422,), "Fields of the request are missing, unknown or of the wrong type."),
    "scope_missing": ((403,), "The token lacks the scope of the operation, or would grant one that it lacks."),
    "token_invalid": ((401,), "The token is unknown, revoked or malformed."),
    "character_invalid": ((422,), "A field contains an invisible or control character."),
    # repeated requests
    "answer_secret": ((409,), "The request was carried out; its answer contained a secret, which is shown only once."),
    "idempotency_conflict": ((409,), "The Idempotency-Key was used for another request."),
    "idempotency_in_progress": ((409,), "A request with this Idempotency-Key is being carried out."),
    "idempotency_interrupted": (
        (409,),
        "A request with this Idempotency-Key was interrupted; its outcome is unknown.",
    ),
    "key_invalid": ((422,), "The Idempotency-Key is empty or too long."),
    # accounts
    "choice_missing": ((422,), "It is not said what happens to the user's data."),
    "guesses_limited": (
        (429,),
        "Too many wrong codes or tokens from this address; Retry-After says when to try again.",
    ),
    "last_owner": ((409,), "An installation needs an owner who can log in."),
    "login_busy": ((429,), "Too many passwords are being checked at the moment; Retry-After says when to try again."),
    "login_failed": ((401,), "Name or password is wrong."),
    "login_locked": ((429,), "Too many wrong passwords; Retry-After says when the next one is checked."),
    "name_differs": ((422,), "What was typed to confirm is not the name."),
    "name_missing": ((422,), "The name is empty."),
    "name_taken": ((409,), "Another user has this name."),
    "name_too_long": ((422,), "The name is too long."),
    "own_account": ((409,), "Nobody can remove their own account."),
    "owner_only": ((403,), "Only the owner of the installation may do this."),
    "password_is_name": ((422,), "The password equals the name."),
    "password_too_long": ((422,), "The password is too long."),
    "password_too_short": ((422,), "The password is too short."),
    "password_weak": ((422,), "The password is easy to guess."),
    "password_wrong": ((422,), "The present password is wrong."),
    "reset_code_wrong": ((403,), "The code of the reset link is wrong, used or too old."),
    "scopes_invalid": ((422,), "No scope, or one that does not exist."),
    "setup_code_wrong": ((403,), "The code of the setup link is wrong."),
    "setup_done": ((409,), "The owner's account exists already."),
    "user_busy": ((409,), "Jobs or tasks of the user have not finished."),
    "user_disabled": ((409,), "The user is disabled."),
    # uploads and corpora
    "corpus_failed": ((422,), "The corpus could not be read."),
    "corpus_in_use": ((409,), "A job that has not finished uses the corpus."),
    "corpus_parsing": ((409, 422), "The corpus is still being read."),
    "corpus_shipped": ((403,), "The corpus ships with Athanor and cannot be changed."),
    "corpus_twice": ((422,), "A corpus is named twice."),
    "corpus_unknown": ((422,), "There is no such corpus."),
    "disk_full": ((507,), "The disk has too little space."),
    "encoding_unknown": ((422,), "The encoding is not supported."),
    "file_empty": ((422,), "The file is empty."),
    "file_too_large": ((413,), "The file is larger than the limit."),
    "file_unknown": ((404, 422), "There is no such file, or a model has no file of this name."),
    "file_unsafe": ((422,), "Files of this type can run code when they are opened."),
    "filename_extension": ((422,), "Files with this extension are not supported."),
    "kind_unfit": ((422,), "The kind of the corpus does not suit its use."),
    "kind_unknown": ((422,), "There is no such kind of records."),
    "form_broken": ((400,), "The form ended before its end, or cannot be read; nothing was saved."),
    "form_too_large": ((413,), "The form is larger than an upload may be, or has too many or too long fields."),
    "upload_broken": ((400,), "The connection broke during the upload; nothing was saved."),
    # under /v1, where 422 is answered as 400
    "beta_unfit": ((422,), "beta is a setting of DPO only."),
    "cursor_invalid": ((422,), "The cursor of a list is of another list."),
    "endpoint_silent": ((422,), "The webhook endpoint does not answer."),
    "endpoints_many": ((422,), "The user has too many webhook endpoints."),
    "event_type_unknown": ((422,), "No event type, or one that does not exist."),
    "expiry_invalid": ((422,), "Files cannot expire then."),
    "field_twice": ((422,), "A field of athanor is one that the request itself names."),
    "file_missing": ((422,), "The form has no file."),
    "file_of_job": ((422,), "The file belongs to a job and is deleted with it."),
    "integrations_unsupported": ((422,), "There are no integrations."),
    "md5_differs": ((422,), "The file has another MD5 than announced."),
    "part_unknown": ((422,), "The upload has no such part."),
    "parts_too_large": ((413,), "The parts are too large together, or too many."),
    "purpose_missing": ((422,), "It is not said what the file is for."),
    "upload_closed": ((422,), "The upload is completed, cancelled or expired."),
    "upload_incomplete": ((422,), "The parts have another size together than announced."),
    "url_invalid": ((422,), "This is no https URL of a webhook endpoint."),
    "url_refused": ((422,), "Webhooks are not sent to this address."),
    # base models
    "hub_offline": ((409,), "Downloads from the hub are turned off."),
    "model_closed": ((409,), "The model accepts no more files."),
    "model_not_found": ((404,), "There is no such model under /v1, or it belongs to another user."),
    "model_empty": ((422,), "No file of the model has been uploaded."),
    "model_importing": ((409,), "The model is being imported already."),
    "model_in_use": ((409,), "A job that has not finished starts from the model."),
    "model_ready": ((409,), "The model is imported already."),
    "model_too_large": ((413,), "The files of the model are larger than the limit."),
    "model_unready": ((422,), "The model is not imported."),
    "reference_invalid": ((422,), "This is not the name of a hub model."),
    # what a model cannot be used for
    "adapter_missing": ((422,), "The checkpoint has no adapter."),
    "chat_template_missing": ((422,), "The model has no chat template."),
    "chat_template_slow": ((422,), "The chat template takes too long."),
    "chat_template_unusable": ((422,), "The chat template cannot be used."),
    "checkpoint_mute": ((422,), "The model cannot continue a text."),
    "evaluation_unfit": ((422,), "The model cannot be evaluated here."),
    "format_unfit": ((422,), "The model cannot be exported in this format."),
    "gguf_family": ((422,), "GGUF does not support this family of models."),
    "gguf_positions": ((422,), "llama.cpp does not read the model's scaled positions."),
    "gguf_setting": ((422,), "GGUF cannot express a setting of the model."),
    "gguf_tokenizer": ((422,), "GGUF does not support the model's tokenizer."),
    "tokens_missing": ((422,), "The tokenizer lacks a token that the objective needs."),
    # checkpoints, exports and evaluations
    "checkpoint_corrupt": ((409, 422), "The files of the checkpoint are damaged."),
    "checkpoint_deleted": ((410,), "The checkpoint was deleted."),
    "checkpoint_in_use": ((409,), "An unfinished job or task uses the checkpoint."),
    "checkpoint_missing": ((409, 422), "Files of the checkpoint are missing."),
    "checkpoint_unknown": ((404, 422), "There is no such checkpoint."),
    "checkpoint_unresumable": ((422,), "The checkpoint holds no optimizer state."),
    "task_open": ((409,), "The task has not ended."),
    "task_shipped": ((403,), "The task prepares what ships with Athanor."),
    "tasks_open": ((429,), "The user has too many unfinished tasks of this kind."),
    # jobs
    "base_differs": ((422,), "A field differs from the base model's."),
    "base_unknown": ((422,), "There is no such base model."),
    "context_short": ((422,), "The sequence length exceeds the base model's."),
    "data_short": ((422,), "There is too little text."),
    "epochs_uncounted": ((422,), "The number of samples of the earlier job is not known."),
    "job_cancelling": ((409,), "The job is being cancelled."),
    "job_ended": ((409,), "The job has ended."),
    "job_open": ((409,), "The job has not ended."),
    "label_unknown": ((422,), "A label of the validation corpora does not occur in the training corpora."),
    "labels_one": ((422,), "All records have the same label."),
    "memory_short": ((422, 503), "There is too little memory."),
    "no_node": ((409,), "No node is registered."),
    "objective_unfit": ((422,), "The base model does not support the objective."),
    "origin_differs": ((422,), "A field may not change when a job continues from a checkpoint."),
    "preview_busy": ((503,), "Too many previews are being rendered at the moment."),
    "quota": ((429,), "The user has too many unfinished jobs."),
    "records_few": ((422,), "There are too few records."),
    "spec_invalid": ((422,), "Fields of the spec are wrong."),
    "state_unknown": ((422,), "There is no such state."),
    "steps_done": ((422,), "The checkpoint is already at the last step."),
    "steps_many": ((422,), "The epochs take too many steps."),
    "tokenizer_in_use": ((409,), "A job that has not finished uses the tokenizer."),
    "tokenizer_unknown": ((422,), "There is no such tokenizer."),
    "too_little": ((422,), "The text or the memory is too small for the smallest model."),
    "vocab_too_large": ((422,), "The text cannot yield a vocabulary of this size."),
    "window_invalid": ((422,), "The last step is before the first one."),
    # conversations
    "content_empty": ((422,), "The question is empty."),
    "conversation_full": ((409,), "The conversation has as many messages as one can have."),
    "leaf_unknown": ((422,), "The conversation has no such message."),
    "parent_invalid": ((422,), "The message does not fit its parent."),
    "record_empty": ((422,), "The branch has no answer yet."),
    # generations
    "broker_away": ((503,), "The message broker cannot be reached."),
    "checkpoint_broken": ((409,), "The files of the checkpoint cannot be read."),
    "checkpoint_gone": ((409,), "The files of the checkpoint are gone."),
    "inference_failed": ((422,), "The model could not generate a text."),
    "inference_lost": ((503,), "The inference process ended."),
    "line_full": ((503,), "Too many generations are waiting."),
    "line_slow": ((503,), "The generation waited too long."),
    "memory_exceeded": ((422,), "The generation needed more memory than its process may use."),
    "messages_refused": ((422,), "The chat template refuses the messages."),
    "no_worker": ((503,), "No worker is running."),
    "prompt_and_messages": ((422,), "Either a prompt or messages are needed."),
    "token_unknown": ((422,), "The model has no token with this ID."),
    "unsupported_parameter": ((422,), "A request under /v1 asks for something that is not supported here."),
    "deployment_limit": (
        (429,),
        "A token made too many requests in a minute; Retry-After says when to try again.",
    ),
    "deployment_name_taken": ((409,), "Another deployment has this name."),
    "deployment_not_a_model": ((409,), "A deployment is not deleted as a model."),
    "deployment_not_yours": ((403,), "Only the user who made a deployment can change it."),
    "deployments_limit": ((409,), "The user has as many deployments as one may have."),
    "node_unknown": ((422,), "There is no such node."),
    "user_unknown": ((422,), "There is no such user."),
    "schema_refused": ((422,), "A text cannot be limited to the JSON schema."),
    "tools_refused": ((422,), "The chat template of the model leaves out tools."),
    "tool_format_unknown": ((422,), "The chat template of the model does not say how it calls a tool."),
    "prompt_refused": ((422,), "The tokenizer refuses the prompt."),
    "prompt_too_large": ((413,), "The prompt is longer than the limit."),
    "prompt_too_long": ((422,), "The prompt has more tokens than the model reads."),
    "request_lost": ((503,), "The request was lost with its worker."),
    "worker_lost": ((503,), "The worker ended."),
    # looks inside a model
    "classify_unfit": ((422,), "The model has no labels."),
    "fill_mask_unfit": ((422,), "The model has not learned to fill masks."),
    "layer_unknown": ((422,), "The model has no layer of this number."),
    "mask_missing": ((422,), "The text has no mask."),
    "position_unknown": ((422,), "The text has no token at this position."),
    "score_unfit": ((422,), "The model does not predict the next token of a text."),
    "text_refused": ((422,), "The tokenizer refuses the text."),
    "text_too_long": ((422,), "The text has more tokens than the limit."),
}


def type_uri(code: str) -> str:
    """The URI reference that identifies a problem type; GET answers its description."""
    return f"/api/problems/{code}"


def errors(*codes: str) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that can answer these codes besides those that the OpenAPI document adds itself."""
    described: dict[int | str, dict[str, Any]] = {}
    for code in codes:
        statuses, meaning = PROBLEM_TYPES[code]
        for status in statuses:
            before = described.get(status, {}).get("description")
            described[status] = {"description": " ".join(filter(None, (before, f"`{code}`: {meaning}")))}
    return described


def http_problem(status: int, message: str, headers: dict[str, str]) -> PanelError:
    """The error for a status that the web framework raised."""
    codes = {404: "address_unknown", 405: "method_not_allowed", 408: "body_slow", 413: "body_too_large", 503: "busy"}
    code = codes.get(status, "http_error")
    return PanelError(status, code, message, headers=headers)
