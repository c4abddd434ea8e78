"""The verbs of jobs against a real database: submitting, holding, recording, ending."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest
from sqlalchemy import func, select, update

from app.checkpoints import service as checkpoints
from app.core import db
from app.core.errors import PanelError
from app.core.models import Attempt, Checkpoint, Job, MetricPoint, Sample
from app.core.settings import settings
from app.jobs import service
from app.jobs.attempts import attempts
from app.jobs.scheduling import dispatch
from tests.app.jobs import factories
from tests.users import Person
from trainer import events
from trainer.spec_errors import SpecError

T = TypeVar("T")


@pytest.fixture(scope="module")
def corpus(alice_user: Person) -> str:
    factories.node()
    return factories.corpus(alice_user)


def in_transaction(verb: Callable[..., T], **given: object) -> T:
    with db.transaction() as session:
        return verb(session, **given)


def together(number: int, work: Callable[[], T]) -> list[T]:
    with ThreadPoolExecutor(number) as threads:
        return [future.result() for future in [threads.submit(work) for _ in range(number)]]


# ---- submitting -----------------------------------------------------------------------------------------------------


def test_a_submitted_job_stores_its_complete_spec_and_is_queued(alice_user: Person, corpus: str) -> None:
    job = factories.row(factories.submitted(alice_user, corpus, max_steps=7, warmup_steps=0))
    assert (job.state, job.desired, job.fence, job.max_steps) == ("queued", "run", 0, 7)
    assert job.spec.hidden_size == 128
    assert factories.reasons(job.id) == [("queued", "submitted")]


def test_a_hundred_parallel_submits_with_one_key_create_one_job(alice_user: Person, corpus: str) -> None:
    def submit() -> tuple[str, bool]:
        with db.transaction() as session:
            job, is_new = service.submit(
                session, principal=alice_user.principal, request={"corpora": [corpus]}, idempotency_key="once"
            )
            return job.id, is_new

    with ThreadPoolExecutor(16) as threads:
        answers = [future.result() for future in [threads.submit(submit) for _ in range(100)]]
    assert len({job_id for job_id, _ in answers}) == 1
    assert [is_new for _, is_new in answers].count(True) == 1
    assert factories.reasons(answers[0][0]) == [("queued", "submitted")]


def test_the_same_key_with_another_body_is_rejected(alice_user: Person, corpus: str) -> None:
    given = {"corpora": [corpus]}
    in_transaction(service.submit, principal=alice_user.principal, request=given, idempotency_key="k")
    with pytest.raises(PanelError) as refused:
        in_transaction(
            service.submit, principal=alice_user.principal, request={**given, "seed": 2}, idempotency_key="k"
        )
    assert (refused.value.status, refused.value.code) == (409, "idempotency_conflict")


def test_idempotency_keys_are_separate_for_each_user(alice_user: Person, bob_user: Person, corpus: str) -> None:
    first, _ = in_transaction(
        service.submit, principal=alice_user.principal, request={"corpora": [corpus]}, idempotency_key="shared"
    )
    theirs = factories.corpus(bob_user)
    second, is_new = in_transaction(
        service.submit, principal=bob_user.principal, request={"corpora": [theirs]}, idempotency_key="shared"
    )
    assert is_new
    assert second.id != first.id


def test_a_rejected_spec_creates_no_job(alice_user: Person, corpus: str) -> None:
    before = in_transaction(lambda session: session.scalar(select(func.count()).select_from(Job)))
    with pytest.raises(SpecError):
        factories.submitted(alice_user, corpus, hidden_size=130)
    assert in_transaction(lambda session: session.scalar(select(func.count()).select_from(Job))) == before


def test_too_many_open_jobs_are_rejected_with_both_numbers_and_a_fix(
    bob_user: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus_id = factories.corpus(bob_user)
    for job in in_transaction(service.list_jobs, principal=bob_user.principal, states=["queued"])[0]:
        in_transaction(service.cancel, principal=bob_user.principal, job_id=job.id)
    limited = settings().model_copy(update={"max_open_jobs_per_user": 3})
    monkeypatch.setattr(service, "settings", lambda: limited)

    def submit() -> tuple[str, str]:
        try:
            return "", factories.submitted(bob_user, corpus_id)
        except PanelError as error:
            return f"{error.status} {error.code}", error.message

    answers = together(8, submit)
    accepted = [job_id for code, job_id in answers if not code]
    told = "You have 3 unfinished jobs, the limit is 3. Cancel one or wait until one ends."
    assert len(accepted) == 3
    assert {answer for answer in answers if answer[0]} == {("429 quota", told)}
    in_transaction(service.cancel, principal=bob_user.principal, job_id=accepted[0])
    assert factories.row(factories.submitted(bob_user, corpus_id)).state == "queued"


# ---- claiming and holding -------------------------------------------------------------------------------------------


def test_one_of_sixteen_concurrent_workers_claims_a_job(alice_user: Person, corpus: str) -> None:
    job_id = factories.submitted(alice_user, corpus)
    factories.give_to(job_id, "ada")
    fences = together(16, lambda: in_transaction(attempts.claim, job_id=job_id, node="ada"))
    assert sorted(fence for fence in fences if fence is not None) == [1]
    assert factories.reasons(job_id)[1:] == [("starting", "claimed")]


def test_a_worker_cannot_claim_a_job_of_another_node(alice_user: Person, corpus: str) -> None:
    job_id = factories.submitted(alice_user, corpus)
    factories.give_to(job_id, "ada")
    assert in_transaction(attempts.claim, job_id=job_id, node="grace") is None


def test_renewing_a_lease_returns_the_desired_state(alice_user: Person, corpus: str) -> None:
    job_id, fence = factories.started(alice_user, corpus)
    assert in_transaction(attempts.renew, job_id=job_id, fence=fence) == "run"
    in_transaction(service.cancel, principal=alice_user.principal, job_id=job_id)
    assert in_transaction(attempts.renew, job_id=job_id, fence=fence) == "cancel"


def test_a_superseded_attempt_writes_nothing(alice_user: Person, corpus: str) -> None:
    job_id, old = factories.started(alice_user, corpus)
    in_transaction(attempts.release, job_id=job_id, fence=old, reason="shutdown")
    in_transaction(dispatch.requeue_or_fail)
    factories.give_to(job_id, "ada")
    new = in_transaction(attempts.claim, job_id=job_id, node="ada")
    assert new == old + 1
    before = vars_of(job_id)
    with pytest.raises(attempts.LeaseLost):
        factories.record(job_id, old, factories.losses([1.0, 2.0]))
    for verb, values in (
        (attempts.renew, {}),
        (attempts.begin_stop, {"state": "cancelling"}),
        (attempts.finish, {}),
        (attempts.fail, {"code": "nan_loss", "values": {}}),
        (attempts.release, {"reason": "hang"}),
        (attempts.record_checkpoint, {"step": 1, "path": "x", "manifest": {"files": []}, "metrics": {}}),
    ):
        with pytest.raises(attempts.LeaseLost):
            in_transaction(verb, job_id=job_id, fence=old, **values)
    assert vars_of(job_id) == before
    with db.transaction() as session:
        assert session.scalars(select(MetricPoint).where(MetricPoint.job_id == job_id)).all() == []
        assert session.scalars(select(Checkpoint).where(Checkpoint.job_id == job_id)).all() == []


def vars_of(job_id: str) -> dict[str, object]:
    return {column.name: getattr(factories.row(job_id), column.key) for column in Job.__table__.columns}


# ---- recording ------------------------------------------------------------------------------------------------------

JOURNAL: list[events.Event] = [
    events.PhaseEvent(seq=1, at=10.0, phase="prepare", done=0, total=1),
    events.TokenizerEvent(seq=2, at=11.0, path="tokenizer", sha256="ab", vocab_size=2048, trained=True),
    events.DataEvent(
        seq=3, at=12.0, num_tokens=900, num_train_sequences=6, num_validation_sequences=1, bytes_per_token=3.0
    ),
    events.SampleEvent(seq=4, at=13.0, step=0, prompt="In", text="in\0in"),
    events.PhaseEvent(seq=5, at=14.0, phase="train", done=0, total=400),
    events.PointsEvent(seq=6, at=15.0, step=1, values={"loss": 7.5, "grad_norm": "inf"}),
]


def test_a_batch_recorded_twice_is_counted_once(alice_user: Person, corpus: str) -> None:
    job_id, fence = factories.started(alice_user, corpus)
    assert factories.record(job_id, fence, JOURNAL[:4]) == "run"
    assert factories.record(job_id, fence, JOURNAL) == "run"
    assert factories.record(job_id, fence, JOURNAL) == "run"
    job = factories.row(job_id)
    assert (job.state, job.step) == ("running", 1)
    assert job.facts.vocab_size == 2048
    assert job.facts.num_tokens == 900
    assert (job.facts.num_parameters or 0) > 800_000
    assert job.progress.latest == {"loss": 7.5, "grad_norm": "inf"}
    with db.transaction() as session:
        points = session.scalars(select(MetricPoint).where(MetricPoint.job_id == job_id)).all()
        assert {(p.series, p.value, p.nonfinite) for p in points} == {("loss", 7.5, None), ("grad_norm", None, "inf")}
        assert [s.text for s in session.scalars(select(Sample).where(Sample.job_id == job_id))] == ["inin"]
        assert session.get_one(Attempt, (job_id, fence)).journal_seq == 6
    assert [state for state, _ in factories.reasons(job_id)] == ["queued", "starting", "running"]


def test_concurrent_supervisors_with_one_fence_record_each_line_once(alice_user: Person, corpus: str) -> None:
    job_id, fence = factories.started(alice_user, corpus)
    together(8, lambda: factories.record(job_id, fence, factories.losses([3.0, 2.0, 1.0])))
    with db.transaction() as session:
        steps = session.scalars(select(MetricPoint.step).where(MetricPoint.job_id == job_id)).all()
    assert sorted(steps) == [1, 2, 3]


def test_a_checkpoint_is_recorded_once_and_resets_the_retry_count(alice_user: Person, corpus: str) -> None:
    job_id, fence = factories.started(alice_user, corpus)
    with db.transaction() as session:
        session.execute(update(Job).where(Job.id == job_id).values(no_progress=2))
    manifest = {
        "files": [
            {"name": "model.safetensors", "size": 40, "sha256": "0" * 64},
            {"name": "config.json", "size": 2, "sha256": "0" * 64},
        ]
    }
    for _ in range(2):
        kept = in_transaction(
            attempts.record_checkpoint,
            job_id=job_id,
            fence=fence,
            step=5,
            path="runs/x",
            manifest=manifest,
            metrics={"loss": 1.5},
        )
    assert kept is not None
    assert kept.num_bytes == 42
    assert factories.row(job_id).no_progress == 0
    rows, _ = in_transaction(checkpoints.list_checkpoints, principal=alice_user.principal, job_id=job_id)
    assert [row.step for row in rows] == [5]


def test_a_checkpoint_of_an_earlier_step_does_not_reset_the_retry_count(alice_user: Person, corpus: str) -> None:
    job_id, fence = factories.started(alice_user, corpus)
    kept = {"job_id": job_id, "fence": fence, "path": "runs/x", "manifest": {"files": []}, "metrics": {}}
    in_transaction(attempts.record_checkpoint, step=5, **kept)
    with db.transaction() as session:
        session.execute(update(Job).where(Job.id == job_id).values(no_progress=2))
    for step in (4, 5):
        in_transaction(attempts.record_checkpoint, step=step, **kept)
    assert factories.row(job_id).no_progress == 2
    in_transaction(attempts.record_checkpoint, step=6, **kept)
    assert factories.row(job_id).no_progress == 0


# ---- ends -----------------------------------------------------------------------------------------------------------


def test_a_finished_job_succeeds_and_frees_its_node(alice_user: Person, corpus: str) -> None:
    job_id, fence = factories.started(alice_user, corpus)
    factories.record(job_id, fence, factories.losses([1.0]))
    in_transaction(attempts.finish, job_id=job_id, fence=fence)
    job = factories.row(job_id)
    assert (job.state, job.lease_until) == ("succeeded", None)
    assert job.finished_at is not None
    with pytest.raises(attempts.LeaseLost):
        in_transaction(attempts.finish, job_id=job_id, fence=fence)


def test_a_failed_job_stores_the_reason(alice_user: Person, corpus: str) -> None:
    job_id, fence = factories.started(alice_user, corpus)
    values = {"needed": 258, "found": 120}
    in_transaction(attempts.fail, job_id=job_id, fence=fence, code="data_short", values=values)
    job = factories.row(job_id)
    assert (job.state, job.failure_code, job.failure) == ("failed", "data_short", values)


def test_a_queued_job_is_cancelled_at_once(alice_user: Person, corpus: str) -> None:
    job_id = factories.submitted(alice_user, corpus)
    assert in_transaction(service.cancel, principal=alice_user.principal, job_id=job_id).state == "cancelled"
    assert in_transaction(service.cancel, principal=alice_user.principal, job_id=job_id).state == "cancelled"
    factories.give_to(job_id, "ada")
    assert in_transaction(attempts.claim, job_id=job_id, node="ada") is None


def test_a_running_job_is_cancelled_once_its_processes_exit(alice_user: Person, corpus: str) -> None:
    job_id, fence = factories.started(alice_user, corpus)
    for _ in range(2):
        job = in_transaction(service.cancel, principal=alice_user.principal, job_id=job_id)
        assert (job.state, job.desired) == ("starting", "cancel")
    in_transaction(attempts.begin_stop, job_id=job_id, fence=fence, state="cancelling")
    assert factories.row(job_id).state == "cancelling"
    in_transaction(attempts.release, job_id=job_id, fence=fence, reason="shutdown")
    assert [state for state, _ in factories.reasons(job_id)][-2:] == ["cancelling", "cancelled"]


def test_cancelling_an_ended_job_is_rejected(alice_user: Person, corpus: str) -> None:
    job_id, fence = factories.started(alice_user, corpus)
    in_transaction(attempts.finish, job_id=job_id, fence=fence)
    with pytest.raises(PanelError) as refused:
        in_transaction(service.cancel, principal=alice_user.principal, job_id=job_id)
    assert refused.value.status == 409


def test_a_success_committed_before_the_cancel_arrives_stands(alice_user: Person, corpus: str) -> None:
    job_id, fence = factories.started(alice_user, corpus)
    in_transaction(service.cancel, principal=alice_user.principal, job_id=job_id)
    in_transaction(attempts.finish, job_id=job_id, fence=fence)
    assert factories.row(job_id).state == "succeeded"


def test_a_user_neither_sees_nor_cancels_jobs_of_another(alice_user: Person, bob_user: Person, corpus: str) -> None:
    job_id = factories.submitted(alice_user, corpus)
    for verb in (service.get, service.cancel):
        with pytest.raises(PanelError) as refused:
            in_transaction(verb, principal=bob_user.principal, job_id=job_id)
        assert refused.value.status == 404
    rows, _ = in_transaction(service.list_jobs, principal=bob_user.principal)
    assert job_id not in {row.id for row in rows}


def test_pages_of_jobs_list_each_job_once_newest_first(bob_user: Person) -> None:
    corpus_id = factories.corpus(bob_user)
    mine = [factories.submitted(bob_user, corpus_id, name=f"job {n}") for n in range(5)]
    seen, after = [], None
    while True:
        rows, after = in_transaction(
            service.list_jobs, principal=bob_user.principal, limit=2, after=after, states=["queued"]
        )
        seen += [row.id for row in rows]
        if after is None:
            break
    assert [job_id for job_id in seen if job_id in mine] == mine[::-1]
    assert len(seen) == len(set(seen))
