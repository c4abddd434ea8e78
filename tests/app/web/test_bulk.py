"""Several rows of a list at once: what deleting them frees, what depends on them, and which stay."""

import os
import re
from pathlib import Path

import pytest
from sqlalchemy import select, update
from starlette.testclient import TestClient

from app.core import db, disk, storage
from app.core.model_base import new_id
from app.core.models import Checkpoint, Corpus, ImportedModel, Tokenizer
from app.jobs import service as jobs
from app.tokenizers import service as tokenizers
from tests import users
from tests.app.jobs import factories
from tests.app.web.list_rows import checkpoint, job
from tests.users import Person


def write(directory: Path, name: str, size: int) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / name
    path.write_bytes(b"x" * size)
    return path


def test_a_file_with_a_link_elsewhere_frees_nothing(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    shared = write(one / "deep", "shared", 1_000)
    write(one, "own", 30)
    write(two, "own", 4)
    os.link(shared, two / "same")
    assert disk.freed_by_deleting([one]) == 30
    assert disk.freed_by_deleting([two]) == 4
    assert disk.freed_by_deleting([one, two]) == 1_034
    assert disk.freed_by_deleting([tmp_path / "absent"]) == 0


def model(owner: Person, name: str, size: int) -> str:
    row = ImportedModel(id=new_id(), owner_id=owner.id, name=name, source="upload", state="ready")
    write(storage.base_model(row.id), "model.safetensors", size)
    with db.transaction() as session:
        session.add(row)
    return row.id


def tokenizer(owner: Person, name: str, size: int, corpora: list[str] | None = None) -> str:
    sha256 = new_id().ljust(64, "0")
    with db.transaction() as session:
        row = tokenizers.record_tokenizer(
            session, owner_id=owner.id, name=name, vocab_size=300, sha256=sha256, corpora=corpora or []
        )
    write(storage.tokenizer(row.id), "tokenizer.json", size)
    return row.id


def saved(owner: Person, name: str, size: int, *, pinned: bool = False) -> str:
    with db.transaction() as session:
        made_by = job(owner.id, name)
        session.add(made_by)
        session.flush()
        jobs.cancel(session, principal=owner.principal, job_id=made_by.id)
        row = checkpoint(owner.id, made_by.id, 4, num_bytes=size, metrics={}, pinned=pinned)
        session.add(row)
    write(storage.checkpoint(row.path), "model.safetensors", size)
    return row.id


def using(owner: Person, name: str, **spec: object) -> str:
    """A job that has not ended; its spec has these values."""
    with db.transaction() as session:
        row = job(owner.id, name)
        row.spec = row.spec.model_copy(update=spec)
        session.add(row)
    return row.id


def end(owner: Person, job_id: str) -> None:
    with db.transaction() as session:
        jobs.cancel(session, principal=owner.principal, job_id=job_id)


def row_of(page: str, name: str) -> str:
    """The cells of a row of the page that asks."""
    (row,) = (row for row in page.split("<tr>") if f">{name}<" in row)
    return re.sub(r"<[^>]+>", "|", row)


def fields(page: str) -> list[tuple[str, str]]:
    """The hidden fields of the page that asks."""
    return re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page)


def confirm(client: TestClient, kind: str, page: str) -> str:
    """Send the form of the page that asks, and answer the list with its result."""
    data: dict[str, list[str]] = {"action": ["delete"]}
    for name, value in fields(page):
        data.setdefault(name, []).append(value)
    answer = client.post(f"/{kind}/bulk", data=data)
    assert answer.status_code == 200
    return answer.text


def test_corpora_are_deleted_but_for_those_in_use(alice: TestClient, alice_user: Person) -> None:
    free, busy, other = (factories.corpus(alice_user, name=name, text="x" * 500) for name in ("free", "busy", "other"))
    with db.transaction() as session:
        session.execute(update(Corpus).where(Corpus.id == other).values(lineage_id=free, version=2))
    tokenizer(alice_user, "vocabulary", 1, [free])
    end(alice_user, using(alice_user, "ended job", corpora=[free]))
    using(alice_user, "open job", corpora=[busy])
    asked = alice.post("/corpora/bulk", data={"corpus": [free, busy], "action": "delete", "q": "x"})
    assert asked.status_code == 200
    uses = row_of(asked.text, "free")
    assert all(word in uses for word in ("Jobs: ended job", "Tokenizers: vocabulary", "1 other version stays"))
    assert "The job “open job” uses this corpus" in row_of(asked.text, "busy")
    assert f"Its files, {disk.freed_by_deleting([storage.corpus(free)])} B, are deleted after 7 days" in asked.text
    assert alice.get(f"/api/v1/corpora/{free}").status_code == 200  # nothing has happened
    assert ("corpus", free) in fields(asked.text)
    assert ("corpus", busy) not in fields(asked.text)
    assert ("q", "x") in fields(asked.text)
    done = confirm(alice, "corpora", asked.text)
    assert "1 entry was moved to the trash." in done
    assert ("row", free) in fields(done)
    assert storage.corpus(free).exists()
    assert [alice.get(f"/api/v1/corpora/{one}").status_code for one in (free, busy, other)] == [404, 200, 200]


def test_what_became_used_meanwhile_is_named_and_stays(alice: TestClient, alice_user: Person) -> None:
    free, busy = (model(alice_user, name, 10) for name in ("free model", "busy model"))
    using(alice_user, "tuning", base_model=busy)
    data = {"model": [free, busy], "action": "delete", "confirmed": "true"}
    done = alice.post("/models/bulk", data=data).text
    assert "1 entry was moved to the trash." in done
    assert "busy model: The job “tuning” starts from this model" in done
    assert [alice.get(f"/api/v1/models/{one}").status_code for one in (free, busy)] == [404, 200]


@pytest.mark.parametrize(
    ("kind", "box", "create", "table"),
    [
        ("models", "model", model, ImportedModel),
        ("tokenizers", "tokenizers", tokenizer, Tokenizer),
        ("checkpoints", "model", saved, Checkpoint),
    ],
)
def test_a_deletion_is_asked_for_and_carried_out(
    alice: TestClient, alice_user: Person, kind: str, box: str, create: object, table: type
) -> None:
    ids = [create(alice_user, name, size) for name, size in (("one", 1_000), ("two", 234))]  # type: ignore[operator]
    listed = alice.get(f"/{kind}").text
    assert all(f'name="{box}" value="{row_id}" form="selection"' in listed for row_id in ids)
    asked = alice.post(f"/{kind}/bulk", data={box: ids, "action": "delete"}).text
    assert "2 of them move to the trash. Their files, 1.2 KiB, are deleted after 7 days" in asked
    with db.transaction() as session:
        assert len(session.scalars(select(table).where(table.id.in_(ids))).all()) == 2  # type: ignore[attr-defined]
    assert "2 entries were moved to the trash." in confirm(alice, kind, asked)
    assert not any(row_id in alice.get(f"/api/v1/{kind}").text for row_id in ids)


def test_what_depends_on_a_model_a_tokenizer_and_a_checkpoint_is_named(alice: TestClient, alice_user: Person) -> None:
    base = model(alice_user, "base", 1)
    start = saved(alice_user, "start", 1, pinned=True)
    words = tokenizer(alice_user, "words", 1)
    for name, spec in (("tuned", {"base_model": base}), ("continued", {"base_model": start})):
        end(alice_user, using(alice_user, name, **spec))
    with db.transaction() as session:
        user = job(alice_user.id, "with words")
        user.tokenizer_id = words
        session.add(user)
    uses = {
        kind: alice.post(f"/{kind}/bulk", data={box: row_id, "action": "delete"}).text
        for kind, box, row_id in (
            ("models", "model", base),
            ("tokenizers", "tokenizers", words),
            ("checkpoints", "model", start),
        )
    }
    assert "Jobs: tuned" in uses["models"]
    assert "Jobs: with words" in uses["tokenizers"]
    assert "Pinned; Jobs: continued" in uses["checkpoints"]


def test_checkpoints_are_pinned_and_unpinned(alice: TestClient, alice_user: Person) -> None:
    ids = [saved(alice_user, name, 1) for name in ("left", "right")]
    for action, sentence, pinned in (("pin", "that were pinned: 2.", True), ("unpin", "that were unpinned: 2.", False)):
        done = alice.post("/checkpoints/bulk", data={"model": ids, "action": action, "order": "size"})
        assert sentence in done.text
        assert '<option value="size" selected>' in done.text
        assert [alice.get(f"/api/v1/checkpoints/{one}").json()["pinned"] for one in ids] == [pinned, pinned]


def test_chosen_models_are_compared(alice: TestClient, alice_user: Person) -> None:
    row_id = model(alice_user, "compared", 1)
    assert 'formmethod="get" formaction="/evaluations"' in alice.get("/models").text
    assert alice.get(f"/evaluations?q=&source=&state=&order=newest&model={row_id}&model={row_id}").status_code == 200


@pytest.mark.parametrize("kind", ["corpora", "models", "tokenizers", "checkpoints"])
def test_nothing_chosen_and_nothing_to_do_are_refused(alice: TestClient, alice_user: Person, kind: str) -> None:
    refused = alice.post(f"/{kind}/bulk", data={"action": "delete"})
    assert (refused.status_code, "Choose at least one entry of the list." in refused.text) == (422, True)
    box = {"corpora": "corpus", "tokenizers": "tokenizers"}.get(kind, "model")
    unknown = alice.post(f"/{kind}/bulk", data={box: "06x", "action": "boil"})
    assert (unknown.status_code, "Choose what to do with the entries." in unknown.text) == (422, True)


def test_rows_of_others_are_neither_named_nor_deleted(bob: TestClient, alice_user: Person) -> None:
    row_id = model(alice_user, "secret", 10)
    asked = bob.post("/models/bulk", data={"model": row_id, "action": "delete"}).text
    assert "secret" not in asked
    assert "There is nothing here, or it is not yours." in asked
    done = bob.post("/models/bulk", data={"model": row_id, "action": "delete", "confirmed": "true"})
    assert done.status_code == 422
    assert storage.base_model(row_id).exists()


def test_a_viewer_has_no_button_to_delete(alice: TestClient, web: TestClient) -> None:
    viewer = users.client(web, cookie=users.enter("Vera", "viewer").cookie())
    for kind in ("corpora", "models", "tokenizers", "checkpoints"):
        assert 'name="action" value="delete"' in alice.get(f"/{kind}").text
        assert 'name="action" value="delete"' not in viewer.get(f"/{kind}").text
