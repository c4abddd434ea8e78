"""The live view: with any interruptions, a viewer finally has what is stored."""

import json
import random
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from app.core import db, storage
from app.core.i18n import use_locale
from app.core.live import Update
from app.core.models import Checkpoint
from app.jobs import job_parts, stream
from app.jobs.attempts import attempts, metrics
from app.jobs.scheduling import dispatch
from tests.app.jobs import factories
from tests.users import Person
from trainer import events
from trainer.run_dir import RunDir


class Viewer:
    """A client that stores updates as the page's script does, and records duplicates."""

    def __init__(self) -> None:
        self.cursor = ""
        self.points: dict[str, dict[int, Any]] = {}
        self.doubles: list[Any] = []
        self.samples: list[tuple[tuple[int, str], str]] = []
        self.history: list[int] = []
        self.checkpoints: list[int] = []
        self.attempts: list[dict[str, Any]] = []
        self.log = ""
        self.job: dict[str, Any] = {}

    def take(self, updates: list[Update]) -> None:
        for update in updates:
            self.cursor = update.cursor
            getattr(self, f"on_{update.event}")(json.loads(update.data))

    def on_job(self, data: dict[str, Any]) -> None:
        self.job = data

    def on_curve(self, data: dict[str, Any]) -> None:
        self.points = {
            name: dict(zip(curve["steps"], curve["values"], strict=True)) for name, curve in data["series"].items()
        }

    def on_points(self, data: dict[str, Any]) -> None:
        for name, curve in data["series"].items():
            known = self.points.setdefault(name, {})
            self.doubles += [(name, step) for step in curve["steps"] if step in known]
            known.update(zip(curve["steps"], curve["values"], strict=True))

    def on_sample(self, data: dict[str, Any]) -> None:
        self.samples.append(((data["step"], data["split"]), data["text"]))

    def on_history(self, data: dict[str, Any]) -> None:
        self.history.append(data["seq"])

    def on_checkpoints(self, data: dict[str, Any]) -> None:
        self.checkpoints = [entry["step"] for entry in data["data"]]

    def on_attempts(self, data: dict[str, Any]) -> None:
        self.attempts = data["data"]

    def on_log(self, data: dict[str, Any]) -> None:
        self.log += data["text"]


def stored_points(job_id: str) -> dict[str, dict[int, Any]]:
    with db.transaction() as session:
        curves = metrics.curves(session, job_id=job_id, window=metrics.Window(0, 10_000, 5_000))
    return {name: dict(zip(curve.steps, curve.values, strict=True)) for name, curve in curves.items()}


def lines(seq: int, step: int) -> list[events.Event]:
    """What a trainer writes at a step: points, and now and then an evaluation with a sample."""
    values: dict[str, Any] = {"loss": 5.0 / step, "grad_norm": "inf" if step % 7 == 0 else 1.0}
    written: list[events.Event] = [events.PointsEvent(seq=seq, at=float(seq), step=step, values=values)]
    if step % 5 == 0:
        values = {"eval_loss": 6.0 / step}
        written.append(events.PointsEvent(seq=seq + 1, at=float(seq), step=step, values=values))
        for place, split in enumerate(get_args(events.SampleSplit)):
            text = f"{split} at {step}"
            sample = events.SampleEvent(
                seq=seq + 2 + place, at=float(seq), step=step, split=split, prompt="In", text=text
            )
            written.append(sample)
    return written


class StreamedJob:
    """A job that a test advances: steps, log lines, checkpoints, a lost attempt."""

    def __init__(self, owner: Person) -> None:
        self.job_id, self.fence = factories.started(owner, factories.corpus(owner))
        self.seq = self.step = self.num_logged = 0
        self.log_path = RunDir(storage.run(self.job_id)).log_path
        self.log_path.parent.mkdir(parents=True)

    def advance(self, steps: int) -> None:
        batch: list[events.Event] = []
        for _ in range(steps):
            self.step += 1
            batch += lines(self.seq + len(batch) + 1, self.step)
        self.seq += len(batch)
        assert factories.record(self.job_id, self.fence, batch) is not None

    def print(self, text: str) -> None:
        with self.log_path.open("a") as file:
            file.write(text)

    def save(self) -> None:
        with db.transaction() as session:
            attempts.record_checkpoint(
                session,
                job_id=self.job_id,
                fence=self.fence,
                step=self.step,
                path=f"runs/{self.job_id}",
                manifest={"files": []},
                metrics={},
            )

    def lose(self) -> None:
        """The attempt ends without a result and another begins from scratch."""
        self.claim_again()
        self.begin(0)

    def claim_again(self) -> None:
        """End the attempt without a result, and claim another that has not chosen its checkpoint yet."""
        with db.transaction() as session:
            attempts.release(session, job_id=self.job_id, fence=self.fence, reason="shutdown")
        with db.transaction() as session:
            dispatch.requeue_or_fail(session)
        factories.give_to(self.job_id, "ada")
        with db.transaction() as session:
            fence = attempts.claim(session, job_id=self.job_id, node="ada")
        assert fence is not None
        self.fence, self.seq = fence, 0

    def begin(self, step: int) -> None:
        """Resume the attempt after a step."""
        with db.transaction() as session:
            attempts.resume_at(session, job_id=self.job_id, fence=self.fence, step=step, saved=None, damaged=[])
        self.step = step

    def read(self, cursor: str, until: str | None = None) -> list[Update]:
        return stream.json_reader(self.job_id, "en")(cursor, until).updates


@pytest.fixture
def run(alice_user: Person) -> StreamedJob:
    return StreamedJob(alice_user)


ACTS = st.lists(st.sampled_from(["advance", "print", "save", "lose", "look", "look", "reload"]), max_size=14)


@given(ACTS, st.integers(0, 2**32))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_viewer_joining_at_any_times_gets_each_event_once(alice_user: Person, acts: list[str], seed: int) -> None:
    factories.node()
    run, viewer, chance, printed = StreamedJob(alice_user), Viewer(), random.Random(seed), ""
    for act in [*acts, "look"]:
        match act:
            case "advance":
                run.advance(chance.randint(1, 12))
            case "print":
                printed += f"line {len(printed)}\n"
                run.print(f"line {len(printed) - len(printed.splitlines()[-1]) - 1}\n")
            case "save":
                run.save()
            case "lose":
                run.lose()
            case "look":
                updates = run.read(viewer.cursor)
                cut = chance.randint(0, len(updates)) if act != acts[-1:] else len(updates)
                viewer.take(updates[:cut])  # the connection breaks here
            case "reload":
                viewer = Viewer()
    viewer.take(run.read(viewer.cursor))
    assert viewer.points == stored_points(run.job_id)
    assert viewer.doubles == []
    assert viewer.log == printed
    assert viewer.history == sorted(set(viewer.history)) == list(range(1, len(viewer.history) + 1))
    assert viewer.job["step"] == run.step
    with db.transaction() as session:
        kept = stream.samples(session, job_id=run.job_id)
    assert {(sample.step, sample.split): sample.text for sample in kept}.items() <= dict(viewer.samples).items()


def test_two_viewers_get_from_the_hub_what_each_would_get_alone(run: StreamedJob) -> None:
    early, late = Viewer(), Viewer()
    run.advance(7)
    early.take(run.read(""))
    run.print("one\n")
    run.advance(3)
    # The hub brings the topic to now, then a new viewer to the same place, while the run continues.
    topic = run.read(early.cursor)
    run.advance(2)
    run.print("two\n")
    late.take(run.read("", topic[-1].cursor))
    early.take(topic)
    rest = run.read(topic[-1].cursor)
    early.take(rest)
    late.take(rest)
    for viewer in (early, late):
        assert viewer.points == stored_points(run.job_id)
        assert viewer.doubles == []
        assert viewer.log == "one\ntwo\n"


def test_without_changes_there_is_no_update(run: StreamedJob) -> None:
    run.advance(2)
    cursor = run.read("")[-1].cursor
    assert run.read(cursor) == []


def test_a_viewer_far_behind_gets_the_curve_again_instead_of_every_point(
    run: StreamedJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "MAX_NEW_LINES", 20)
    run.advance(1)
    viewer = Viewer()
    viewer.take(run.read(""))
    run.advance(30)
    updates = run.read(viewer.cursor)
    assert "points" not in {update.event for update in updates}
    viewer.take(updates)
    assert viewer.points == stored_points(run.job_id)


def test_another_attempt_replaces_the_curve(run: StreamedJob) -> None:
    run.advance(9)
    viewer = Viewer()
    viewer.take(run.read(""))
    run.lose()
    run.advance(3)
    viewer.take(run.read(viewer.cursor))
    assert sorted(viewer.points["loss"]) == [1, 2, 3]
    assert viewer.points == stored_points(run.job_id)


def test_steps_are_taken_back_once_an_attempt_has_its_resume_point(run: StreamedJob) -> None:
    run.advance(9)
    viewer = Viewer()
    viewer.take(run.read(""))
    run.claim_again()
    viewer.take(run.read(viewer.cursor))
    assert sorted(viewer.points["loss"]) == [*range(1, 10)]
    with db.transaction() as session:
        assert [sample.step for sample in stream.samples(session, job_id=run.job_id)] == [5, 5]
    run.begin(4)
    viewer.take(run.read(viewer.cursor))
    assert sorted(viewer.points["loss"]) == [1, 2, 3, 4]
    run.advance(2)
    viewer.take(run.read(viewer.cursor))
    assert viewer.points == stored_points(run.job_id)
    assert viewer.doubles == []


def test_removing_or_pinning_a_checkpoint_updates_the_live_view(run: StreamedJob) -> None:
    viewer = Viewer()
    for steps in (5, 5):
        run.advance(steps)
        run.save()
    viewer.take(run.read(""))
    assert viewer.checkpoints == [10, 5]
    with db.transaction() as session:
        older, newer = session.scalars(select(Checkpoint).order_by(Checkpoint.step).filter_by(job_id=run.job_id))
        older.state, newer.pinned = "deleting", True
    updates = run.read(viewer.cursor)
    assert [update.event for update in updates] == ["checkpoints"]
    (left,) = json.loads(updates[0].data)["data"]
    assert (left["step"], left["pinned"], "pinned" in left["kept"]) == (10, True, True)
    viewer.take(updates)
    assert run.read(viewer.cursor) == []


@pytest.mark.parametrize("field", range(len(stream.Cursor().numbers)))
def test_an_invented_cursor_hides_nothing_that_comes_after_it(run: StreamedJob, field: int) -> None:
    """The hub continues for all viewers from the cursor that the first one's read ended at."""
    run.advance(5)
    run.print("one\n")
    real = stream.Cursor.read(run.read("")[-1].cursor)
    numbers = list(real.numbers)
    numbers[field] = 2**31 - 1
    read = stream.json_reader(run.job_id, "en")
    invented = stream.Cursor(*numbers, digests=("0" * stream.DIGEST_LENGTH,) * 30)
    topic = stream.Cursor.read(read(invented.text(), None).cursor)
    assert topic.history == real.history
    assert topic.digests == real.digests
    run.advance(5)
    run.print("two\n")
    news = {update.event: json.loads(update.data) for update in read(topic.text(), None).updates}
    assert max(news["points"]["series"]["loss"]["steps"]) == 10
    assert news["sample"]["step"] == 10
    assert news["log"]["text"].endswith("two\n")
    run.lose()
    news = {update.event: json.loads(update.data) for update in read(topic.text(), None).updates}
    assert {"job", "curve", "history"} <= set(news)


@pytest.mark.parametrize("digest", ["nonsense", "0123456789\n\ndata: x", "ABCDEF0123"])
def test_a_cursor_with_what_is_no_digest_has_seen_nothing(digest: str) -> None:
    assert stream.Cursor.read(f"1.2.1.2.3.4.{digest}") == stream.Cursor()


# ---- the page ------------------------------------------------------------------------------------------------------


def page_parts(updates: list[Update]) -> dict[str, str]:
    """The HTML that updates carry, by the ID of its element."""
    return {data["id"]: data["html"] for u in updates if u.event == "part" for data in [json.loads(u.data)]}


def rendered(run: StreamedJob, language: str = "en") -> tuple[str, dict[str, str]]:
    """The cursor of the page of a job as it is now, and its parts."""
    with use_locale(language), db.transaction() as session:
        job = factories.row(run.job_id)
        parts = job_parts.render(job_parts.context(session, job))
        return stream.page_cursor(session, job, parts.values()).text(), {f"part-{k}": v for k, v in parts.items()}


@pytest.mark.parametrize("language", ["en", "zh-CN"])
def test_the_page_and_its_stream_show_the_same_parts(run: StreamedJob, language: str) -> None:
    run.advance(7)
    run.save()
    assert page_parts(stream.page_reader(run.job_id, language)("", None).updates) == rendered(run, language)[1]


def test_a_freshly_rendered_page_gets_curves_and_log_but_no_unchanged_part(run: StreamedJob) -> None:
    run.advance(7)
    run.print("one\n")
    cursor, _parts = rendered(run)
    assert [update.event for update in stream.page_reader(run.job_id, "en")(cursor, None).updates] == ["curve", "log"]


def test_only_parts_with_changed_html_are_sent(run: StreamedJob) -> None:
    run.advance(7)
    read = stream.page_reader(run.job_id, "en")
    cursor = read("", None).cursor
    assert len(cursor) <= 200  # which is as long as the route takes it
    assert read(cursor, None).updates == []
    run.save()
    updates = read(cursor, None).updates
    assert set(page_parts(updates)) == {"part-checkpoints"}
    run.advance(3)
    updates = read(updates[-1].cursor, None).updates
    assert set(page_parts(updates)) == {"part-heading", "part-status", "part-latest"}
    assert json.loads(updates[-1].data)["step"] == 10
    assert "at 10" in json.loads(updates[-1].data)["html"]
    assert read(updates[-1].cursor, None).updates == []


@pytest.mark.parametrize("cursor", ["x", "1.2.3", ".......", "9" * 90, "1.é.1.1.1.1.1.a", "-5.0.0.0.0..-1.a"])
def test_an_invalid_cursor_starts_from_the_beginning(run: StreamedJob, cursor: str) -> None:
    run.advance(1)
    assert run.read(cursor)[0].event == "job"
    assert "curve" in {update.event for update in run.read(cursor)}


def test_a_deleted_job_has_no_updates() -> None:
    assert stream.json_reader("gone", "en")("", None).updates == []


def test_messages_are_in_the_language_of_the_viewer(run: StreamedJob) -> None:
    english = {u.event: u.data for u in stream.json_reader(run.job_id, "en")("", None).updates}
    chinese = {u.event: u.data for u in stream.json_reader(run.job_id, "zh-CN")("", None).updates}
    assert json.loads(english["history"])["message"] == "The worker on ada took the job."
    assert json.loads(chinese["history"])["message"] != json.loads(english["history"])["message"]


def test_the_log_of_a_long_run_starts_near_its_end(run: StreamedJob) -> None:
    run.print("".join(f"line {n}\n" for n in range(40_000)))
    viewer = Viewer()
    viewer.take(run.read(""))
    shown = viewer.log.splitlines()
    assert shown[-1] == "line 39999"
    assert shown == [f"line {n}" for n in range(40_000 - len(shown), 40_000)]
    assert len(viewer.log) < 70_000
    assert storage.run(run.job_id).exists()
