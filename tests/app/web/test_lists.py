"""The lists of corpora, base models, tokenizers and checkpoints: searched, filtered, sorted, page by page."""

from typing import Any

import pytest
from sqlalchemy import update
from starlette.testclient import TestClient

from app.checkpoints import service as checkpoints
from app.core import db
from app.core.model_base import new_id
from app.core.models import Corpus, ImportedModel, Tokenizer
from app.corpora import service as corpora
from tests.app.jobs import factories
from tests.app.web import list_rows
from tests.users import Person

SIZES = {"Beta%": 300, "alpha": 100, "Gamma": 200}  # in this order they are made
LOSSES = {"Beta%": 2.5, "alpha": 1.5}
LISTS = ("corpora", "models", "tokenizers", "checkpoints")


@pytest.fixture(scope="module", autouse=True)
def filled(alice_user: Person) -> None:
    """Three rows in each list, of which one is of another kind, source or state, or pinned."""
    for name, size in SIZES.items():
        corpus_id = factories.corpus(alice_user, name=name)
        kind = "chat" if name == "alpha" else "text"
        with db.transaction() as session:
            session.execute(update(Corpus).where(Corpus.id == corpus_id).values(num_bytes=size, kind=kind))
            is_ready = name != "alpha"
            source = "upload" if is_ready else "hub"
            state = "ready" if is_ready else "importing"
            model = ImportedModel(owner_id=alice_user.id, name=name, source=source, state=state, num_bytes=size)
            tokenizer = Tokenizer(
                owner_id=alice_user.id,
                name=name,
                source="job" if is_ready else "import",
                state="ready" if is_ready else "preparing",
                corpora=[],
                vocab_size=size,
                sha256=new_id().ljust(64, "0"),
            )
            row = list_rows.job(alice_user.id, name)
            session.add_all([model, tokenizer, row])
            session.flush()
            metrics = {"eval_loss": LOSSES[name]} if name in LOSSES else {}
            values = {"num_bytes": size, "metrics": metrics, "pinned": name == "alpha"}
            session.add(list_rows.checkpoint(alice_user.id, row.id, 4, **values))
    with db.transaction() as session:
        corpora.install_samples(session)


def names(client: TestClient, kind: str, /, **query: str | int) -> list[str]:
    """Those of the three rows that a list has by REST, all pages of it, in order."""
    names, after = [], None
    while True:
        cursor = {} if after is None else {"after": after}
        answer = client.get(f"/api/v1/{kind}", params={"limit": 1, **query, **cursor})
        assert answer.status_code == 200, answer.text
        rows, after = answer.json()["data"], answer.json()["next"]
        assert len(rows) <= 1
        names += [name_of(client, row) for row in rows]
        if after is None:
            return [name for name in names if name in SIZES]


def name_of(client: TestClient, row: dict[str, Any]) -> str:
    """That of a row, or of its job: a checkpoint may have none of its own."""
    return str(row["name"] or client.get(f"/api/v1/jobs/{row['job_id']}").json()["name"])


@pytest.mark.parametrize("kind", LISTS)
def test_every_order_has_each_row_once(alice: TestClient, kind: str) -> None:
    assert names(alice, kind) == ["Gamma", "alpha", "Beta%"]
    assert names(alice, kind, order="name") == ["alpha", "Beta%", "Gamma"]
    assert names(alice, kind, order="size") == ["Beta%", "Gamma", "alpha"]


def test_checkpoints_are_sorted_by_validation_loss_those_without_one_last(alice: TestClient) -> None:
    assert names(alice, "checkpoints", order="eval_loss") == ["alpha", "Beta%", "Gamma"]


@pytest.mark.parametrize("kind", LISTS)
def test_a_part_of_the_name_is_searched_for_in_upper_or_lower_case(alice: TestClient, kind: str) -> None:
    assert names(alice, kind, q="ALPH") == ["alpha"]
    assert names(alice, kind, q="%") == ["Beta%"]
    assert names(alice, kind, q=" a%\0 ") == ["Beta%"]
    assert names(alice, kind, q="nothing") == []


@pytest.mark.parametrize(
    ("kind", "query"),
    [
        ("corpora", {"kind": "chat"}),
        ("models", {"source": "hub"}),
        ("models", {"state": "importing"}),
        ("tokenizers", {"source": "import"}),
        ("tokenizers", {"state": "preparing"}),
        ("checkpoints", {"pinned": "true"}),
    ],
)
def test_a_filter_leaves_out_the_others(alice: TestClient, kind: str, query: dict[str, str]) -> None:
    assert names(alice, kind, **query) == ["alpha"]
    page = alice.get(f"/{kind}", params=query).text
    assert [name for name in SIZES if f">{name}" in listed(page)] == ["alpha"]
    (value,) = query.values()
    assert f'<option value="{value}" selected>' in page
    assert 'class="more-link"' not in page


def listed(page: str) -> str:
    """The rows of the list on a page."""
    return page.partition('class="table">')[2].partition("</table>")[0]


def test_corpora_are_filtered_by_state_and_owner(alice: TestClient) -> None:
    assert names(alice, "corpora", state="parsing") == []
    assert names(alice, "corpora", state="ready", owner="own") == ["Gamma", "alpha", "Beta%"]
    shipped = alice.get("/api/v1/corpora?owner=shipped").json()["data"]
    assert {row["id"] for row in shipped} >= {"00smalltalk", "00songlyrics"}
    assert not {row["name"] for row in shipped} & set(SIZES)


@pytest.mark.parametrize("kind", LISTS)
def test_the_page_keeps_what_its_address_says(alice: TestClient, kind: str) -> None:
    page = alice.get(f"/{kind}?q=alpha&order=name&part=").text
    assert 'value="alpha" maxlength="200"' in page
    assert '<option value="name" selected>' in page
    assert f'href="/{kind}">Show all</a>' in page
    empty = alice.get(f"/{kind}?q=nothing+at+all").text
    assert "Nothing matches" in empty


def test_the_next_page_keeps_the_search(alice: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("corpora", "base_models", "tokenizers", "checkpoints"):
        monkeypatch.setattr(f"app.{module}.pages.PAGE_ROWS", 1)
    for kind in LISTS:
        more = "owner=own&" if kind == "corpora" else ""
        page = alice.get(f"/{kind}?q=a&{more}order=size").text
        further = page.partition('class="more-link"><a href="')[2].partition('"')[0].replace("&amp;", "&")
        assert further.startswith(f"/{kind}?q=a&{more}order=size&after=")
        assert ">Gamma" in listed(alice.get(further).text)


@pytest.mark.parametrize(
    ("kind", "query"),
    [
        ("corpora", "kind=nothing"),
        ("corpora", "owner=bob"),
        ("corpora", "order=worst"),
        ("models", "source=disk"),
        ("tokenizers", "state=boiling"),
        ("checkpoints", "order=loss"),
        ("checkpoints", "pinned=perhaps"),
        ("checkpoints", "q=" + "x" * 201),
    ],
)
def test_a_wrong_parameter_is_refused_by_rest_and_left_out_by_the_page(
    alice: TestClient, kind: str, query: str
) -> None:
    refused = alice.get(f"/api/v1/{kind}?{query}")
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["field"] == query.partition("=")[0]
    assert alice.get(f"/{kind}?{query}").status_code == 200


def test_checkpoints_of_others_are_in_no_order(bob_api: TestClient) -> None:
    for kind in LISTS:
        assert all(names(bob_api, kind, order=order) == [] for order in ("newest", "name", "size"))


def test_only_jobs_with_checkpoints_are_offered(alice: TestClient, alice_user: Person) -> None:
    with db.transaction() as session:
        session.add(list_rows.job(alice_user.id, "no checkpoints"))
        session.flush()
        offered = [name for _id, name in checkpoints.jobs_with_checkpoints(session, principal=alice_user.principal)]
    assert offered == ["Gamma", "alpha", "Beta%"]
