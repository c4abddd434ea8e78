"""Jobs are forwarded as event files while they run: read by TensorBoard itself, as it follows a directory."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from app.core import db
from app.core.json_shapes import FailureReason
from app.jobs.attempts import attempts
from app.jobs.forwarding.forwarder import Forwarding, forward_due
from app.jobs.forwarding.tracker_process import TrackerProcess
from app.jobs.forwarding.trackers import Tracker
from tests.app.jobs.forwarding.conftest import Configure, begin, claim, curve, make_due, row, train, training
from tests.users import Person
from tests.waiting import until

Start = Callable[..., TrackerProcess]
SENTENCES = {"en": "The process that sends to the tracker has ended.", "zh-CN": "向跟踪工具发送数据的进程已结束。"}


@pytest.fixture
def tracker(configure: Configure, tmp_path: Path) -> Tracker:
    return configure(tensorboard_dir=str(tmp_path))


def reader_of(tmp_path: Path, job_id: str) -> EventAccumulator:
    """TensorBoard's reader of a job's directory."""
    (directory,) = [path for path in tmp_path.iterdir() if path.name == f"Scribe-{job_id}"]
    return EventAccumulator(str(directory), size_guidance={"scalars": 0})


def scalars(reader: EventAccumulator, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in reader.Reload().Scalars(tag)]


def test_a_directory_has_every_step_once_whatever_dies_in_between(
    alice_user: Person, alice: TestClient, tracker: Tracker, process: Start, tmp_path: Path
) -> None:
    job_id, fence = training(alice_user, 5)
    begin()
    # The tracker has the first batch, but the scheduler dies before it records that. TensorBoard has read it.
    sender = process(tracker)
    sender.send(claim(tracker, job_id))
    reader = reader_of(tmp_path, job_id)
    assert scalars(reader, "train/loss") == curve(5)
    train(job_id, fence, range(6, 13), first_seq=7)
    make_due()
    assert forward_due(tracker, sender) == 1
    # The process of the tracker dies, which is seen at the next batch.
    train(job_id, fence, range(13, 17), first_seq=16)
    assert sender._child is not None
    sender._child.kill()
    assert forward_due(tracker, sender) == 1
    for language, sentence in SENTENCES.items():
        assert sentence in alice.get(f"/jobs/{job_id}", headers={"Accept-Language": language}).text
    make_due()
    assert forward_due(tracker, sender) == 1
    assert row(job_id, tracker).error is None
    with db.transaction() as session:
        attempts.finish(session, job_id=job_id, fence=fence)
    assert forward_due(tracker, sender) == 1
    for same in (reader, reader_of(tmp_path, job_id)):
        assert scalars(same, "train/loss") == curve(16)
        assert scalars(same, "eval/loss") == curve(16, every=4)
    assert reader.Tensors("state/text_summary")[0].tensor_proto.string_val == [b"succeeded\n\n"]
    assert b"| max_steps | 40 |" in reader.Tensors("spec/text_summary")[0].tensor_proto.string_val[0]
    assert reader.Scalars("train/loss")[0].wall_time == 1_000_001


def test_a_directory_that_was_emptied_gets_everything_again(
    alice_user: Person, tracker: Tracker, process: Start, tmp_path: Path
) -> None:
    job_id, fence = training(alice_user, 5)
    begin()
    sender = process(tracker)
    assert forward_due(tracker, sender) == 1
    shutil.rmtree(tmp_path / f"Scribe-{job_id}")
    train(job_id, fence, range(6, 9), first_seq=7)
    assert forward_due(tracker, sender) == 1
    assert row(job_id, tracker).error == FailureReason(code="event_file_changed")
    make_due()
    assert forward_due(tracker, sender) == 1
    assert scalars(reader_of(tmp_path, job_id), "train/loss") == curve(8)


def test_the_scheduler_forwards_what_is_chosen_on_the_page_in_a_thread_of_its_own(
    alice_user: Person, alice: TestClient, configure: Configure, tmp_path: Path
) -> None:
    configure(tensorboard_dir=str(tmp_path), forward_jobs="false")
    job_id, fence = training(alice_user, 5)
    with db.transaction() as session:
        attempts.finish(session, job_id=job_id, fence=fence)
    begin()
    path = f"/api/v1/jobs/{job_id}/forwardings"
    (answer,) = alice.get(path).json()["data"]
    assert (answer["tracker"], answer["state"], answer["step"]) == ("tensorboard", "off", None)
    alice.post(f"/jobs/{job_id}/forwardings", data={"tracker": "tensorboard", "is_enabled": "true"})
    forwarding = Forwarding()
    forwarding.step()
    until(lambda: alice.get(path).json()["data"][0]["state"] == "complete", 60, "the end of the job in the tracker")
    forwarding.close()
    assert scalars(reader_of(tmp_path, job_id), "train/loss") == curve(5)
    assert "The whole job has been forwarded." in alice.get(f"/jobs/{job_id}").text
