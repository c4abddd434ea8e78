"""The errors of the OpenAI-compatible addresses below /v1, in the form that OpenAI's clients read."""

from typing import Any

from fastapi.responses import JSONResponse

from app.core.errors import PanelError

PREFIX = "/v1/"
RETRY_SECONDS = 5  # until a client that is over a limit asks again, where the error itself does not say
# Codes for which OpenAI has a word that programs look for.
CODES = {
    "not_logged_in": "invalid_api_key",
    "token_invalid": "invalid_api_key",
    "prompt_too_long": "context_length_exceeded",
}
# Errors that are worth sending the same request again, of those with a status that clients repeat by themselves.
PASSING = ("idempotency_in_progress", "conflict", "body_slow", "busy", "database_away")
TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


def is_openai(path: str) -> bool:
    """Whether errors at this path have OpenAI's form."""
    return f"{path}/".startswith(PREFIX)


def openai_error(error: PanelError) -> dict[str, Any]:
    """The object `error`: of the wrong fields it names the first."""
    default = "server_error" if error.status >= 500 else "invalid_request_error"
    return {
        "message": error.message,
        "type": TYPES.get(error.status, default),
        "param": error.fields[0].field if error.fields else None,
        "code": CODES.get(error.code, error.code),
    }


def openai_error_response(error: PanelError) -> JSONResponse:
    """The response for an error: 400 for wrong fields, and whether clients that repeat requests should do so."""
    headers = dict(error.headers)
    if error.status in (408, 409, 429) or error.status >= 500:
        headers.setdefault("x-should-retry", str(error.code in PASSING or error.status == 429).lower())
    if error.status == 429:
        headers.setdefault("Retry-After", str(RETRY_SECONDS))
    return JSONResponse({"error": openai_error(error)}, 400 if error.status == 422 else error.status, headers)
