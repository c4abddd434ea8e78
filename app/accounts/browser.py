"""The browser that a request comes from: its cookies, its name and its address."""

import re
from dataclasses import dataclass

from fastapi import Request

from app.web.auth import COOKIE
from app.web.client_address import client_address

BROWSER_COOKIE = "athanor_browser"
MAX_LABEL_LENGTH = 40

# The first of these in a User-Agent header decides: Edge also names Chrome, and Chrome names Safari.
_BROWSERS = {
    "Edg": "Edge",
    "OPR": "Opera",
    "SamsungBrowser": "Samsung Internet",
    "Firefox": "Firefox",
    "FxiOS": "Firefox",
    "Chrome": "Chrome",
    "CriOS": "Chrome",
    "Safari": "Safari",
}
_SYSTEMS = {
    "Android": "Android",
    "iPhone": "iOS",
    "iPad": "iPadOS",
    "Windows": "Windows",
    "Mac OS X": "macOS",
    "CrOS": "ChromeOS",
    "Linux": "Linux",
}


@dataclass(frozen=True)
class Browser:
    """What a login stores and replaces: the secrets of both cookies, and what the list of sessions shows."""

    session_secret: str | None = None
    secret: str | None = None  # of the cookie that stays after logging out
    label: str = ""
    address: str = ""


def browser_of(request: Request) -> Browser:
    """The browser that sent a request."""
    cookies = request.cookies
    label = short_label(request.headers.get("user-agent", ""))
    return Browser(cookies.get(COOKIE), cookies.get(BROWSER_COOKIE), label, client_address(request))


def short_label(user_agent: str) -> str:
    """Browser and system of a User-Agent header, such as "Firefox, Linux"; of a program its name."""
    names = [
        next((name for mark, name in table.items() if mark in user_agent), None) for table in (_BROWSERS, _SYSTEMS)
    ]
    label = ", ".join(name for name in names if name is not None)
    return label or re.sub(r"[^ -~]|/.*", "", user_agent)[:MAX_LABEL_LENGTH].strip()
