"""What the scheduler takes away from the disk, and what it never touches."""

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import update
from starlette.testclient import TestClient

from app.base_models import service as base_models
from app.checkpoints import service as checkpoints
from app.core import background_tasks, db, disk, storage
from app.core.formatting import file_size
from app.core.installation_models import Heartbeat
from app.core.json_shapes import TaskOptions
from app.core.model_base import new_id
from app.core.models import BackgroundTask, Checkpoint, Corpus, ImportedModel, Job
from app.corpora import service as corpora
from app.jobs.attempts import attempts
from app.jobs.scheduling import cached_data
from app.jobs.scheduling import sweep as module
from app.jobs.scheduling.scheduler import Scheduler
from app.jobs.scheduling.sweep import DAY, Sweep
from tests.app.jobs import factories, saved_checkpoints
from tests.users import Person
from trainer import run_dir
from trainer.data.tokenizer import train_cached
from trainer.run_dir import CORPORA_SUFFIX

HOUR = 3600.0


@pytest.fixture(scope="module")
def corpus(alice_user: Person) -> str:
    factories.node(slots=50)
    return factories.corpus(alice_user)


@pytest.fixture
def job(alice_user: Person, corpus: str) -> Iterator[tuple[str, int]]:
    """A running job of Alice's; the disk is clean afterwards."""
    yield factories.started(alice_user, corpus, save_total_limit=2, save_steps=10, keep_every=1_000)
    for name in ("runs", "trash", "quarantine", "cache"):
        shutil.rmtree(storage.data() / name, ignore_errors=True)


def all_round(sweep: Sweep | None = None) -> int:
    """As many rounds as it takes to look everywhere."""
    sweep = sweep or Sweep()
    return sum(sweep.step() for _ in range(6))


def age(path: Path, seconds: float) -> None:
    """Nothing in there changed for so long."""
    then = time.time() - seconds
    for inner in (*path.rglob("*"), path):
        os.utime(inner, (then, then))


def state(row: Checkpoint) -> str:
    with db.transaction() as session:
        return session.get_one(Checkpoint, row.id).state


def let_go(row: Checkpoint) -> Path:
    with db.transaction() as session:
        session.execute(update(Checkpoint).where(Checkpoint.id == row.id).values(state="deleting"))
    return storage.checkpoint(row.path)


def test_only_released_checkpoints_are_deleted_from_disk(job: tuple[str, int]) -> None:
    rows = [saved_checkpoints.recorded(job[0], step, job[1]) for step in (10, 20, 30, 40)]
    assert all_round() == 2
    assert [storage.checkpoint(row.path).exists() for row in rows] == [False, False, True, True]
    assert [state(row) for row in rows] == ["deleted", "deleted", "ready", "ready"]
    assert list((storage.data() / "trash").iterdir()) == []
    assert all_round() == 0


@pytest.mark.parametrize("died", ["before the rename", "after it", "while removing", "before the row"])
def test_an_interrupted_sweep_is_completed_by_the_next(job: tuple[str, int], died: str) -> None:
    row = saved_checkpoints.recorded(job[0], 10, job[1])
    directory, trash = let_go(row), storage.data() / "trash" / row.id
    if died != "before the rename":
        trash.parent.mkdir()
        directory.rename(trash)
    if died == "while removing":
        (trash / "model.safetensors").unlink()
    if died == "before the row":
        shutil.rmtree(trash)
    all_round()
    assert (directory.exists(), trash.exists(), state(row)) == (False, False, "deleted")


def test_a_checkpoint_pinned_before_its_release_is_kept(job: tuple[str, int]) -> None:
    row = saved_checkpoints.recorded(job[0], 10, job[1])
    with db.transaction() as session:
        session.execute(update(Checkpoint).where(Checkpoint.id == row.id).values(pinned=True))
        checkpoints.mark_for_deletion(session, [row.id])
    all_round()
    assert state(row) == "ready"
    assert storage.checkpoint(row.path).exists()


def test_an_undeletable_file_is_retried_and_blocks_nothing_else(
    job: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [saved_checkpoints.recorded(job[0], step, job[1]) for step in (10, 20)]
    stuck = let_go(rows[0])
    let_go(rows[1])
    real = Path.rename

    def rename(path: Path, target: Path) -> Path:
        if path == stuck:
            raise OSError(30, "Read-only file system")
        return real(path, target)

    monkeypatch.setattr(Path, "rename", rename)
    all_round()
    assert [state(row) for row in rows] == ["deleting", "deleted"]
    monkeypatch.undo()
    all_round()
    assert state(rows[0]) == "deleted"


def test_partial_writes_are_deleted_an_hour_after_their_attempt(job: tuple[str, int]) -> None:
    job_id, fence = job
    torn = storage.run(job_id) / "attempts" / str(fence) / "step-30"
    saved_checkpoints.unsigned(torn, 30)
    age(torn, 2 * HOUR)
    all_round()
    assert torn.exists()
    with db.transaction() as session:
        attempts.release(session, job_id=job_id, fence=fence, reason="shutdown")
    (torn / "model.safetensors").touch()
    all_round()
    assert torn.exists()
    age(torn, 2 * HOUR)
    all_round()
    assert not torn.exists()
    assert torn.parent.exists()


def test_what_has_arrived_of_a_download_is_kept_for_a_day(alice_user: Person) -> None:
    directories = []
    for hours in (2, 23, 25):
        directory = storage.corpus(factories.corpus(alice_user, state="failed"))
        shutil.rmtree(directory)
        directory.mkdir()
        (directory / storage.DOWNLOAD_PART).write_bytes(b"In the beginning")
        age(directory, hours * HOUR)
        directories.append(directory)
    all_round()
    assert [(path / storage.DOWNLOAD_PART).exists() for path in directories] == [True, True, False]


def test_what_has_arrived_of_a_data_set_stays_without_the_file_that_broke_off(alice_user: Person) -> None:
    directory = storage.corpus(factories.corpus(alice_user, state="failed"))
    (directory / "upload").write_bytes(b"The first file")
    (directory / storage.DOWNLOAD_PART).write_bytes(b"In the beginning")
    age(directory, 25 * HOUR)
    all_round()
    assert (directory / "upload").exists()
    assert not (directory / storage.DOWNLOAD_PART).exists()


def test_unknown_files_are_quarantined_for_a_day_and_then_deleted(job: tuple[str, int]) -> None:
    unknown = storage.run(job[0]) / "checkpoints" / "step-7-1"
    saved_checkpoints.unsigned(unknown, 7)
    all_round()
    assert unknown.exists()
    age(unknown, 2 * HOUR)
    all_round()
    aside = storage.data() / "quarantine" / f"{job[0]}-step-7-1"
    assert (unknown.exists(), aside.exists()) == (False, True)
    run_dir.verify(aside)
    age(aside, 23 * HOUR)
    all_round()
    assert aside.exists()
    age(aside, 25 * HOUR)
    all_round()
    assert not aside.exists()


def test_only_signed_files_of_the_last_attempt_wait_for_their_row(
    job: tuple[str, int],
) -> None:
    job_id, fence = job
    signed = saved_checkpoints.on_disk(job_id, 20, fence)
    age(signed, 100 * HOUR)
    all_round()
    assert signed.exists()
    with db.transaction() as session:
        session.execute(update(Job).where(Job.id == job_id).values(fence=fence + 1))
    all_round()
    assert not signed.exists()
    assert (storage.data() / "quarantine" / f"{job_id}-{signed.name}").exists()


def test_the_run_directory_of_a_job_without_a_row_is_left_alone(job: tuple[str, int]) -> None:
    lost = storage.run(new_id())
    saved_checkpoints.unsigned(lost / "checkpoints" / "step-5-1", 5)
    saved_checkpoints.unsigned(lost / "attempts" / "1" / "step-5", 5)
    age(lost, 100 * HOUR)
    all_round()
    assert len(list(lost.rglob("MANIFEST.json"))) == 2


def test_incomplete_files_of_killed_processes_are_deleted(job: tuple[str, int], corpus: str) -> None:
    data = storage.data()
    whole = [storage.cache() / "tokens" / ("a" * 64) / "data", storage.corpus(corpus) / "upload"]
    partial = [
        storage.corpus(new_id()) / "upload.part",
        storage.corpus(corpus) / "text.bin.123",
        storage.base_model("a") / ".model.safetensors.part",
        storage.base_model("a") / ".cache" / "blob.incomplete",
        storage.background_task("a") / "archive.tar.part",
    ]
    slow = storage.cache() / "tokens" / "making-abc" / "data"
    trash = data / "trash" / "of-nobody" / "data"
    for path in (*whole, *partial, slow, trash):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    for path in (*whole, *partial, slow):
        age(path, HOUR / 2)
    all_round()
    assert [path.exists() for path in (*whole, *partial, slow, trash)] == [True] * 8 + [False]
    for path in (*whole, *partial, slow):
        age(path, 2 * HOUR)
        age(path.parent, 2 * HOUR)
    all_round()
    assert [path.exists() for path in (*whole, *partial, slow)] == [True] * 2 + [False] * 5 + [True]
    assert not partial[0].parent.exists()
    age(slow.parent, 25 * HOUR)
    all_round()
    assert [path.exists() for path in (*whole, slow)] == [True, True, False]


def test_what_a_killed_process_left_of_an_entry_of_the_cache_is_deleted_after_an_hour(job: tuple[str, int]) -> None:
    tokens = storage.cache() / "tokens"
    unfinished = [tokens / f"making-{name * 64}-x_1" for name in "ab"]
    for path in unfinished:
        (path / "entry").mkdir(parents=True)
        age(path, 2 * HOUR)
    with (tokens / f"{'a' * 64}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (tokens / f"{'b' * 64}.lock").touch()  # of a process that was killed
        all_round()
        assert [path.exists() for path in unfinished] == [True, False]
        for path in unfinished:
            (path / "entry").mkdir(parents=True, exist_ok=True)
            (tokens / f"{path.name[7:71]}.corpora.json").write_text('["of no corpus"]')
        all_round()
        assert [path.exists() for path in unfinished] == [True, False]


def test_tokens_in_the_cache_are_deleted_with_the_corpus_that_they_were_made_from(
    alice_user: Person, corpus: str
) -> None:
    with db.transaction() as session:
        kept = corpora.corpus_input(session.get_one(Corpus, corpus))
        second = factories.corpus(alice_user, text="And the earth was without form, and void. " * 50)
    with db.transaction() as session:
        deleted = corpora.corpus_input(session.get_one(Corpus, second))
    entries = [train_cached(of, 260, storage.cache(), lambda done, total: None) for of in ([kept], [kept, deleted])]
    all_round()
    assert [entry.exists() for entry in entries] == [True, True]
    with db.transaction() as session:
        corpora.delete_corpus(session, principal=alice_user.principal, corpus_id=second)
    all_round()
    assert [entry.exists() for entry in entries] == [True, True]  # the corpus may be restored
    with db.transaction() as session:
        corpora.purge(session, session.get_one(Corpus, second))
    all_round()
    assert [entry.exists() for entry in entries] == [True, False]
    assert len(list((storage.cache() / "tokenizers").iterdir())) == 2  # the other entry and its list


@pytest.mark.parametrize(("is_low", "days"), [(False, 30), (True, 1)])
def test_cached_vocabularies_that_no_job_has_used_for_long_are_deleted(
    alice_user: Person, monkeypatch: pytest.MonkeyPatch, is_low: bool, days: int
) -> None:
    monkeypatch.setattr(disk, "is_low", lambda: is_low)
    corpus = factories.corpus(alice_user, text=f"A text that no other job of {days} days has. " * 50)
    with db.transaction() as session:
        source = corpora.corpus_input(session.get_one(Corpus, corpus))

    def vocabularies() -> list[Path]:
        return [train_cached([source], size, storage.cache(), lambda done, total: None) for size in (260, 270)]

    entries = vocabularies()
    content = [(entry / "tokenizer.json").read_bytes() for entry in entries]
    for entry in entries:
        age(entry, (days + 1) * DAY)
        age(entry.with_suffix(CORPORA_SUFFIX), (days + 1) * DAY)
    train_cached([source], 260, storage.cache(), lambda done, total: None)  # a use
    job_id, fence = factories.started(alice_user, corpus)
    all_round()
    assert [entry.exists() for entry in entries] == [True, True], "a job that uses the corpus is running"
    with db.transaction() as session:
        attempts.fail(session, job_id=job_id, fence=fence, code="out_of_memory", values={})
        session.execute(update(Job).where(Job.id == job_id).values(state="failed"))
    all_round()
    assert [entry.exists() for entry in entries] == [True, False]
    assert [(entry / "tokenizer.json").read_bytes() for entry in vocabularies()] == content
    for entry in entries:
        age(entry.with_suffix(CORPORA_SUFFIX), (days - 0.5) * DAY)
    all_round()
    assert [entry.exists() for entry in entries] == [True, True]
    shutil.rmtree(storage.cache())


def test_what_no_unfinished_job_or_task_needs_of_the_cache_is_freed_at_once(
    alice: TestClient, alice_user: Person, alice_api: TestClient, bob_api: TestClient
) -> None:
    shutil.rmtree(storage.cache(), ignore_errors=True)
    texts = {name: f"A text that {name} jobs have and no other. " * 50 for name in ("queued", "ended", "tokenized")}
    corpora_of = {name: factories.corpus(alice_user, text=text) for name, text in texts.items()}
    entries = {}
    for name, corpus_id in corpora_of.items():
        with db.transaction() as session:
            source = corpora.corpus_input(session.get_one(Corpus, corpus_id))
        entries[name] = train_cached([source], 260, storage.cache(), lambda done, total: None)
    factories.submitted(alice_user, corpora_of["queued"])
    with db.transaction() as session:
        options = TaskOptions(corpora=[corpora_of["tokenized"]])
        background_tasks.enqueue(
            session,
            kind="tokenize",
            owner_id=alice_user.id,
            memory_bytes=1,
            options=options,
            corpus_id=corpora_of["tokenized"],
        )
    cached_data.usage_in.cache_clear()
    usage = cached_data.usage()
    sizes = {name: sum(path.stat().st_size for path in entry.iterdir()) for name, entry in entries.items()}
    assert usage.num_unneeded_bytes == sizes["ended"]
    assert sum(sizes.values()) < usage.num_bytes < sum(sizes.values()) + 1000  # with the lists of texts
    assert f"Free {file_size(sizes['ended'])}</button>" in alice.get("/health").text
    assert alice.post("/health/delete-unneeded-cache").headers["location"] == "/health"
    assert all(entry.exists() for entry in entries.values()), "they have just been used"
    for entry in entries.values():
        age(entry.with_suffix(CORPORA_SUFFIX), 120)
    assert bob_api.delete("/api/v1/cache").json()["code"] == "role_missing"
    assert all(entry.exists() for entry in entries.values())
    assert alice_api.delete("/api/v1/cache").status_code == 204
    left = [name for name, entry in entries.items() if entry.exists()]
    assert left == ["queued", "tokenized"]
    assert 'data-dialog="delete-unneeded-cache"' not in alice.get("/health").text


def test_the_cache_is_looked_at_once_in_a_minute_and_after_a_deletion() -> None:
    shutil.rmtree(storage.cache(), ignore_errors=True)
    cached_data.usage_in.cache_clear()
    before = cached_data.usage_in(1)
    file = storage.cache() / "tokens" / "new.bin"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"abc")
    assert cached_data.usage_in(1) == before
    assert cached_data.usage_in(2).num_bytes == before.num_bytes + 3
    file.unlink()
    cached_data.delete_unneeded()
    assert cached_data.usage_in(2) == before


def test_entries_of_the_cache_that_another_process_deletes_are_left_to_it(alice_user: Person) -> None:
    shutil.rmtree(storage.cache(), ignore_errors=True)
    entries = []
    for n in range(2):
        corpus_id = factories.corpus(alice_user, text=f"Text number {n}, which is deleted twice. " * 50)
        with db.transaction() as session:
            source = corpora.corpus_input(session.get_one(Corpus, corpus_id))
        entries.append(train_cached([source], 260, storage.cache(), lambda done, total: None))
        age(entries[-1].with_suffix(CORPORA_SUFFIX), 120)
    assert cached_data.idle_seconds(entries[0] / "gone") == 0
    leaving = storage.data() / "trash" / f"cache-{entries[0].name}"
    leaving.parent.mkdir(exist_ok=True)
    leaving.touch()  # no directory: it can neither be deleted as one nor be replaced by one
    cached_data.delete_unneeded()
    assert [entry.exists() for entry in entries] == [True, False]
    leaving.unlink()
    shutil.rmtree(storage.cache())


def test_files_of_exports_that_failed_are_deleted_and_those_without_a_row_quarantined(alice_user: Person) -> None:
    ids = {}
    with db.transaction() as session:
        model = base_models.create(session, principal=alice_user.principal, name="exported")
        session.flush()
        for task_state in ("queued", "running", "succeeded", "failed", "cancelled"):
            task = BackgroundTask(
                owner_id=alice_user.id, kind="export", model_id=model.id, state=task_state, memory_bytes=1
            )
            session.add(task)
            session.flush()
            ids[task_state] = task.id
    for task_id in (*ids.values(), "unknown"):
        storage.exported_files(task_id).mkdir(parents=True)
        age(storage.background_task(task_id), 25 * HOUR)
    all_round()
    left = {name for name, task_id in ids.items() if storage.background_task(task_id).exists()}
    assert left == {"queued", "running", "succeeded"}
    assert [storage.background_task("unknown").exists(), (storage.data() / "quarantine/task-unknown").exists()] == [
        False,
        True,
    ]


def test_many_runs_are_checked_a_few_at_a_time(job: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    monkeypatch.setattr(module, "_run_actions", lambda run: looked.append(run.name) or [])
    for number in range(10):
        (storage.data() / "runs" / f"run-{number}").mkdir(parents=True)
    sweep = Sweep()
    per_round = []
    for _ in range(5):
        before = len(looked)
        sweep.step()
        per_round.append(len(looked) - before)
    assert per_round[0] == 0
    assert max(per_round) <= module.BATCH
    assert len(set(looked)) >= 10


def test_the_leader_sweeps_periodically_and_writes_a_heartbeat(job: tuple[str, int]) -> None:
    let_go(saved_checkpoints.recorded(job[0], 10, job[1]))
    scheduler = Scheduler()
    assert scheduler.step()
    scheduler.close()
    with db.transaction() as session:
        beat = session.get_one(Heartbeat, "scheduler")
        assert beat.facts["removed"] == 1
        counts = {"given_up", "submitted", "settled", "placed", "sent", "delivered", "stopped", "evaluated", "removed"}
        assert set(beat.facts) == counts


def test_corpora_without_a_row_are_quarantined_even_if_complete(alice_user: Person) -> None:
    corpus_id = factories.corpus(alice_user)
    for name in (corpus_id, "unknown"):
        storage.corpus(name).mkdir(parents=True, exist_ok=True)
        (storage.corpus(name) / "upload").write_text("In the beginning")
        age(storage.corpus(name), 25 * HOUR)
    fresh = storage.corpus("fresh")
    fresh.mkdir()
    (fresh / "upload").write_text("In the beginning")
    all_round()
    aside = storage.data() / "quarantine" / "corpus-unknown"
    assert [path.exists() for path in (storage.corpus(corpus_id), storage.corpus("unknown"), fresh, aside)] == [
        True,
        False,
        True,
        True,
    ]
    shutil.rmtree(aside)
    shutil.rmtree(fresh)


# ---- base models ----------------------------------------------------------------------------------------------------


def test_files_of_base_models_are_kept_and_unknown_ones_quarantined(alice_user: Person) -> None:
    with db.transaction() as session:
        model = base_models.create(session, principal=alice_user.principal, name="tiny")
        old = base_models.create(session, principal=alice_user.principal, name="given up")
        session.flush()
        session.execute(update(ImportedModel).where(ImportedModel.id == old.id).values(created_at=long_ago()))
    paths = [storage.base_model(model_id) for model_id in (model.id, old.id, "unknown")]
    for path in paths:
        path.mkdir(parents=True)
        (path / "config.json").write_text("{}")
        age(path, 25 * HOUR)
    fresh = storage.base_model("fresh")
    fresh.mkdir()
    all_round()
    assert [path.exists() for path in (*paths, fresh)] == [True, False, False, True]
    aside = {path.name for path in (storage.data() / "quarantine").iterdir()}
    assert aside == {f"model-{old.id}", "model-unknown"}
    with db.transaction() as session:
        assert session.get(ImportedModel, old.id) is None
    shutil.rmtree(storage.data() / "quarantine")
    shutil.rmtree(storage.data() / "base_models")


def long_ago() -> datetime:
    return datetime.now(UTC) - timedelta(days=2)
