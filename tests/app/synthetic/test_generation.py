"""Records that an endpoint writes: what it is asked, its errors, limits, restarts, and what is malformed."""

import json
import re
import socket
from concurrent import futures
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.core import addresses, background_tasks, db
from app.core.synthetic_models import ModelEndpoint
from app.synthetic import answers, progress
from tests.app.synthetic.conftest import KEY, Generate, record_settings, records, state, upload_corpus
from tests.app.synthetic.teacher import Reply, Teacher, completion, pairs, prompt_of, refusal
from tests.background import claim, run_waiting
from worker.background import generate_records, model_calls

NUMBER = re.compile(r"Document (\d)")
START = "/api/v1/record-generations"
SETTINGS = record_settings(num_documents=1, max_characters=100, num_turns=1, max_tokens=10)


def about_each(request: dict[str, Any]) -> Reply:
    """A pair of its own for each document."""
    number = NUMBER.findall(prompt_of(request))[0]
    return completion(pairs(f"What is metal {number}", f"How heavy is it, number {number}"))


def asked(teacher: Teacher) -> list[str]:
    return sorted(NUMBER.findall(prompt_of(request))[0] for request in teacher.requests)


def test_an_endpoint_writes_pairs_about_each_document(alice: TestClient, teacher: Teacher, generate: Generate) -> None:
    teacher.answer = about_each
    generation = generate(records_per_document=2, temperature=0.3, max_tokens=77)
    assert (generation["state"], generation["num_done"], generation["message"]) == ("succeeded", 6, "")
    assert (generation["num_prompt_tokens"], generation["num_tokens"]) == (60, 120)
    assert generation["cost"] == pytest.approx((60 * 1 + 120 * 2) / 1e6)
    assert generation["records"] == {"draft": 12, "accepted": 0, "rejected": 0, "duplicates": 0}
    assert asked(teacher) == ["0", "1", "2", "3", "4", "5"]
    request = teacher.requests[0]
    assert (request["path"], request["model"], request["temperature"], request["max_tokens"]) == (
        *("/v1/chat/completions", "large"),
        *(0.3, 77),
    )
    assert request["response_format"]["json_schema"]["schema"]["required"] == ["records"]
    assert "Write 2 questions" in prompt_of(request)
    assert teacher.headers[0]["Authorization"] == f"Bearer {KEY}"
    rows = records(alice, generation["id"])
    assert len({row["id"] for row in rows}) == 12
    for first, second in zip(rows[::2], rows[1::2], strict=True):
        number = first["document"]
        assert first["cells"] == [f"What is metal {number}?", f"What is metal {number}!"]
        assert (second["document"], second["excerpt"]) == (number, f"Document {number} is about metal number {number}.")


def test_the_sample_depends_on_the_seed_alone(generate: Generate, teacher: Teacher) -> None:
    samples = []
    for seed in (1, 1, 2):
        teacher.requests.clear()
        assert generate(num_documents=3, seed=seed)["num_done"] == 3
        samples.append(asked(teacher))
    assert samples[0] == samples[1] != samples[2]


def test_the_default_prompt_is_in_the_language_of_its_user(alice: TestClient, generate: Generate) -> None:
    alice.cookies.set("athanor_language", "zh-CN")
    assert "请根据下面的文本" in generate(num_documents=1)["template"]


def test_names_in_braces_that_nothing_replaces_are_refused_by_name(alice: TestClient, endpoint: str) -> None:
    body = {
        "corpus": upload_corpus(alice)["id"],
        "endpoint": endpoint,
        "template": "{documents} {document} {n} {N} { x } {N}",
    }
    answer = alice.post(START, json=body)
    assert answer.status_code == 422, answer.text
    message = answer.json()["title"]
    assert "{documents}, {N}, which" in message
    assert "{document}, {n}, {turns}" in message


def test_an_own_prompt_is_filled_in_as_it_is(generate: Generate, teacher: Teacher) -> None:
    generate(num_documents=1, template='Ask {n}, as {"q": "{turns}"}:\n{document}', records_per_document=4)
    assert prompt_of(teacher.requests[0]).startswith('Ask 4, as {"q": "2"}:\nDocument ')


def test_conversations_have_the_number_of_turns_that_was_asked_for(
    alice: TestClient, teacher: Teacher, generate: Generate
) -> None:
    turns = [{"user": f"Question {n}?", "assistant": f"Answer {n}."} for n in range(3)]
    teacher.script(completion(json.dumps({"records": [{"turns": turns}, {"turns": turns[:2]}]})))
    generation = generate(kind="chat", num_turns=3, records_per_document=2, num_documents=1)
    (row,) = records(alice, generation["id"])
    assert row["cells"] == ["Question 0?", "Answer 0.", "Question 1?", "Answer 1.", "Question 2?", "Answer 2."]
    assert generation["malformed"] == {"turns_differ": 1}


def test_a_text_is_taken_as_it_is(alice: TestClient, teacher: Teacher, generate: Generate) -> None:
    teacher.script(completion("<think>Hm.</think>\nA clearer text.\n"))
    generation = generate(kind="text", records_per_document=1, num_documents=1)
    assert [row["cells"] for row in records(alice, generation["id"])] == [["A clearer text."]]
    assert "response_format" not in teacher.requests[0]


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (completion("I would rather not."), "not_json"),
        (completion('{"records": [{"question": "Cut'), "not_json"),
        (completion('{"records": [{"question": "Cut', finish_reason="length"), "cut"),
        (completion(" "), "answer_empty"),
        (completion("[]"), "wrong_shape"),
        (completion('{"records": {"question": "a"}}'), "wrong_shape"),
        (completion('{"records": [["a", "b"]]}'), "wrong_shape"),
        (completion('{"records": [{"question": 1, "answer": "b"}]}'), "wrong_shape"),
        (completion('{"records": [{"question": "a", "answer": " "}]}'), "record_incomplete"),
        (completion("[" * 100_000), "not_json"),
        (completion("a" * (1 << 20)), "refused"),
        (completion("Not\x00 storable \ud800."), "not_json"),
        (completion("No.", tokens=(10**30, 10**30)), "not_json"),
        (refusal(400, "The content filter was triggered."), "refused"),
        (refusal(400, "Not\x00 storable \ud800."), "refused"),
        ((200, {}, {"choices": []}), "refused"),
        ((200, {}, ["nothing"]), "refused"),
    ],
)
def test_a_malformed_answer_is_counted_with_an_example(
    alice: TestClient, teacher: Teacher, generate: Generate, reply: Reply, code: str
) -> None:
    teacher.script(reply)
    generation = generate(num_documents=1)
    assert (generation["state"], generation["malformed"]) == ("succeeded", {code: 1})
    (example,) = generation["examples"]
    assert example["code"] == code
    assert example["message"].endswith(".")
    assert len(example["text"]) <= 500
    assert records(alice, generation["id"]) == []


@pytest.mark.parametrize("text", ["```json\n%s\n```", "Here they are: %s Anything else?"])
def test_json_within_words_is_read(alice: TestClient, teacher: Teacher, generate: Generate, text: str) -> None:
    teacher.script(completion(text % pairs("a")))
    assert len(records(alice, generate(num_documents=1)["id"])) == 1


def test_an_endpoint_that_is_busy_is_asked_again(
    generate: Generate, teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generate_records, "FIRST_PAUSE", 0.0)
    teacher.script(refusal(429, "Slow down.", Retry_After="0"), refusal(503, "Loading."), completion(pairs("a")))
    generation = generate(num_documents=1)
    assert (generation["state"], generation["num_done"], len(teacher.requests)) == ("succeeded", 1, 3)


def test_the_pause_is_the_one_that_the_endpoint_asks_for(
    generate: Generate, teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(generate_records.threading.Event, "wait", lambda _self, seconds=None: pauses.append(seconds))
    work = generate_records.Writing.__new__(generate_records.Writing)
    work._stop = generate_records.threading.Event()

    class Busy:
        def ask(self, prompt: str, seed: int) -> Any:
            raise model_calls.Later("busy", 17.0 if not pauses else None)

    work._model = Busy()  # type: ignore[assignment]
    with pytest.raises(model_calls.Later):
        work._patient("Hello", 1)
    assert pauses == [17.0, 2.0, 4.0, 8.0, 16.0, 32.0]


def test_an_endpoint_that_stays_away_fails_the_task_which_can_be_resumed(
    alice: TestClient, generate: Generate, teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generate_records, "FIRST_PAUSE", 0.0)
    monkeypatch.setattr(generate_records, "NUM_REQUESTS", 1)
    teacher.script(completion(pairs("a")), completion(pairs("b")), refusal(500, "Out of order."))
    generation = generate()
    assert (generation["state"], generation["num_done"]) == ("failed", 2)
    assert "HTTP 500: Out of order." in generation["message"]
    before = {row["document"] for row in records(alice, generation["id"])}
    teacher.requests.clear()
    teacher.answer = about_each
    assert alice.post(f"{START}/{generation['id']}/resume", json={}).status_code == 202
    run_waiting()
    generation = state(alice, generation["id"])
    assert (generation["state"], generation["num_done"], len(teacher.requests)) == ("succeeded", 6, 4)
    assert not before & set(map(int, asked(teacher)))
    assert len({row["document"] for row in records(alice, generation["id"])}) == 6
    answer = alice.post(f"{START}/{generation['id']}/resume", json={})
    assert (answer.status_code, answer.json()["code"]) == (409, "generation_complete")


def test_a_wrong_key_ends_it_at_once(generate: Generate, teacher: Teacher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate_records, "NUM_REQUESTS", 1)
    teacher.script(refusal(401, "Wrong key."))
    generation = generate()
    assert (generation["state"], generation["num_done"], len(teacher.requests)) == ("failed", 0, 1)
    assert "HTTP 401: Wrong key." in generation["message"]


def test_what_came_together_with_a_failure_is_stored(
    alice: TestClient, generate: Generate, teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def all_failures_first(pending: Any, *_rest: Any) -> tuple[list[Any], list[Any]]:
        return sorted(futures.wait(pending).done, key=lambda future: future.exception() is None), []

    def answer(request: dict[str, Any]) -> Reply:
        return refusal(401, "Wrong key.") if NUMBER.findall(prompt_of(request)) == ["0"] else about_each(request)

    monkeypatch.setattr(generate_records, "wait", all_failures_first)
    monkeypatch.setattr(generate_records, "NUM_REQUESTS", 6)
    teacher.answer = answer
    generation = generate()
    assert (generation["state"], generation["num_done"]) == ("failed", 5)
    assert {row["document"] for row in records(alice, generation["id"])} == {1, 2, 3, 4, 5}


def test_records_of_a_generation_come_from_one_model(
    alice: TestClient, endpoint: str, generate: Generate, teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rename(model: str) -> None:
        body = {"name": "teacher", "base_url": teacher.url, "model": model}
        assert alice.put(f"/api/v1/model-endpoints/{endpoint}", json=body).status_code == 200

    def resumed() -> dict[str, Any]:
        assert alice.post(f"{START}/{generation['id']}/resume", json={}).status_code == 202
        run_waiting()
        return state(alice, generation["id"])

    monkeypatch.setattr(generate_records, "NUM_REQUESTS", 1)
    teacher.script(refusal(404, "No such model."))
    generation = generate()
    rename("larger")  # it has written nothing yet
    teacher.script(completion(pairs("a")), refusal(404, "No such model."))
    generation = resumed()
    assert (generation["num_done"], generation["model_name"]) == (1, "teacher · larger")
    rename("largest")
    teacher.requests.clear()
    generation = resumed()
    assert "another address or model now" in generation["message"]
    assert (generation["model"], teacher.requests) == ("larger", [])


def test_a_request_whose_task_ends_while_it_connects_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    class Connection:
        sock = socket.socket()

        def connect(self) -> None:
            model.stop()

        def close(self) -> None:
            self.sock.close()

    target = addresses.DeliveryAddress("http", "127.0.0.1", 80, "127.0.0.1", "/")
    monkeypatch.setattr(model_calls.addresses, "resolve", lambda *_rest: target)
    monkeypatch.setattr(model_calls.addresses, "connect", lambda *_rest: Connection())
    model = model_calls.EndpointModel(ModelEndpoint(base_url="http://127.0.0.1", model="large", api_key=""), SETTINGS)
    with pytest.raises(model_calls.Stopped):
        model.ask("Hello", 1)


def test_an_answer_of_line_breaks_is_read_in_linear_time() -> None:
    assert answers.read(SETTINGS, "```" + "\n" * 300_000 + "x", False) == ([], ["not_json"])


def test_an_endpoint_that_refuses_everything_ends_it(generate: Generate, teacher: Teacher) -> None:
    teacher.script(refusal(400, "No such parameter."))
    generation = generate()
    assert generation["state"] == "failed"
    most = generate_records.MAX_REFUSED + generate_records.NUM_REQUESTS - 1  # others were on their way
    assert generate_records.MAX_REFUSED <= generation["num_done"] <= most
    assert "No such parameter." in generation["message"]


def test_a_redirect_is_not_followed(generate: Generate, teacher: Teacher) -> None:
    teacher.script((307, {"Location": teacher.url.replace("/v1", "/elsewhere")}, {}))
    assert generate(num_documents=1)["state"] == "failed"
    assert {request["path"] for request in teacher.requests} == {"/v1/chat/completions"}


def test_parameters_that_an_endpoint_does_not_take_are_left_out(
    generate: Generate, teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generate_records, "NUM_REQUESTS", 1)

    def answer(request: dict[str, Any]) -> Reply:
        if "max_tokens" in request:
            return refusal(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
        if "temperature" in request:
            return refusal(400, "'temperature' does not support 0.7 with this model.")
        if "seed" in request:
            return refusal(400, "Unsupported parameter: 'seed'.")
        if "response_format" in request:
            return refusal(422, "Not here.")
        return completion(pairs("a"))

    teacher.answer = answer
    generation = generate(num_documents=2, max_tokens=55)
    assert (generation["state"], generation["malformed"]) == ("succeeded", {})
    assert len(teacher.requests) == 6  # of the first document five
    assert teacher.requests[-1]["max_completion_tokens"] == 55


def test_a_limit_of_tokens_is_not_exceeded(alice: TestClient, generate: Generate, teacher: Teacher) -> None:
    teacher.answer = lambda _request: completion(pairs("a"), tokens=(30, 200))
    generation = generate(max_tokens=200, max_total_tokens=1000, template="{document}")
    assert (generation["state"], generation["num_done"]) == ("succeeded", 4)
    assert generation["num_prompt_tokens"] + generation["num_tokens"] == 920
    assert "limit of tokens" in generation["message"]
    alice.post(f"{START}/{generation['id']}/resume", json={"max_total_tokens": 10_000})
    run_waiting()
    generation = state(alice, generation["id"])
    assert (generation["num_done"], generation["message"]) == (6, "")


def test_a_page_raises_the_limit_that_ended_a_generation(
    alice: TestClient, generate: Generate, teacher: Teacher
) -> None:
    teacher.answer = lambda _request: completion(pairs("a"), tokens=(30, 200))
    generation = generate(max_tokens=200, max_total_tokens=1000, template="{document}")
    place = f"/synthetic/{generation['id']}"
    assert 'name="max_total_tokens"' in alice.get(place).text
    refused = alice.post(f"{place}/resume", data={"max_total_tokens": "0"})
    assert (refused.status_code, "field-max_total_tokens-error" in refused.text) == (422, True)
    assert alice.post(f"{place}/resume", data={"max_total_tokens": "10000"}).status_code == 303
    run_waiting()
    assert state(alice, generation["id"])["num_done"] == 6


def test_a_limit_of_cost_is_not_exceeded(generate: Generate, teacher: Teacher) -> None:
    teacher.answer = lambda _request: completion(pairs("a"), tokens=(30, 1000))
    generation = generate(max_tokens=1000, max_cost=0.0071, template="{document}")
    assert (generation["num_done"], generation["cost"]) == (3, pytest.approx(0.00609))
    assert "limit of the cost" in generation["message"]


def test_a_restart_asks_about_no_document_twice(
    alice: TestClient, corpus: dict[str, Any], endpoint: str, teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generate_records, "NUM_REQUESTS", 1)
    teacher.answer = about_each
    body = {"corpus": corpus["id"], "endpoint": endpoint, "num_documents": 6}
    generation_id = alice.post(START, json=body).json()["id"]
    task = claim()
    assert task is not None
    with db.transaction() as session:
        assignment = progress.assign(session, task)
    assert not isinstance(assignment, str)

    class ShortLease:
        """The worker is killed after the second document."""

        def renew(self, report: dict[str, int]) -> bool:
            return report["done"] < 2

    writing = generate_records.Writing(task, assignment, model_calls.model_of(assignment))
    assert writing.run(ShortLease()) == {}  # type: ignore[arg-type]
    with db.transaction() as session:
        stored_before = progress.assign(session, task)
    assert not isinstance(stored_before, str)
    assert len(stored_before.left) == 4
    teacher.requests.clear()
    with db.transaction() as session:
        background_tasks.release(session, task_id=task.id, fence=task.fence)
    run_waiting()
    generation = state(alice, generation_id)
    assert (generation["state"], generation["num_done"]) == ("succeeded", 6)
    assert asked(teacher) == sorted(map(str, stored_before.left))
    stored = [row["document"] for row in records(alice, generation_id)]
    assert sorted(set(stored)) == [0, 1, 2, 3, 4, 5]
    assert len(stored) == 12


def test_cancelling_keeps_what_was_written(
    alice: TestClient, corpus: dict[str, Any], endpoint: str, teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generate_records, "NUM_REQUESTS", 1)
    started = alice.post(START, json={"corpus": corpus["id"], "endpoint": endpoint, "num_documents": 6}).json()

    def answer(request: dict[str, Any]) -> Reply:
        if len(teacher.requests) == 3:
            alice.post(f"/api/v1/tasks/{started['task_id']}/cancel")
        return about_each(request)

    teacher.answer = answer
    run_waiting()
    generation = state(alice, started["id"])
    assert (generation["state"], generation["num_done"], generation["records"]["draft"]) == ("cancelled", 2, 4)
    assert len(teacher.requests) == 3


def test_near_duplicates_are_marked(alice: TestClient, generate: Generate, teacher: Teacher) -> None:
    text = "the furnace was cold and the alchemist was patient for a very long time in that winter"
    other = "iron melts at a temperature of about one and a half thousand degrees of the Celsius scale"
    answers = [{"question": "What happened?", "answer": answer} for answer in (text, f"{text} indeed", other)]
    teacher.script(completion(json.dumps({"records": answers})))
    generation = generate(num_documents=1)
    first, second, third = records(alice, generation["id"])
    assert [row["duplicate_of"] for row in (first, second, third)] == [None, first["id"], None]
    assert generation["records"]["duplicates"] == 1
    assert [row["id"] for row in records(alice, generation["id"], duplicates=True)] == [second["id"]]


def test_a_deleted_endpoint_or_another_text_ends_it(alice: TestClient, endpoint: str, teacher: Teacher) -> None:
    corpus = upload_corpus(alice)
    body = {"corpus": corpus["id"], "endpoint": endpoint, "num_documents": 6}
    first = alice.post(START, json=body).json()
    alice.delete(f"/api/v1/model-endpoints/{endpoint}")
    run_waiting()
    assert "endpoint was deleted" in state(alice, first["id"])["message"]
    assert teacher.requests == []
    alice.delete(f"/api/v1/corpora/{corpus['id']}")
    alice.delete(f"/api/v1/trash/{corpus['id']}")
    left = state(alice, first["id"])
    assert (left["corpus_id"], left["corpus_name"], left["state"]) == (None, "metals", "cancelled")
    assert alice.post(f"{START}/{first['id']}/resume", json={}).json()["code"] == "source_gone"
    assert alice.delete(f"{START}/{first['id']}").status_code == 204


@pytest.mark.parametrize(
    ("fields", "field", "code"),
    [
        ({"corpus": "nothing"}, "corpus", "corpus_unknown"),
        ({"endpoint": "nothing"}, "endpoint", "endpoint_unknown"),
        ({"endpoint": None}, "model", "model_or_endpoint"),
        ({"model": "anything"}, "model", "model_or_endpoint"),
        ({"endpoint": None, "model": "anything"}, "model", "model_unfit"),
        ({"template": "Write questions."}, "template", "template_invalid"),
        ({"template": "{document} {nope}"}, "template", "template_invalid"),
        ({"template": "{document}\x00"}, "template", "character_invalid"),
        ({"kind": "text", "records_per_document": 2}, "records_per_document", "records_many"),
        ({"temperature": 3}, "temperature", "request_invalid"),
        ({"max_cost": 0}, "max_cost", "request_invalid"),
    ],
)
def test_bad_fields_are_refused(
    alice: TestClient, corpus: dict[str, Any], endpoint: str, fields: dict[str, Any], field: str, code: str
) -> None:
    answer = alice.post(START, json={"corpus": corpus["id"], "endpoint": endpoint, **fields})
    assert (answer.status_code, answer.json()["code"]) == (422, code), answer.text
    assert [error["field"] for error in answer.json()["errors"]] == [field]


def test_an_open_generation_is_neither_resumed_nor_deleted(
    alice: TestClient, corpus: dict[str, Any], endpoint: str
) -> None:
    started = alice.post(START, json={"corpus": corpus["id"], "endpoint": endpoint}).json()
    assert alice.post(f"{START}/{started['id']}/resume", json={}).json()["code"] == "generation_open"
    assert alice.delete(f"{START}/{started['id']}").json()["code"] == "generation_open"


def test_a_retry_may_be_at_a_date() -> None:
    assert model_calls._retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert model_calls._retry_after("12.5") == 12.5
    assert model_calls._retry_after("soon") is None
