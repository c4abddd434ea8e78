"""Evaluations of several models and their scores side by side, on pages and in the API."""

import json
from datetime import UTC, datetime
from itertools import count
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.checkpoints.usable_models import offered_models
from app.core import db
from app.core.json_shapes import CorpusScores, TaskOptions, TaskResult
from app.core.model_base import new_id
from app.core.models import BackgroundTask, Corpus, ImportedModel
from app.evaluations import score_plot, service
from app.evaluations.service import CorpusComparison
from tests import statements, users
from tests.app.jobs import factories, saved_checkpoints
from tests.app.playground.conftest import StoredCheckpoint
from tests.background import forget_waiting, run_waiting
from tests.users import Person

HEADERS = {"Origin": "http://localhost"}
_NUMBERS = count()
FORM = {"limit": "50", "num_fewshot": "0", "max_tokens": "16", "judge": ""}


def upload(api: TestClient, name: str, kind: str, records: list[dict[str, Any]]) -> str:
    """Upload records as a corpus and parse it; returns its ID."""
    body = "".join(f"{json.dumps(record)}\n" for record in records)
    query = {"filename": f"{name}.jsonl", "name": name, "kind": kind}
    answer = api.post("/api/v1/corpora", params=query, content=body.encode())
    assert answer.status_code == 201, answer.text
    corpus_id: str = answer.json()["id"]
    run_waiting()
    return corpus_id


@pytest.fixture(scope="module")
def scored(alice_user: Person, checkpoint: StoredCheckpoint) -> str:
    """A corpus on which the checkpoint and an imported model were evaluated; returns its ID."""
    corpus_id = factories.corpus(alice_user, name="Choices")
    with db.transaction() as session:
        session.get_one(Corpus, corpus_id).kind = "multiple_choice"
        model = ImportedModel(owner_id=alice_user.id, name="elsewhere", source="upload", state="ready")
        session.add(model)
        session.flush()
        for subject, accuracy in (({"checkpoint_id": checkpoint.id}, 0.25), ({"model_id": model.id}, 0.75)):
            for share in (0.5, accuracy):  # the newer one counts
                session.add(evaluated(alice_user, corpus_id, share, **subject))
                session.flush()
        session.add(evaluated(alice_user, corpus_id, 0.5, num_fewshot=2, checkpoint_id=checkpoint.id))
    return corpus_id


def evaluated(owner: Person, corpus_id: str, share: float, *, num_fewshot: int = 0, **subject: str) -> BackgroundTask:
    """An evaluation that has succeeded, as its worker stored it."""
    scores = CorpusScores(
        corpus=corpus_id,
        kind="multiple_choice",
        num_documents=40,
        metrics={"acc": share},
        intervals={"acc": (share - 0.1, share + 0.1)},
        baselines={"acc": 0.25},
    )
    return BackgroundTask(
        id=f"{new_id()[:9]}{next(_NUMBERS):07}",  # in order, though several are made in a millisecond
        owner_id=owner.id,
        kind="evaluation",
        options=TaskOptions(corpora=[corpus_id], limit=200, num_fewshot=num_fewshot),
        state="succeeded",
        result=TaskResult(corpora=[scores]),
        finished_at=datetime.now(UTC),
        **subject,
    )


# ---- scores ---------------------------------------------------------------------------------------------------------


def test_models_are_offered_with_as_many_queries_however_many_there_are(checkpoint: StoredCheckpoint) -> None:
    carol = users.enter("Carol", "member")
    numbers, offered = [], []
    for num_more in (2, 30):
        saved_checkpoints.add_copies(checkpoint.id, carol, num_more)
        with statements.record() as queries, db.transaction() as session:
            offered = offered_models(session, principal=carol.principal)
        numbers.append(len(queries))
    assert len(offered) == 32
    assert numbers[0] == numbers[1]


def comparisons(user: Person) -> list[CorpusComparison]:
    with db.transaction() as session:
        return service.comparisons(session, principal=user.principal)[0]


def test_the_newest_scores_with_the_same_settings_stand_side_by_side(
    alice_user: Person, bob_user: Person, scored: str
) -> None:
    with_examples, plain = comparisons(alice_user)

    assert (with_examples.num_fewshot, [score.value for score in with_examples.scores]) == (2, [0.5])
    assert plain.scores[0].model.name == "elsewhere"
    assert [score.value for score in plain.scores] == [0.75, 0.25]
    assert (plain.corpus_name, plain.metric, plain.baseline) == ("Choices", "acc", 0.25)
    assert comparisons(bob_user) == []


def test_scores_are_answered_and_drawn(
    alice: TestClient, alice_api: TestClient, bob_api: TestClient, scored: str
) -> None:
    answer = alice_api.get("/api/v1/evaluations").json()["data"][1]
    assert (answer["corpus"], answer["baseline"]) == (scored, 0.25)
    assert (answer["scores"][0]["low"], answer["scores"][0]["high"]) == (0.65, 0.85)
    assert bob_api.get("/api/v1/evaluations").json() == {"data": [], "next": None}
    page = alice.get("/evaluations").text
    assert "75.0 %" in page
    assert "65.0 % – 85.0 %" in page
    assert '<line class="baseline" x1="25.0" x2="25.0"' in page
    assert "Chance" in page


def test_evaluations_are_searched_by_model_and_corpus(alice: TestClient, alice_api: TestClient, scored: str) -> None:
    def models(search: str) -> list[str]:
        data = alice_api.get("/api/v1/evaluations", params={"q": search}).json()["data"]
        return [score["name"] for comparison in data for score in comparison["scores"]]

    everything = models("")
    assert models("ELSE") == ["elsewhere"]
    assert models("choic") == everything
    assert len(everything) == 3
    assert models("%") == models("nothing like it") == []
    page = alice.get("/evaluations?q=ELSE").text
    assert ("75.0 %" in page, "50.0 %" in page, 'value="ELSE"' in page) == (True, False, True)
    assert "Nothing matches" in alice.get("/evaluations?q=nobody").text


def test_older_evaluations_are_on_further_pages(
    alice: TestClient, alice_api: TestClient, alice_user: Person, scored: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def values(after: str) -> tuple[list[float], str | None]:
        answer = alice_api.get(f"/api/v1/evaluations?limit=2{after}").json()
        return [score["value"] for one in answer["data"] for score in one["scores"]], answer["next"]

    newest, second = values("")
    older, third = values(f"&after={second}")
    oldest, end = values(f"&after={third}")
    assert (newest, sorted(older), oldest, end) == ([0.5, 0.75], [0.25, 0.5], [0.5], None)

    assert "Older evaluations" not in alice.get("/evaluations").text
    monkeypatch.setattr(service.comparisons, "__kwdefaults__", {**service.comparisons.__kwdefaults__, "limit": 2})
    page = alice.get("/evaluations").text
    assert (f"/evaluations?after={second}" in page, "65.0 % – 85.0 %" in page, "15.0 % – 35.0 %" in page) == (
        True,
        True,
        False,
    )
    assert "There is nothing further." in alice.get("/evaluations?after=0").text


def test_the_axis_holds_every_score_and_the_baseline(alice_user: Person, scored: str) -> None:
    comparison = comparisons(alice_user)[1]
    assert score_plot.axis(comparison) == score_plot.ScoreAxis(0.0, 1.0)

    bits = score_plot.axis(_as_bits(comparison))

    assert bits.low < 0.15 < 0.85 < bits.high
    assert bits.place(bits.low) == 0
    assert bits.place(bits.high) == 100
    assert bits.place(99.0) == 100


def _as_bits(comparison: CorpusComparison) -> CorpusComparison:
    return CorpusComparison(**{**vars(comparison), "metric": "bits_per_byte"})


def test_only_settings_that_matter_to_the_kind_separate_scores(
    alice_user: Person, checkpoint: StoredCheckpoint, scored: str
) -> None:
    model_id = comparisons(alice_user)[1].scores[0].model.id
    measured = {"num_documents": 9, "metrics": {"bits_per_byte": 1.5, "right": 0.5}, "examples": [{"text": "long"}]}

    def shown(kind: str, *options: dict[str, Any]) -> list[tuple[int, int, int | None, str | None]]:
        corpus_id = factories.corpus(alice_user, name=kind)
        with db.transaction() as session:
            for subject, these in zip(({"model_id": model_id}, {"checkpoint_id": checkpoint.id}), options, strict=True):
                task = evaluated(alice_user, corpus_id, 0.5, **subject)
                task.options = TaskOptions(corpora=[corpus_id], **these)
                task.result = TaskResult(corpora=[CorpusScores(corpus=corpus_id, kind=kind, **measured)])
                session.add(task)
                session.flush()
        groups = [one for one in comparisons(alice_user) if one.corpus_id == corpus_id]
        return [(len(one.scores), one.num_fewshot, one.max_tokens, one.judge_name) for one in groups]

    differing = {"limit": 50, "num_fewshot": 2, "max_tokens": 64, "judge": model_id}
    plain = {"limit": 200, "num_fewshot": 0, "max_tokens": 128}
    assert shown("text", plain, differing) == [(2, 0, None, "")]
    assert shown("questions", plain, {**plain, "limit": None}) == [(2, 0, 128, "")]
    assert shown("questions", plain, {**plain, "max_tokens": 64}) == [(1, 0, 64, ""), (1, 0, 128, "")]
    assert shown("questions", {**plain, "judge": "gone"}, {**plain, "judge": model_id}) == [
        (1, 0, 128, "elsewhere"),
        (1, 0, 128, ""),
    ]
    with db.transaction() as session:
        ids, _cursor = service._newest_evaluations(session, alice_user.principal, "", service.MAX_TASKS, None)
        assert all(row.scores.examples == [] for row in service._scores(session, ids))


# ---- starting -------------------------------------------------------------------------------------------------------


def test_questions_are_asked_of_a_trained_model(
    alice: TestClient, alice_api: TestClient, alice_user: Person, checkpoint: StoredCheckpoint
) -> None:
    forget_waiting()
    records = [
        {"question": "In the beginning the furnace was", "answer": "cold", "check": "contains"},
        {"question": "In the beginning the furnace was", "answer": "hot", "check": "contains"},
        {"question": "She fed it", "answer": "^charcoal", "check": "regex"},
    ]
    corpus_id = upload(alice_api, "Furnace", "questions", records)
    stored = alice_api.get(f"/api/v1/corpora/{corpus_id}").json()
    assert (stored["kind"], stored["labels"]) == ("questions", {"contains": 2, "regex": 1})
    page = alice.get(f"/evaluations?model={checkpoint.id}").text
    assert f'value="{checkpoint.id}" checked' in page

    answer = alice.post(
        "/evaluations",
        data={**FORM, "models": [checkpoint.id], "corpora": [corpus_id]},
        headers=HEADERS,
        follow_redirects=False,
    )
    assert (answer.status_code, answer.headers["location"]) == (303, "/evaluations#results")
    assert "data-busy" in alice.get("/evaluations?part=results").text
    run_waiting()

    newest = comparisons(alice_user)[0]
    assert (newest.corpus_id, newest.limit) == (corpus_id, 50)
    assert newest.scores[0].value == pytest.approx(2 / 3)  # it knows its text by heart
    assert newest.baseline == pytest.approx(1 / 3)
    assert "Right answers" in alice.get(f"/tasks/{newest.scores[0].task_id}").text
    assert "data-busy" not in alice.get("/evaluations?part=results").text


def test_what_does_not_fit_is_refused_at_its_field_and_starts_nothing(
    alice: TestClient, alice_api: TestClient, checkpoint: StoredCheckpoint, scored: str
) -> None:
    forget_waiting()
    judged = upload(alice_api, "Judged", "questions", [{"question": "?", "answer": "x", "check": "judge"}])

    def refusal(**changes: Any) -> str:
        form = {**FORM, "models": [checkpoint.id], "corpora": [scored], **changes}
        answer = alice.post("/evaluations", data=form, headers=HEADERS)
        assert answer.status_code == 422
        return answer.text

    assert "Choose from 1 to 16 models." in refusal(models=[])
    assert "Choose at least one corpus." in refusal(corpora=[])
    assert "Examples before each question must be at most 32" in refusal(num_fewshot="99")
    assert "There is nothing here" in refusal(models=[checkpoint.id, "nope"])
    assert "answers a model judges" in refusal(corpora=[judged])
    assert "There is nothing here" in refusal(corpora=[judged], judge="nope")
    assert run_waiting() == 0


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        ({"question": "?", "answer": "x", "check": "fuzzy"}, "“fuzzy” is no way to check an answer"),
        ({"question": "?", "answer": "many", "check": "number"}, "“answer” must be a number"),
        ({"question": "?", "answer": "1", "check": "number", "tolerance": "-1"}, "“answer” must be a number"),
        ({"question": "?", "answer": "(", "check": "regex"}, "“(” is not a regular expression"),
        ({"question": "?", "answer": [], "check": "exact"}, "“answer” must be a text, a number"),
        ({"question": " ", "answer": "x", "check": "exact"}, "question"),
    ],
)
def test_questions_that_cannot_be_checked_are_bad_lines(
    alice_api: TestClient, record: dict[str, Any], sentence: str
) -> None:
    forget_waiting()
    corpus_id = upload(alice_api, "Bad", "questions", [{"question": "?", "answer": 4, "check": "number"}, record])

    stored = alice_api.get(f"/api/v1/corpora/{corpus_id}").json()

    assert stored["state"] == "failed"
    assert stored["problems"][0]["line"] == 2
    assert sentence in stored["problems"][0]["message"]
