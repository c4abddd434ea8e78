"""The pages of jobs as a browser without scripts gets them."""

import re
from html import unescape
from typing import Any

import pytest
from sqlalchemy import delete, update
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from app.core import db, storage
from app.core.models import Corpus, Job, Node
from app.core.principal import Principal
from app.core.settings import ROOT
from app.jobs import form_plan
from app.jobs.attempts import attempts
from app.jobs.form_plan import FormPlan
from app.jobs.planning import accuracy
from app.jobs.scheduling import dispatch
from app.jobs.views.form import SubmittedForm
from tests.app.jobs import factories, saved_checkpoints
from tests.app.jobs.html_form import HtmlForm
from tests.users import Person
from trainer import events
from trainer.families import smallest_vocabulary
from trainer.run_dir import RunDir
from trainer.spec import TrainSpec

FORM = {"key": "0123456789abcdef", "recipe": "tiny"}


@pytest.fixture(scope="module")
def corpus(alice_user: Person) -> str:
    """A corpus of Alice's that has been read."""
    return read_corpus(alice_user, "text")


def read_corpus(owner: Person, kind: str) -> str:
    with db.transaction() as session:
        row = Corpus(
            owner_id=owner.id,
            kind=kind,
            name="<b>fables</b>",
            filename="fables.txt",
            format="txt",
            state="ready",
            num_bytes=90_000,
            sha256="0" * 64,
            num_documents=12,
            num_characters=90_000,
            num_text_bytes=90_000,
        )
        session.add(row)
        session.flush()
        return row.id


def submit(client: TestClient, corpus: str, **fields: Any) -> Any:
    return client.post("/jobs", data={**FORM, "corpora": corpus, **fields})


@pytest.fixture
def job_id(alice: TestClient, corpus: str) -> str:
    """A queued job of Alice's."""
    answer = submit(alice, corpus, key="k" * 16, name="<i>one</i>", max_steps="7", warmup_steps="0")
    assert answer.status_code == 303, answer.text
    return str(answer.headers["location"]).rpartition("/")[2]


@pytest.mark.parametrize(
    "path", ["/", "/jobs", "/jobs/new", "/jobs/06e9x0c5m1n2p3q4", "/nodes", "/health", "/api/docs"]
)
def test_a_visitor_is_redirected_to_the_login(visitor: TestClient, path: str) -> None:
    answer = visitor.get(path)
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/login")


def test_the_overview_begins_with_three_steps(bob: TestClient) -> None:
    assert "Three steps from text to a model of your own." in bob.get("/").text


def test_the_form_offers_recipes_corpora_and_every_field_of_a_spec(alice: TestClient, corpus: str) -> None:
    text = alice.get(f"/jobs/new?corpus={corpus}&recipe=gpt2-124m").text
    form = HtmlForm.of(text)
    assert form.sent["corpora"] == [corpus]
    assert form.sent["recipe"] == ["gpt2-124m"]
    assert fix_of(text) == "vocab_size=auto"  # the text may be too short for that of GPT-2
    assert "&lt;b&gt;fables&lt;/b&gt;" in text
    assert "<b>fables</b>" not in text
    offered = {*form.sent, *form.disabled, *form.options}
    lists = {"validation_corpora", "evaluation_corpora"}
    others = {"objective", "resume_from_checkpoint", "corpus_weights", *lists}  # elsewhere, or not always
    assert set(TrainSpec.model_fields) - others <= offered
    assert form.placeholders["max_steps"] == "19073 (recipe)"  # stands where nothing is typed


def test_each_of_several_corpora_has_a_weight(alice: TestClient, alice_user: Person, corpus: str) -> None:
    other = read_corpus(alice_user, "text")
    fields = {"recipe": "tiny", "corpora": [corpus, other], f"weight-{corpus}": "3", f"weight-{other}": ""}

    form = HtmlForm.of(alice.post("/jobs/plan", data=fields, headers={"Origin": "http://localhost"}).text)

    assert (form.sent[f"weight-{corpus}"], form.sent[f"weight-{other}"]) == (["3"], ["1"])
    alone = HtmlForm.of(alice.get(f"/jobs/new?corpus={corpus}").text)
    assert f"weight-{corpus}" not in alone.sent


@pytest.mark.parametrize(
    ("kind", "recipe"),
    [
        ("text", "tiny"),
        ("chat", "chat"),
        ("classification", "classifier"),
        ("preference", "dpo"),
        ("seq2seq", "seq2seq"),
    ],
)
def test_a_link_from_a_corpus_preselects_a_recipe_for_its_kind(
    bob: TestClient, bob_user: Person, kind: str, recipe: str
) -> None:
    corpus = read_corpus(bob_user, kind)

    def recipe_at(query: str) -> str:
        return HtmlForm.of(bob.get(f"/jobs/new?{query}").text).value("recipe")

    assert recipe_at(f"corpus={corpus}") == recipe
    assert recipe_at(f"corpus={corpus}&recipe=tiny-t5") == "tiny-t5"
    assert recipe_at("corpus=nothing") == "tiny"


# ---- the plan of the form -------------------------------------------------------------------------------------------


def test_without_a_corpus_the_plan_asks_for_one_without_an_error(alice: TestClient) -> None:
    form = HtmlForm.of(alice.post("/jobs/plan", data=FORM).text)
    assert (form.has_plan, form.errors) == (False, {})
    assert form.note == "Choose a corpus to see what the job will cost."


def test_every_option_gives_the_same_verdict_in_plan_and_submission(alice: TestClient, corpus: str) -> None:
    factories.node()
    selects = HtmlForm.of(alice.get(f"/jobs/new?corpus={corpus}").text).options
    num_refused = 0
    for name, option in [(name, option) for name, options in selects.items() for option in options]:
        data = {**FORM, "corpora": corpus, name: option}
        planned = HtmlForm.of(alice.post("/jobs/plan", data=data).text)
        answer = alice.post("/jobs", data=data)
        assert planned.errors == HtmlForm.of(answer.text).errors, (name, option)
        assert bool(planned.errors) == (answer.status_code == 422)
        assert planned.has_plan or planned.errors, (name, option)
        assert option != "auto" or planned.has_plan, (name, planned.errors)
        num_refused += answer.status_code == 422
    assert num_refused > 0  # such as parameters offloaded without ZeRO


@pytest.mark.parametrize("name", ["per_device_batch_size", "vocab_size", "decay_steps"])
def test_auto_is_accepted_wherever_the_help_offers_it(alice: TestClient, corpus: str, name: str) -> None:
    factories.node()
    form = HtmlForm.of(alice.post("/jobs/plan", data={**FORM, "corpora": corpus, name: "auto"}).text)
    assert (form.has_plan, form.errors, form.value(name)) == (True, {}, "auto")


@pytest.mark.parametrize("language", ["en", "zh-CN"])
def test_a_proposal_prefills_the_fields_that_differ_from_its_recipe(
    alice: TestClient, corpus: str, language: str
) -> None:
    factories.node()
    data = {**FORM, "corpora": corpus, "hidden_size": "640", "proposal_seconds": "600"}
    answer = alice.post("/jobs/propose", data=data, headers={"Accept-Language": language})
    form = HtmlForm.of(answer.text)
    assert form.has_plan, form.errors
    assert form.value("hidden_size") not in ("", "640")
    assert form.value("tie_word_embeddings") == ""  # as the recipe has it
    assert form.value("proposal_seconds") == "600"
    assert alice.post("/jobs", data=form.sent).status_code == 303


def test_a_proposal_without_a_corpus_names_what_is_missing(alice: TestClient) -> None:
    assert "Choose at least one corpus." in alice.post("/jobs/propose", data=FORM).text


def test_what_does_not_fit_is_made_to_fit_by_a_button(alice: TestClient, corpus: str) -> None:
    large = {
        **FORM,
        "corpora": corpus,
        "hidden_size": "2048",
        "per_device_batch_size": "1024",
        "train_batch_size": "1024",
    }
    drawn = alice.post("/jobs/plan", data=large).text
    assert ("does not fit" in drawn, "Choose settings that fit" in drawn) == (True, True)
    changed = alice.post("/jobs/plan", data={**large, "fix": fix_of(drawn)}).text
    assert ("does not fit" in changed, ">fits<" in changed) == (False, True)
    assert int(HtmlForm.of(changed).value("per_device_batch_size")) < 1024
    assert HtmlForm.of(changed).value("hidden_size") == "2048"
    assert 'name="fix"' not in changed


def fix_of(page: str) -> str:
    """What the button of a plan sends."""
    button = re.search(r'<button[^>]*name="fix"[^>]*>', page)
    assert button is not None
    value = re.search(r'value="([^"]*)"', button[0])
    assert value is not None
    return unescape(value[1])


def test_what_fits_is_chosen_with_one_plan(alice: TestClient, corpus: str, monkeypatch: pytest.MonkeyPatch) -> None:
    factories.node()
    sizes = []
    plan = form_plan.make_plan

    def counted(session: Session, principal: Principal, form: SubmittedForm) -> FormPlan:
        sizes.append(form.fields["per_device_batch_size"])
        return plan(session, principal, form)

    monkeypatch.setattr(form_plan, "make_plan", counted)
    alice.post("/jobs/plan", data={**FORM, "corpora": corpus, "fix": "per_device_batch_size=8&unknown=1"})
    assert sizes == ["8"]


def test_a_vocabulary_that_the_text_may_not_yield_is_noted_and_one_that_was_counted_is_planned(
    alice: TestClient, alice_user: Person
) -> None:
    factories.node()
    corpus = factories.corpus(alice_user, text="In the beginning God created the heaven. " * 500, name="Vocabulary")
    data = {**FORM, "corpora": corpus, "vocab_size": "3000"}
    noted = alice.post("/jobs/plan", data=data).text
    assert ("The vocabulary has at most 3,000 tokens" in noted, HtmlForm.of(noted).errors) == (True, {})
    assert fix_of(noted) == "vocab_size=auto"
    fixed = HtmlForm.of(alice.post("/jobs/plan", data={**data, "fix": fix_of(noted)}).text)
    assert (fixed.has_plan, fixed.errors, fixed.value("vocab_size")) == (True, {}, "auto")
    job_id = factories.submitted(alice_user, corpus, vocab_size=1024)
    with db.transaction() as session:
        job = session.get_one(Job, job_id)
        job.facts = job.facts.model_copy(update={"vocab_size": 290, "num_tokens": 5_000})
    factories.end(job_id, None)
    for asked in ("3000", "1024", "auto"):
        counted = alice.post("/jobs/plan", data={**data, "vocab_size": asked}).text
        assert "The vocabulary has 290 tokens: an earlier job has counted" in counted
        assert re.search(r"<dt>Vocabulary</dt>\s*<dd[^>]*>290<", counted)
    assert "the limit was 1,024" in alice.get(f"/jobs/{job_id}").text
    with db.transaction() as session:
        job = session.get_one(Job, job_id)
        job.spec = job.spec.model_copy(update={"tokenizer": "another"})
    assert "the limit was" not in alice.get(f"/jobs/{job_id}").text, "the text did not decide it"


def test_the_note_on_a_short_text_names_a_vocabulary_that_is_possible(alice: TestClient, alice_user: Person) -> None:
    factories.node()
    corpus = factories.corpus(alice_user, text="In the beginning God created the heaven. " * 8, name="Little")
    noted = alice.post("/jobs/plan", data={**FORM, "corpora": corpus, "sequence_length": "16"}).text
    assert f"yields about {smallest_vocabulary('llama')}." in noted


def test_a_text_that_is_too_short_for_its_sequences_is_noted_or_refused_with_what_fits(
    alice: TestClient, alice_user: Person
) -> None:
    factories.node()
    text = "In the beginning God created the heaven and the earth, and the earth was void."
    corpus = factories.corpus(alice_user, text=text * 5, name="Short")
    data = {**FORM, "corpora": corpus}
    noted = alice.post("/jobs/plan", data={**data, "sequence_length": "128"}).text
    assert ("may have fewer tokens" in noted, HtmlForm.of(noted).has_plan) == (True, True)
    refused = alice.post("/jobs/plan", data={**data, "sequence_length": "512"}).text
    assert "sequence length of at most" in HtmlForm.of(refused).errors["sequence_length"]
    for answer in (noted, refused):
        assert fix_of(answer) == "sequence_length=32"
        fixed = alice.post("/jobs/plan", data={**data, "fix": fix_of(answer)}).text
        assert ("may have fewer tokens" in fixed, HtmlForm.of(fixed).has_plan) == (False, True)
    both = alice.post("/jobs/plan", data={**data, "sequence_length": "128", "vocab_size": "20000"}).text
    assert fix_of(both) == "vocab_size=auto&sequence_length=32"
    assert "Let the corpus size decide" not in both, "it changes more than that"


def test_a_text_whose_tokens_are_counted_is_said_to_be_too_short(alice: TestClient, alice_user: Person) -> None:
    factories.node()
    corpus = factories.corpus(alice_user, text="In the beginning God created the heaven. " * 500, name="Counted")
    job_id = factories.submitted(alice_user, corpus, vocab_size=1024)
    with db.transaction() as session:
        job = session.get_one(Job, job_id)
        job.facts = job.facts.model_copy(update={"vocab_size": 290, "num_tokens": 150})
    data = {**FORM, "corpora": corpus, "vocab_size": "1024", "sequence_length": "128"}
    noted = alice.post("/jobs/plan", data=data).text
    assert "The text has fewer tokens (150) than the job needs (257), so the job would end" in noted
    assert fix_of(noted) == "sequence_length=64"


@pytest.mark.parametrize("recipe", ["tiny", "tiny-bert", "tiny-t5"])
def test_the_length_that_a_refusal_names_is_accepted_and_the_next_one_is_not(
    alice: TestClient, alice_user: Person, recipe: str
) -> None:
    factories.node()
    corpus = factories.corpus(alice_user, text="In the beginning God created the heaven. " * 7, name="Short")
    data = {**FORM, "recipe": recipe, "corpora": corpus}
    refused = alice.post("/jobs/plan", data={**data, "sequence_length": "512"}).text
    largest = int(re.findall(r"at most (\d+)", HtmlForm.of(refused).errors["sequence_length"])[0])
    for length, is_refused in ((largest, False), (largest + 1, True)):
        answer = alice.post("/jobs/plan", data={**data, "sequence_length": str(length)}).text
        assert ("sequence_length" in HtmlForm.of(answer).errors) == is_refused


def test_a_corpus_that_the_recipe_cannot_use_is_deselected(alice: TestClient, corpus: str) -> None:
    form = HtmlForm.of(alice.post("/jobs/plan", data={**FORM, "recipe": "chat", "corpora": corpus}).text)
    assert "corpora" not in form.sent
    assert "corpora" in form.disabled


# ---- submitting -----------------------------------------------------------------------------------------------------


def test_a_form_sent_twice_creates_one_job(alice: TestClient, corpus: str) -> None:
    first = submit(alice, corpus, max_steps="9", warmup_steps="2")
    again = submit(alice, corpus, max_steps="9", warmup_steps="2")
    changed = submit(alice, corpus, max_steps="8", warmup_steps="2")
    assert first.status_code == 303
    assert again.headers["location"] == first.headers["location"] != changed.headers["location"]
    with db.transaction() as session:
        job = session.get(Job, first.headers["location"].rpartition("/")[2])
        assert job is not None
        assert (job.max_steps, job.spec.learning_rate, job.spec.corpora) == (9, 0.003, [corpus])


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"max_steps": "0"}, "Steps must be at least 1"),
        ({"max_steps": "many"}, "Steps must be a whole number"),
        ({"learning_rate": "-1"}, "Learning rate must be greater than 0"),
        ({"hidden_size": "130"}, "Hidden size must be a multiple of Attention heads (4), but is 130"),
        ({"corpora": ""}, "There is no corpus"),
        ({"corpora": "06e9x0c5m1n2p3q4"}, "There is no corpus 06e9x0c5m1n2p3q4, or it is not yours."),
        ({"sequence_length": "131072"}, "sequence length of at most"),
        ({"tokenizer": "06e9x0c5m1n2p3q4"}, "There is no tokenizer"),
        ({"name": "x" * 81}, "The name can have at most 80 characters"),
        ({"name": "a\0b"}, "invisible or control character (U+0000) at position 2"),
    ],
)
def test_errors_are_shown_at_their_fields_and_the_input_is_kept(
    alice: TestClient, corpus: str, fields: dict[str, str], sentence: str
) -> None:
    answer = submit(alice, corpus, **{"sample_prompt": "Once upon a time", **fields})
    assert answer.status_code == 422
    assert sentence in answer.text
    form = HtmlForm.of(answer.text)
    assert form.value("sample_prompt") == "Once upon a time"
    name, value = next(iter(fields.items()))
    assert any(sentence in error for error in (form.errors[name], form.note))
    if name in form.sent and "\0" not in value:
        assert form.value(name) == (value if name not in form.options else "")


def test_a_rejected_form_keeps_the_input_of_every_field(alice: TestClient, corpus: str) -> None:
    fresh = HtmlForm.of(alice.get(f"/jobs/new?corpus={corpus}").text)
    typed = {name: [options[-1]] for name, options in fresh.options.items() if options[-1]}
    typed |= {name: [f' typed <in> "{name}" '] for name in fresh.placeholders}
    typed |= {"recipe": ["tiny"], "corpora": [corpus], "validation_corpora": [corpus], "key": ["0" * 16]}
    typed |= {"search_sampler": [""]}  # errors in what a search tries come before those of its jobs
    answer = alice.post("/jobs", data=typed)
    assert answer.status_code == 422
    shown = HtmlForm.of(answer.text)
    assert shown.sent | {name: [""] for name in fresh.options if name not in typed} == shown.sent
    assert {name: shown.sent.get(name) for name in typed} == typed
    assert shown.errors["max_steps"] == "Steps must be a whole number"


def test_a_missing_corpus_is_reported_at_the_corpora(alice: TestClient) -> None:
    answer = alice.post("/jobs", data=FORM)
    assert answer.status_code == 422
    assert HtmlForm.of(answer.text).errors["corpora"] == "Choose at least one corpus."


def test_the_page_of_a_job_is_useful_without_scripts(alice: TestClient, job_id: str) -> None:
    text = alice.get(f"/jobs/{job_id}").text
    assert "&lt;i&gt;one&lt;/i&gt;" in text
    assert "<i>one</i>" not in text
    assert "Waiting for" in text
    assert "Submitted." in text
    assert "0.003" in text
    assert f'action="/jobs/{job_id}/cancel"' in text


def test_lists_filter_jobs_by_state(alice: TestClient, job_id: str) -> None:
    assert f"/jobs/{job_id}" in alice.get("/jobs").text
    assert f"/jobs/{job_id}" in alice.get("/jobs?show=active").text
    assert f"/jobs/{job_id}" not in alice.get("/jobs?show=ended").text
    assert f"/jobs/{job_id}" in alice.get("/").text


@pytest.mark.parametrize("method", ["get", "post"])
def test_another_user_cannot_see_or_cancel_a_job(bob: TestClient, job_id: str, method: str) -> None:
    path = f"/jobs/{job_id}" if method == "get" else f"/jobs/{job_id}/cancel"
    assert getattr(bob, method)(path).status_code == 404
    assert f"/jobs/{job_id}" not in bob.get("/jobs").text


def test_cancelling_returns_to_the_page_even_if_too_late(alice: TestClient, corpus: str) -> None:
    job_id = submit(alice, corpus, key="c" * 16).headers["location"].rpartition("/")[2]
    for _time in range(2):
        answer = alice.post(f"/jobs/{job_id}/cancel")
        assert (answer.status_code, answer.headers["location"]) == (303, f"/jobs/{job_id}")
    text = alice.get(f"/jobs/{job_id}").text
    assert 'data-state="cancelled"' in text
    assert verbs_offered(alice, job_id) == []
    assert 'name="action" value="delete"' in text


def test_pages_are_translated(alice: TestClient, job_id: str) -> None:
    chinese = {"Accept-Language": "zh-CN"}
    assert "训练损失" in alice.get(f"/jobs/{job_id}", headers=chinese).text
    assert "学习率" in alice.get("/jobs/new", headers=chinese).text
    answer = alice.post("/jobs", data={**FORM, "max_steps": "0"}, headers=chinese)
    assert "步数 不能小于 1" in answer.text


def test_the_page_of_nodes_works_without_nodes(alice: TestClient) -> None:
    with db.transaction() as session:
        session.execute(delete(Node))
    assert "athanor worker" in alice.get("/nodes").text


# ---- pausing, resuming, continuing ----------------------------------------------------------------------------------


def verbs_offered(client: TestClient, job_id: str) -> list[str]:
    """What the buttons at the head of a job's page do."""
    actions = client.get(f"/jobs/{job_id}").text.partition('id="part-actions"')[2].partition("<dialog")[0]
    return re.findall(rf'action="/jobs/{job_id}/(\w+)"', actions)


def test_a_job_is_paused_and_resumed_from_its_page(alice: TestClient, corpus: str) -> None:
    job_id = submit(alice, corpus, key="p" * 16).headers["location"].rpartition("/")[2]
    assert verbs_offered(alice, job_id) == ["pause", "cancel"]
    page = alice.get(f"/jobs/{job_id}").text
    assert "It saves a checkpoint, stops its processes and frees its GPU or slot." in page
    assert alice.post(f"/jobs/{job_id}/pause").headers["location"] == f"/jobs/{job_id}"
    assert 'data-state="paused"' in alice.get(f"/jobs/{job_id}").text
    assert verbs_offered(alice, job_id) == ["resume", "cancel"]
    assert alice.post(f"/jobs/{job_id}/resume").status_code == 303
    assert 'data-state="queued"' in alice.get(f"/jobs/{job_id}").text
    alice.post(f"/jobs/{job_id}/cancel")
    assert alice.post(f"/jobs/{job_id}/pause").status_code == 303  # it has ended: its page says so


@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_another_user_can_neither_pause_nor_resume_a_job(bob: TestClient, job_id: str, verb: str) -> None:
    assert bob.post(f"/jobs/{job_id}/{verb}").status_code == 404


@pytest.fixture(scope="module")
def ended(alice_user: Person) -> tuple[str, str]:
    """A job of Alice's that did all its 40 steps, and its checkpoint."""
    return factories.finished(alice_user, factories.corpus(alice_user, name="Genesis"), max_steps=40, name="the first")


def test_a_job_resumes_from_a_checkpoint_with_changed_fields(alice: TestClient, ended: tuple[str, str]) -> None:
    job_id, checkpoint_id = ended
    assert f'href="/jobs/new?from={checkpoint_id}"' in alice.get(f"/jobs/{job_id}").text
    text = alice.get(f"/jobs/new?from={checkpoint_id}").text
    assert "Train further from step 40" in text
    assert "the first" in text
    drawn = HtmlForm.of(text)
    assert (drawn.has_plan, drawn.value("max_steps")) == (True, "80")
    assert {"hidden_size", "model_type"} <= drawn.disabled
    assert "learning_rate" not in drawn.disabled
    assert not {"recipe", "tokenizer"} & {*drawn.sent, *drawn.disabled}
    form = {"key": "g" * 16, "resume_from_checkpoint": checkpoint_id, "max_steps": "60", "learning_rate": "0.001"}
    answer = alice.post("/jobs", data=form)
    assert answer.status_code == 303, answer.text
    child = alice.get(answer.headers["location"]).text
    assert f'<a href="/jobs/{job_id}">the first</a>' in child
    assert "Submitted to train further from step 40 of another job." in child
    assert f'href="/jobs/{job_id}"' in alice.get("/jobs").text
    assert "trained further" in alice.get("/jobs").text


def test_errors_of_a_continued_job_are_shown_at_their_fields(alice: TestClient, ended: tuple[str, str]) -> None:
    answer = alice.post("/jobs", data={"key": "w" * 16, "resume_from_checkpoint": ended[1], "max_steps": "40"})
    assert answer.status_code == 422
    assert "the checkpoint is already at step 40" in answer.text
    assert "Train further from step 40" in answer.text


def test_another_user_can_neither_continue_nor_copy_a_job(bob: TestClient, ended: tuple[str, str]) -> None:
    job_id, checkpoint_id = ended
    assert bob.get(f"/jobs/new?from={checkpoint_id}").status_code == 404
    assert bob.get(f"/jobs/new?like={job_id}").status_code == 404
    assert bob.post("/jobs", data={"resume_from_checkpoint": checkpoint_id}).status_code in (404, 422)


def test_a_copied_job_prefills_the_fields_that_differ_from_its_recipe(alice: TestClient, corpus: str) -> None:
    given = {"learning_rate": "0.002", "tie_word_embeddings": "false", "priority": "high", "name": "first one"}
    job_id = submit(alice, corpus, key="l" * 16, **given).headers["location"].rpartition("/")[2]
    form = HtmlForm.of(alice.get(f"/jobs/new?like={job_id}&max_steps=77").text)
    expected = {**given, "max_steps": "77", "corpora": corpus}
    assert {name: form.value(name) for name in expected} == expected


def test_a_failed_job_shows_the_reason_the_next_step_and_the_log_tail(alice: TestClient, alice_user: Person) -> None:
    job_id, fence = factories.started(alice_user, factories.corpus(alice_user))
    path = RunDir(storage.run(job_id)).log_path
    path.parent.mkdir(parents=True)
    path.write_text("step 29\n<b>ValueError</b>\n")
    values = {"series": "loss", "value": "nan", "step": 30}
    with db.transaction() as session:
        attempts.fail(session, job_id=job_id, fence=fence, code="nan_loss", values=values)
    text = alice.get(f"/jobs/{job_id}").text
    assert "The series loss became nan at step 30: training diverged." in text
    assert "half the learning rate" in text
    assert "step 29\n&lt;b&gt;ValueError&lt;/b&gt;" in text
    assert f'href="/jobs/new?like={job_id}"' in text
    assert "The series loss became nan" in alice.get("/jobs").text


def test_failures_and_recoveries_are_shown_on_the_page_of_a_job(alice: TestClient, alice_user: Person) -> None:
    factories.node()
    job_id, fence = factories.started(alice_user, factories.corpus(alice_user))
    failed = events.SaveFailedEvent(seq=1, at=1.0, step=20, free=3_250_586, needed=6_291_456, why="no space")
    factories.record(job_id, fence, [failed])
    assert "The checkpoint of step 20 was not saved: 3.1 MiB free, 6.0 MiB needed." in alice.get(f"/jobs/{job_id}").text
    with db.transaction() as session:
        attempts.release(session, job_id=job_id, fence=fence, reason="shutdown")
    with db.transaction() as session:
        dispatch.requeue_or_fail(session)
    factories.give_to(job_id, "ada")
    with db.transaction() as session:
        assert attempts.claim(session, job_id=job_id, node="ada")
    text = alice.get(f"/jobs/{job_id}").text
    assert "Recovered 1×: The node was shut down." in text
    assert "Attempt 2" in text
    assert text.index("Attempt 2") < text.index("Attempt 1")
    assert "已恢复 1 次" in alice.get(f"/jobs/{job_id}", headers={"Accept-Language": "zh-CN"}).text


def test_every_chart_has_its_own_colors() -> None:
    drawn = set(re.findall(r'chart\("(\w+)"', (ROOT / "templates/jobs/show.html").read_text()))
    options = (ROOT / "static/js/chart-options.js").read_text()
    assert drawn == set(re.findall(r"^  (\w+): \[", options[options.index("const COLORS") :], re.MULTILINE))


def test_a_job_that_ended_early_succeeded_and_says_why(alice: TestClient, alice_user: Person, corpus: str) -> None:
    for patience, last, sentence in (
        (3, 20, "Training ended after step 20, as 3 evaluations in a row brought no better validation loss."),
        (1, 20, "Training ended after step 20, as 1 evaluation brought no better validation loss."),
        (3, 40, "All steps are done."),
        (None, 40, "All steps are done."),
    ):
        fields = {"max_steps": 40, "early_stopping_patience": patience}
        job_id, fence = factories.started(alice_user, corpus, **fields)
        saved_checkpoints.recorded(job_id, last, fence)
        with db.transaction() as session:
            attempts.finish(session, job_id=job_id, fence=fence)
        assert factories.row(job_id).state == "succeeded"
        assert sentence in alice.get(f"/jobs/{job_id}").text


def test_the_spec_of_a_job_has_the_fields_that_it_uses(alice: TestClient, job_id: str) -> None:
    page = alice.get(f"/jobs/{job_id}").text
    assert '<dt title="base_model">Base model</dt><dd class="mono">–</dd>' in page
    assert '<dt title="learning_rate">' in page
    assert not any(f'<dt title="{name}">' in page for name in ("dpo_beta", "lora_rank", "noise_density", "decay_steps"))


def test_the_plan_of_a_continued_job_counts_the_steps_that_are_left(alice: TestClient, ended: tuple[str, str]) -> None:
    factories.node(slots=4)
    sentence = re.search(r"Steps: (\d+), evaluations", alice.get(f"/jobs/new?from={ended[1]}&max_steps=60").text)
    assert sentence is not None
    assert sentence[1] == "20"


def test_the_plan_shows_memory_as_earlier_jobs_correct_it(
    alice: TestClient, corpus: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    factories.node(slots=4)
    learned = {"num_earlier_jobs": 3, "memory_correction": 2.0, "time_correction": 1.0}
    monkeypatch.setattr(accuracy, "corrections", lambda *_: learned)
    page = alice.get(f"/jobs/new?corpus={corpus}").text
    heading = re.search(r'Memory of each process <span class="muted">([^<]+)<', page)
    assert heading is not None
    assert f"Each process needs about {heading[1]}" in page


def test_a_paused_job_has_no_time_left_and_no_current_phase(alice: TestClient, alice_user: Person, corpus: str) -> None:
    factories.node(slots=4)
    row, fence = factories.started(alice_user, corpus, max_steps=50)
    phase = events.PhaseEvent(seq=1, at=1.0, phase="train", done=2, total=50)
    factories.record(row, fence, [phase, *factories.losses([5.0, 4.0], first_seq=2)])
    assert 'data-status="now"' in alice.get(f"/jobs/{row}").text
    with db.transaction() as session:
        for state in ("pausing", "paused"):
            session.execute(update(Job).where(Job.id == row).values(state=state))
    page = alice.get(f"/jobs/{row}").text
    assert 'data-status="now"' not in page
    assert " left</span>" not in page
