"""Nobody sees, uses or changes what is another's: every route that takes an id, every list, every reference."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, update
from starlette.testclient import TestClient

from app.accounts import invitations
from app.core import db, storage
from app.core.account_models import ApiToken, ExternalIdentity, Invitation, JoinToken, LoginSession, PasswordReset, User
from app.core.conversation_models import Conversation, ConversationMessage
from app.core.deployment_models import Deployment
from app.core.json_shapes import CorpusMapping, ModelFacts, TaskOptions
from app.core.models import BackgroundTask, Checkpoint, Corpus, HyperparameterSearch, ImportedModel, Job, Tokenizer
from app.core.notice_models import NoticeService, UserNotice
from app.core.openai_models import Submission, Upload, WebhookEndpoint
from app.core.preset_models import JobPreset, NamedMapping
from app.core.synthetic_models import DraftRecord, ModelEndpoint, RecordGeneration
from app.jobs.cluster import join_tokens
from app.tokenizers import service as tokenizers
from app.webhooks.service import EVENT_TYPES
from tests.app.jobs import factories, saved_checkpoints
from tests.app.synthetic.conftest import record_settings
from tests.routes import ENDLESS, NO_ROWS, body_of, headers_of, query_of, routes
from tests.users import Person

MARK = "Sesame"  # in the name of everything of Alice's
SHA256 = "5" * 64
STEPS = {"max_steps": 4, "warmup_steps": 1}
DAY = timedelta(days=1)
TABLES: tuple[type[Any], ...] = (
    Corpus,
    Tokenizer,
    ImportedModel,
    Job,
    HyperparameterSearch,
    Checkpoint,
    BackgroundTask,
    Conversation,
    ConversationMessage,
    Deployment,
    Upload,
    Submission,
    WebhookEndpoint,
    ModelEndpoint,
    NamedMapping,
    JobPreset,
    UserNotice,
    RecordGeneration,
    DraftRecord,
)


RECORD_SETTINGS = record_settings(num_documents=1, max_characters=1, num_turns=1, max_tokens=1)


@dataclass(frozen=True)
class Ids:
    """One row of each kind of Alice's, by the name of the parameter in a route."""

    corpus_id: str
    tokenizer_id: str
    model_id: str
    job_id: str
    checkpoint_id: str
    task_id: str
    token_id: str
    session_id: str
    user_id: str
    invitation_id: str
    conversation_id: str
    message_id: str
    deployment_id: str
    running_job_id: str
    file_id: str
    upload_id: str
    endpoint_id: str
    search_id: str
    model_endpoint_id: str
    mapping_id: str
    preset_id: str
    notice_id: str
    service_id: str
    generation_id: str
    record_id: str
    trashed_id: str
    item_id: str  # of lineage
    shared_id: str
    identity_id: str
    join_token_id: str


@pytest.fixture(scope="module")
def ids(database: str, alice_user: Person) -> Ids:
    """Alice's rows."""
    factories.node(slots=4)
    corpus_id = factories.corpus(alice_user, name=f"{MARK} corpus")
    (storage.corpus(corpus_id) / "upload").write_bytes(b"text")
    job_id, fence = factories.started(alice_user, corpus_id, name=f"{MARK} job", **STEPS)
    running_job_id, _fence = factories.started(alice_user, corpus_id, name=f"{MARK} other job", **STEPS)
    checkpoint_id = saved_checkpoints.recorded(job_id, 4, fence).id
    alice_user.token()
    alice_user.cookie()
    with db.transaction() as session:
        tokenizer = record_tokenizer(session, alice_user, f"{MARK} tokenizer", [corpus_id])
        model = imported_model(alice_user, f"{MARK} model")
        options = TaskOptions(format="safetensors")
        task = BackgroundTask(owner_id=alice_user.id, checkpoint_id=checkpoint_id, kind="export", options=options)
        conversation = Conversation(owner_id=alice_user.id, title=f"{MARK} chat", columns=[])
        deployment = Deployment(
            owner_id=alice_user.id, name=f"{MARK} deployment", name_key=MARK, model_id="x", path="x"
        )
        session.add_all([model, task, conversation, deployment])
        session.flush()
        message = ConversationMessage(conversation_id=conversation.id, role="user", content=f"Open, {MARK}!")
        session.add(message)
        session.flush()
        token_id = session.scalars(select(ApiToken.id)).one()
        session_id = session.scalars(select(LoginSession.id)).one()
        row_ids = (corpus_id, tokenizer.id, model.id, job_id, checkpoint_id, task.id)
        upload = Upload(
            owner_id=alice_user.id,
            filename=f"{MARK}.txt",
            purpose="fine-tune",
            num_bytes=9,
            tus_metadata="filename YQ==",
            expires_at=db.now() + DAY,
        )
        endpoint = WebhookEndpoint(
            owner_id=alice_user.id, name=MARK, url="https://example.com/", event_types=[EVENT_TYPES[0]], secret=MARK
        )
        search = HyperparameterSearch(owner_id=alice_user.id, name=f"{MARK} search", fields=["seed"])
        model_endpoint = ModelEndpoint(owner_id=alice_user.id, name=MARK, base_url="https://example.com", model=MARK)
        columns = CorpusMapping(name=MARK, kind="text", columns={"text": MARK})
        mapping = NamedMapping(owner_id=alice_user.id, name=MARK, mapping=columns)
        preset = JobPreset(owner_id=alice_user.id, name=MARK, spec={"recipe": "tiny"})
        notice = UserNotice(user_id=alice_user.id, event="job_finished", values={"name": MARK, "steps": 4})
        service = NoticeService(user_id=alice_user.id, name=MARK, scheme="json", url="json://localhost")
        invitation, _code = invitations.create(session, principal=alice_user.principal, role="member", days=7)
        join_token, _secret = join_tokens.create(session, principal=alice_user.principal)
        generation = RecordGeneration(
            owner_id=alice_user.id,
            corpus_name=MARK,
            corpus_version=1,
            corpus_sha256=SHA256,
            corpus_documents=1,
            model=MARK,
            model_name=MARK,
            settings=RECORD_SETTINGS,
        )
        trashed = imported_model(alice_user, f"{MARK} trash")
        trashed.deleted_at = db.now()
        identity = ExternalIdentity(user_id=alice_user.id, issuer="https://login.example.com", subject="1", label=MARK)
        session.add_all([upload, endpoint, search, model_endpoint, mapping, preset, notice, service])
        session.add_all([generation, trashed, identity])
        session.flush()
        draft = DraftRecord(generation_id=generation.id, document=0, cells=[MARK, MARK])
        session.add(draft)
        session.flush()
        others = (
            conversation.id,
            message.id,
            deployment.id,
            running_job_id,
            corpus_id,
            upload.id,
            endpoint.id,
            search.id,
            model_endpoint.id,
            mapping.id,
            preset.id,
            notice.id,
            service.id,
            generation.id,
            draft.id,
            trashed.id,
            checkpoint_id,
            corpus_id,
            identity.id,
            join_token.id,
        )
        return Ids(*row_ids, token_id, session_id, alice_user.id, invitation.id, *others)


def record_tokenizer(session: Any, person: Person, name: str, corpus_ids: list[str], sha256: str = SHA256) -> Tokenizer:
    return tokenizers.record_tokenizer(
        session, owner_id=person.id, name=name, vocab_size=2048, sha256=sha256, corpora=corpus_ids
    )


def imported_model(person: Person, name: str) -> ImportedModel:
    facts = ModelFacts(
        model_type="llama",
        num_hidden_layers=2,
        hidden_size=64,
        intermediate_size=128,
        num_attention_heads=4,
        num_key_value_heads=4,
        vocab_size=2048,
        context=512,
        num_parameters=1000,
        dtype="float32",
        has_chat_template=True,
    )
    return ImportedModel(owner_id=person.id, name=name, source="upload", state="ready", facts=facts, sha256=SHA256)


PARAMETERS = {field.name for field in fields(Ids)} - {"running_job_id"}
FOR_ADMINS = r"\{(user|invitation|service|join_token)_id\}|everyones"
WITH_ID = [(method, path) for method, path in routes() if re.search(r"\{\w+_id\}", path) and NO_ROWS not in path]
LISTS = [path for method, path in routes() if method == "GET" and "{" not in path and path != ENDLESS]


def path_of(path: str, ids: Ids) -> str:
    return path.format(**vars(ids), name="config.json", step=1) + query_of(path)


def test_every_kind_of_row_has_routes() -> None:
    assert {name for _method, path in WITH_ID for name in re.findall(r"\{(\w+_id)\}", path)} == PARAMETERS
    assert len(LISTS) > 20


def fingerprint() -> list[Any]:
    """All rows that have an owner; of tokens and sessions what does not change with their use."""
    tokens = select(ApiToken.id, ApiToken.revoked_at).order_by(ApiToken.id)
    sessions = select(LoginSession.id).order_by(LoginSession.id)
    people = select(User.id, User.name, User.password_hash, User.disabled_at).order_by(User.id)
    codes = (select(PasswordReset.code_sha256), select(Invitation.code_sha256), select(JoinToken.id))
    queries = [
        *(select(table.__table__).order_by(table.id) for table in TABLES),
        tokens,
        select(ExternalIdentity.id).order_by(ExternalIdentity.id),
        sessions,
        people,
        *codes,
    ]
    with db.transaction() as session:
        return [session.execute(query).all() for query in queries]


@pytest.mark.parametrize(("method", "path"), WITH_ID)
def test_a_foreign_id_is_not_found(ids: Ids, bob: TestClient, method: str, path: str) -> None:
    before = fingerprint()
    answer = bob.request(method, path_of(path, ids), content=body_of(path), headers=headers_of(path))
    assert answer.status_code == (403 if re.search(FOR_ADMINS, path) else 404), answer.text
    assert MARK not in answer.text
    assert fingerprint() == before


# How a recipe or a model made a corpus that neither made, and the files of an export that has not run.
MAY_BE_ABSENT = ("events", "/cleaning", "/synthesis", "/{task_id}/files/")


@pytest.mark.parametrize(
    "path", [path for method, path in WITH_ID if method == "GET" and not any(part in path for part in MAY_BE_ABSENT)]
)
def test_an_owner_finds_its_own_rows(ids: Ids, alice: TestClient, path: str) -> None:
    assert alice.get(path_of(path, ids)).status_code != 404


@pytest.mark.parametrize("path", LISTS)
def test_no_list_contains_rows_of_another_user(ids: Ids, bob: TestClient, path: str) -> None:
    text = bob.get(path).text
    assert MARK not in text
    assert not [row_id for row_id in vars(ids).values() if row_id in text]


@pytest.mark.parametrize(
    "path", ["/corpora", "/tokenizers", "/models", "/jobs", "/checkpoints", "/playground", "/conversations", "/nodes"]
)
def test_the_lists_of_an_owner_contain_its_rows(ids: Ids, alice: TestClient, path: str) -> None:
    assert MARK in alice.get(path).text


@pytest.mark.parametrize(
    "path",
    [
        "/jobs/new?corpus={corpus_id}",
        "/jobs/new?base_model={checkpoint_id}",
        "/jobs/new?base_model={model_id}",
        "/jobs/new?from={checkpoint_id}",
        "/jobs/new?like={job_id}",
        "/jobs/new?tokenizer={tokenizer_id}",
        "/playground?checkpoint={checkpoint_id}",
        "/playground?checkpoint={model_id}",
        "/playground?conversation={conversation_id}",
        "/checkpoints?job={job_id}",
        "/tasks?subject={checkpoint_id}",
        *(f"/lineage/{{{name}}}" for name in ("corpus_id", "tokenizer_id", "model_id", "job_id", "task_id")),
        "/lineage/{deployment_id}",
        "/api/v1/checkpoints?job={job_id}",
        "/api/v1/tasks?subject={checkpoint_id}",
    ],
)
def test_a_link_with_a_foreign_id_shows_nothing_of_it(ids: Ids, bob: TestClient, path: str) -> None:
    answer = bob.get(path_of(path, ids))
    assert answer.status_code in (200, 404, 422)
    assert MARK not in answer.text


# Requests that name rows: the field that names one of Alice's comes last.
USES: list[tuple[str, dict[str, Any]]] = [
    ("/jobs", {"corpora": ["{corpus_id}"]}),
    ("/jobs", {"corpora": ["{own}"], "validation_corpora": ["{corpus_id}"]}),
    ("/jobs", {"corpora": ["{own}"], "tokenizer": "{tokenizer_id}"}),
    ("/jobs", {"corpora": ["{own}"], "base_model": "{checkpoint_id}"}),
    ("/jobs", {"corpora": ["{own}"], "base_model": "{model_id}"}),
    ("/jobs", {"corpora": ["{own}"], "resume_from_checkpoint": "{checkpoint_id}"}),
    ("/exports", {"checkpoint": "{checkpoint_id}"}),
    ("/evaluations", {"corpora": ["{own}"], "checkpoint": "{checkpoint_id}"}),
    ("/generate", {"checkpoint": "{checkpoint_id}"}),
    ("/generate", {"checkpoint": "{model_id}"}),
]


def filled(body: dict[str, Any], ids: Ids, own: str) -> Any:
    text = json.dumps(body)
    for name, row_id in {**vars(ids), "own": own}.items():
        text = text.replace(f"{{{name}}}", row_id)
    return json.loads(text)


@pytest.mark.parametrize(("path", "body"), USES)
def test_a_foreign_id_cannot_be_used(
    ids: Ids, bob_api: TestClient, bob_user: Person, path: str, body: dict[str, Any]
) -> None:
    own = factories.corpus(bob_user, name="Bob's")
    before = fingerprint()
    answer = bob_api.post(f"/api/v1{path}", json=filled(body, ids, own))
    assert answer.status_code in (404, 422), answer.text
    if answer.status_code == 422:
        assert [error["field"] for error in answer.json()["errors"]] == [list(body)[-1]]
    assert MARK not in answer.text
    assert fingerprint() == before


@pytest.fixture(scope="module")
def entangled(ids: Ids, alice_user: Person, bob_user: Person) -> dict[str, str]:
    """Rows of Bob's that refer to Alice's, as older versions or a change of hands could have left them."""
    own = factories.corpus(bob_user, name="Bob's corpus")
    job_id, fence = factories.started(bob_user, own, name="Bob's job", **STEPS)
    checkpoint = saved_checkpoints.recorded(job_id, 4, fence)
    other_id = factories.submitted(bob_user, own, name="Bob's other job", **STEPS)
    with db.transaction() as session:
        tokenizer = record_tokenizer(session, bob_user, "Bob's tokenizer", [ids.corpus_id, own], "6" * 64)
        model = imported_model(bob_user, "Bob's model")
        session.add(model)
        session.flush()
        hers = session.get_one(Job, ids.job_id)
        hers.tokenizer_id = tokenizer.id
        hers.spec = hers.spec.model_copy(update={"base_model": model.id})
        session.get_one(Job, job_id).spec = session.get_one(Job, job_id).spec.model_copy(
            update={"base_model": ids.checkpoint_id}
        )
        session.get_one(Job, other_id).spec = session.get_one(Job, other_id).spec.model_copy(
            update={"base_model": ids.model_id}
        )
        row = session.get_one(Checkpoint, checkpoint.id)
        row.manifest = row.manifest.model_copy(update={"tokenizer_sha256": SHA256})
        return {"job": job_id, "other": other_id, "checkpoint": row.id, "tokenizer": tokenizer.id, "model": model.id}


@pytest.mark.parametrize(
    "path",
    [
        "/jobs/{job}",
        "/jobs/{other}",
        "/checkpoints/{checkpoint}",
        "/tokenizers",
        "/tokenizers/{tokenizer}",
        "/models",
        "/models/{model}",
        "/lineage/{job}",
        "/lineage/{other}",
        "/lineage/{tokenizer}",
        "/lineage/{model}",
        "/api/v1/jobs/{job}",
        "/api/v1/tokenizers/{tokenizer}",
    ],
)
def test_pages_of_own_rows_name_no_rows_of_others(entangled: dict[str, str], bob: TestClient, path: str) -> None:
    answer = bob.get(path.format(**entangled))
    assert answer.status_code in (200, 409), path  # 409: a tokenizer without its files
    assert MARK not in answer.text


# ---- the trash ------------------------------------------------------------------------------------------------------

TRASHED = {
    "corpus_id": Corpus,
    "tokenizer_id": Tokenizer,
    "model_id": ImportedModel,
    "job_id": Job,
    "checkpoint_id": Checkpoint,
}
# A task that worked on a checkpoint of a job in the trash, and the file that the corpus is under /v1.
WITH_TRASHED_ID = [
    (method, path) for method, path in WITH_ID if re.search(rf"\{{({'|'.join(TRASHED)}|task_id|file_id)\}}", path)
]


@pytest.fixture
def trashed(ids: Ids) -> Iterator[Ids]:
    """Alice's rows, of which those of TRASHED are in her trash during the test."""
    move_to_trash(ids, func.now())
    yield ids
    move_to_trash(ids, None)


def move_to_trash(ids: Ids, deleted_at: Any) -> None:
    with db.transaction() as session:
        for name, table in TRASHED.items():
            session.execute(update(table).where(table.id == getattr(ids, name)).values(deleted_at=deleted_at))
        session.execute(update(Job).where(Job.id == ids.job_id).values(state="succeeded"))  # else nodes name it


@pytest.mark.parametrize(("method", "path"), WITH_TRASHED_ID)
def test_what_is_in_the_trash_is_not_found(trashed: Ids, alice: TestClient, method: str, path: str) -> None:
    before = fingerprint()
    headers = {"Content-Type": "application/json"}
    answer = alice.request(method, path_of(path, trashed), content=body_of(path), headers=headers)
    assert answer.status_code == 404, answer.text
    assert fingerprint() == before


@pytest.mark.parametrize("path", [path for path in LISTS if not re.search("trash|audit-log", path)])
def test_no_list_contains_what_is_in_the_trash(trashed: Ids, alice: TestClient, path: str) -> None:
    text = alice.get(path).text
    names = TRASHED.keys() - ({"corpus_id"} if "jobs" in path else set())  # the spec of the other job names it
    assert not [name for name in names if getattr(trashed, name) in text]


@pytest.mark.parametrize(("path", "body"), USES)
def test_what_is_in_the_trash_cannot_be_used(
    trashed: Ids, alice_api: TestClient, alice_user: Person, path: str, body: dict[str, Any]
) -> None:
    own = factories.corpus(alice_user, name="Not in the trash")
    before = fingerprint()
    answer = alice_api.post(f"/api/v1{path}", json=filled(body, trashed, own))
    assert (answer.status_code, answer.json()["code"]) in ((404, "in_trash"), (422, "in_trash")), answer.text
    assert fingerprint() == before
