"""The samples of a training step over REST and on their page, from tokens as the trainer prepares them."""

import shutil

import pytest
from starlette.testclient import TestClient

from app.core import db, storage
from app.core.models import Job
from app.jobs.attempts.effective_spec import effective_spec
from tests.app.jobs import factories
from tests.users import Person
from trainer.datasets import prepare
from trainer.datasets.batch_view import view_batch
from trainer.report import Reporter
from trainer.run_dir import CorpusInput, Inputs, RunDir

FIELDS = {"train_batch_size": 12, "per_device_batch_size": 4, "max_steps": 9, "warmup_steps": 0, "sequence_length": 32}
TEXT = "In the beginning God created the heaven and the earth. And the earth was <b>without form</b>, and void.\n" * 60


@pytest.fixture(scope="module")
def job_id(alice_user: Person, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A job of Alice's whose data are tokenized."""
    corpus = factories.corpus(alice_user, text=TEXT)
    job_id = factories.submitted(alice_user, corpus, **FIELDS)
    with db.transaction() as session:
        spec = effective_spec(session.get_one(Job, job_id))
    run_dir = RunDir(storage.run(job_id))
    source = CorpusInput(id=corpus, path=str(storage.corpus(corpus)), sha256="0" * 64)
    run_dir.create(spec, Inputs(corpora=[source], cache=str(tmp_path_factory.mktemp("cache"))), fence=1)
    prepare.prepare(run_dir, 1, Reporter(None))
    return job_id


def test_the_samples_are_those_of_the_trainer(alice_api: TestClient, job_id: str) -> None:
    answer = alice_api.get(f"/api/v1/jobs/{job_id}/batches/3?first=2&count=2").json()
    view = view_batch(RunDir(storage.run(job_id)), 3, 2, 2)

    assert (answer["step"], answer["num_samples"], answer["num_learned"]) == (3, 12, view.num_learned)
    assert [sample["number"] for sample in answer["samples"]] == [26, 27]
    for shown, sample in zip(answer["samples"], view.samples, strict=True):
        assert [token["id"] for token in shown["segments"][0]["tokens"]] == [
            token.id for token in sample.segments[0].tokens
        ]
        assert shown["documents"] == [{"corpus": 0, "number": document.number} for document in sample.documents]


@pytest.mark.parametrize(
    ("place", "status", "code", "field"),
    [
        ("10", 422, "step_unknown", "step"),
        ("1?first=12", 422, "sample_unknown", "first"),
        ("1?count=17", 422, "request_invalid", "count"),
    ],
)
def test_a_step_or_sample_that_does_not_exist_is_named(
    alice_api: TestClient, job_id: str, place: str, status: int, code: str, field: str
) -> None:
    refused = alice_api.get(f"/api/v1/jobs/{job_id}/batches/{place}")
    assert (refused.status_code, refused.json()["code"]) == (status, code)
    assert refused.json()["errors"][0]["field"] == field


def test_the_page_shows_tokens_documents_and_counts(alice: TestClient, job_id: str) -> None:
    page = alice.get(f"/jobs/{job_id}/batches?step=2").text

    shown = [number for number in range(1, 13) if f"Sample {number} of 12" in page]
    assert shown == list(range(1, 9))
    assert "<b>" not in page.partition("<main")[2], "the text of a corpus is text"
    assert 'data-role="learned"' in page
    assert "Genesis, document 1" in page
    assert "Sample 12 of 12" in alice.get(f"/jobs/{job_id}/batches?step=2&first=8").text


def test_the_page_says_what_is_wrong(alice: TestClient, job_id: str) -> None:
    page = alice.get(f"/jobs/{job_id}/batches?step=99")
    assert (page.status_code, "The job has 9 steps. Choose one of them." in page.text) == (422, True)


def test_data_that_are_not_there_yet_or_no_longer_are_said_so(
    alice_api: TestClient, alice_user: Person, job_id: str
) -> None:
    early = factories.submitted(alice_user, factories.corpus(alice_user), **FIELDS)
    refused = alice_api.get(f"/api/v1/jobs/{early}/batches/1")
    assert (refused.status_code, refused.json()["code"]) == (409, "batch_unprepared")

    run = storage.run(early)
    shutil.copytree(storage.run(job_id), run)
    file = run / "attempts/1/prepared.json"
    prepared = prepare.Prepared.model_validate_json(file.read_text())
    file.write_text(prepared.model_copy(update={"tokens": f"{prepared.tokens}-gone"}).model_dump_json())
    refused = alice_api.get(f"/api/v1/jobs/{early}/batches/1")
    assert (refused.status_code, refused.json()["code"]) == (409, "batch_deleted")


def test_the_batches_of_others_do_not_exist(bob_api: TestClient, bob: TestClient, job_id: str) -> None:
    assert bob_api.get(f"/api/v1/jobs/{job_id}/batches/1").status_code == 404
    assert bob.get(f"/jobs/{job_id}/batches").status_code == 404


def test_a_skipped_step_is_said_to_be_skipped(alice: TestClient, job_id: str) -> None:
    run_dir = RunDir(storage.run(job_id))
    run_dir.create(run_dir.spec(), run_dir.inputs(1).model_copy(update={"skipped_steps": [4]}), fence=1)
    assert "This step was skipped" in alice.get(f"/jobs/{job_id}/batches?step=4").text
    assert "This step was skipped" not in alice.get(f"/jobs/{job_id}/batches?step=5").text
