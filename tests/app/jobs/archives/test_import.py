"""A run that was exported becomes a job again, and nothing comes of an archive that was tampered with."""

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import event, func, select, update
from sqlalchemy.orm import Session

from app.checkpoints import signature
from app.core import db, quotas, storage
from app.core.models import Checkpoint, Job, MetricPoint, Tokenizer
from app.jobs import stream
from app.jobs.archives import imports
from app.jobs.attempts import attempts
from tests import folders
from tests.app.jobs import factories
from tests.app.jobs.archives.test_export import contents
from tests.background import forget_waiting, run_waiting
from tests.users import Person
from trainer import events, run_dir
from trainer.run_dir import RunDir
from worker.background import child, runner
from worker.sandbox import run_archive

NETWORK = {
    "model_type": "llama",
    "num_hidden_layers": 2,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": False,
}
LOSSES = {10: 2.0, 20: 1.0, 30: 1.5}  # of validation, by the step of each checkpoint
Files = dict[str, bytes]


@pytest.fixture(scope="module")
def corpus(alice_user: Person) -> str:
    factories.node(slots=50)
    return factories.corpus(alice_user, name="Genèse")


@pytest.fixture(scope="module")
def job_id(alice_user: Person, corpus: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A job of Alice's that was cancelled at step 30, with three checkpoints of a real, tiny model."""
    fields = {"name": "First / né", "max_steps": 40, "save_steps": 10, "sequence_length": 32, "vocab_size": 300}
    job_id, fence = factories.started(alice_user, corpus, **fields, **NETWORK)
    factories.record(job_id, fence, factories.losses([*[4.0] * 29, "nan"]))
    texts = {"validation": "the 起初\n", "train": "God"}
    samples = [
        events.SampleEvent(seq=50 + n, at=1.0, step=10, split=split, prompt="In", text=text)
        for n, (split, text) in enumerate(texts.items())
    ]
    points = [
        events.PointsEvent(seq=60 + n, at=999.0 + n, step=n, values={"eval_loss": loss}) for n, loss in LOSSES.items()
    ]
    factories.record(job_id, fence, [*samples, *points])
    model = folders.saved(tmp_path_factory.mktemp("model"))
    for step, loss in LOSSES.items():
        _save(alice_user, job_id, fence, step, loss, model)
    with db.transaction() as session:
        tokenizer = Tokenizer(owner_id=alice_user.id, name="Words", vocab_size=300, sha256="0" * 64, corpora=[corpus])
        session.add(tokenizer)
        session.flush()
        folders.tokenizer().save_pretrained(storage.tokenizer(tokenizer.id))
        tokenizer.sha256 = run_dir.sha256_file(storage.tokenizer(tokenizer.id) / "tokenizer.json")
        session.execute(update(Job).where(Job.id == job_id).values(tokenizer_id=tokenizer.id, desired="cancel"))
        attempts.begin_stop(session, job_id=job_id, fence=fence, state="cancelling")
        attempts.release(session, job_id=job_id, fence=fence, reason="stopped")
    return job_id


def _save(owner: Person, job_id: str, fence: int, step: int, loss: float, model: Path) -> None:
    directory = RunDir(storage.run(job_id)).checkpoint_path(step, fence)
    (directory / "resume").mkdir(parents=True)
    for path in model.iterdir():
        (directory / path.name).write_bytes(path.read_bytes())
    (directory / "resume" / "optimizer-0.safetensors").write_bytes(b"moments")
    (directory / "trainer_state.json").write_text(json.dumps({"step": step, "metrics": {"eval_loss": loss}}))
    run_dir.write_manifest(directory, {"step": step})
    signature.sign(directory, job_id=job_id, owner_id=owner.id, fence=fence, step=step)
    values: dict[str, Any] = {"manifest": run_dir.verify(directory), "metrics": {"eval_loss": loss}}
    with db.transaction() as session:
        path = str(directory.relative_to(storage.data()))
        attempts.record_checkpoint(session, job_id=job_id, fence=fence, step=step, path=path, **values)


@pytest.fixture(scope="module")
def archive(web: TestClient, alice_user: Person, job_id: str) -> bytes:
    headers = {"Authorization": f"Bearer {alice_user.token()}"}
    return web.get(f"/api/v1/jobs/{job_id}/archive", headers=headers).content


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The check without a child: torch is imported here already."""
    forget_waiting()

    def run(command: list[str], *_rest: object, directory: Path, **_limits: object) -> tuple[dict[str, Any], int]:
        assert command[2:4] == ["worker.sandbox.run_archive", str(directory)]
        return run_archive.report_result(directory, 1 << 40, 0), 0

    monkeypatch.setattr(child.runner, "run_sandboxed", run)
    yield
    assert not list((storage.data() / "works").glob("*/*"))  # whatever came of it


def upload(client: TestClient, archive: bytes) -> dict[str, Any]:
    answer = client.post("/api/v1/jobs/import?filename=first.tar", content=archive)
    assert answer.status_code == 202, answer.text
    task: dict[str, Any] = answer.json()
    return task


def imported(client: TestClient, archive: bytes) -> dict[str, Any]:
    """The task of an import after its end."""
    task_id = upload(client, archive)["id"]
    run_waiting()
    task: dict[str, Any] = client.get(f"/api/v1/tasks/{task_id}").json()
    return task


def repacked(files: Files, *, hashes: bool = True) -> bytes:
    """An archive of other files, with a manifest that fits them unless `hashes` is false."""
    if hashes:
        listed = [
            {"name": name, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in files.items()
            if name != "MANIFEST.json"
        ]
        files = {**files, "MANIFEST.json": json.dumps({**json.loads(files["MANIFEST.json"]), "files": listed}).encode()}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def changed(archive: bytes, name: str, **fields: Any) -> Files:
    """The files of an archive with other fields in one of its JSON files."""
    files = contents(archive)
    return {**files, name: json.dumps({**json.loads(files[name]), **fields}).encode()}


def points(job_id: str) -> list[tuple[Any, ...]]:
    query = select(MetricPoint.series, MetricPoint.step, MetricPoint.value, MetricPoint.nonfinite, MetricPoint.at)
    with db.transaction() as session:
        rows = session.execute(query.where(MetricPoint.job_id == job_id).order_by(MetricPoint.series, MetricPoint.step))
        return [tuple(row) for row in rows]


def checkpoints(job_id: str) -> list[Checkpoint]:
    with db.transaction() as session:
        return list(session.scalars(select(Checkpoint).where(Checkpoint.job_id == job_id).order_by(Checkpoint.step)))


# ---- what comes back ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def copy(web: TestClient, alice_user: Person, archive: bytes) -> str:
    """The job that Alice's archive becomes, checked by a child under limits as in an installation."""
    forget_waiting()
    web.headers["Authorization"] = f"Bearer {alice_user.token()}"
    task = imported(web, archive)
    del web.headers["Authorization"]
    assert task["state"] == "succeeded", task
    assert not (storage.background_task(task["id"])).exists()
    return str(task["result"]["job_id"])


def test_a_job_comes_back_with_its_spec_curves_and_samples(alice_api: TestClient, job_id: str, copy: str) -> None:
    before, after = (alice_api.get(f"/api/v1/jobs/{one}").json() for one in (job_id, copy))
    same = ("name", "state", "step", "max_steps", "spec", "latest", "recipe", "started_at", "finished_at")
    assert {name: after[name] for name in same} == {name: before[name] for name in same}
    assert (after["node"], after["tokenizer_id"]) == (None, before["tokenizer_id"])
    assert points(copy) == points(job_id)
    assert len(points(copy)) == 33
    for route in ("metrics", "samples"):
        answers = [alice_api.get(f"/api/v1/jobs/{one}/{route}").json() for one in (job_id, copy)]
        assert answers[0] == answers[1]
    assert len(answers[1]["data"]) == 2


def test_its_live_view_draws_the_same_curves_and_samples(job_id: str, copy: str) -> None:
    def updates(one: str) -> dict[str, list[Any]]:
        news: dict[str, list[Any]] = {}
        for news_item in stream.json_reader(one, "en")("", None).updates:
            news.setdefault(news_item.event, []).append(json.loads(news_item.data))
        return news

    before, after = updates(job_id), updates(copy)
    assert after["curve"] == before["curve"]
    assert after["curve"][0]["series"]["loss"]["steps"] == list(range(1, 31))
    assert after["sample"] == before["sample"]


def test_its_checkpoints_have_the_same_files_and_are_signed_here(job_id: str, copy: str, alice_user: Person) -> None:
    before = {row.step: row for row in checkpoints(job_id)}
    after = checkpoints(copy)
    assert [row.step for row in after] == [20, 30]
    for row in after:
        directory = storage.checkpoint(row.path)
        signature.verify(directory)
        assert signature.about(directory) == signature.Signed(copy, alice_user.id, row.fence, row.step)
        original = storage.checkpoint(before[row.step].path)
        for name in ("model.safetensors", "config.json", "tokenizer.json"):
            assert (directory / name).read_bytes() == (original / name).read_bytes()
        assert row.metrics == before[row.step].metrics
        ours = ("MANIFEST.json", "SIGNATURE")
        assert row.num_bytes == sum(path.stat().st_size for path in directory.iterdir() if path.name not in ours)


def test_its_page_says_where_it_comes_from(alice: TestClient, copy: str, archive: bytes, corpus: str) -> None:
    origin = alice.get(f"/api/v1/jobs/{copy}/origin").json()
    assert origin["sha256"] == hashlib.sha256(archive).hexdigest()
    (named,) = origin["corpora"]
    assert (named["name"], named["corpus_id"]) == ("Genèse", corpus)
    page = alice.get(f"/jobs/{copy}").text
    assert origin["sha256"][:16] in page
    assert f'href="/corpora/{corpus}"' in page
    assert "step 20" in page
    assert "Imported from the archive first.tar." in page


def test_a_job_that_was_submitted_here_has_no_origin(alice_api: TestClient, job_id: str) -> None:
    answer = alice_api.get(f"/api/v1/jobs/{job_id}/origin")
    assert (answer.status_code, answer.json()["code"]) == (409, "not_imported")


def test_it_costs_no_gpu_hours_and_the_disk_space_of_its_checkpoints(copy: str, alice_user: Person) -> None:
    with db.transaction() as session:
        assert quotas.gpu_hours(session, [alice_user.id]) == {}
        num_bytes = sum(row.num_bytes for row in session.scalars(select(Checkpoint).where(Checkpoint.job_id == copy)))
        used = quotas.used_bytes(session, alice_user.id)
        session.execute(update(Checkpoint).where(Checkpoint.job_id == copy).values(state="deleted"))
        assert used - quotas.used_bytes(session, alice_user.id) == num_bytes > 0
        session.rollback()


def test_training_continues_from_its_weights_and_is_not_resumed(alice_api: TestClient, copy: str, corpus: str) -> None:
    checkpoint_id = checkpoints(copy)[-1].id
    answer = alice_api.post("/api/v1/jobs/plan", json={"resume_from_checkpoint": checkpoint_id, "max_steps": 60})
    assert answer.json()["code"] == "checkpoint_unresumable"
    assert "base_model" in answer.json()["title"]
    body = {"base_model": checkpoint_id, "corpora": [corpus], "max_steps": 20, "warmup_steps": 1}
    answer = alice_api.post("/api/v1/jobs", json=body)
    assert answer.status_code == 201, answer.text
    alice_api.post(f"/api/v1/jobs/{answer.json()['id']}/cancel")
    assert alice_api.post(f"/api/v1/jobs/{copy}/resume").json()["code"] == "job_ended"


def test_the_page_offers_to_start_from_its_weights(alice: TestClient, copy: str, job_id: str) -> None:
    assert "/jobs/new?from=" in alice.get(f"/jobs/{job_id}").text
    page = alice.get(f"/jobs/{copy}").text
    assert "/jobs/new?from=" not in page
    assert f"/jobs/new?base_model={checkpoints(copy)[-1].id}" in page


def test_its_checkpoints_can_be_exported(alice_api: TestClient, copy: str) -> None:
    body = {"checkpoint": checkpoints(copy)[-1].id, "format": "gguf"}
    answer = alice_api.post("/api/v1/exports", json=body)
    assert answer.status_code == 201, answer.text
    forget_waiting()


def test_the_same_archive_is_not_imported_twice(alice_api: TestClient, copy: str, archive: bytes) -> None:
    answer = alice_api.post("/api/v1/jobs/import", content=archive)
    assert (answer.status_code, answer.json()["code"]) == (409, "archive_imported")
    assert "First / né" in answer.json()["title"]


def test_a_database_that_is_lost_at_the_commit_costs_nothing(
    bob_api: TestClient, archive: bytes, in_process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, lost = imports.record, []

    def terminate(session: Session) -> None:
        lost.append(session)
        with db.transaction() as other:
            other.execute(select(func.pg_terminate_backend(pid)))

    def record_and_lose(session: Session, *rest: Any) -> Callable[[], None]:
        nonlocal pid
        finish = record(session, *rest)
        pid = session.scalar(select(func.pg_backend_pid()))
        if not lost:
            event.listen(session, "before_commit", terminate, once=True)
        return finish

    pid = None
    monkeypatch.setattr(imports, "record", record_and_lose)
    monkeypatch.setattr(runner, "RETRY_SECONDS", 0.0)
    task = imported(bob_api, repacked(contents(archive)))
    assert len(lost) == 1
    assert task["state"] == "succeeded", task
    rows = checkpoints(task["id"])
    assert [row.step for row in rows] == [20, 30]
    for row in rows:
        signature.verify(storage.checkpoint(row.path))
    job = bob_api.get(f"/api/v1/jobs/{task['id']}").json()
    assert json.loads((storage.run(task["id"]) / "spec.json").read_text())["corpora"] == job["spec"]["corpora"]
    assert (storage.tokenizer(job["tokenizer_id"]) / "tokenizer.json").is_file()


def test_another_user_gets_a_job_without_the_corpus(
    bob_api: TestClient, bob: TestClient, archive: bytes, corpus: str, in_process: None
) -> None:
    task = imported(bob_api, archive)
    assert task["state"] == "succeeded", task
    job = bob_api.get(f"/api/v1/jobs/{task['result']['job_id']}").json()
    assert job["spec"]["corpora"] != [corpus]  # which is Alice's
    (named,) = bob_api.get(f"/api/v1/jobs/{job['id']}/origin").json()["corpora"]
    assert (named["id"], named["name"], named["corpus_id"]) == (corpus, "Genèse", None)
    assert "not here" in bob.get(f"/jobs/{job['id']}").text
    answer = bob_api.post("/api/v1/jobs", json=job["spec"])
    assert (answer.status_code, answer.json()["code"]) == (422, "corpus_unknown")
    again = bob_api.get(f"/api/v1/jobs/{job['id']}/archive").content
    (entry,) = json.loads(contents(again)["run.json"])["corpora"]
    assert (entry["id"], entry["name"], entry["text_sha256"]) == (
        job["spec"]["corpora"][0],
        "Genèse",
        named["text_sha256"],
    )


# ---- what is refused ------------------------------------------------------------------------------------------------


def linked(files: Files) -> bytes:
    out = io.BytesIO(repacked(files))
    with tarfile.open(fileobj=out, mode="a") as tar:
        info = tarfile.TarInfo("checkpoints/step-20-1/vocab.txt")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(info)
    return out.getvalue()


def huge(files: Files) -> bytes:
    info = tarfile.TarInfo("run.json")
    info.size = 1 << 50
    return info.tobuf(tarfile.GNU_FORMAT) + repacked(files)


def with_nan(archive: bytes) -> bytes:
    """A weight that is no number; every hash fits."""
    files = contents(archive)
    directory = json.loads(files["run.json"])["checkpoints"][0]["directory"]
    weights = files[f"{directory}/model.safetensors"][:-4] + b"\x00\x00\xc0\x7f"
    manifest = json.loads(files[f"{directory}/MANIFEST.json"])
    for file in manifest["files"]:
        if file["name"] == "model.safetensors":
            file["sha256"] = hashlib.sha256(weights).hexdigest()
    both = {f"{directory}/model.safetensors": weights, f"{directory}/MANIFEST.json": json.dumps(manifest).encode()}
    return repacked({**files, **both})


HOSTILE: dict[str, tuple[Callable[[bytes], bytes], str, str]] = {
    "wrong hash": (lambda a: a.replace(b'"recipe"', b'"recipf"', 1), "run_file_differs", "spec.json"),
    "extra file": (
        lambda a: repacked({**contents(a), "tokenizer/vocab.txt": b"a"}, hashes=False),
        "run_file_unexpected",
        "vocab.txt",
    ),
    "foreign file": (lambda a: repacked({**contents(a), "notes.txt": b"a"}), "run_file_unexpected", "notes.txt"),
    "missing file": (
        lambda a: repacked({n: c for n, c in contents(a).items() if n != "samples.jsonl"}, hashes=False),
        "run_file_missing",
        "samples.jsonl",
    ),
    "pickle": (lambda a: repacked({**contents(a), "checkpoints/step-20-1/x.pt": b"a"}), "archive_unsafe", "x.pt"),
    "traversal": (
        lambda a: repacked({**contents(a), "tokenizer/../../../x.json": b"a"}),
        "run_file_unexpected",
        "../x.json",
    ),
    "absolute": (lambda a: repacked({**contents(a), "/tmp/x.json": b"a"}), "run_file_unexpected", "/tmp/x.json"),
    "symlink": (lambda a: linked(contents(a)), "archive_link", "vocab.txt"),
    "truncated": (lambda a: a[: len(a) // 2], "run_archive_incomplete", "cut short"),
    "no manifest": (lambda a: a[: a.rindex(b"MANIFEST.json")], "run_archive_incomplete", "cut short"),
    "huge size": (lambda a: huge(contents(a)), "run_archive_incomplete", "cut short"),
    "no archive": (lambda a: b"Hello" * 1000, "run_archive_incomplete", "damaged"),
    "other format": (
        lambda a: repacked(changed(a, "MANIFEST.json", format="x")),
        "run_archive_foreign",
        "not the archive",
    ),
    "newer version": (
        lambda a: repacked(changed(a, "MANIFEST.json", format_version=2)),
        "run_archive_version",
        "format version 2",
    ),
    "unknown field": (lambda a: repacked(changed(a, "spec.json", wings=2)), "run_file_invalid", "wings"),
    "other network": (lambda a: repacked(changed(a, "spec.json", hidden_size=64)), "run_file_invalid", "hidden_size"),
    "other corpus": (lambda a: repacked(changed(a, "spec.json", corpora=["0" * 16])), "run_file_invalid", "corpora"),
    "bad curve": (
        lambda a: repacked({**contents(a), "metrics.csv": b"step,time,loss\n1,,4\n1,,x\n"}),
        "run_file_invalid",
        "line 3",
    ),
    "curve over two lines": (
        lambda a: repacked({**contents(a), "metrics.csv": b'step,time,loss\n1,,"4\n"\n'}),
        "run_file_invalid",
        "line 2",
    ),
    "long line": (
        lambda a: repacked({**contents(a), "metrics.csv": b"step,time,loss\n" + b"," * (1 << 21)}),
        "run_file_invalid",
        "line 2: > 1048576 bytes",
    ),
    "large description": (
        lambda a: repacked(changed(a, "run.json", padding="a" * (4 << 20))),
        "run_file_invalid",
        "> 4194304 bytes",
    ),
    "weights of NaN": (with_nan, "nonfinite", "NaN"),
}


@pytest.mark.parametrize(("change", "code", "word"), HOSTILE.values(), ids=HOSTILE)
def test_a_changed_archive_is_refused_with_a_reason_and_leaves_nothing(
    alice_api: TestClient, archive: bytes, in_process: None, change: Callable[[bytes], bytes], code: str, word: str
) -> None:
    before = sorted((storage.data() / "runs").iterdir())
    task = imported(alice_api, change(archive))
    assert (task["state"], task["failure"]["code"]) == ("failed", code), task["failure"]
    assert word in task["failure"]["message"]
    assert sorted((storage.data() / "runs").iterdir()) == before
    assert alice_api.get(f"/api/v1/jobs/{task['id']}").status_code == 404


def test_a_cancelled_import_leaves_nothing(
    alice_api: TestClient, alice: TestClient, archive: bytes, in_process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = child.runner.run_sandboxed

    def cancel_after(*arguments: Any, **more: Any) -> tuple[dict[str, Any], int]:
        report = read(*arguments, **more)  # the files are unpacked, and checked
        assert alice_api.post(f"/api/v1/tasks/{task['id']}/cancel").json()["state"] == "cancelled"
        return report

    monkeypatch.setattr(child.runner, "run_sandboxed", cancel_after)
    task = upload(alice_api, repacked(contents(archive)))
    run_waiting()
    assert not storage.background_task(task["id"]).exists()
    assert not storage.run(task["id"]).exists()
    assert alice_api.get(f"/api/v1/jobs/{task['id']}").status_code == 404
    page = alice.get(f"/tasks/{task['id']}")
    assert (page.status_code, "Import a job" in page.text) == (200, True)
    assert "first.tar" in alice.get("/tasks?kind=job_import").text


def test_files_without_a_row_are_removed(
    alice_api: TestClient, archive: bytes, in_process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    move = imports._move

    def refuse_after(job: Job, directory: Path) -> None:
        move(job, directory)
        storage.tokenizer(job.id).mkdir(parents=True)
        assert list(storage.run(job.id).glob("checkpoints/*"))  # they are in their place
        raise ValueError

    monkeypatch.setattr(imports, "_move", refuse_after)
    task = upload(alice_api, repacked(contents(archive)))
    run_waiting()
    failure = alice_api.get(f"/api/v1/tasks/{task['id']}").json()["failure"]
    assert failure["code"] == "result_unstorable"
    assert not storage.run(task["id"]).exists()
    assert not storage.tokenizer(task["id"]).exists()


def test_the_page_uploads_without_a_script(alice: TestClient, archive: bytes, in_process: None) -> None:
    assert 'href="/jobs/import"' in alice.get("/jobs").text
    assert 'type="file"' in alice.get("/jobs/import").text
    answer = alice.post("/jobs/import", files={"file": ("second.tar", archive[:-1500])}, follow_redirects=False)
    assert answer.status_code == 303, answer.text
    run_waiting()
    assert "cut short" in alice.get(answer.headers["location"]).text
    refused = alice.post("/jobs/import", files={"file": ("", b"")})
    assert refused.status_code == 422
