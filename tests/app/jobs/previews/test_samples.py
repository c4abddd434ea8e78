"""The samples of a job that is not submitted: over REST and from the form, and why there are none."""

from pathlib import Path

import pytest
from sqlalchemy import func, select
from starlette.testclient import TestClient

from app.core import db, storage
from app.core.models import Job
from app.jobs.attempts.effective_spec import effective_spec
from app.jobs.previews import samples
from tests.app.corpora.test_versions import joined
from tests.app.jobs import factories
from tests.users import Person
from trainer.datasets import prepare
from trainer.datasets.batch_view import view_batch
from trainer.report import Reporter
from trainer.run_dir import CorpusInput, Inputs, RunDir

FIELDS = {"train_batch_size": 12, "per_device_batch_size": 4, "max_steps": 9, "warmup_steps": 0, "sequence_length": 32}
CASES = Path(__file__).parents[3] / "fixtures/cases/data"
TEXT = "In the beginning God created the heaven and the earth. And the earth was <b>without form</b>, and void.\n" * 60


@pytest.fixture(scope="module")
def corpus(alice_user: Person) -> str:
    return factories.corpus(alice_user, text=TEXT)


def test_they_are_those_of_the_job(alice_api: TestClient, alice_user: Person, corpus: str, tmp_path: Path) -> None:
    answer = alice_api.post("/api/v1/jobs/samples?step=3&first=2&count=2", json={"corpora": [corpus], **FIELDS})
    assert answer.status_code == 200, answer.text
    shown = answer.json()

    job_id = factories.submitted(alice_user, corpus, **FIELDS)
    with db.transaction() as session:
        spec = effective_spec(session.get_one(Job, job_id))
    run_dir = RunDir(tmp_path / "run")
    run_dir.path.mkdir()
    source = CorpusInput(id=corpus, path=str(storage.corpus(corpus)), sha256="0" * 64)
    run_dir.create(spec, Inputs(corpora=[source], cache=str(tmp_path / "cache")), fence=1)
    prepare.prepare(run_dir, 1, Reporter(None))
    view = view_batch(run_dir, 3, 2, 2)

    assert (shown["is_complete"], shown["num_documents"]) == (True, [1])
    assert shown["batch"]["num_learned"] == view.num_learned
    for sample, other in zip(shown["batch"]["samples"], view.samples, strict=True):
        assert [token["id"] for token in sample["segments"][0]["tokens"]] == [
            token.id for token in other.segments[0].tokens
        ]


def test_validation_corpora_are_read_too(alice_api: TestClient, alice_user: Person, corpus: str) -> None:
    other = factories.corpus(alice_user, text=TEXT)
    fields = {"corpora": [corpus], "validation_corpora": [other], "validation_fraction": 0, **FIELDS}
    answer = alice_api.post("/api/v1/jobs/samples", json=fields)
    assert answer.status_code == 200, answer.text
    assert answer.json()["num_validation"] > 0


def test_nothing_is_submitted_and_nothing_stays(
    alice: TestClient, corpus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with db.transaction() as session:
        before = session.scalar(select(func.count()).select_from(Job))
    sent = {"recipe": "tiny", "corpora": corpus, **{name: str(value) for name, value in FIELDS.items()}}
    page = alice.post("/jobs/samples?step=2", data=sent)
    assert page.status_code == 200, page.text
    main = page.text.partition("<main")[2]
    assert "Sample 8 of 12" in main
    assert 'data-role="learned"' in main
    assert "the job will read exactly these samples" in main
    assert "<b>without" not in main, "the text of a corpus is text"
    assert f'name="corpora" value="{corpus}"' in main  # for the next step
    with db.transaction() as session:
        assert session.scalar(select(func.count()).select_from(Job)) == before
    assert not list(tmp_path.iterdir())


def test_of_a_large_corpus_a_part_is_read(
    alice: TestClient, alice_api: TestClient, corpus: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples, "READ_BYTES", 4_000)
    answer = alice_api.post("/api/v1/jobs/samples", json={"corpora": [corpus], **FIELDS})
    assert answer.json()["is_complete"] is False
    page = alice.post("/jobs/samples", data={"recipe": "tiny", "corpora": corpus, "sequence_length": "32"}).text
    assert "Only a part of the corpora was read" in page


@pytest.mark.parametrize(
    ("fields", "code", "said"),
    [
        ({"sequence_length": 4096, "max_steps": 9}, None, "sequence"),
        ({"train_batch_size": 0}, "spec_invalid", "train_batch_size"),
        ({"corpora": ["nothing"]}, "corpus_unknown", "There is no corpus nothing"),
    ],
)
def test_what_does_not_fit_is_said(
    alice_api: TestClient, corpus: str, fields: dict[str, object], code: str | None, said: str
) -> None:
    answer = alice_api.post("/api/v1/jobs/samples", json={"corpora": [corpus], **FIELDS, **fields})
    assert answer.status_code == 422, answer.text
    assert code in (None, answer.json()["code"])
    assert said in answer.text


def test_a_failure_of_the_preparation_is_said_like_that_of_a_job(
    alice: TestClient, alice_user: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.jobs.planning.text_limits.check_size", lambda spec, corpora: None)
    short = factories.corpus(alice_user, text="In the beginning God created the heaven and the earth.\n")
    page = alice.post("/jobs/samples", data={"recipe": "tiny", "corpora": short, "sequence_length": "2048"})
    assert page.status_code == 422
    assert "reduce the sequence length" in page.text.partition("<main")[2]


def test_records_that_are_cut_or_left_out_are_named_and_the_tail_is_counted(
    alice: TestClient, alice_api: TestClient
) -> None:
    corpus = joined(alice, {"D12-long.jsonl": (CASES / "D12-long.jsonl").read_bytes()})["id"]
    fields = {"recipe": "chat", "objective": "chat", "sequence_length": 64, "vocab_size": 300, "packing": False}
    answer = alice_api.post("/api/v1/jobs/samples", json={**FIELDS, **fields, "corpora": [corpus]}).json()
    assert answer["num_cut"] + answer["num_dropped"] > 0
    assert {remark["corpus"] for remark in answer["remarks"]} == {corpus}
    assert {remark["kind"] for remark in answer["remarks"]} <= {"cut", "empty"}
    cut = [segment["num_cut"] for sample in answer["batch"]["samples"] for segment in sample["segments"]]
    assert max(cut) > 0
    sent = {"recipe": "chat", "corpora": corpus, "sequence_length": "64", "vocab_size": "300"}
    page = alice.post("/jobs/samples", data=sent).text
    assert "more tokens are cut off: the sequence is full." in page
    assert f'href="/corpora/{corpus}?start={answer["remarks"][0]["record"] - 1}#documents"' in page
    assert answer["remarks"][0]["message"] in page


def test_others_corpora_are_not_read(bob: TestClient, corpus: str) -> None:
    assert bob.post("/jobs/samples", data={"recipe": "tiny", "corpora": corpus}).status_code == 422
