"""Lists, their searches and their choices of tags read by indexes, however many rows there are; searches find all."""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from app.base_models import service as base_models
from app.checkpoints import service as checkpoints
from app.core import db, labels, quotas
from app.core.models import Checkpoint, Corpus, ImportedModel, Job, Tokenizer
from app.core.principal import Principal
from app.corpora import service as corpora
from app.corpora import tokenizers
from app.jobs import schemas, service
from app.jobs.attempts import metrics
from app.jobs.attempts.metrics import Window
from app.jobs.lists import comparison
from tests import statements, users
from tests.app.jobs import factories
from tests.users import Person
from trainer import events

LISTS: dict[type[Any], Callable[..., Any]] = {
    Checkpoint: checkpoints.list_checkpoints,
    Corpus: corpora.list_corpora,
    ImportedModel: base_models.list_models,
    Job: service.list_jobs,
    Tokenizer: tokenizers.list_tokenizers,
}
ORDERS = {"newest": "id", "oldest": "id", "name": "name", "eval_loss": "eval_loss"}  # and the column of its index


def plans(owner: Person, work: Callable[[Session, Principal], object], *avoided: str) -> str:
    """How the queries of some work can be answered if tables are not read whole."""
    lines: list[str] = []
    with db.transaction() as session:
        with statements.record() as queries:
            work(session, owner.principal)
        for means in ("seqscan", *avoided):
            session.execute(text(f"SET LOCAL enable_{means} = off"))
        for statement, parameters in queries:
            if statement.startswith(("SELECT", "WITH")):
                lines += session.connection().exec_driver_sql(f"EXPLAIN {statement}", parameters).scalars()
    return "\n".join(lines)


def indexes(owner: Person, work: Callable[[Session, Principal], object], *avoided: str) -> set[str]:
    """The indexes that such a plan has."""
    return set(re.findall(r" (?:on|using) ((?:ix|pk|uq)_\w+)", plans(owner, work, *avoided)))


@pytest.mark.parametrize("table", LISTS, ids=lambda table: str(table.__tablename__))
def test_long_lists_are_read_by_their_indexes(table: type[Any], alice_user: Person) -> None:
    name, read = table.__tablename__, LISTS[table]
    assert f"ix_{name}_owner_id_id" in indexes(alice_user, lambda session, user: read(session, principal=user))
    conditions = {
        labels.matches(table, "abc"): f"ix_{name}_search",
        labels.is_named(table, "abc"): f"ix_{name}_search",
        labels.has_tag(table, "a"): f"ix_{name}_tags",
    }
    for condition, index in conditions.items():
        query = select(table.id).where(condition)
        assert indexes(alice_user, lambda session, _user, query=query: session.scalars(query)) == {index}
    tags = indexes(alice_user, lambda session, user: labels.list_tags(session, principal=user, table=table))
    assert f"ix_{name}_tag_combination" in tags


@pytest.mark.parametrize("order", ORDERS)
def test_each_order_of_jobs_has_an_index_also_after_a_page(order: Any, alice_user: Person) -> None:
    def read(session: Session, user: Principal, after: str | None = None) -> None:
        service.list_jobs(session, principal=user, order=order, after=after)

    job_id = factories.submitted(alice_user, factories.corpus(alice_user))
    assert f"ix_job_owner_id_{ORDERS[order]}" in indexes(alice_user, read, "sort")
    next_page = plans(alice_user, partial(read, after=job_id), "sort")
    after_cursor = rf"ix_job_owner_id_{ORDERS[order]} on job.*\n +Index Cond: \(\(owner_id = .* AND \(.* [<>]=? "
    assert re.search(after_cursor, next_page), next_page


def test_gpu_hours_are_summed_up_of_the_attempts_that_an_index_finds(alice_user: Person) -> None:
    def read(session: Session, user: Principal) -> None:
        quotas.gpu_hours(session, [user.user_id])

    assert "ix_attempt_ended_at" in indexes(alice_user, read, "nestloop")


def test_jobs_whose_validation_loss_is_no_number_come_after_the_others() -> None:
    owner = users.enter("Lovelace", "member")
    corpus = factories.corpus(owner)
    ids = []
    for losses in (["nan"], [], ["-inf"], [2.5], [1.5, 2.0]):
        job_id, fence = factories.started(owner, corpus)
        points = [
            events.PointsEvent(seq=step, at=1000.0, step=step, values={"eval_loss": loss})
            for step, loss in enumerate(losses, 1)
        ]
        factories.record(job_id, fence, points)
        ids.append(job_id)
    with db.transaction() as session:
        jobs, _cursor = service.list_jobs(session, principal=owner.principal, order="eval_loss")
    assert [job.id for job in jobs] == [ids[4], ids[3], *ids[:3]]


def test_a_list_and_a_comparison_take_as_many_statements_for_four_jobs_as_for_one(alice_user: Person) -> None:
    corpus = factories.corpus(alice_user)
    ids = []
    for _ in range(4):
        job_id, fence = factories.started(alice_user, corpus)
        points = [
            events.PointsEvent(seq=step, at=1000.0, step=step, values={"loss": 3.0, "eval_loss": loss})
            for step, loss in ((1, 2.5), (2, 1.5), (3, 1.5))
        ]
        factories.record(job_id, fence, points)
        ids.append(job_id)
    counts = []
    with db.transaction() as session:
        jobs = [session.get_one(Job, job_id) for job_id in ids]
        for part in (jobs[:1], jobs):
            with statements.record() as queries:
                assert all(row["spark"] for row in schemas.rows(session, part))
                compared = comparison.compare(session, principal=alice_user.principal, job_ids=[job.id for job in part])
            assert {(job.best["eval_loss"].value, job.best["eval_loss"].step) for job in compared.jobs} == {(1.5, 2)}
            counts.append(len(queries))
    assert counts[0] == counts[1]


@pytest.mark.parametrize("num_points", [0, 1, 59, 61, 300])
def test_overviews_show_what_curves_do(alice_user: Person, num_points: int) -> None:
    job_id, fence = factories.started(alice_user, factories.corpus(alice_user), max_steps=10_000)
    values = [*(10.0 / step for step in range(1, num_points)), *(["nan"] * (num_points > 0))]
    factories.record(job_id, fence, factories.losses(values))
    with db.transaction() as session:
        curves = metrics.curves(session, job_id=job_id, window=Window(0, num_points + 1, 60))
        drawn = [value for value in curves["loss"].values if isinstance(value, float)] if curves else []
        overviews = metrics.overviews(session, job_ids=[job_id, "none"], series="loss", max_points=60)
    assert overviews.get(job_id, []) == pytest.approx(drawn)


@pytest.mark.parametrize(
    "text", ["it's", "a\\b", "\\", "'", "100%", "_x", "诗歌", "诗", "ÄÖ", "a b", " & ", ":*", "(!", "“q”"]
)
def test_a_search_finds_each_character(alice_api: TestClient, alice_user: Person, text: str) -> None:
    job_id, label = factories.submitted(alice_user, factories.corpus(alice_user)), f"x{text}y"
    for place in ("name", "notes", "tags"):
        values = {"name": "plain", "notes": "", "tags": [], place: [label] if place == "tags" else label}
        assert alice_api.patch(f"/api/v1/jobs/{job_id}", json=values).status_code == 200
        for part in (text, text.upper(), f"x{text}", label):
            found = alice_api.get("/api/v1/jobs", params={"q": part}).json()["data"]
            assert [job["id"] for job in found] == [job_id], (place, part)
        assert alice_api.get("/api/v1/jobs", params={"q": f"{text}x"}).json()["data"] == []
    alice_api.patch(f"/api/v1/jobs/{job_id}", json={"tags": []})


def test_tags_of_own_and_shared_jobs_are_offered_once(
    alice_api: TestClient, alice_user: Person, bob_user: Person
) -> None:
    corpus = factories.corpus(alice_user)
    for tags in (["b", "a"], ["a"], ["a"], ["c"], []):
        job_id = factories.submitted(alice_user, corpus)
        alice_api.patch(f"/api/v1/jobs/{job_id}", json={"tags": tags})
        if tags == ["c"]:
            alice_api.put(f"/api/v1/shares/{job_id}", json={"everyone": True})
    with db.transaction() as session:
        own = labels.list_tags(session, principal=alice_user.principal, table=Job)
        shared = labels.list_tags(session, principal=bob_user.principal, table=Job)
    assert {"a", "b", "c"} <= set(own)
    assert (own, shared) == (sorted(own), ["c"])
