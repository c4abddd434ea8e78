"""What OpenAI's API has and this one does not: the documented error object, sent once, and never a page."""

from typing import Any

import pytest

from tests.app.openai.clients import ClientCalls


@pytest.mark.parametrize(
    ("method", "arguments", "status"),
    [
        ("batches.list", {}, 404),
        ("moderations.create", {"input": "x"}, 404),
        ("images.generate", {"prompt": "x"}, 404),
        ("audio.speech.create", {"input": "x", "model": "m", "voice": "alloy"}, 404),
        ("audio.transcriptions.create", {"file": ("a.wav", b"RIFF"), "model": "m"}, 404),
        ("vector_stores.list", {}, 404),
        ("beta.assistants.list", {}, 404),
        ("responses.retrieve", {"response_id": "resp_1"}, 404),
        ("chat.completions.list", {}, 405),
        ("chat.completions.retrieve", {"completion_id": "chatcmpl-1"}, 404),
        ("fine_tuning.alpha.graders.run", {"grader": {"type": "string_check"}, "model_sample": "x"}, 404),
    ],
)
def test_an_endpoint_that_is_missing_is_an_error_of_the_client(
    alice_client: ClientCalls, openai: Any, method: str, arguments: dict[str, Any], status: int
) -> None:
    call = alice_client.pages if method.endswith(".list") else alice_client
    with pytest.raises(openai.APIStatusError) as refused:
        call(method, **arguments)
    error = refused.value
    assert (error.status_code, isinstance(error, openai.NotFoundError)) == (status, status == 404)
    assert error.body.keys() == {"message", "type", "param", "code"}
    assert error.code in ("address_unknown", "method_not_allowed")
    assert error.response.request.headers["x-stainless-retry-count"] == "0"
