"""Generations from hostile models: refused with a reason, stopped with their readers, and limited in memory."""

import itertools
import json
import resource
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import normalizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from app.core.node_budget import node_budget
from app.playground import failures
from tests.waiting import until
from trainer.data import tokenizer
from trainer.data.tokenizer_process import TokenizerProcess
from trainer.formats import jsonlines
from trainer.inference import generation
from worker.inference import server
from worker.inference.models import LIBRARY_BYTES, MARGIN_BYTES, TOKENIZER_BYTES, Models

REQUEST = {
    "id": "request",
    "path": "",
    "prompt": "aaaa" * 16,
    "max_tokens": 4,
    "temperature": 0.0,
    "top_p": 1.0,
    "top_k": 0,
    "seed": 0,
    "stop": [],
}
ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


def write_model(directory: Path, hf_tokenizer: PreTrainedTokenizerFast) -> Path:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=300,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=256,
        eos_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(directory)
    tokenizer.save_pretrained(hf_tokenizer, directory)
    return directory


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    return write_model(tmp_path / "plain", tokenizer.untrained())


@pytest.fixture
def models() -> Iterator[Models]:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    models = Models("cpu")
    yield models
    for model in models._models.values():
        model.close()
    models._reservation.close()
    resource.setrlimit(resource.RLIMIT_DATA, before)


class ServerRequest:
    """A request that a thread of the server answers."""

    def __init__(self, models: Models, path: Path, **fields: Any) -> None:
        self.connection, theirs = socket.socketpair()
        self.thread = threading.Thread(target=server._answer, args=(theirs, models), daemon=True)
        self.thread.start()
        jsonlines.send(self.connection, {**REQUEST, "path": str(path), **fields})

    def messages(self) -> list[dict[str, Any]]:
        messages = []
        while message := jsonlines.receive(self.connection):
            messages.append(message)
        self.thread.join()
        return messages

    def last(self) -> dict[str, Any]:
        return (self.messages() or [{}])[-1]


def test_a_tokenizer_that_multiplies_a_prompt_refuses_it_and_other_models_generate(
    models: Models, plain: Path, tmp_path: Path
) -> None:
    amplifier = tokenizer.untrained()
    amplifier.backend_tokenizer.normalizer = normalizers.Sequence([normalizers.Replace("a", "aa")] * 18)
    path = write_model(tmp_path / "amplifier", amplifier)

    refused = ServerRequest(models, path).last()

    assert refused["code"] == "prompt_refused"
    assert "encoding takes more than" in failures.sentence("prompt_refused", refused["values"])
    assert ServerRequest(models, plain).last()["event"] == "done"


def test_the_text_is_that_of_a_tokenizer_in_the_same_process(models: Models, plain: Path) -> None:
    loaded = generation.load(plain, "cpu")
    expected = loaded.model.generate(
        torch.tensor([loaded.encode(REQUEST["prompt"])]), max_new_tokens=4, do_sample=False, eos_token_id=None
    )

    messages = ServerRequest(models, plain).messages()

    text = "".join(message["text"] for message in messages if message["event"] == "piece")
    assert text == loaded.tokenizer.decode(expected[0, len(loaded.encode(REQUEST["prompt"])) :]) != ""


def test_a_text_that_is_not_streamed_needs_two_messages(
    models: Models, plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "WHOLE_PIECE_SECONDS", 3600.0)
    monkeypatch.setattr(server, "PIECE_SECONDS", 0.0)

    def pieces(**fields: Any) -> list[str]:
        messages = ServerRequest(models, plain, max_tokens=40, **fields).messages()
        return [message["text"] for message in messages if message["event"] == "piece"]

    seen, whole, stopping = pieces(), pieces(stream=False), pieces(stream=False, stop=["\n\n\n"])
    assert "".join(seen) == "".join(whole) == "".join(stopping) != ""
    assert len(whole) <= 2 < min(len(seen), len(stopping))


def test_what_a_tokenizer_always_answers_is_asked_once(
    models: Models, plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    call = TokenizerProcess.call

    def record(process: TokenizerProcess, name: str, *arguments: Any, **options: Any) -> Any:
        asked.append(name)
        return call(process, name, *arguments, **options)

    monkeypatch.setattr(TokenizerProcess, "call", record)
    tools = [{"type": "function", "function": {"name": "look"}}]
    for _ in range(3):
        assert ServerRequest(models, plain, tools=tools).last()["event"] == "done"

    assert (asked.count("prompt"), asked.count("stop_ids"), asked.count("tool_format")) == (3, 1, 1)


@pytest.mark.parametrize("field", ["required_functions", "strict_functions"])
def test_tools_are_called_by_their_grammar_if_they_are_required_or_strict(
    models: Models, tmp_path: Path, field: str
) -> None:
    calling = tokenizer.untrained()
    calling.chat_template = "{% if tools %}{{ '<tool_call>' }}{% endif %}{{ messages[0].content }}"
    path = write_model(tmp_path / "calling", calling)
    number = {"type": "integer", "minimum": 1, "maximum": 9}
    parameters = {"type": "object", "properties": {"n": number}, "required": ["n"], "additionalProperties": False}
    function = {"name": "look", "parameters": parameters}
    tools = [{"type": "function", "function": function}]
    fields = {"prompt": "", "messages": [{"role": "user", "content": "aaaa"}], "tools": tools, "max_tokens": 100}

    messages = ServerRequest(models, path, **fields, **{field: [function]}).messages()

    assert messages[-1]["event"] == "done"
    calls = [call for message in messages for call in message.get("tool_calls", [])]
    if field == "required_functions":
        assert [call["name"] for call in calls] == ["look"]
        assert json.loads(calls[0]["arguments"])["n"] in range(1, 10)


def test_two_models_that_are_wanted_at_once_are_opened_one_after_the_other(
    models: Models, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = write_model(tmp_path / "other", tokenizer.untrained())
    load_model, begun, second_begins = generation.load_model, itertools.count(), threading.Event()
    overlapped = []

    def load_slowly(path: Path, device: str, _on_progress: Any) -> Any:
        if next(begun) == 0:
            overlapped.append(second_begins.wait(timeout=1))
        else:
            second_begins.set()
        return load_model(path, device)

    monkeypatch.setattr(generation, "load_model", load_slowly)
    requests = [ServerRequest(models, path) for path in (plain, other)]
    assert [request.last()["event"] for request in requests] == ["done", "done"]
    assert overlapped == [False]


def test_all_who_wait_for_a_model_hear_how_far_it_is_loaded(
    models: Models, plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_model, both_are_told = generation.load_model, threading.Event()

    def load_slowly(path: Path, device: str, on_progress: Any) -> Any:
        on_progress(0.42)
        assert both_are_told.wait(60)
        return load_model(path, device, on_progress)

    monkeypatch.setattr(generation, "load_model", load_slowly)
    requests = [ServerRequest(models, plain) for _ in range(2)]
    for request in requests:
        while (message := jsonlines.receive(request.connection)) != {"event": "loading", "percent": 42}:
            assert message == {"event": "loading", "percent": 0}
    assert models._state(plain) == ("loading", None, 42)
    both_are_told.set()
    assert [request.last()["event"] for request in requests] == ["done", "done"]
    events = [message["event"] for message in ServerRequest(models, plain).messages()]
    assert "loading" not in events


def test_a_checkpoint_that_is_deleted_while_it_is_loaded_is_gone(
    models: Models, plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_model = generation.load_model

    def delete_and_load(path: Path, device: str, on_progress: Any) -> Any:
        path.rename(path.with_name("trash"))
        return load_model(path, device, on_progress)

    monkeypatch.setattr(generation, "load_model", delete_and_load)
    assert ServerRequest(models, plain).last()["code"] == "checkpoint_gone"


def test_a_generation_whose_reader_left_stops_computing(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endless = tokenizer.untrained()
    endless.chat_template = "{% if messages[0].content|length > 9 %}" + ENDLESS + "{% endif %}"
    path = write_model(tmp_path / "endless", endless)
    processes: list[TokenizerProcess] = []
    call = TokenizerProcess.call

    def record(process: TokenizerProcess, *arguments: Any, **options: Any) -> Any:
        processes.append(process)
        return call(process, *arguments, **options)

    monkeypatch.setattr(TokenizerProcess, "call", record)
    generation = ServerRequest(
        models, path, messages=[{"role": "user", "content": "a" * 50_000}]
    )  # may compute for 6 s
    until(lambda: processes and processes[0]._is_ready, what="the template to be applied")
    child = processes[0]._child
    generation.connection.shutdown(socket.SHUT_WR)

    assert generation.last() == {}
    assert child.returncode == -9, "the process of the template is killed, long before its time is over"


def test_a_generation_beyond_the_memory_limit_says_so(
    models: Models, plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def allocate(*_arguments: Any, **_options: Any) -> Any:
        return torch.empty(6 << 30, dtype=torch.uint8)  # more than the margin

    assert ServerRequest(models, plain).last()["event"] == "done"
    monkeypatch.setattr(server, "text_pieces", allocate)
    failure = ServerRequest(models, plain).last()

    assert failure["code"] == "memory_exceeded"
    assert failure["values"] == {"limit_bytes": models.memory_limit}
    assert json.dumps(failure)
    assert "choose a smaller model" in failures.sentence("memory_exceeded", failure["values"])


def test_a_generation_waits_for_no_room_on_the_node_but_takes_that_of_idle_models(
    models: Models, plain: Path, tmp_path: Path
) -> None:
    other = write_model(tmp_path / "other", tokenizer.untrained())
    budget = node_budget()
    assert ServerRequest(models, plain).last()["event"] == "done"
    reserved = models._reservation.use
    assert (reserved.num_processes, reserved.memory_bytes > LIBRARY_BYTES + TOKENIZER_BYTES) == (2, True)
    with budget.reserve(budget.shared_bytes - reserved.memory_bytes):  # there is room for one model, not for two
        assert ServerRequest(models, other).last()["event"] == "done"
        assert list(models._models) == [other]
        with models.acquire(other, lambda: False):
            refused = ServerRequest(models, plain).last()
    assert refused["code"] == "memory_short"
    assert refused["values"]["needed"] > refused["values"]["free"]
    assert failures.error("memory_short", refused["values"]).headers == {"Retry-After": "5"}


def test_with_a_gpu_its_memory_is_limited_to_what_the_models_may_use(
    plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fractions: list[float] = []
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (64 << 30, 64 << 30))
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda part, device: fractions.append(part))
    monkeypatch.setattr("worker.inference.models.limit_memory", lambda num_bytes: pytest.fail("RLIMIT_DATA"))
    load_model = generation.load_model
    monkeypatch.setattr(generation, "load_model", lambda path, device, _note: load_model(path, "cpu"))
    models = Models("cuda:0")
    with models.acquire(plain, lambda: False):
        assert models.memory_limit > MARGIN_BYTES
        assert fractions[-1] == models.memory_limit / (64 << 30)
    for model in models._models.values():
        model.close()
    models._reservation.close()
