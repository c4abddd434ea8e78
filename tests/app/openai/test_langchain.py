"""LangChain's adapter for OpenAI, unchanged: whole and streamed answers, JSON by a schema, tools, texts."""

import os
from typing import Any

import pytest
from langchain_core.messages import AIMessageChunk, HumanMessage, SystemMessage, ToolMessage
from langchain_openai import ChatOpenAI, OpenAI
from pydantic import BaseModel, Field

from tests.app.playground.conftest import StoredCheckpoint

QUESTION = [SystemMessage(""), HumanMessage("In the")]


class Book(BaseModel):
    """A book."""

    title: str = Field(max_length=6)
    year: int = Field(ge=1, le=99)


@pytest.fixture
def chat(address: str, key: str, talking: StoredCheckpoint) -> ChatOpenAI:
    """LangChain's model, which reports its calls to nobody."""
    assert "LANGSMITH_TRACING" not in os.environ
    return ChatOpenAI(base_url=f"{address}/v1", api_key=key, model=talking.id, temperature=0, max_tokens=24)


def test_an_answer_and_its_stream_are_the_same(chat: ChatOpenAI) -> None:
    answer = chat.invoke(QUESTION)
    assert answer.content.startswith(" the furnace was cold")
    assert answer.usage_metadata["output_tokens"] == 24
    assert answer.response_metadata["finish_reason"] == "length"
    total = sum(chat.stream(QUESTION, stream_usage=True), start=AIMessageChunk(""))
    assert total.content == answer.content
    assert total.usage_metadata == answer.usage_metadata
    assert [one.content for one in chat.batch([QUESTION, QUESTION])] == [answer.content] * 2


def test_log_probabilities_arrive(chat: ChatOpenAI) -> None:
    answer = chat.bind(logprobs=True, top_logprobs=2).invoke(QUESTION)
    tokens = answer.response_metadata["logprobs"]["content"]
    assert [token["token"] == token["top_logprobs"][0]["token"] for token in tokens] == [True] * 24


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_structured_output_is_a_valid_object(
    chat: ChatOpenAI,
    calling: StoredCheckpoint,
    method: Any,
) -> None:
    model = chat.model_copy(update={"model_name": calling.id, "max_tokens": 150, "temperature": 1.0, "seed": 3})
    book = model.with_structured_output(Book, method=method).invoke(QUESTION)
    assert isinstance(book, Book)


def test_a_tool_is_called_and_its_result_goes_back(chat: ChatOpenAI, calling: StoredCheckpoint) -> None:
    model = chat.model_copy(update={"model_name": calling.id, "max_tokens": 150, "seed": 3, "temperature": 1.0})
    bound = model.bind_tools([Book], tool_choice="any")
    answer = bound.invoke(QUESTION)
    (call,) = answer.tool_calls
    assert call["name"] == "Book"
    assert Book.model_validate(call["args"])
    again = model.invoke([*QUESTION, answer, ToolMessage("done", tool_call_id=call["id"])])
    assert again.usage_metadata["input_tokens"] > answer.usage_metadata["input_tokens"]


def test_the_newer_endpoint_gives_the_same_answer(chat: ChatOpenAI) -> None:
    answer = chat.model_copy(update={"use_responses_api": True}).invoke(QUESTION)
    assert answer.text == chat.invoke(QUESTION).content


def test_texts_are_continued(address: str, key: str, checkpoint: StoredCheckpoint) -> None:
    model = OpenAI(base_url=f"{address}/v1", api_key=key, model=checkpoint.id, temperature=0, max_tokens=12)
    text = model.invoke("In the beginning")
    assert text.startswith(" the furnace")
    assert "".join(model.stream("In the beginning")) == text
