"""Logging in at an OpenID Connect provider, over HTTP with a real one."""

import base64
import hashlib
import hmac
import json
import logging
import threading
import time
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey
from sqlalchemy import func, select, update
from starlette.testclient import TestClient

from app.accounts.oidc import provider as provider_requests
from app.accounts.oidc import service
from app.core import db
from app.core.account_models import ExternalIdentity, OidcLogin, User
from app.core.audit_models import AuditEntry
from app.web import auth
from tests import users
from tests.app.accounts.oidc import flows
from tests.oidc_provider import CLIENT_ID, Configure, TestProvider
from tests.users import PASSWORD, Person

pytestmark = pytest.mark.usefixtures("alice_user")


def user_named(name: str) -> User | None:
    with db.transaction() as session:
        return session.scalar(select(User).where(User.name == name))


# ---- the happy path --------------------------------------------------------------------------------------------------


def test_a_login_leads_through_the_provider_to_the_page_that_was_wanted(
    visitor: TestClient, provider: TestProvider
) -> None:
    page = visitor.get("/login?next=/jobs")
    assert 'href="/login/oidc?next=/jobs"' in page.text
    assert "Log in with Keycloak" in page.text
    answer = flows.log_in(visitor, "/jobs?state=running")
    assert (answer.status_code, answer.headers["location"]) == (303, "/jobs?state=running")
    cookies = [value.lower() for value in answer.headers.get_list("set-cookie")]
    session_cookie = next(value for value in cookies if value.startswith(auth.COOKIE))
    assert {"httponly", "samesite=lax", "path=/", "max-age=2592000"} <= set(session_cookie.split("; "))
    me = visitor.get("/api/v1/me").json()
    assert (me["name"], me["role"]) == ("Paula", "viewer")


def test_the_request_has_pkce_a_state_and_a_nonce_that_are_never_the_same(
    visitor: TestClient, provider: TestProvider
) -> None:
    asked = [parse_qs(urlsplit(flows.begin(visitor)).query) for _n in range(2)]
    for parameters in asked:
        assert parameters["redirect_uri"] == ["http://localhost/login/oidc/callback"]
        assert (parameters["client_id"], parameters["code_challenge_method"]) == ([CLIENT_ID], ["S256"])
        assert all(len(parameters[name][0]) >= 43 for name in ("state", "nonce", "code_challenge"))
    for name in ("state", "nonce", "code_challenge"):
        assert asked[0][name] != asked[1][name]
    with db.transaction() as session:
        stored = {row.state_sha256 for row in session.scalars(select(OidcLogin))}
    assert stored.isdisjoint({parameters["state"][0] for parameters in asked})


def test_the_same_person_comes_back_to_the_same_account_whatever_they_are_called_now(
    web: TestClient, provider: TestProvider
) -> None:
    flows.log_in(users.client(web))
    provider.claims |= {"preferred_username": "Renamed", "email": "renamed@example.com"}
    browser = users.client(web)
    flows.log_in(browser)
    assert flows.name_of(browser) == "Paula"
    with db.transaction() as session:
        identity = session.scalars(select(ExternalIdentity)).one()
    assert (identity.subject, identity.label) == ("p-1", "renamed@example.com")


def test_an_address_of_another_user_opens_a_new_account(web: TestClient, provider: TestProvider) -> None:
    flows.log_in(users.client(web))
    provider.claims |= {"sub": "p-2", "email_verified": True}
    browser = users.client(web)
    flows.log_in(browser)
    assert flows.name_of(browser) == "Paula 2"


def test_a_name_that_is_taken_gets_a_number(web: TestClient, provider: TestProvider) -> None:
    names = []
    for number, name in enumerate(("alice", "Alice ", "x" * 60, "x" * 60, "\u202eevil\u200b\n", "\u200b")):
        provider.claims = {"sub": f"n-{number}", "preferred_username": name, "name": "Given Name"}
        browser = users.client(web)
        assert flows.log_in(browser).status_code == 303
        names.append(flows.name_of(browser))
    assert names == ["alice 2", "Alice 3", "x" * 40, f"{'x' * 38} 2", "evil", "Given Name"]


def test_two_tabs_of_one_browser_both_log_in(visitor: TestClient, provider: TestProvider) -> None:
    first, second = flows.begin(visitor, "/jobs"), flows.begin(visitor, "/corpora")
    for url, path in ((first, "/jobs"), (second, "/corpora")):
        assert visitor.get(flows.at_provider(url)).headers["location"] == path


def test_a_new_login_replaces_the_session_of_the_browser(
    web: TestClient, provider: TestProvider, bob_user: Person
) -> None:
    browser, before = users.client(web), bob_user.cookie()
    back = flows.at_provider(flows.begin(browser))
    browser.cookies.set(auth.COOKIE, before)  # logged in with the password meanwhile
    assert browser.get(back).status_code == 303
    assert users.client(web, cookie=before).get("/api/v1/me").status_code == 401


def test_claims_that_only_userinfo_has_are_read_there(visitor: TestClient, provider: TestProvider) -> None:
    provider.claims = {"sub": "u-1"}
    provider.userinfo = {"sub": "u-1", "preferred_username": "Ursula"}
    flows.log_in(visitor)
    assert flows.name_of(visitor) == "Ursula"


def test_userinfo_of_another_person_is_refused(visitor: TestClient, provider: TestProvider) -> None:
    provider.claims = {"sub": "u-2"}
    provider.userinfo = {"sub": "u-3", "preferred_username": "Ulf"}
    assert "is not valid" in flows.sentence(flows.log_in(visitor))
    assert user_named("Ulf") is None


def test_a_login_is_in_the_audit_log(visitor: TestClient, provider: TestProvider) -> None:
    provider.claims |= {"sub": "audited", "preferred_username": "Auda"}
    flows.log_in(visitor)
    with db.transaction() as session:
        own = select(AuditEntry).where(AuditEntry.user_name == "Auda").order_by(AuditEntry.id)
        entries = [(row.action, row.subject, row.detail) for row in session.scalars(own)]
    assert sorted(entries) == [
        ("login_by_provider", "Keycloak", "testclient"),
        ("user_created", "Auda", "viewer (Keycloak)"),
    ]


def test_a_path_to_another_site_is_not_followed(visitor: TestClient, provider: TestProvider) -> None:
    for path in ("https://evil.example", "//evil.example", "/\\evil.example", "/\tevil"):
        assert flows.log_in(users.client(visitor), path).headers["location"] == "/"


def test_who_is_logged_in_is_not_sent_to_the_provider(alice: TestClient, provider: TestProvider) -> None:
    assert alice.get("/login/oidc?next=/jobs").headers["location"] == "/jobs"


# ---- answers that are not believed -----------------------------------------------------------------------------------


INVALID = "What Keycloak answered is not valid"
CLOCKS = "the clocks of the two servers differ"
NOW = int(time.time())


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"nonce": "another"}, INVALID),
        ({"nonce": None}, INVALID),
        ({"iss": "https://evil.example"}, INVALID),
        ({"iss": None}, INVALID),
        ({"aud": "another-client"}, INVALID),
        ({"aud": ["another-client"]}, INVALID),
        ({"aud": "another-client", "azp": CLIENT_ID}, INVALID),
        ({"aud": [CLIENT_ID, "another-client"], "azp": "another-client"}, INVALID),
        ({"aud": None}, INVALID),
        ({"sub": None}, INVALID),
        ({"sub": ""}, INVALID),
        ({"sub": 7}, INVALID),
        ({"sub": "x" * 256}, INVALID),
        ({"exp": None}, INVALID),
        ({"exp": "soon"}, INVALID),
        ({"at_hash": "wrong"}, INVALID),
        ({"exp": NOW - 3600, "iat": NOW - 7200}, CLOCKS),
        ({"iat": NOW + 7200, "exp": NOW + 9000}, CLOCKS),
        ({"nbf": NOW + 7200}, CLOCKS),
    ],
)
def test_an_id_token_with_a_wrong_claim_is_refused(
    visitor: TestClient, provider: TestProvider, changed: dict[str, Any], expected: str
) -> None:
    provider.id_token_claims = changed
    answer = flows.log_in(visitor)
    assert expected in flows.sentence(answer)
    assert answer.status_code == 502
    assert flows.name_of(visitor) is None


def test_clocks_may_differ_by_a_minute(visitor: TestClient, provider: TestProvider) -> None:
    provider.id_token_claims = {"iat": int(time.time()) + 60}
    assert flows.log_in(visitor).status_code == 303


def claims_for(provider: TestProvider, url: str) -> dict[str, Any]:
    nonce = flows.parameter(url, "nonce")
    now = int(time.time())
    return {"iss": provider.issuer, "aud": CLIENT_ID, "iat": now, "exp": now + 60, "nonce": nonce, **provider.claims}


def encoded(part: dict[str, Any]) -> str:
    """A part of a token."""
    return base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")


def test_a_token_signed_by_another_key_is_refused(visitor: TestClient, provider: TestProvider) -> None:
    url = flows.begin(visitor)
    other = RSAKey.generate_key(2048)
    for kid in ("first", "second"):
        url = flows.begin(visitor)
        provider.signed = jwt.encode({"alg": "RS256", "kid": kid}, claims_for(provider, url), other)
        assert INVALID in flows.sentence(visitor.get(flows.at_provider(url)))
        assert flows.name_of(visitor) is None


def test_a_token_without_a_signature_is_refused(visitor: TestClient, provider: TestProvider) -> None:
    url = flows.begin(visitor)
    signed = jwt.encode({"alg": "RS256", "kid": "first"}, claims_for(provider, url), provider.key)
    provider.signed = f"{encoded({'alg': 'none'})}.{signed.split('.')[1]}."
    assert INVALID in flows.sentence(visitor.get(flows.at_provider(url)))
    assert flows.name_of(visitor) is None


@pytest.mark.parametrize("advertised", [["RS256"], ["RS256", "HS256", "none"], ["HS256"]])
def test_a_token_signed_with_the_public_key_as_a_secret_is_refused(
    visitor: TestClient, provider: TestProvider, advertised: list[str]
) -> None:
    provider.metadata = {"id_token_signing_alg_values_supported": advertised}
    url = flows.begin(visitor)
    head, body = (encoded(part) for part in ({"alg": "HS256", "kid": "first"}, claims_for(provider, url)))
    mac = hmac.new(provider.key.as_pem(private=False), f"{head}.{body}".encode(), hashlib.sha256).digest()
    provider.signed = f"{head}.{body}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"
    assert INVALID in flows.sentence(visitor.get(flows.at_provider(url)))
    assert flows.name_of(visitor) is None


def test_keys_that_the_provider_has_changed_are_read_again(
    visitor: TestClient, provider: TestProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    flows.log_in(users.client(visitor))
    monkeypatch.setattr(provider_requests, "FRESH_KEYS_SECONDS", 0)
    first, provider.key = provider.key, RSAKey.generate_key(2048, {"kid": "rotated", "use": "sig"})
    try:
        assert flows.log_in(visitor).status_code == 303
    finally:
        provider.key = first


def test_keys_are_read_again_for_unknown_ones_at_most_twice_a_minute(web: TestClient, provider: TestProvider) -> None:
    flows.log_in(users.client(web))
    provider.requests.clear()
    other = RSAKey.generate_key(2048, {"kid": "unknown"})
    for _n in range(3):
        browser = users.client(web)
        url = flows.begin(browser)
        provider.signed = jwt.encode({"alg": "RS256", "kid": "unknown"}, claims_for(provider, url), other)
        assert INVALID in flows.sentence(browser.get(flows.at_provider(url)))
    assert provider.requests.count("GET /keys") == 0


# ---- state, code, verifier -------------------------------------------------------------------------------------------


EXPIRED = "This login took too long, was used already or began in another browser. Start again."


def test_a_wrong_state_is_refused_and_leaves_the_right_one(visitor: TestClient, provider: TestProvider) -> None:
    back = flows.at_provider(flows.begin(visitor))
    state = flows.parameter(back, "state")
    for wrong in ("wrong", "", state[:-1]):
        answer = visitor.get(back.replace(f"state={state}", f"state={wrong}"))
        assert (answer.status_code, flows.sentence(answer)) == (400, EXPIRED)
    assert "POST /token" not in provider.requests
    assert visitor.get(back).status_code == 303


def test_a_return_is_used_once(visitor: TestClient, provider: TestProvider) -> None:
    back = flows.at_provider(flows.begin(visitor))
    assert visitor.get(back).status_code == 303
    visitor.post("/logout")
    assert flows.sentence(visitor.get(back)) == EXPIRED
    assert provider.requests.count("POST /token") == 1
    assert flows.name_of(visitor) is None


def test_a_code_that_was_used_is_refused_with_another_state(visitor: TestClient, provider: TestProvider) -> None:
    back = flows.at_provider(flows.begin(visitor))
    visitor.get(back)
    visitor.post("/logout")
    code = flows.parameter(back, "code")
    again = flows.at_provider(flows.begin(visitor))
    fresh = flows.parameter(again, "code")
    assert INVALID in flows.sentence(visitor.get(again.replace(fresh, code)))
    assert flows.name_of(visitor) is None


def test_a_code_of_another_login_is_refused(web: TestClient, provider: TestProvider) -> None:
    """As when somebody makes a victim's browser return with their own code: PKCE and the nonce are of another login."""
    attacker, victim = users.client(web), users.client(web)
    stolen = flows.parameter(flows.at_provider(flows.begin(attacker)), "code")
    back = flows.at_provider(flows.begin(victim))
    own = flows.parameter(back, "code")
    assert INVALID in flows.sentence(victim.get(back.replace(own, stolen)))
    assert flows.name_of(victim) is None


def test_a_return_in_another_browser_is_refused(web: TestClient, provider: TestProvider) -> None:
    attacker, victim = users.client(web), users.client(web)
    back = flows.at_provider(flows.begin(attacker))
    assert flows.sentence(victim.get(back)) == EXPIRED
    flows.begin(victim)  # the victim has a cookie of its own
    assert flows.sentence(victim.get(back)) == EXPIRED
    assert flows.name_of(victim) is None


def test_a_login_that_took_too_long_is_refused(visitor: TestClient, provider: TestProvider) -> None:
    back = flows.at_provider(flows.begin(visitor))
    with db.transaction() as session:
        assert session.scalars(select(OidcLogin.expires_at - OidcLogin.created_at)).all() == [timedelta(minutes=10)]
        session.execute(update(OidcLogin).values(expires_at=func.now() - timedelta(seconds=1)))
    assert flows.sentence(visitor.get(back)) == EXPIRED
    flows.begin(visitor)
    with db.transaction() as session:
        assert session.scalar(select(func.count()).select_from(OidcLogin)) == 1


def test_a_wrong_pkce_verifier_is_refused(
    visitor: TestClient, provider: TestProvider, caplog: pytest.LogCaptureFixture
) -> None:
    back = flows.at_provider(flows.begin(visitor))
    with db.transaction() as session:
        session.execute(update(OidcLogin).values(code_verifier="x" * 64))
    with caplog.at_level(logging.ERROR):
        assert INVALID in flows.sentence(visitor.get(back))
    assert "refused the code: invalid_grant" in caplog.text
    assert flows.name_of(visitor) is None


def test_a_network_keeps_at_most_two_hundred_logins_open(
    visitor: TestClient, provider: TestProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "MAX_OPEN", 3)
    urls = [flows.begin(visitor) for _n in range(5)]
    with db.transaction() as session:
        assert session.scalar(select(func.count()).select_from(OidcLogin)) == 3
    assert flows.sentence(visitor.get(flows.at_provider(urls[0]))) == EXPIRED
    assert visitor.get(flows.at_provider(urls[4])).status_code == 303


def test_two_returns_at_once_log_in_once(web: TestClient, provider: TestProvider) -> None:
    browser = users.client(web)
    back = flows.at_provider(flows.begin(browser))
    statuses: list[int] = []
    threads = [threading.Thread(target=lambda: statuses.append(browser.get(back).status_code)) for _n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [303, 400, 400, 400]


# ---- a provider that fails -------------------------------------------------------------------------------------------


def test_what_the_provider_denies_is_one_sentence_in_the_readers_language(
    visitor: TestClient, provider: TestProvider, caplog: pytest.LogCaptureFixture
) -> None:
    provider.error = "access_denied"
    with caplog.at_level(logging.WARNING):
        answer = flows.log_in(visitor)
    assert (answer.status_code, flows.sentence(answer)) == (403, "The login at Keycloak was denied or cancelled.")
    assert "said the provider" not in answer.text
    assert "the error access_denied" in caplog.text
    visitor.headers["Accept-Language"] = "zh"
    assert flows.sentence(flows.log_in(visitor)) == "在 Keycloak 的登录被拒绝或取消。"
    provider.error = "temporarily_unavailable"
    visitor.headers["Accept-Language"] = "en"
    assert "could not log you in (temporarily_unavailable)" in flows.sentence(flows.log_in(visitor))


def test_a_provider_that_is_down_is_named_and_passwords_still_log_in(
    visitor: TestClient, provider: TestProvider, configure: Configure, caplog: pytest.LogCaptureFixture
) -> None:
    configure(oidc_issuer="http://127.0.0.1:9")
    with caplog.at_level(logging.ERROR):
        answer = visitor.get("/login/oidc")
    assert (answer.status_code, flows.sentence(answer)) == (
        503,
        "Keycloak cannot be reached at the moment. Try again later, or log in with a password.",
    )
    assert "the provider cannot be reached: http://127.0.0.1:9/.well-known" in caplog.text
    assert visitor.post("/login", data={"name": "Alice", "password": PASSWORD}).status_code == 303


@pytest.mark.parametrize(
    ("status", "padding", "expected", "reason"),
    [(500, 0, "cannot be reached", "HTTP 500"), (200, 2**21, "is not valid", "has more than 1048576 bytes")],
)
def test_a_token_endpoint_that_fails_or_floods_is_refused(
    visitor: TestClient,
    provider: TestProvider,
    caplog: pytest.LogCaptureFixture,
    status: int,
    padding: int,
    expected: str,
    reason: str,
) -> None:
    provider.token_status, provider.token_padding = status, padding
    assert expected in flows.sentence(flows.log_in(visitor))
    assert flows.name_of(visitor) is None
    assert reason in caplog.text


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": "https://evil.example"},
        {"issuer": None},
        {"token_endpoint": "http://sso.example.com/token"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"jwks_uri": None},
        {"jwks_uri": "ftp://127.0.0.1/keys"},
    ],
)
def test_a_provider_that_names_other_addresses_is_not_used(
    visitor: TestClient, provider: TestProvider, metadata: dict[str, Any]
) -> None:
    provider.metadata = metadata
    answer = visitor.get("/login/oidc")
    assert (answer.status_code, INVALID in flows.sentence(answer)) == (502, True)


def test_a_slow_provider_keeps_no_other_request_waiting(web: TestClient, provider: TestProvider) -> None:
    provider.delay = threading.Event()
    waiting = [threading.Thread(target=users.client(web).get, args=["/login/oidc"]) for _n in range(4)]
    try:
        for thread in waiting:
            thread.start()
        started = time.monotonic()
        assert users.client(web).get("/login").status_code == 200
        assert users.client(web).get("/livez").status_code == 200
        assert time.monotonic() - started < 5
        assert all(thread.is_alive() for thread in waiting)
    finally:
        provider.delay.set()
        for thread in waiting:
            thread.join()


def test_a_provider_that_does_not_answer_is_given_up(
    visitor: TestClient, provider: TestProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider_requests, "SECONDS", 0.2)
    provider.delay = threading.Event()
    try:
        assert "cannot be reached" in flows.sentence(visitor.get("/login/oidc"))
    finally:
        provider.delay.set()


# ---- who may log in, and as what -------------------------------------------------------------------------------------


def test_without_a_provider_there_is_neither_a_button_nor_a_route(visitor: TestClient, alice: TestClient) -> None:
    assert "/login/oidc" not in visitor.get("/login").text
    assert "identities" not in alice.get("/account").text
    for path in ("/login/oidc", "/login/oidc/callback?state=x&code=y"):
        assert visitor.get(path).status_code == 404
    assert alice.post("/account/identities").status_code == 404


def test_by_default_no_account_is_created(visitor: TestClient, provider: TestProvider, configure: Configure) -> None:
    configure(oidc_create_users="")
    provider.claims = {"sub": "new", "preferred_username": "Nora"}
    answer = flows.log_in(visitor)
    assert (answer.status_code, "No account here is connected with yours at Keycloak." in answer.text) == (403, True)
    assert (flows.name_of(visitor), user_named("Nora")) == (None, None)


@pytest.mark.parametrize(
    ("claims", "is_admitted"),
    [
        ({"email": "d@example.com", "email_verified": True}, True),
        ({"email": "d@EXAMPLE.com", "email_verified": "true"}, True),
        ({"email": "d@example.com", "email_verified": False}, False),
        ({"email": "d@example.com"}, False),
        ({"email": "d@evil-example.com", "email_verified": True}, False),
        ({"email": "d@example.com@evil.org", "email_verified": True}, False),
        ({"email_verified": True}, False),
    ],
)
def test_only_verified_addresses_of_the_allowed_domains_log_in(
    visitor: TestClient, provider: TestProvider, configure: Configure, claims: dict[str, Any], is_admitted: bool
) -> None:
    configure(oidc_allowed_domains="example.com, example.org")
    provider.claims = provider.userinfo = {"sub": f"d-{claims}", "preferred_username": "Dora", **claims}
    answer = flows.log_in(visitor)
    assert answer.status_code == (303 if is_admitted else 403)
    if not is_admitted:
        assert flows.sentence(answer) == "Your account at Keycloak may not be used here. Ask an administrator."
        assert flows.name_of(visitor) is None


@pytest.mark.parametrize(
    ("claims", "is_admitted"),
    [
        ({"realm_access": {"roles": ["other", "athanor"]}}, True),
        ({"realm_access.roles": "athanor"}, True),
        ({"realm_access": {"roles": ["athanor2"]}}, False),
        ({"realm_access": "athanor"}, False),
        ({"groups": ["athanor"]}, False),
    ],
)
def test_only_members_of_an_allowed_group_log_in(
    visitor: TestClient, provider: TestProvider, configure: Configure, claims: dict[str, Any], is_admitted: bool
) -> None:
    configure(oidc_groups_claim="realm_access.roles", oidc_allowed_groups="athanor")
    provider.claims = provider.userinfo = {"sub": f"g-{claims}", "preferred_username": "Gerda", **claims}
    assert flows.log_in(visitor).status_code == (303 if is_admitted else 403)


def test_the_role_is_that_of_the_highest_group_and_changes_at_the_next_login(
    web: TestClient, provider: TestProvider, configure: Configure
) -> None:
    configure(oidc_roles="/athanor/admins=admin, research=member", oidc_default_role="viewer")
    roles = []
    for groups in (["research"], ["research", "/athanor/admins"], ["owner"], None, "research"):
        provider.claims = {"sub": "r-1", "preferred_username": "Rosa", "groups": groups}
        provider.userinfo = provider.claims
        browser = users.client(web)
        flows.log_in(browser)
        roles.append(browser.get("/api/v1/me").json()["role"])
    assert roles == ["member", "admin", "viewer", "viewer", "member"]
    with db.transaction() as session:
        changes = select(AuditEntry.detail).where(AuditEntry.action == "role_changed", AuditEntry.subject == "Rosa")
        details = set(session.scalars(changes))
    assert details == {
        "member → admin (Keycloak)",
        "admin → viewer (Keycloak)",
        "viewer → member (Keycloak)",
    }


def test_without_a_mapping_a_login_leaves_the_role_that_an_administrator_gave(
    web: TestClient, provider: TestProvider, alice: TestClient
) -> None:
    provider.claims = {"sub": "keeps", "preferred_username": "Kira", "groups": ["admins"]}
    browser = users.client(web)
    flows.log_in(browser)
    user_id = browser.get("/api/v1/me").json()["id"]
    assert alice.patch(f"/api/v1/users/{user_id}", json={"role": "member"}).status_code == 200
    flows.log_in(users.client(web))
    assert browser.get("/api/v1/me").json()["role"] == "member"


def test_a_disabled_user_stays_out(web: TestClient, provider: TestProvider, alice: TestClient) -> None:
    provider.claims = {"sub": "disabled", "preferred_username": "Dina"}
    browser = users.client(web)
    flows.log_in(browser)
    user_id = browser.get("/api/v1/me").json()["id"]
    assert alice.post(f"/api/v1/users/{user_id}/disable").status_code == 200
    answer = flows.log_in(browser)
    assert (answer.status_code, flows.sentence(answer)) == (
        403,
        "Your account here is disabled. Ask an administrator.",
    )
    assert flows.name_of(browser) is None


def test_a_user_without_a_password_logs_in_with_none_and_becomes_no_owner(
    web: TestClient, provider: TestProvider, alice: TestClient
) -> None:
    provider.claims = {"sub": "bare", "preferred_username": "Bara"}
    browser = users.client(web)
    flows.log_in(browser)
    person = user_named("Bara")
    assert person is not None
    assert person.password_hash is None
    for password in ("", PASSWORD):
        assert users.client(web).post("/login", data={"name": "Bara", "password": password}).status_code == 422
    body = {"present_password": "", "password": "a whole new pass phrase"}
    assert browser.post("/api/v1/me/password", json=body).status_code == 422
    assert "You have no password." in browser.get("/account").text
    refused = alice.patch(f"/api/v1/users/{person.id}", json={"role": "owner"})
    assert (refused.status_code, refused.json()["code"]) == (409, "password_missing")
    assert "has no password" in alice.post(f"/account/people/{person.id}/role", data={"role": "owner"}).text


# ---- connecting ------------------------------------------------------------------------------------------------------


def test_a_user_connects_an_identity_and_logs_in_with_it(
    web: TestClient, provider: TestProvider, bob: TestClient
) -> None:
    provider.claims = {"sub": "bobs", "email": "bob@example.com"}
    assert "Connect Keycloak" in bob.get("/account").text
    assert flows.connect(bob).headers["location"] == "/account?done=connected"
    page = bob.get("/account?done=connected").text
    assert "You can log in with Keycloak now." in page
    assert "bob@example.com" in page
    assert "Connect Keycloak" not in page
    browser = users.client(web)
    flows.log_in(browser)
    assert flows.name_of(browser) == "Bob"
    assert flows.connect(bob).status_code == 303  # nothing changes
    with db.transaction() as session:
        actions = select(AuditEntry.action, AuditEntry.subject, AuditEntry.detail)
        entry = session.execute(actions.where(AuditEntry.action == "identity_connected")).one()
    assert tuple(entry) == ("identity_connected", "Keycloak", "bob@example.com")


def test_an_owner_who_connects_stays_one_and_keeps_the_password(
    web: TestClient, provider: TestProvider, alice: TestClient, configure: Configure
) -> None:
    configure(oidc_roles="research=member")
    provider.claims = {"sub": "alices", "name": "Somebody", "groups": ["research"]}
    flows.connect(alice)
    browser = users.client(web)
    flows.log_in(browser)
    assert browser.get("/api/v1/me").json()["role"] == "owner"
    assert users.client(web).post("/login", data={"name": "Alice", "password": PASSWORD}).status_code == 303


def test_an_identity_of_another_user_or_a_second_one_is_not_connected(
    web: TestClient, provider: TestProvider, bob: TestClient, alice: TestClient
) -> None:
    provider.claims = {"sub": "bobs", "name": "Bob"}
    flows.connect(bob)
    answer = flows.connect(alice)
    assert (answer.status_code, flows.sentence(answer)) == (
        409,
        "Your account at Keycloak is connected with another account here.",
    )
    provider.claims = {"sub": "bobs second", "name": "Bob"}
    assert "already" in flows.sentence(flows.connect(bob))
    with db.transaction() as session:
        assert session.scalars(select(ExternalIdentity.subject)).all() == ["bobs"]


def test_only_the_user_who_began_connects(
    web: TestClient, provider: TestProvider, bob: TestClient, alice_user: Person
) -> None:
    back = flows.at_provider(flows.connecting(bob))
    bob.cookies.delete(auth.COOKIE)
    assert "logged out or logged in as somebody else" in flows.sentence(bob.get(back))
    back = flows.at_provider(flows.connecting(_logged_in(bob, users.enter("Bea", "member"))))
    assert "logged out or logged in as somebody else" in flows.sentence(_logged_in(bob, alice_user).get(back))
    with db.transaction() as session:
        assert session.scalars(select(ExternalIdentity)).all() == []


def _logged_in(browser: TestClient, person: Person) -> TestClient:
    browser.cookies.delete(auth.COOKIE)
    browser.cookies.set(auth.COOKIE, person.cookie())
    return browser


def test_another_site_cannot_begin_to_connect(bob: TestClient, provider: TestProvider) -> None:
    assert bob.post("/account/identities", headers={"Origin": "https://evil.example"}).status_code == 403
    assert bob.get("/account/identities").status_code == 405


def test_who_may_not_log_in_does_not_connect_either(
    bob: TestClient, provider: TestProvider, configure: Configure
) -> None:
    configure(oidc_allowed_groups="staff")
    provider.claims = {"sub": "x", "name": "Bob", "groups": ["guests"]}
    assert flows.connect(bob).status_code == 403


def test_an_identity_is_disconnected_only_where_a_password_remains(
    web: TestClient, provider: TestProvider, bob: TestClient, alice: TestClient
) -> None:
    provider.claims = {"sub": "bobs", "name": "Bob"}
    flows.connect(bob)
    with db.transaction() as session:
        identity_id = session.scalars(select(ExternalIdentity.id)).one()
    path = f"/account/identities/{identity_id}/disconnect"
    assert path in bob.get("/account").text
    assert alice.post(path).status_code == 404
    with db.transaction() as session:
        kept = session.scalar(select(User.password_hash).where(User.name == "Bob"))
        session.execute(update(User).where(User.name == "Bob").values(password_hash=None))
    assert path not in bob.get("/account").text
    answer = bob.post(path)
    assert (answer.status_code, "You have no password" in flows.sentence(answer)) == (409, True)
    with db.transaction() as session:
        session.execute(update(User).where(User.name == "Bob").values(password_hash=kept))
    assert bob.post(path).headers["location"] == "/account?done=disconnected"
    browser = users.client(web)
    flows.log_in(browser)
    assert flows.name_of(browser) != "Bob"


def test_identities_are_listed_and_disconnected_by_rest(
    provider: TestProvider, bob: TestClient, bob_api: TestClient, alice_api: TestClient
) -> None:
    provider.claims = {"sub": "bob-by-rest", "email": "bob@example.com", "email_verified": True}
    flows.connect(bob)
    (identity,) = bob_api.get("/api/v1/identities").json()["data"]
    expected = {"account": "bob@example.com", "is_of_provider": True, "last_login_at": None}
    assert identity.items() >= expected.items()
    assert identity["issuer"] == provider.issuer
    assert alice_api.get("/api/v1/identities").json() == {"data": [], "next": None}

    path = f"/api/v1/identities/{identity['id']}"
    assert alice_api.delete(path).status_code == 404
    with db.transaction() as session:
        kept = session.scalar(select(User.password_hash).where(User.name == "Bob"))
        session.execute(update(User).where(User.name == "Bob").values(password_hash=None))
    answer = bob_api.delete(path)
    assert (answer.status_code, answer.json()["code"]) == (409, "password_missing")
    with db.transaction() as session:
        session.execute(update(User).where(User.name == "Bob").values(password_hash=kept))
    assert bob_api.delete(path).status_code == 204
    assert bob_api.get("/api/v1/identities").json()["data"] == []


def test_the_identities_of_a_removed_user_are_removed(
    web: TestClient, provider: TestProvider, alice: TestClient
) -> None:
    provider.claims = {"sub": "leaver", "preferred_username": "Lena"}
    browser = users.client(web)
    flows.log_in(browser)
    user_id = browser.get("/api/v1/me").json()["id"]
    assert alice.request("DELETE", f"/api/v1/users/{user_id}", params={"data": "delete"}).status_code == 204
    with db.transaction() as session:
        assert session.scalars(select(ExternalIdentity)).all() == []
