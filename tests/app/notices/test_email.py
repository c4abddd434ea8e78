"""Notices by e-mail, to a real SMTP server on loopback."""

import re
import subprocess
from collections.abc import Callable, Iterator
from email.message import Message
from pathlib import Path
from ssl import PROTOCOL_TLS_SERVER, SSLContext
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Message as MessageHandler
from aiosmtpd.smtp import AuthResult
from sqlalchemy import delete, func, select, update
from starlette.testclient import TestClient

from app.core import db
from app.core.models import Job
from app.core.notice_models import NoticeDelivery, NoticeSettings, UserNotice
from app.core.settings import settings
from app.notices import delivery, email, service
from app.notices.delivery_errors import DeliveryFailed
from app.webhooks.delivery import PAUSES
from tests.app.jobs import factories
from tests.users import Person

ADDRESS = "alice@example.com"
PASSWORD = "opensesame"


class FreePort(Controller):
    """A server at a free port, which `port` is once it runs."""

    def _trigger_server(self) -> None:
        self.port = self.server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        super()._trigger_server()


class Mailbox(MessageHandler):
    """Keeps what arrives; answers `refusal` to a recipient, if it is set."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[Message] = []
        self.refusal = ""

    def handle_message(self, message: Message) -> None:
        self.messages.append(message)

    async def handle_RCPT(self, _server: Any, _session: Any, envelope: Any, address: str, _options: Any) -> str:
        if self.refusal:
            return self.refusal
        envelope.rcpt_tos.append(address)
        return "250 OK"

    def text(self) -> str:
        """The text of the last message."""
        return self.messages[-1].get_payload(decode=True).decode()  # type: ignore[union-attr]


@pytest.fixture
def mailbox() -> Mailbox:
    return Mailbox()


Start = Callable[..., Controller]


@pytest.fixture
def start(mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts a server, which the settings name."""
    controllers = []

    def start_server(*, security: str = "none", **options: Any) -> Controller:
        controller = FreePort(mailbox, hostname="127.0.0.1", port=0, **options)
        controller.start()
        controllers.append(controller)
        variables = {
            "HOST": "127.0.0.1",
            "PORT": str(controller.port),
            "SECURITY": security,
            "SENDER": "panel@example.com",
        }
        for name, value in variables.items():
            monkeypatch.setenv(f"ATHANOR_SMTP_{name}", value)
        settings.cache_clear()
        return controller

    yield start_server
    for controller in controllers:
        controller.stop()
    monkeypatch.undo()
    settings.cache_clear()


@pytest.fixture(autouse=True)
def empty(database: str) -> Iterator[None]:
    factories.node(slots=100)
    yield
    with db.transaction() as session:
        for table in (UserNotice, NoticeSettings, Job):
            session.execute(delete(table))


def link(mailbox: Mailbox, path: str) -> str:
    return re.search(rf"http\S+?({path}\?code=\S+)", mailbox.text()).group(1)  # type: ignore[union-attr]


def confirm(client: TestClient, mailbox: Mailbox, visitor: TestClient) -> None:
    assert client.put("/api/v1/notice-settings/email", json={"address": ADDRESS}).status_code == 200
    code = link(mailbox, "/confirm-email").partition("=")[2]
    assert visitor.post("/confirm-email", data={"code": code}).status_code == 200


def finish_job(person: Person) -> str:
    return factories.finished(person, factories.corpus(person), max_steps=4, warmup_steps=1, name="Scribe")[0]


def deliver_due() -> int:
    ids = delivery.claim(10)
    for delivery_id in ids:
        delivery.deliver(delivery_id)
    return len(ids)


def rows() -> list[NoticeDelivery]:
    with db.transaction() as session:
        return list(session.scalars(select(NoticeDelivery).order_by(NoticeDelivery.id)))


def make_due() -> None:
    with db.transaction() as session:
        session.execute(update(NoticeDelivery).where(NoticeDelivery.due_at.is_not(None)).values(due_at=db.now()))


def test_a_confirmed_address_gets_the_notices(
    alice_user: Person, alice: TestClient, visitor: TestClient, start: Start, mailbox: Mailbox
) -> None:
    start()
    alice.patch("/api/v1/notice-settings", json={"language": "zh-CN"})
    confirm(alice, mailbox, visitor)
    job_id = finish_job(alice_user)
    assert len(mailbox.messages) == 1
    assert deliver_due() == 1
    message = mailbox.messages[-1]
    assert (message["To"], message["From"]) == (ADDRESS, "panel@example.com")
    assert "已完成" in mailbox.text() or "已完成" in str(message["Subject"])
    assert f"/jobs/{job_id}" in mailbox.text()
    assert message["Auto-Submitted"] == "auto-generated"
    assert "/unsubscribe?code=" in message["List-Unsubscribe"]
    assert rows()[0].delivered_at is not None
    assert deliver_due() == 0


def test_an_address_is_not_used_before_it_is_confirmed(
    alice_user: Person, bob: TestClient, alice: TestClient, start: Start, mailbox: Mailbox
) -> None:
    start()
    alice.put("/api/v1/notice-settings/email", json={"address": ADDRESS})
    assert "Alice" not in mailbox.text()
    finish_job(alice_user)
    assert rows() == []
    path = link(mailbox, "/confirm-email")
    assert bob.get(path).status_code == 200  # which a program that looks at links may do
    code = path.partition("=")[2]
    assert bob.post("/api/v1/notice-settings/email/confirm", json={"code": code}).status_code == 403
    assert alice.get("/api/v1/notice-settings").json()["email"] is None
    answer = alice.post("/api/v1/notice-settings/email/confirm", json={"code": code}).json()
    assert (answer["email"], answer["pending_email"]) == (ADDRESS, None)
    assert alice.post("/confirm-email", data={"code": code}).status_code == 403


def test_links_are_sent_once_a_minute(alice: TestClient, start: Start, mailbox: Mailbox) -> None:
    start()
    alice.put("/api/v1/notice-settings/email", json={"address": ADDRESS})
    alice.delete("/api/v1/notice-settings/email")
    answer = alice.put("/api/v1/notice-settings/email", json={"address": ADDRESS})
    assert (answer.status_code, answer.json()["code"]) == (429, "email_soon")
    assert len(mailbox.messages) == 1


@pytest.mark.parametrize("address", ["", "alice", "a@b@c", "a@b.c\nBcc: d@e.f", "<a@b.c>", "a b@c.d", "é@b.c"])
def test_what_is_no_address_is_refused(alice: TestClient, start: Start, mailbox: Mailbox, address: str) -> None:
    start()
    answer = alice.put("/api/v1/notice-settings/email", json={"address": address})
    assert (answer.status_code, answer.json()["code"]) == (422, "email_invalid")
    assert mailbox.messages == []


def test_without_a_mail_server_no_address_is_taken(alice: TestClient) -> None:
    assert alice.put("/api/v1/notice-settings/email", json={"address": ADDRESS}).json()["code"] == "email_unconfigured"
    assert "email" not in alice.get("/api/v1/notice-settings").json()["offered_channels"]
    assert "no mail server" in alice.get("/account/notices").text


def test_unsubscribing_needs_no_login(
    alice_user: Person, alice: TestClient, visitor: TestClient, start: Start, mailbox: Mailbox
) -> None:
    start()
    confirm(alice, mailbox, visitor)
    finish_job(alice_user)
    deliver_due()
    address = re.search(r"<http://[^/]+(/unsubscribe\S+)>", mailbox.messages[-1]["List-Unsubscribe"])
    assert address is not None
    assert visitor.get(address.group(1)).status_code == 200
    assert alice.get("/api/v1/notice-settings").json()["email"] == ADDRESS
    assert visitor.post(address.group(1)).status_code == 200
    assert alice.get("/api/v1/notice-settings").json()["email"] is None


def test_one_click_is_offered_by_https_only(start: Start, mailbox: Mailbox) -> None:
    start()
    for scheme in ("https", "http"):
        email.send(ADDRESS, "Subject", "Text", f"{scheme}://localhost/unsubscribe?code=x")
    offers = [message["List-Unsubscribe-Post"] for message in mailbox.messages]
    assert offers == ["List-Unsubscribe=One-Click", None]


def test_a_failed_delivery_is_tried_again_and_its_user_sees_why(
    alice_user: Person, alice: TestClient, visitor: TestClient, start: Start, mailbox: Mailbox
) -> None:
    start()
    confirm(alice, mailbox, visitor)
    finish_job(alice_user)
    mailbox.refusal = "451 later"
    deliver_due()
    (row,) = rows()
    assert row.error == "email_refused"
    assert row.due_at is not None
    assert deliver_due() == 0
    chosen = alice.get("/api/v1/notice-settings").json()
    assert chosen["email_error"] == "The mail server refuses the message."
    assert "The mail server refuses the message." in alice.get("/notices").text
    assert "The mail server refuses the message." in alice.get("/account/notices").text
    mailbox.refusal = ""
    make_due()
    assert deliver_due() == 1
    assert rows()[0].delivered_at is not None
    assert alice.get("/api/v1/notice-settings").json()["email_error"] is None


def test_a_disabled_user_is_sent_nothing(
    bob_user: Person, bob: TestClient, alice: TestClient, visitor: TestClient, start: Start, mailbox: Mailbox
) -> None:
    start()
    confirm(bob, mailbox, visitor)
    finish_job(bob_user)
    num_messages = len(mailbox.messages)
    assert alice.post(f"/api/v1/users/{bob_user.id}/disable").is_success
    try:
        assert deliver_due() == 1
    finally:
        alice.post(f"/api/v1/users/{bob_user.id}/enable")
    assert len(mailbox.messages) == num_messages
    assert [(row.error, row.due_at) for row in rows()] == [("user_disabled", None)]


def test_a_delivery_whose_process_fails_unforeseen_waits_longer_each_time(
    alice_user: Person, alice: TestClient, visitor: TestClient, start: Start, mailbox: Mailbox
) -> None:
    start()
    confirm(alice, mailbox, visitor)
    finish_job(alice_user)
    pauses = []
    for _number in range(5):
        make_due()
        delivery.claim(10)  # and nothing else
        with db.transaction() as session:
            pauses.append(session.scalar(select(NoticeDelivery.due_at - func.now())).total_seconds())  # type: ignore[union-attr]
    assert [round(pause / 10) * 10 for pause in pauses] == [60, 60, 120, 600, 3600]


@pytest.mark.parametrize(("refusal", "num_tries"), [("550 nobody here", 1), ("451 later", len(PAUSES) + 1)])
def test_a_delivery_is_given_up(
    alice_user: Person,
    alice: TestClient,
    visitor: TestClient,
    start: Start,
    mailbox: Mailbox,
    refusal: str,
    num_tries: int,
) -> None:
    start()
    confirm(alice, mailbox, visitor)
    finish_job(alice_user)
    mailbox.refusal = refusal
    for _number in range(len(PAUSES) + 2):
        make_due()
        deliver_due()
    (row,) = rows()
    assert (row.num_tries, row.due_at, row.delivered_at) == (num_tries, None, None)


def test_a_muted_event_sends_nothing(
    alice_user: Person, alice: TestClient, visitor: TestClient, start: Start, mailbox: Mailbox
) -> None:
    start()
    confirm(alice, mailbox, visitor)
    alice.patch("/api/v1/notice-settings", json={"channels": {"job_finished": ["page"]}})
    finish_job(alice_user)
    assert rows() == []


def test_a_choice_outlives_the_absence_of_a_mail_server(alice_user: Person, alice: TestClient) -> None:
    with db.transaction() as session:
        session.add(NoticeSettings(user_id=alice_user.id, muted=["job_failed email"]))
    alice.patch("/api/v1/notice-settings", json={"channels": {"job_failed": ["page"]}})
    with db.transaction() as session:
        assert set(service.stored_settings(session, alice_user.id).muted) == {
            f"job_failed {name}" for name in ("email", "browser", "service")
        }


def test_a_test_says_what_is_wrong(alice: TestClient, visitor: TestClient, start: Start, mailbox: Mailbox) -> None:
    start()
    assert alice.post("/api/v1/notice-settings/email/test").json()["code"] == "email_missing"
    confirm(alice, mailbox, visitor)
    assert alice.post("/api/v1/notice-settings/email/test").status_code == 204
    assert len(mailbox.messages) == 2
    mailbox.refusal = "550 no"
    answer = alice.post("/account/notices/email/test")
    assert answer.status_code == 502
    assert "refuses the address" in answer.text


# ---- encryption -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of 127.0.0.1, signed by itself, with its key."""
    path = tmp_path_factory.mktemp("certificate") / "both.pem"
    name = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *name]
    key = path.with_name("key.pem")
    subprocess.run([*command, "-keyout", key, "-out", path], check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + key.read_bytes())
    return path


def tls(certificate: Path) -> SSLContext:
    context = SSLContext(PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


class Logins:
    """Accepts one password, and keeps those that were sent."""

    def __init__(self) -> None:
        self.passwords: list[str] = []

    def __call__(self, _server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any) -> AuthResult:
        self.passwords.append(data.password.decode())
        return AuthResult(success=data.password.decode() == PASSWORD)


def log_in_with(monkeypatch: pytest.MonkeyPatch, password: str) -> None:
    monkeypatch.setenv("ATHANOR_SMTP_USER", "panel")
    monkeypatch.setenv("ATHANOR_SMTP_PASSWORD", password)
    settings.cache_clear()


def test_the_password_goes_over_starttls(
    start: Start, mailbox: Mailbox, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logins = Logins()
    start(security="starttls", tls_context=tls(certificate), authenticator=logins, auth_required=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    log_in_with(monkeypatch, PASSWORD)
    email.send(ADDRESS, "Subject", "Text")
    assert (len(mailbox.messages), logins.passwords) == (1, [PASSWORD])
    log_in_with(monkeypatch, "wrong")
    with pytest.raises(DeliveryFailed) as refused:
        email.send(ADDRESS, "Subject", "Text")
    assert refused.value.code == "email_login"


def test_a_server_that_cannot_be_trusted_gets_no_password(
    start: Start, mailbox: Mailbox, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logins = Logins()
    start(security="starttls", tls_context=tls(certificate), authenticator=logins)
    log_in_with(monkeypatch, PASSWORD)
    with pytest.raises(DeliveryFailed) as refused:
        email.send(ADDRESS, "Subject", "Text")
    assert (refused.value.code, logins.passwords, mailbox.messages) == ("email_unencrypted", [], [])


@pytest.mark.parametrize("security", ["starttls", "none"])
def test_without_encryption_no_password_is_sent(
    start: Start, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch, security: str
) -> None:
    logins = Logins()
    start(security=security, authenticator=logins, auth_require_tls=False)
    log_in_with(monkeypatch, PASSWORD)
    with pytest.raises(DeliveryFailed) as refused:
        email.send(ADDRESS, "Subject", "Text")
    assert (refused.value.code, logins.passwords, mailbox.messages) == ("email_unencrypted", [], [])


def test_a_server_that_is_away_is_unreachable(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    start()
    monkeypatch.setenv("ATHANOR_SMTP_PORT", "1")
    settings.cache_clear()
    with pytest.raises(DeliveryFailed) as refused:
        email.send(ADDRESS, "Subject", "Text")
    assert refused.value.code == "email_unreachable"
