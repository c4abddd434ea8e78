"""A browser's way through a login at the provider, one redirect after the other."""

import html
import re
from http.client import HTTPConnection
from typing import Any
from urllib.parse import parse_qs, urlsplit

from starlette.testclient import TestClient

SENTENCE = re.compile(r'class="alert bad"[^>]*>.*?<p>(.*?)</p>', re.DOTALL)


def begin(browser: TestClient, path: str = "/") -> str:
    """Where the panel sends a browser that wants to log in."""
    answer = browser.get("/login/oidc", params={"next": path})
    assert answer.status_code == 303, answer.text
    return str(answer.headers["location"])


def at_provider(url: str) -> str:
    """Where the provider sends it back to."""
    parts = urlsplit(url)
    connection = HTTPConnection(parts.netloc, timeout=30)
    connection.request("GET", f"{parts.path}?{parts.query}")
    answer = connection.getresponse()
    answer.read()
    connection.close()
    assert answer.status == 302
    return str(answer.headers["Location"])


def parameter(url: str, name: str) -> str:
    """A parameter of the query of an address."""
    return parse_qs(urlsplit(url).query)[name][0]


def log_in(browser: TestClient, path: str = "/") -> Any:
    """The panel's answer at the end."""
    return browser.get(at_provider(begin(browser, path)))


def connecting(browser: TestClient) -> str:
    """Where the page leads that connects an identity with the account of a browser that is logged in."""
    answer = browser.post("/account/identities")
    assert answer.status_code == 200, answer.text
    link = re.search(r'http-equiv="refresh" content="0;url=([^"]+)"', answer.text)
    assert link is not None
    return html.unescape(link[1])


def connect(browser: TestClient) -> Any:
    """The panel's answer at the end of connecting an identity."""
    return browser.get(at_provider(connecting(browser)))


def sentence(answer: Any) -> str:
    """The one sentence of error on a page."""
    sentences = SENTENCE.findall(answer.text)
    assert len(sentences) == 1, answer.text
    return html.unescape(sentences[0])


def name_of(browser: TestClient) -> str | None:
    """Who is logged in."""
    answer = browser.get("/api/v1/me")
    return str(answer.json()["name"]) if answer.status_code == 200 else None
