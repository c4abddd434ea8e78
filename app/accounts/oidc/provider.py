"""Requests to the OpenID Connect provider of the settings: its metadata, its keys, and a code in exchange for tokens.

Each takes at most SECONDS and an answer of MAX_BYTES, and follows no redirect. Authlib is imported at the first login:
an installation without a provider starts without it.
"""

import json
import re
import threading
import time
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any
from urllib.parse import urlencode, urlsplit

from urllib3.exceptions import HTTPError

from app.core.addresses import AddressRules, connect, cut, resolve
from app.core.errors import PanelError
from app.core.settings import HTTPS_OR_LOOPBACK, settings
from app.core.version import VERSION

SECONDS = 10.0
MAX_BYTES = 2**20
CACHE_SECONDS = 3600.0  # of metadata and keys
RETRY_SECONDS = 5.0  # after a provider that did not answer; those who log in meanwhile do not wait for it again
FRESH_KEYS_SECONDS = 30.0  # keys are read again for a token of an unknown one, at most this often
ENDPOINTS = ("authorization_endpoint", "token_endpoint", "jwks_uri")
TOKEN_ERROR_CODE = re.compile(r"[A-Za-z_]{1,40}")


class ProviderUnreachable(Exception):
    """The provider did not answer; the text is for the operator's log."""


class ProviderAnswerInvalid(Exception):
    """The provider's answer cannot be used; the text is for the operator's log."""


@dataclass(frozen=True)
class Provider:
    """What the provider says of itself, and its public keys (a JWK set). `read_at` is in monotonic seconds."""

    issuer: str
    metadata: dict[str, Any]
    keys: dict[str, Any]
    read_at: float


@dataclass(frozen=True)
class Tokens:
    """The answer of the token endpoint: the signed ID token, and the access token that it may name by a hash."""

    id_token: str
    access_token: str | None


class ProviderCache:
    """The provider of the settings as it was read last, and when reading it failed last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._provider: Provider | None = None
        self._failed_at = float("-inf")
        self._failure: Exception = ProviderUnreachable("not asked yet")

    def get(self, *, fresh_keys: bool = False) -> Provider:
        """The provider, read again when it is older than an hour, or than half a minute for `fresh_keys`.

        One thread reads; the others wait for it. Raises ProviderUnreachable, ProviderAnswerInvalid.
        """
        with self._lock:
            now = time.monotonic()
            cached = self._provider
            max_age = FRESH_KEYS_SECONDS if fresh_keys else CACHE_SECONDS
            if cached is not None and _is_configured(cached.issuer) and now - cached.read_at < max_age:
                return cached
            if now - self._failed_at < RETRY_SECONDS:
                raise self._failure
            try:
                self._provider = _read_provider()
            except (ProviderUnreachable, ProviderAnswerInvalid) as error:
                self._failed_at, self._failure = time.monotonic(), error
                raise
            return self._provider

    def clear(self) -> None:
        """Forget everything."""
        self._provider, self._failed_at = None, float("-inf")


CACHE = ProviderCache()


def _is_configured(issuer: str) -> bool:
    return issuer.rstrip("/") == settings().oidc_issuer.rstrip("/")


def _read_provider() -> Provider:
    metadata = fetch_json(f"{settings().oidc_issuer.rstrip('/')}/.well-known/openid-configuration")
    issuer = metadata.get("issuer")
    if not isinstance(issuer, str) or not _is_configured(issuer):
        raise ProviderAnswerInvalid(f"the issuer of its metadata is {str(issuer)[:200]!r}")
    for name in ENDPOINTS:
        _check_url(metadata.get(name), name)
    keys = fetch_json(metadata["jwks_uri"])
    if not isinstance(keys.get("keys"), list) or not all(isinstance(key, dict) for key in keys["keys"]):
        raise ProviderAnswerInvalid("jwks_uri is no set of keys")
    return Provider(issuer, metadata, keys, time.monotonic())


def _check_url(url: object, name: str) -> None:
    """Raise ProviderAnswerInvalid for an endpoint that is reached without encryption, other than on this machine."""
    is_secure = isinstance(url, str) and re.fullmatch(HTTPS_OR_LOOPBACK, url.partition("?")[0])
    if not is_secure or (settings().oidc_issuer.startswith("https:") and not str(url).startswith("https:")):
        raise ProviderAnswerInvalid(f"{name} is {str(url)[:200]!r}, which is no https URL")


# ---- the two steps of a login ----------------------------------------------------------------------------------------


def authorization_url(provider: Provider, *, redirect_uri: str, state: str, nonce: str, code_verifier: str) -> str:
    """Where to send the browser: the provider's own page, which redirects back with a code."""
    client = _client(provider, redirect_uri)
    url, _state = client.create_authorization_url(
        provider.metadata["authorization_endpoint"], state=state, code_verifier=code_verifier, nonce=nonce
    )
    return str(url)


def exchange_code(provider: Provider, *, code: str, redirect_uri: str, code_verifier: str) -> Tokens:
    """The tokens for a code. Raises ProviderUnreachable, ProviderAnswerInvalid."""
    from authlib.oauth2.base import OAuth2Error

    client = _client(provider, redirect_uri)
    try:
        answer = client.fetch_token(
            provider.metadata["token_endpoint"],
            grant_type="authorization_code",
            code=code,
            redirect_uri=redirect_uri,
            code_verifier=code_verifier,
        )
    except OAuth2Error as error:
        raise ProviderAnswerInvalid(f"the token endpoint refused the code: {_error_code(error.error)}") from None
    except ValueError as error:
        raise ProviderAnswerInvalid(f"the answer of the token endpoint is not valid: {error}") from None
    id_token, access_token = answer.get("id_token"), answer.get("access_token")
    if not isinstance(id_token, str):
        raise ProviderAnswerInvalid("the answer of the token endpoint has no id_token")
    return Tokens(id_token, access_token if isinstance(access_token, str) else None)


def user_info(provider: Provider, tokens: Tokens, *, subject: str) -> dict[str, Any]:
    """The claims that some providers leave out of the ID token, of the same person; empty without an endpoint for them.

    Raises ProviderUnreachable, ProviderAnswerInvalid.
    """
    url = provider.metadata.get("userinfo_endpoint")
    if url is None or tokens.access_token is None:
        return {}
    _check_url(url, "userinfo_endpoint")
    info = fetch_json(url, {"Authorization": f"Bearer {tokens.access_token}"})
    if info.get("sub") != subject:
        raise ProviderAnswerInvalid("userinfo_endpoint describes somebody else")
    return info


def _error_code(code: object) -> str:
    """An error code of OAuth, such as invalid_grant; never a text that somebody else chose."""
    return code if isinstance(code, str) and TOKEN_ERROR_CODE.fullmatch(code) else "unknown error"


def _client(provider: Provider, redirect_uri: str) -> Any:
    from authlib.oauth2.client import OAuth2Client

    secret = client_secret()
    methods = provider.metadata.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
    by_header = not isinstance(methods, list) or "client_secret_basic" in methods
    return OAuth2Client(
        _Session(),
        client_id=settings().oidc_client_id,
        client_secret=secret,
        token_endpoint_auth_method=("client_secret_basic" if by_header else "client_secret_post") if secret else "none",
        scope=settings().oidc_scopes,
        redirect_uri=redirect_uri,
        code_challenge_method="S256",
    )


def client_secret() -> str:
    """The secret of the client, from its file if there is one; empty for a public client.

    Raises ProviderAnswerInvalid if the file cannot be read.
    """
    path = settings().oidc_client_secret_file
    if path is None:
        return settings().oidc_client_secret.get_secret_value()
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ProviderAnswerInvalid(f"ATHANOR_OIDC_CLIENT_SECRET_FILE cannot be read: {error}") from None


class _Session:
    """What Authlib's client sends its requests by."""

    def post(self, url: str, *, data: dict[str, str], headers: dict[str, str], auth: Any) -> "_Answer":
        target, signed, body = auth.prepare("POST", url, dict(headers), urlencode(data))
        return _Answer(*_request("POST", target, headers=signed, body=body.encode()))


@dataclass(frozen=True)
class _Answer:
    """A response as Authlib reads it."""

    status_code: int
    content: bytes

    def json(self) -> Any:
        return json.loads(self.content)

    def raise_for_status(self) -> None:
        if self.status_code >= 500:
            raise ProviderUnreachable(f"the token endpoint answered with HTTP {self.status_code}")
        if self.status_code >= 400:
            raise ProviderAnswerInvalid(f"the token endpoint answered with HTTP {self.status_code}")


# ---- requests --------------------------------------------------------------------------------------------------------


def fetch_json(url: str, headers: dict[str, str] | None = None) -> dict[str, Any]:
    """The JSON object at a URL of the provider. Raises ProviderUnreachable, ProviderAnswerInvalid."""
    status, content = _request("GET", url, headers=headers or {})
    if status >= 500:
        raise ProviderUnreachable(f"{url} answered with HTTP {status}")
    if status != 200:
        raise ProviderAnswerInvalid(f"{url} answered with HTTP {status}")
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise ProviderAnswerInvalid(f"{url} is no JSON object")
    return document


def _request(method: str, url: str, *, headers: dict[str, str], body: bytes | None = None) -> tuple[int, bytes]:
    """Status and content of an answer. The provider may be at a private address: the operator names it."""
    host = urlsplit(url).hostname or ""
    try:
        target = resolve(url, AddressRules("issuer", lambda: host, "{host}", "{host}"))
        connection = connect(target, SECONDS)
        timer = threading.Timer(SECONDS, cut, [connection])  # the timeout of a socket is that of one read
        timer.start()
        try:
            usual = {"Host": target.host_header, "Accept": "application/json", "User-Agent": f"Athanor/{VERSION}"}
            connection.request(method, target.path, body, {**usual, **headers}, preload_content=False)
            response = connection.getresponse()
            content = response.read(MAX_BYTES + 1, decode_content=False)
        finally:
            timer.cancel()
            connection.close()
    except (OSError, HTTPError, HTTPException, PanelError) as error:
        raise ProviderUnreachable(f"{url.partition('?')[0]}: {error}") from None
    if len(content) > MAX_BYTES:
        raise ProviderAnswerInvalid(f"the answer of {url.partition('?')[0]} has more than {MAX_BYTES} bytes")
    return response.status, content
