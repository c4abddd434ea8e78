"""Jobs that start from a model: what that fixes, what it refuses, and that it stays as long as a job needs it."""

import json
from typing import Any

import pytest
from sqlalchemy import update
from starlette.testclient import TestClient

from app.checkpoints import retention_reasons
from app.core import db, storage
from app.core.errors import PanelError
from app.core.json_shapes import ModelFacts
from app.core.models import Checkpoint, ImportedModel
from app.jobs import service
from app.jobs.attempts import attempts
from app.jobs.planning import base_model
from tests.app.jobs import factories
from tests.users import Person
from trainer.families import NETWORK_FIELDS

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "num_hidden_layers": 2,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": False,
    "vocab_size": 300,
    "context": 64,
}
BERT = {**LLAMA, "model_type": "bert", "num_key_value_heads": 4, "tie_word_embeddings": True}
T5 = {**BERT, "model_type": "t5", "context": None}


@pytest.fixture(scope="module")
def corpus(alice_user: Person) -> str:
    factories.node(slots=50)
    return factories.corpus(alice_user)


def model(owner: Person, facts: dict[str, Any] = LLAMA, state: str = "ready") -> str:
    """Create an imported model; returns its ID."""
    files = [{"name": "config.json", "size": 2, "sha256": "0" * 64}]
    with db.transaction() as session:
        row = ImportedModel(owner_id=owner.id, name="Tiny", source="upload", state=state, facts=facts, files=files)
        session.add(row)
        session.flush()
        return row.id


def checkpoint(owner: Person, corpus_id: str, **config: Any) -> str:
    """Create a checkpoint of a finished job with its configuration on disk; returns its ID."""
    _job, checkpoint_id = factories.finished(owner, corpus_id, max_steps=1, vocab_size=300, warmup_steps=0)
    with db.transaction() as session:
        path = storage.checkpoint(session.get_one(Checkpoint, checkpoint_id).path)
    path.mkdir(parents=True)
    found = {"model_type": "llama", "vocab_size": 300, "max_position_embeddings": 128, **config}
    (path / "config.json").write_text(json.dumps(found))
    return checkpoint_id


def resolved(owner: Person, **fields: Any) -> service.ResolvedRequest:
    with db.transaction() as session:
        return service.resolve_request(session, principal=owner.principal, request=fields)


def refusal(owner: Person, **fields: Any) -> tuple[str, str]:
    """The field that is wrong, and why."""
    with pytest.raises(PanelError) as caught:
        resolved(owner, **fields)
    assert caught.value.status == 422
    return caught.value.fields[0].field, caught.value.message


def test_a_model_determines_the_network_and_the_tokenizer(alice_user: Person, corpus: str) -> None:
    request = resolved(alice_user, corpora=[corpus], base_model=model(alice_user))
    spec = request.spec.model_dump()
    assert {name: spec[name] for name in NETWORK_FIELDS} == {name: LLAMA.get(name) for name in NETWORK_FIELDS}
    assert (spec["vocab_size"], spec["tokenizer"], spec["objective"], spec["recipe"]) == (300, None, "causal", "tiny")
    assert spec["sequence_length"] == 64  # the recipe's 128 are more than the model reads
    assert (request.vocab_size, request.plan.num_parameters) == (300, 34_720)


def test_positions_beyond_the_sequence_length_are_counted(alice_user: Person, corpus: str) -> None:
    heads = {"num_key_value_heads": 4, "tie_word_embeddings": True}
    facts = {**LLAMA, **heads, "model_type": "gpt2", "num_parameters": 37_120}
    request = resolved(alice_user, corpora=[corpus], base_model=model(alice_user, facts), sequence_length=16)
    assert request.plan.num_parameters == 37_120


def test_a_checkpoint_determines_the_network_and_the_tokenizer(alice_user: Person, corpus: str) -> None:
    base_id = checkpoint(alice_user, corpus)
    spec = resolved(alice_user, corpora=[corpus], base_model=base_id, max_steps=3, warmup_steps=0).spec
    assert (spec.hidden_size, spec.vocab_size, spec.sequence_length, spec.base_model) == (128, 300, 128, base_id)


@pytest.mark.parametrize(
    ("facts", "asked", "expected"),
    [
        (LLAMA, {}, ("causal", "tiny")),
        (LLAMA, {"objective": "chat"}, ("chat", "chat")),
        (LLAMA, {"recipe": "chat"}, ("chat", "chat")),
        (LLAMA, {"recipe": "tiny-bert", "objective": "completion"}, ("completion", "tiny-bert")),
        (BERT, {}, ("masked", "tiny-bert")),
        (BERT, {"objective": "classification"}, ("classification", "classifier")),
        (T5, {}, ("span_corruption", "tiny-t5")),
        (T5, {"recipe": "seq2seq"}, ("seq2seq", "seq2seq")),
    ],
)
def test_the_objective_follows_the_family_unless_specified(
    alice_user: Person, facts: dict[str, Any], asked: dict[str, Any], expected: tuple[str, str]
) -> None:
    base = base_model.StartingPoint("x", ModelFacts(**facts))
    filled = base_model.with_base_defaults({"base_model": "x", **asked}, base)
    assert (filled["objective"], filled["recipe"]) == expected


CONTRADICTIONS: list[tuple[dict[str, Any], str, str]] = [
    ({"hidden_size": 64}, "hidden_size", "hidden_size is 64, but 32 in the base model."),
    ({"model_type": "gpt2"}, "model_type", "model_type is gpt2, but llama in the base model."),
    ({"tie_word_embeddings": True}, "tie_word_embeddings", "tie_word_embeddings is True, but"),
    ({"vocab_size": 400}, "vocab_size", "vocab_size is 400, but 300 in the base model."),
    ({"tokenizer": "x"}, "tokenizer", "A job with a base model uses the tokenizer of that model."),
    (
        {"sequence_length": 65},
        "sequence_length",
        "sequence_length is 65, but the context of the base model is 64",
    ),
    (
        {"objective": "masked"},
        "objective",
        "A llama model cannot be trained with the objective masked. Use one of: chat,",
    ),
    ({"recipe": "seq2seq"}, "objective", "A llama model cannot be trained with the objective seq2seq."),
]


@pytest.mark.parametrize(("asked", "field", "sentence"), CONTRADICTIONS, ids=[str(case[0]) for case in CONTRADICTIONS])
def test_a_value_that_contradicts_the_model_is_rejected_at_its_field(
    alice_user: Person, corpus: str, asked: dict[str, Any], field: str, sentence: str
) -> None:
    found = refusal(alice_user, corpora=[corpus], base_model=model(alice_user), **asked)
    assert (found[0], found[1].startswith(sentence)) == (field, True), found


def test_the_same_values_may_be_repeated(alice_user: Person, corpus: str) -> None:
    base_id = model(alice_user)
    first = resolved(alice_user, corpora=[corpus], base_model=base_id).spec
    assert resolved(alice_user, **first.model_dump()).spec == first


def test_a_job_resumes_from_its_checkpoint_with_the_same_base(alice_user: Person, corpus: str) -> None:
    base_id = model(alice_user)
    _job, saved = factories.finished(alice_user, corpus, base_model=base_id, max_steps=2, warmup_steps=0)
    spec = resolved(alice_user, resume_from_checkpoint=saved, max_steps=4).spec
    assert (spec.base_model, spec.hidden_size, spec.tokenizer, spec.max_steps) == (base_id, 32, None, 4)
    other = refusal(alice_user, resume_from_checkpoint=saved, max_steps=4, base_model=model(alice_user))
    assert other[0] == "base_model"


def test_a_missing_or_unready_model_is_rejected(alice_user: Person, bob_user: Person, corpus: str) -> None:
    given = {"corpora": [corpus]}
    for unknown in ("x", model(bob_user)):
        assert refusal(alice_user, **given, base_model=unknown) == (
            "base_model",
            f"No checkpoint or imported model has the ID {unknown}.",
        )
    unready = model(alice_user, state="failed")
    assert refusal(alice_user, **given, base_model=unready)[1].startswith("The model “Tiny” is not ready.")
    gone = checkpoint(alice_user, corpus)
    with db.transaction() as session:
        session.execute(update(Checkpoint).where(Checkpoint.id == gone).values(state="deleted"))
    assert refusal(alice_user, **given, base_model=gone)[0] == "base_model"


def test_a_checkpoint_used_by_a_job_is_kept(alice_user: Person, corpus: str) -> None:
    base_id = checkpoint(alice_user, corpus)
    with db.transaction() as session:
        job_id = session.get_one(Checkpoint, base_id).job_id

    def why() -> list[str]:
        with db.transaction() as session:
            return retention_reasons.reasons(session, [job_id])[base_id]

    assert "origin" not in why()
    started = factories.submitted(alice_user, corpus, base_model=base_id, max_steps=3, warmup_steps=0)
    assert "origin" in why()
    with db.transaction() as session:
        service.cancel(session, principal=alice_user.principal, job_id=started)
    assert "origin" not in why()


@pytest.mark.parametrize("what", ["checkpoints", "jobs"])
@pytest.mark.parametrize("field", ["base_model", "resume_from_checkpoint"])
def test_a_checkpoint_that_is_moved_to_the_trash_meanwhile_is_not_used(
    alice: TestClient, alice_user: Person, corpus: str, monkeypatch: pytest.MonkeyPatch, what: str, field: str
) -> None:
    checkpoint_id = checkpoint(alice_user, corpus)
    with db.transaction() as session:
        row_id = checkpoint_id if what == "checkpoints" else session.get_one(Checkpoint, checkpoint_id).job_id
    seen = base_model.visible

    def visible_and_then_deleted(*args: Any, **kwargs: Any) -> Any:
        row = seen(*args, **kwargs)
        assert alice.delete(f"/api/v1/{what}/{row_id}").status_code == 204
        return row

    monkeypatch.setattr(base_model, "visible", visible_and_then_deleted)
    named, message = refusal(alice_user, corpora=[corpus], max_steps=9, warmup_steps=0, **{field: checkpoint_id})
    assert (named, message.startswith("This is in the trash.")) == (field, True)


def test_a_model_used_by_a_job_is_kept(alice: TestClient, alice_user: Person, corpus: str) -> None:
    base_id = model(alice_user)
    factories.submitted(alice_user, corpus, base_model=base_id)
    assert alice.delete(f"/api/v1/models/{base_id}").json()["code"] == "model_in_use"


def test_an_attempt_gets_the_path_of_its_model(alice_user: Person, corpus: str) -> None:
    for base_id, path in ((model(alice_user), "base_models/"), (checkpoint(alice_user, corpus), "runs/")):
        job_id, fence = factories.started(alice_user, corpus, base_model=base_id, max_steps=3, warmup_steps=0)
        with db.transaction() as session:
            work = attempts.assignment(session, job_id=job_id, fence=fence)
        assert work is not None
        assert work.base is not None
        assert work.base.path.startswith(path)
        assert not any(name.startswith("resume/") for name in work.base.files)


# ---- the form -------------------------------------------------------------------------------------------------------


def test_the_form_offers_models_and_checkpoints(alice: TestClient, alice_user: Person, corpus: str) -> None:
    base_id, saved = model(alice_user), checkpoint(alice_user, corpus)
    text = alice.get("/jobs/new").text
    assert f'<option value="{base_id}" >Tiny · llama' in text
    assert '<optgroup label="Trained models: tiny">' in text
    assert f'<option value="{saved}" >step 1 · llama' in text
    chosen = alice.get(f"/jobs/new?base_model={base_id}").text
    assert f'<option value="{base_id}" selected>' in chosen
    assert '<input type="radio" name="recipe" value="chat" checked' in chosen
    assert "Set by the base model." in chosen


def test_a_form_with_a_model_creates_a_job_that_starts_from_it(
    alice: TestClient, alice_user: Person, corpus: str
) -> None:
    base_id = model(alice_user)
    form = {"recipe": "tiny", "base_model": base_id, "corpora": corpus, "key": base_id}
    answer = alice.post("/jobs", data=form)
    assert answer.status_code == 303, answer.text
    spec = factories.row(answer.headers["location"].rpartition("/")[2]).spec
    assert (spec.base_model, spec.hidden_size) == (base_id, 32)
    page = alice.get(answer.headers["location"]).text
    assert f'<a href="/models/{base_id}">Tiny</a>' in page


def test_a_recipe_that_does_not_fit_the_model_is_rejected_with_a_message(
    alice: TestClient, alice_user: Person, corpus: str
) -> None:
    form = {"recipe": "tiny-bert", "base_model": model(alice_user), "corpora": corpus}
    answer = alice.post("/jobs", data=form)
    assert answer.status_code == 422
    assert "cannot be trained with the objective masked" in answer.text
