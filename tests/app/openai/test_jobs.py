"""Fine-tuning jobs by OpenAI's own client: their states, errors, events, checkpoints and results."""

import csv
import io
import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from app.checkpoints import service as checkpoints
from app.core import db, live, storage
from app.core.account_models import User
from app.core.models import Checkpoint, Job, MetricPoint
from app.core.settings import settings
from app.jobs import submissions
from app.jobs.attempts import attempts
from app.jobs.lifecycle import notifications
from tests import statements
from tests.app.jobs import factories, saved_checkpoints
from tests.app.openai.clients import ClientCalls, client_calls, losing_answers
from tests.background import run_waiting
from tests.users import Person

STATUSES = {"validating_files", "queued", "running", "succeeded", "failed", "cancelled", "pausing", "paused"}
SMALL = {"max_steps": 8, "warmup_steps": 1, "vocab_size": 300, "sequence_length": 16}
CHAT = [{"role": "user", "content": "What melts lead?"}, {"role": "assistant", "content": "Heat."}]
PAIR = {
    "input": {"messages": CHAT[:1], "tools": [], "parallel_tool_calls": True},
    "preferred_output": [CHAT[1]],
    "non_preferred_output": [{"role": "assistant", "content": "Prayer."}],
}


def lines(row: Any, count: int = 40) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for _n in range(count))


@pytest.fixture(autouse=True)
def machine(database: str) -> None:
    factories.node(slots=100)


@pytest.fixture
def text_file(alice_user: Person) -> str:
    return f"file-{factories.corpus(alice_user)}"


def upload(client: ClientCalls, content: bytes, name: str = "rows.jsonl") -> str:
    return str(client("files.create", file=(name, content), purpose="fine-tune").id)


def create(client: ClientCalls, file: str, model: str = "tiny", **options: Any) -> Any:
    options.setdefault("extra_body", {"athanor": SMALL})
    return client("fine_tuning.jobs.create", model=model, training_file=file, **options)


def validated() -> None:
    """What the scheduler does with jobs whose files are read."""
    run_waiting()
    with db.transaction() as session:
        submissions.submit_ready(session)


def submitted(client: ClientCalls, file: str, **options: Any) -> Any:
    job = create(client, file, **options)
    validated()
    return job


def plain(job: Any) -> str:
    return str(job.id).removeprefix("ftjob-")


def started(job: Any) -> int:
    """A worker claims a job; returns its fence."""
    factories.give_to(plain(job), "ada")
    with db.transaction() as session:
        fence = attempts.claim(session, job_id=plain(job), node="ada")
    assert fence is not None
    return fence


def status(client: ClientCalls, job: Any) -> str:
    word = client("fine_tuning.jobs.retrieve", job.id).status
    assert word in STATUSES
    return str(word)


# ---- creating -------------------------------------------------------------------------------------------------------


def test_a_new_job_is_answered_at_once_and_has_all_fields(alice_client: ClientCalls, text_file: str) -> None:
    job = create(alice_client, text_file, suffix="demo", seed=7, metadata={"team": "a"})
    assert (job.status, job.model, job.training_file, job.seed) == ("validating_files", "tiny", text_file, 7)
    assert (job.object, job.organization_id, job.result_files, job.metadata) == (
        "fine_tuning.job",
        "org-local",
        [],
        {"team": "a"},
    )
    assert (job.validation_file, job.fine_tuned_model, job.finished_at, job.error) == (None, None, None, None)
    assert job.hyperparameters.n_epochs == job.method.supervised.hyperparameters.n_epochs == "auto"


def test_creating_a_job_reads_no_file_and_sends_as_many_queries_however_much_there_is(
    alice_client: ClientCalls, text_file: str, base: str
) -> None:
    """So that it is answered at once, with ever so large files."""
    numbers = []
    for _time in range(2):
        file = upload(alice_client, lines({"messages": CHAT}))
        directory = storage.corpus(file.removeprefix("file-"))
        directory.rename(directory.with_name("elsewhere"))
        with statements.record() as queries:
            job = create(alice_client, file, model=base, extra_body={})
        directory.with_name("elsewhere").rename(directory)
        numbers.append(len(queries))
        assert job.status == "validating_files"
        alice_client("fine_tuning.jobs.cancel", job.id)
        for _n in range(5):
            alice_client("fine_tuning.jobs.cancel", create(alice_client, text_file).id)
    assert numbers[0] == numbers[1]


def test_a_job_goes_through_the_states_of_the_type(alice_client: ClientCalls, text_file: str) -> None:
    job = create(alice_client, text_file, suffix="demo")
    seen = [status(alice_client, job)]
    validated()
    seen.append(status(alice_client, job))
    fence = started(job)
    factories.record(plain(job), fence, factories.losses([3.0] * 8))
    seen.append(status(alice_client, job))
    factories.saved(plain(job), fence, 8)
    with db.transaction() as session:
        attempts.finish(session, job_id=plain(job), fence=fence)
    seen.append(status(alice_client, job))
    assert seen == ["validating_files", "queued", "running", "succeeded"]
    done = alice_client("fine_tuning.jobs.retrieve", job.id)
    assert done.fine_tuned_model == f"ft:tiny:org-local:demo:{plain(job)}"
    assert alice_client("models.retrieve", done.fine_tuned_model).id == done.fine_tuned_model
    assert done.trained_tokens == 8 * 16 * 16
    assert done.finished_at >= done.created_at
    (results,) = done.result_files
    table = list(csv.DictReader(io.StringIO(alice_client("files.content", results).text)))
    assert [(row["step"], row["train_loss"]) for row in table] == [(str(n), "3.0") for n in range(1, 9)]
    file = alice_client("files.retrieve", results)
    assert file.purpose == "fine-tune-results"
    assert file.bytes == len(alice_client("files.content", results).read())
    assert alice_client.pages("files.list", purpose="fine-tune-results")[0].id == results


def test_states_that_openai_does_not_have_are_answered_in_its_words(alice_client: ClientCalls, text_file: str) -> None:
    """A machine that is lost, and a cancellation that waits for the trainer: programs must neither stop nor hang."""
    lost, stopped, broken = (submitted(alice_client, text_file) for _n in range(3))
    fences = [started(job) for job in (lost, stopped, broken)]
    own: list[Any] = [factories.row(plain(job)).state for job in (lost, stopped, broken)]
    assert (own, [status(alice_client, job) for job in (lost, stopped, broken)]) == (["starting"] * 3, ["running"] * 3)

    with db.transaction() as session:
        attempts.release(session, job_id=plain(lost), fence=fences[0], reason="node_lost")
    assert (factories.row(plain(lost)).state, status(alice_client, lost)) == ("recovering", "running")
    alice_client("fine_tuning.jobs.cancel", stopped.id)
    with db.transaction() as session:
        attempts.begin_stop(session, job_id=plain(stopped), fence=fences[1], state="cancelling")
    assert (factories.row(plain(stopped)).state, status(alice_client, stopped)) == ("cancelling", "running")
    with db.transaction() as session:
        attempts.release(session, job_id=plain(stopped), fence=fences[1], reason="stopped")
        attempts.fail(session, job_id=plain(broken), fence=fences[2], code="internal", values={})
    assert [status(alice_client, job) for job in (stopped, broken)] == ["cancelled", "failed"]
    failed = alice_client("fine_tuning.jobs.retrieve", broken.id)
    assert (failed.error.code, failed.error.param, failed.fine_tuned_model) == ("internal", None, None)
    assert failed.error.message


def test_hyperparameters_become_fields_of_the_spec(alice_client: ClientCalls, text_file: str) -> None:
    settings_of = {"n_epochs": 2, "batch_size": 4, "learning_rate_multiplier": 0.5}
    sizes = {"vocab_size": 300, "sequence_length": 16}
    job = submitted(alice_client, text_file, hyperparameters=settings_of, seed=7, extra_body={"athanor": sizes})
    spec = factories.row(plain(job)).spec
    assert (spec.num_train_epochs, spec.train_batch_size, spec.learning_rate) == (2, 4, 0.0015)
    assert (spec.recipe, spec.sequence_length, spec.seed, spec.per_device_batch_size) == ("tiny", 16, 7, 4)
    shown = alice_client("fine_tuning.jobs.retrieve", job.id)
    assert shown.hyperparameters.model_dump() == shown.method.supervised.hyperparameters.model_dump() == settings_of


@pytest.mark.parametrize(
    ("recipe", "objective"), [("tiny", "causal"), ("tiny-bert", "masked"), ("tiny-t5", "span_corruption")]
)
def test_recipes_train_from_scratch(alice_client: ClientCalls, text_file: str, recipe: str, objective: str) -> None:
    sizes = {**SMALL, "vocab_size": 500, "sequence_length": 32}
    job = submitted(alice_client, text_file, model=recipe, extra_body={"athanor": sizes})
    assert status(alice_client, job) == "queued"
    assert factories.row(plain(job)).spec.objective == objective


@pytest.fixture
def base(alice_user: Person) -> str:
    """The model ID of a checkpoint that can be fine-tuned."""
    job_id, fence = factories.started(alice_user, factories.corpus(alice_user), name="base", **SMALL)
    directory = saved_checkpoints.on_disk(job_id, 8, fence)
    configuration = {"model_type": "llama", "vocab_size": 300, "max_position_embeddings": 64}
    (directory / "config.json").write_text(json.dumps(configuration))
    with db.transaction() as session:
        path = f"runs/{job_id}/checkpoints/{directory.name}"
        checkpoints.record(
            session,
            owner_id=alice_user.id,
            job_id=job_id,
            step=8,
            fence=fence,
            path=path,
            manifest={"files": []},
            metrics={"eval_loss": 2.0},
        )
    return f"ft:tiny:org-local:base:{job_id}:ckpt-step-8"


def test_the_records_of_the_file_decide_what_is_learned(alice_client: ClientCalls, base: str) -> None:
    rows = {"chat": {"messages": CHAT}, "completion": {"prompt": "lead", "completion": "gold"}}
    for objective, row in rows.items():
        job = submitted(alice_client, upload(alice_client, lines(row)), model=base, extra_body={})
        spec = factories.row(plain(job)).spec
        assert (spec.objective, spec.num_train_epochs) == (objective, 3)
        assert alice_client("fine_tuning.jobs.retrieve", job.id).model == base


def test_dpo_learns_from_pairs_as_openai_has_them(alice_client: ClientCalls, base: str) -> None:
    method = {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.3, "n_epochs": 1}}}
    file = upload(alice_client, lines(PAIR))
    job = submitted(alice_client, file, model=base, method=method, extra_body={})
    assert job.method.dpo.hyperparameters.beta == 0.3
    spec = factories.row(plain(job)).spec
    assert (spec.objective, spec.dpo_beta, spec.num_train_epochs) == ("dpo", 0.3, 1)


def test_a_bad_line_fails_the_job_at_its_training_file(alice_client: ClientCalls, base: str) -> None:
    file = upload(alice_client, lines({"messages": CHAT}, 3) + b'{"messages": 5}\n')
    job = submitted(alice_client, file, model=base, extra_body={})
    failed = alice_client("fine_tuning.jobs.retrieve", job.id)
    assert (failed.status, failed.error.param, failed.error.code) == ("failed", "training_file", "corpus_failed")
    assert "Line 4" in failed.error.message
    assert failed.finished_at is not None
    events = alice_client.pages("fine_tuning.jobs.list_events", job.id)
    assert [event.level for event in events] == ["error", "info"]


@pytest.fixture
def demoted(alice_user: Person) -> Iterator[Callable[[], None]]:
    """Makes Alice a viewer; she has her role again afterwards."""

    def set_role(role: str) -> None:
        with db.transaction() as session:
            session.get_one(User, alice_user.id).role = role

    yield partial(set_role, "viewer")
    set_role(alice_user.role)


def test_a_job_that_waits_for_its_files_fails_once_its_owner_is_a_viewer(
    alice_client: ClientCalls, text_file: str, demoted: Callable[[], None]
) -> None:
    job = create(alice_client, text_file)
    demoted()
    validated()
    failed = alice_client("fine_tuning.jobs.retrieve", job.id)
    assert (failed.status, failed.error.code) == ("failed", "role_missing")
    assert failed.error.message.startswith("Your role is viewer: you can read, but not start or change anything.")


def test_a_file_of_another_kind_fails_the_job(alice_client: ClientCalls, text_file: str, base: str) -> None:
    file = upload(alice_client, lines(PAIR))
    job = submitted(alice_client, file, model=base, extra_body={})
    failed = alice_client("fine_tuning.jobs.retrieve", job.id)
    assert (failed.status, failed.error.param, failed.error.code) == ("failed", "training_file", "kind_unfit")


@pytest.mark.parametrize(
    ("options", "param", "code"),
    [
        ({"model": "gpt-5"}, "model", "model_not_found"),
        ({"training_file": "file-0000000000000000"}, "training_file", "corpus_unknown"),
        ({"validation_file": "nothing"}, "validation_file", "corpus_unknown"),
        ({"hyperparameters": {"n_epochs": 0}}, "hyperparameters.n_epochs", "request_invalid"),
        ({"method": {"type": "reinforcement"}}, "method.type", "request_invalid"),
        ({"suffix": "x" * 65}, "suffix", "request_invalid"),
        ({"hyperparameters": {"beta": 0.1}}, "hyperparameters.beta", "beta_unfit"),
        ({"metadata": {str(n): "" for n in range(17)}}, "metadata", "request_invalid"),
        ({"extra_body": {"learning_rate": 1}}, "learning_rate", "request_invalid"),
        ({"extra_body": {"athanor": {"learning_rate": -1}}}, "athanor.learning_rate", "spec_invalid"),
        ({"extra_body": {"athanor": {"nonsense": 1}}}, "athanor.nonsense", "spec_invalid"),
        ({"extra_body": {"athanor": {"corpora": ["x"]}}}, "athanor.corpora", "field_twice"),
        (
            {"integrations": [{"type": "wandb", "wandb": {"project": "p"}}]},
            "integrations",
            "integrations_unsupported",
        ),
        (
            {"extra_body": {"athanor": {"resume_from_checkpoint": "x"}}},
            "athanor.resume_from_checkpoint",
            "model_not_found",
        ),
    ],
)
def test_a_wrong_field_is_named(
    alice_client: ClientCalls, openai: Any, text_file: str, options: dict[str, Any], param: str, code: str
) -> None:
    request = {"model": "tiny", "training_file": text_file, **options}
    with pytest.raises(openai.BadRequestError) as refused:
        alice_client("fine_tuning.jobs.create", **request)
    assert (refused.value.param, refused.value.code) == (param, code)
    assert refused.value.request_id


def test_another_users_file_and_model_do_not_exist(
    bob_client: ClientCalls, alice_client: ClientCalls, openai: Any, text_file: str, base: str
) -> None:
    own = upload(bob_client, lines({"messages": CHAT}))
    for options in ({"model": "tiny", "training_file": text_file}, {"model": base, "training_file": own}):
        with pytest.raises(openai.BadRequestError):
            bob_client("fine_tuning.jobs.create", **options)


def test_more_jobs_than_the_quota_are_a_rate_limit(
    bob_client: ClientCalls, bob_user: Person, openai: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATHANOR_MAX_OPEN_JOBS_PER_USER", "1")
    settings.cache_clear()
    try:
        once = bob_client.client.with_options(max_retries=0)
        file = f"file-{factories.corpus(bob_user)}"
        first = once.fine_tuning.jobs.create(model="tiny", training_file=file)
        with pytest.raises(openai.RateLimitError) as refused:
            once.fine_tuning.jobs.create(model="tiny", training_file=file)
        bob_client("fine_tuning.jobs.cancel", first.id)
    finally:
        monkeypatch.undo()
        settings.cache_clear()
    assert refused.value.code == "quota"
    assert int(refused.value.response.headers["retry-after"]) > 0


# ---- planning without creating --------------------------------------------------------------------------------------


def test_a_dry_run_is_planned_and_creates_nothing(alice_client: ClientCalls, openai: Any, base: str) -> None:
    file = upload(alice_client, lines({"messages": CHAT}))
    before = [job.id for job in alice_client.pages("fine_tuning.jobs.list")]
    options = {"model": base, "hyperparameters": {"n_epochs": 2, "batch_size": 4}}
    with pytest.raises(openai.BadRequestError) as refused:
        create(alice_client, file, extra_body={"athanor": {"dry_run": True}}, **options)
    assert (refused.value.code, refused.value.param) == ("corpus_parsing", "training_file")
    run_waiting()
    job = create(alice_client, file, extra_body={"athanor": {"dry_run": True}}, metadata={"a": "b"}, **options)
    assert (job.status, job.model, job.training_file, job.metadata) == ("cancelled", base, file, {"a": "b"})
    assert (job.hyperparameters.n_epochs, job.hyperparameters.batch_size, job.error) == (2, 4, None)
    assert job.estimated_finish >= job.created_at
    plan = job.athanor["plan"]
    assert (plan["spec"]["objective"], plan["spec"]["train_batch_size"]) == ("chat", 4)
    assert plan["max_steps"] > 0
    assert plan["figures"]["total_seconds"]["value"] > 0
    assert plan["figures"]["memory_bytes"]["text"]
    assert [one.id for one in alice_client.pages("fine_tuning.jobs.list")] == before
    with pytest.raises(openai.NotFoundError):
        alice_client("fine_tuning.jobs.retrieve", job.id)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"dry_run": "yes"}, "athanor.dry_run"),
        ({"dry_run": True, "learning_rate": -1}, "athanor.learning_rate"),
        ({"dry_run": True, "sequence_length": 8}, "model"),
    ],
)
def test_a_dry_run_names_what_is_wrong(
    alice_client: ClientCalls, openai: Any, text_file: str, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        create(alice_client, text_file, "tiny" if param != "model" else "nothing", extra_body={"athanor": fields})
    assert refused.value.param == param


@pytest.fixture
def priced(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An hour of a node has a price."""
    monkeypatch.setenv("ATHANOR_PRICE_PER_HOUR", "2.5")
    settings.cache_clear()
    yield
    monkeypatch.undo()
    settings.cache_clear()


@pytest.mark.usefixtures("priced")
def test_the_price_of_a_job_at_togethers_address(
    server: str, key: str, text_file: str, alice_client: ClientCalls, bob_user: Person, base: str
) -> None:
    def price(body: dict[str, Any], token: str = key) -> httpx.Response:
        return httpx.post(
            f"{server}/v1/fine-tunes/estimate-price", json=body, headers={"Authorization": f"Bearer {token}"}
        )

    body = {"model": "tiny", "training_file": text_file, "training_type": {"type": "Full"}, "n_epochs": 2}
    once, twice = (price({**body, "n_epochs": number}).json() for number in (1, 2))
    assert (once["estimation_available"], once["allowed_to_proceed"]) == (True, True)
    assert once["estimated_total_price"] < twice["estimated_total_price"]
    assert once["estimated_train_token_count"] < twice["estimated_train_token_count"]
    unread = upload(alice_client, lines(PAIR))
    pairs = {"model": base, "training_file": unread, "training_method": {"method": "dpo"}}
    waiting = price(pairs).json()
    assert not waiting["estimation_available"]
    assert "read" in waiting["unavailable_reason"]
    run_waiting()
    assert price(pairs).json()["estimated_train_token_count"] > 0
    foreign = price(body, bob_user.token())
    assert (foreign.status_code, foreign.json()["error"]["param"]) == (400, "training_file")


# ---- sending requests again -----------------------------------------------------------------------------------------


def post(server: str, key: str, body: dict[str, Any], **headers: str) -> httpx.Response:
    return httpx.post(f"{server}/v1/fine_tuning/jobs", json=body, headers={"Authorization": f"Bearer {key}", **headers})


def test_a_request_whose_answer_was_lost_creates_one_job(server: str, key: str, text_file: str) -> None:
    body = {"model": "tiny", "training_file": text_file, "suffix": "twice"}
    first = post(server, key, body, **{"x-stainless-retry-count": "0"}).json()
    again = post(server, key, body, **{"x-stainless-retry-count": "1"}).json()
    meant = post(server, key, body, **{"x-stainless-retry-count": "0"}).json()
    other = post(server, key, {**body, "seed": 3}, **{"x-stainless-retry-count": "1"}).json()
    assert again["id"] == first["id"]
    assert len({first["id"], meant["id"], other["id"]}) == 3


LISTS = ("fine_tuning.jobs.list", "files.list")


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_the_client_repeats_a_request_whose_answer_was_lost_and_gets_the_same_job_and_file(
    openai: Any, server: str, key: str, text_file: str, alice_client: ClientCalls, is_async: bool
) -> None:
    name = f"lost {time.time_ns()}"
    before = {one.id for method in LISTS for one in alice_client.pages(method)}
    with losing_answers(server, 2) as front, client_calls(openai, front.url, key, is_async=is_async) as client:
        job = create(client, text_file, suffix=name)
        assert [request.headers["x-stainless-retry-count"] for request in front.requests] == ["0", "1", "2"]
    with losing_answers(server, 1) as front, client_calls(openai, front.url, key, is_async=is_async) as client:
        file = client("files.create", file=(f"{name}.jsonl", lines({"messages": CHAT})), purpose="fine-tune")
        assert len(front.requests) == 2
    after = {one.id for method in LISTS for one in alice_client.pages(method)}
    assert after - before == {job.id, file.id}


def test_a_program_that_repeats_a_request_with_its_key_gets_the_same_job(
    openai: Any, server: str, key: str, text_file: str, alice_client: ClientCalls
) -> None:
    """Programs that repeat nothing by themselves, such as one that was started again."""
    headers = {"Idempotency-Key": f"of a program {time.time_ns()}"}
    before = {one.id for one in alice_client.pages("fine_tuning.jobs.list")}
    with losing_answers(server, 1) as front, client_calls(openai, front.url, key, is_async=False) as client:
        client.client = client.client.with_options(max_retries=0)
        with pytest.raises(openai.APIConnectionError):
            create(client, text_file, extra_headers=headers)
        job = create(client, text_file, extra_headers=headers)
    assert {one.id for one in alice_client.pages("fine_tuning.jobs.list")} - before == {job.id}


def test_an_idempotency_key_means_one_job(server: str, key: str, text_file: str) -> None:
    body = {"model": "tiny", "training_file": text_file}
    first, again = (post(server, key, body, **{"Idempotency-Key": f"once {text_file}"}) for _time in range(2))
    assert first.json()["id"] == again.json()["id"]
    conflict = post(server, key, {**body, "seed": 2}, **{"Idempotency-Key": f"once {text_file}"})
    assert (conflict.status_code, conflict.headers["x-should-retry"]) == (409, "false")


# ---- pausing and cancelling -----------------------------------------------------------------------------------------


def test_pause_and_resume_twice_have_one_effect(alice_client: ClientCalls, text_file: str) -> None:
    job = submitted(alice_client, text_file)
    fence = started(job)
    factories.record(plain(job), fence, factories.losses([3.0, 2.9]))
    assert [alice_client("fine_tuning.jobs.pause", job.id).status for _time in range(2)] == ["pausing"] * 2
    with db.transaction() as session:
        attempts.begin_stop(session, job_id=plain(job), fence=fence, state="pausing")
        attempts.release(session, job_id=plain(job), fence=fence, reason="stopped")
    assert [alice_client("fine_tuning.jobs.pause", job.id).status for _time in range(2)] == ["paused"] * 2
    assert [alice_client("fine_tuning.jobs.resume", job.id).status for _time in range(2)] == ["queued"] * 2


def test_a_job_can_be_paused_and_cancelled_while_its_files_are_read(alice_client: ClientCalls, base: str) -> None:
    file = upload(alice_client, lines({"messages": CHAT}))
    job = create(alice_client, file, model=base, extra_body={})
    assert alice_client("fine_tuning.jobs.pause", job.id).status == "paused"
    validated()
    assert status(alice_client, job) == "paused"
    assert alice_client("fine_tuning.jobs.resume", job.id).status == "validating_files"
    assert [alice_client("fine_tuning.jobs.cancel", job.id).status for _time in range(2)] == ["cancelled"] * 2
    validated()
    assert status(alice_client, job) == "cancelled"


def test_cancelling_a_finished_job_is_an_error_that_is_sent_once(
    alice_client: ClientCalls, openai: Any, alice_user: Person
) -> None:
    job_id, _checkpoint = factories.finished(alice_user, factories.corpus(alice_user), **SMALL)
    with pytest.raises(openai.ConflictError) as refused:
        alice_client("fine_tuning.jobs.cancel", f"ftjob-{job_id}")
    assert refused.value.code == "job_ended"
    assert refused.value.response.request.headers["x-stainless-retry-count"] == "0"


@pytest.mark.parametrize("verb", ["retrieve", "cancel", "pause", "resume"])
def test_another_users_job_does_not_exist(
    alice_client: ClientCalls, bob_client: ClientCalls, openai: Any, text_file: str, verb: str
) -> None:
    waiting, queued = create(alice_client, text_file), submitted(alice_client, text_file)
    for job in (waiting, queued):
        with pytest.raises(openai.NotFoundError):
            bob_client(f"fine_tuning.jobs.{verb}", job.id)
        assert job.id not in [one.id for one in bob_client.pages("fine_tuning.jobs.list")]


# ---- lists ----------------------------------------------------------------------------------------------------------


def test_pages_of_one_job_have_every_job_once_while_new_ones_arrive(
    alice_client: ClientCalls, alice_user: Person, text_file: str
) -> None:
    of_page = factories.submitted(alice_user, text_file.removeprefix("file-"), name="From the form", **SMALL)
    expected = [create(alice_client, text_file).id for _n in range(3)] + [f"ftjob-{of_page}"]
    seen = []
    cursor: dict[str, Any] = {}
    while not set(expected) <= set(seen):
        page = alice_client("fine_tuning.jobs.list", limit=1, **cursor)
        seen.append(page.data[0].id)
        cursor = {"after": page.data[0].id}
        if len(seen) == 2:
            create(alice_client, text_file)
    assert len(set(seen)) == len(seen)
    shown = alice_client("fine_tuning.jobs.retrieve", f"ftjob-{of_page}")
    assert (shown.model, shown.training_file, shown.status) == ("tiny", text_file, "queued")


def test_the_last_page_of_jobs_says_that_it_is_the_last(alice_client: ClientCalls, text_file: str) -> None:
    mark = {"metadata[mark]": f"last {time.time_ns()}"}
    for _n in range(2):
        create(alice_client, text_file, metadata={"mark": mark["metadata[mark]"]})
    pages = [alice_client("fine_tuning.jobs.list", limit=limit, extra_query=mark) for limit in (1, 2)]
    assert [page.has_more for page in pages] == [True, False]


def test_jobs_are_listed_by_their_metadata(alice_client: ClientCalls, server: str, key: str, text_file: str) -> None:
    mark = f"mark {time.time_ns()}"
    one = create(alice_client, text_file, metadata={"team": mark, "n": "1"})
    two = create(alice_client, text_file, metadata={"team": mark, "n": "2"})
    without = create(alice_client, text_file)

    def listed(query: dict[str, str]) -> list[str]:
        return [job.id for job in alice_client.pages("fine_tuning.jobs.list", limit=50, extra_query=query)]

    assert listed({"metadata[team]": mark}) == [two.id, one.id]
    assert listed({"metadata[team]": mark, "metadata[n]": "1"}) == [one.id]
    empty = httpx.get(f"{server}/v1/fine_tuning/jobs?metadata[team]=", headers={"Authorization": f"Bearer {key}"})
    assert empty.json()["data"] == []  # major 1 leaves empty values out
    of_nothing = listed({"metadata": "null"})
    assert without.id in of_nothing
    assert one.id not in of_nothing
    validated()  # now each has a job beside what was asked for
    of_nothing = listed({"metadata": "null"})
    assert without.id in of_nothing
    assert one.id not in of_nothing
    nul = httpx.get(f"{server}/v1/fine_tuning/jobs?metadata[team]=%00", headers={"Authorization": f"Bearer {key}"})
    assert (nul.status_code, nul.json()["error"]["param"]) == (400, "metadata")


# ---- events and checkpoints -----------------------------------------------------------------------------------------


def test_events_paged_during_training_miss_no_step(alice_client: ClientCalls, text_file: str) -> None:
    job = submitted(alice_client, text_file)
    fence = started(job)
    seen: dict[str, Any] = {}
    for number, batch in enumerate(_batched(factories.losses([4 - n / 10 for n in range(8)]), 2)):
        factories.record(plain(job), fence, batch)
        if number == 2:
            alice_client("fine_tuning.jobs.pause", job.id)
        after: dict[str, Any] = {}
        while (page := alice_client("fine_tuning.jobs.list_events", job.id, limit=3, **after)).data:
            fresh = [event for event in page.data if event.id not in seen]
            seen |= {event.id: event for event in page.data}
            if len(fresh) < len(page.data):
                break
            after = {"after": page.data[-1].id}
    every = alice_client.pages("fine_tuning.jobs.list_events", job.id, limit=5)
    assert {event.id for event in every} == seen.keys()
    assert len({event.id for event in every}) == len(every)
    measured = {event.data["step"]: event for event in every if event.type == "metrics"}
    with db.transaction() as session:
        query = select(MetricPoint.step, MetricPoint.value).where(MetricPoint.job_id == plain(job))
        stored = {row.step: row.value for row in session.execute(query)}
    assert {step: event.data["train_loss"] for step, event in measured.items()} == stored
    assert measured[1].message == "Step 1/8: training loss=4.00"
    assert measured[2].data["total_steps"] == 8
    assert every[-1].message == f"Validating training file: {text_file}"
    assert [event.id for event in every] == [event.id for event in sorted(every, key=_age, reverse=True)]


def _batched(items: Any, size: int) -> Any:
    return [items[begin : begin + size] for begin in range(0, len(items), size)]


def _age(event: Any) -> tuple[int, ...]:
    return tuple(int(part) for part in event.id.split("-")[2:])


def test_a_list_of_events_does_not_continue_after_an_event_of_another_job(
    alice_client: ClientCalls, openai: Any, text_file: str
) -> None:
    one, other = create(alice_client, text_file), create(alice_client, text_file)
    (event,) = alice_client("fine_tuning.jobs.list_events", other.id).data
    with pytest.raises(openai.BadRequestError) as refused:
        alice_client("fine_tuning.jobs.list_events", one.id, after=event.id)
    assert (refused.value.param, refused.value.code) == ("after", "cursor_invalid")


def test_events_say_what_is_wrong_and_what_was_cancelled(alice_client: ClientCalls, text_file: str) -> None:
    job, waiting = submitted(alice_client, text_file), create(alice_client, text_file)
    fence = started(job)
    factories.record(plain(job), fence, factories.losses(["nan", 2.0]))
    with db.transaction() as session:
        attempts.release(session, job_id=plain(job), fence=fence, reason="node_lost")
    every = alice_client.pages("fine_tuning.jobs.list_events", job.id)
    assert [event.data["train_loss"] for event in every if event.type == "metrics"] == [2.0, "nan"]
    assert [event.level for event in every if event.type == "message" and event.data.get("reason") == "node_lost"] == [
        "warn"
    ]
    alice_client("fine_tuning.jobs.cancel", waiting.id)
    newest = alice_client("fine_tuning.jobs.list_events", waiting.id).data[0]
    assert (newest.level, newest.message) == ("info", "The job was cancelled.")


def test_a_change_wakes_those_who_watch_the_job(alice_client: ClientCalls, text_file: str) -> None:
    job = submitted(alice_client, text_file)
    watched = live.Subscription(notifications.topic(plain(job)))
    watched.wait(0.1)  # subscribes
    alice_client("fine_tuning.jobs.cancel", job.id)
    assert watched.wait(10)


def test_the_times_of_measured_steps_are_those_of_the_trainer(alice_client: ClientCalls, text_file: str) -> None:
    job = submitted(alice_client, text_file)
    factories.record(plain(job), started(job), factories.losses([3.0, 2.0]))
    events = alice_client.pages("fine_tuning.jobs.list_events", job.id)
    assert [event.created_at for event in events if event.type == "metrics"] == [1001, 1000]


def test_each_checkpoint_names_a_model(alice_client: ClientCalls, text_file: str) -> None:
    job = submitted(alice_client, text_file, suffix="steps")
    fence = started(job)
    factories.record(plain(job), fence, factories.losses([3.0] * 8))
    for step in (2, 4, 8):
        factories.saved(plain(job), fence, step)
    listed = alice_client.pages("fine_tuning.jobs.checkpoints.list", job.id, limit=1)
    assert [checkpoint.step_number for checkpoint in listed] == [8, 4, 2]
    for checkpoint in listed:
        name = f"ft:tiny:org-local:steps:{plain(job)}:ckpt-step-{checkpoint.step_number}"
        assert checkpoint.fine_tuned_model_checkpoint == name
        assert checkpoint.metrics.model_dump(exclude_none=True) == {
            "step": checkpoint.step_number,
            "valid_loss": 3.5,
            "full_valid_loss": 3.5,
        }
        assert alice_client("models.retrieve", name).id == name


def test_a_job_starts_from_the_weights_of_another_ones_step_as_togethers_clients_ask_for_it(
    alice_client: ClientCalls, server: str, key: str, text_file: str, base: str
) -> None:
    first = base.split(":")[-2]
    with db.transaction() as session:
        checkpoint_id = session.scalar(select(Checkpoint.id).where(Checkpoint.job_id == first))
    for name in (f"ftjob-{first}:8", f"ftjob-{first}"):
        answer = post(server, key, {"training_file": text_file, "from_checkpoint": name})
        assert answer.status_code == 200, answer.text
        validated()
        assert factories.row(answer.json()["id"].removeprefix("ftjob-")).spec.base_model == checkpoint_id
    for wrong in ({"from_checkpoint": f"ftjob-{first}:5"}, {"from_checkpoint": f"ftjob-{first}", "model": "tiny"}):
        assert post(server, key, {"training_file": text_file, **wrong}).status_code == 400


def test_fireworks_fields_become_those_of_the_spec(
    alice_client: ClientCalls, server: str, key: str, text_file: str, base: str, alice_user: Person
) -> None:
    other_file = f"file-{factories.corpus(alice_user, text='And the earth was without form, and void. ' * 50)}"
    body = {"training_file": text_file, "validation_file": other_file, "warmStartFrom": base}
    answer = post(server, key, {**body, "earlyStop": True, "evalAutoCarveout": False})
    assert answer.status_code == 200, answer.text
    validated()
    spec = factories.row(answer.json()["id"].removeprefix("ftjob-")).spec
    assert (spec.early_stopping_patience, spec.validation_fraction) == (2, 0)
    plain = post(server, key, body).json()["id"].removeprefix("ftjob-")
    validated()
    assert (factories.row(plain).spec.early_stopping_patience, factories.row(plain).spec.base_model) == (
        None,
        spec.base_model,
    )
    assert factories.row(plain).spec.validation_fraction > 0
    assert post(server, key, {**body, "earlyStop": None}).status_code == 200
    for wrong in ({**body, "model": "tiny"}, {**body, "earlyStop": "often"}):
        assert post(server, key, wrong).status_code == 400
    refused = post(server, key, {**body, "validation_file": None, "evalAutoCarveout": False})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "evalAutoCarveout")


def test_a_checkpoint_has_no_permissions_and_cannot_be_shared_with_projects(
    alice_client: ClientCalls, bob_client: ClientCalls, openai: Any, base: str
) -> None:
    permissions = "fine_tuning.checkpoints.permissions"
    assert alice_client(f"{permissions}.retrieve", base).data == []
    with pytest.raises(openai.BadRequestError) as refused:
        alice_client.pages(f"{permissions}.create", base, project_ids=["proj_1"])
    assert (refused.value.code, refused.value.param) == ("unsupported_parameter", "project_ids")
    with pytest.raises(openai.NotFoundError):
        alice_client(f"{permissions}.delete", "cp_1", fine_tuned_model_checkpoint=base)
    with pytest.raises(openai.NotFoundError) as foreign:
        bob_client(f"{permissions}.retrieve", base)
    assert foreign.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        bob_client.pages(f"{permissions}.create", base, project_ids=["proj_1"])


def test_a_deleted_job_takes_its_submission_with_it(
    alice_client: ClientCalls, openai: Any, alice: Any, text_file: str
) -> None:
    job = submitted(alice_client, text_file)
    alice_client("fine_tuning.jobs.cancel", job.id)
    assert alice.delete(f"/api/v1/jobs/{plain(job)}").status_code == 204
    with pytest.raises(openai.NotFoundError):
        alice_client("fine_tuning.jobs.retrieve", job.id)
    with db.transaction() as session:
        assert session.get_one(Job, plain(job)).deleted_at is not None  # it is in the trash
