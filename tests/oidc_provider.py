"""A small OpenID Connect provider on loopback: discovery, authorization with PKCE, token, keys and userinfo.

It lets in whoever comes, as the person of `claims`. Attributes make it misbehave, one way each.
"""

import base64
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey

from app.accounts.oidc.provider import CACHE
from app.core.settings import settings

Configure = Callable[..., None]
CLIENT_ID = "athanor"
CLIENT_SECRET = "the secret of the client"


@dataclass
class Grant:
    """What a code stands for."""

    redirect_uri: str
    nonce: str
    code_challenge: str


@dataclass
class TestProvider:
    """The provider: who its person is, and how it misbehaves."""

    __test__ = False

    issuer: str = ""
    claims: dict[str, Any] = field(default_factory=dict)
    id_token_claims: dict[str, Any] = field(default_factory=dict)  # replace those of the ID token; None: left out
    userinfo: dict[str, Any] = field(default_factory=dict)
    error: str = ""  # redirects back with it
    token_status: int = 200
    token_padding: int = 0  # bytes
    metadata: dict[str, Any] = field(default_factory=dict)  # replaces that of discovery
    key: RSAKey = field(default_factory=lambda: RSAKey.generate_key(2048, {"kid": "first", "use": "sig"}))
    published: list[RSAKey] | None = None  # if they are not `key`
    signed: str | None = None  # an ID token to answer with, whatever was asked
    delay: threading.Event | None = None  # discovery waits for it
    grants: dict[str, Grant] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)  # methods and paths

    def reset(self) -> None:
        """Behave again."""
        fresh = TestProvider(self.issuer, key=self.key)
        self.__dict__.update(fresh.__dict__)

    def discovery(self) -> dict[str, Any]:
        """The document at .well-known."""
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/keys",
            "userinfo_endpoint": f"{self.issuer}/userinfo",
            "id_token_signing_alg_values_supported": ["RS256"],
            "code_challenge_methods_supported": ["S256"],
            **self.metadata,
        }

    def authorize(self, asked_for: dict[str, str]) -> str:
        """Where to redirect the browser to."""
        assert asked_for["client_id"] == CLIENT_ID
        assert asked_for["response_type"] == "code"
        assert asked_for["code_challenge_method"] == "S256"
        assert "openid" in asked_for["scope"].split()
        answer = {"state": asked_for["state"]}
        if self.error:
            answer |= {"error": self.error, "error_description": "<b>said the provider</b>"}
        else:
            answer["code"] = secrets.token_urlsafe(12)
            grant = Grant(asked_for["redirect_uri"], asked_for["nonce"], asked_for["code_challenge"])
            self.grants[answer["code"]] = grant
        return f"{asked_for['redirect_uri']}?{urlencode(answer)}"

    def token(self, authorization: str, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        """Status and answer of the token endpoint. A code is good once."""
        expected = base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()
        if authorization != f"Basic {expected}":
            return 401, {"error": "invalid_client"}
        grant = self.grants.pop(form.get("code", ""), None)
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        if grant is None or grant.redirect_uri != form.get("redirect_uri") or grant.code_challenge != challenge:
            return 400, {"error": "invalid_grant", "error_description": "no such code"}
        answer = {
            "access_token": "opaque",
            "token_type": "Bearer",
            "id_token": self.signed or self.id_token(grant.nonce),
        }
        return self.token_status, {**answer, "padding": "x" * self.token_padding}

    def id_token(self, nonce: str) -> str:
        """A signed ID token for the person."""
        now = int(time.time())
        usual = {"iss": self.issuer, "aud": CLIENT_ID, "iat": now, "exp": now + 300, "nonce": nonce, **self.claims}
        claims = {name: value for name, value in {**usual, **self.id_token_claims}.items() if value is not None}
        return jwt.encode({"alg": "RS256", "kid": self.key.kid}, claims, self.key)

    def keys(self) -> dict[str, Any]:
        """The public keys."""
        published = [self.key] if self.published is None else self.published
        return {"keys": [key.as_dict(private=False) for key in published]}


@contextmanager
def running() -> Iterator[TestProvider]:
    """Serve one on a free port inside the block."""
    provider = TestProvider()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            provider.requests.append(f"GET {parts.path}")
            if parts.path == "/authorize":
                self.send_response(302)
                self.send_header("Location", provider.authorize(dict(parse_qsl(parts.query))))
                self.send_header("Content-Length", "0")
                self.end_headers()
            elif parts.path == "/userinfo":
                assert self.headers["Authorization"] == "Bearer opaque"
                self.answer(200, provider.userinfo or provider.claims)
            elif parts.path == "/keys":
                self.answer(200, provider.keys())
            elif parts.path == "/.well-known/openid-configuration":
                if provider.delay is not None:
                    provider.delay.wait(30)
                self.answer(200, provider.discovery())
            else:
                self.answer(404, {})

        def do_POST(self) -> None:
            provider.requests.append(f"POST {self.path}")
            form = dict(parse_qsl(self.rfile.read(int(self.headers["Content-Length"])).decode()))
            self.answer(*provider.token(self.headers.get("Authorization", ""), form))

        def answer(self, status: int, document: dict[str, Any]) -> None:
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    provider.issuer = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def configurable() -> Iterator[Configure]:
    """Changes settings inside the block by the names of their fields, such as oidc_name."""

    def forget() -> None:
        settings.cache_clear()
        CACHE.clear()

    with pytest.MonkeyPatch.context() as patch:

        def change(**values: str) -> None:
            for name, value in values.items():
                patch.setenv(f"ATHANOR_{name.upper()}", value)
            forget()

        yield change
    forget()
