"""Sends one notice to a service by its Apprise URL, or checks the URL, in a process of its own.

`python -m app.notices.apprise_child` reads a task as JSON from standard input (a URL, whose secrets no command line
shows) and prints {"error": CODE or null}. The process reaches only public addresses and those of the hosts that the
operator lists, whatever a service resolves or redirects to; it starts no programs, and reads no files but Python's own.
"""

import json
import os
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from apprise import Apprise, AppriseAsset

from app.core.addresses import is_public

READABLE = ("/dev/null", "/dev/urandom", "/etc/mime.types", "/etc/ssl", "/usr/share/zoneinfo")
PROGRAMS = ("subprocess.Popen", "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn")
CONNECTIONS = ("socket.connect", "socket.sendto", "socket.sendmsg")


class Task(TypedDict):
    """What to do; without a title the URL is only checked. `type` is one of Apprise's, such as info or failure."""

    url: str
    hosts: list[str]  # that may have private addresses
    title: NotRequired[str]
    text: NotRequired[str]
    type: NotRequired[str]


class Guard:
    """An audit hook of this process; `is_private` says whether it refused an address. It cannot be removed."""

    def __init__(self, hosts: list[str]) -> None:
        self.is_private = False
        self._allowed = {address for host in hosts for address in addresses_of(host)}
        certificates = [os.environ.get(name) for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")]
        names = [sys.prefix, sys.base_prefix, *READABLE, *(name for name in certificates if name)]
        self._readable = [Path(os.path.realpath(name)) for name in names]

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Raise PermissionError for what is not allowed."""
        if event in PROGRAMS:
            raise PermissionError("Programs are not started.")
        if event in CONNECTIONS and not (arguments[1] is None and event == "socket.sendmsg"):  # which is connected
            self.check_address(arguments[1])
        if event == "open" and not isinstance(arguments[0], int):
            path = Path(os.path.realpath(os.fsdecode(arguments[0])))
            if not any(path.is_relative_to(folder) for folder in self._readable):
                raise PermissionError("Only Python's own files are read.")

    def check_address(self, address: object) -> None:
        """Raise PermissionError for what is no IP address that may be reached."""
        host = address[0] if isinstance(address, tuple) else None
        if not isinstance(host, str) or not (is_public(host) or host in self._allowed):
            self.is_private = True
            raise PermissionError("The address is private.")


def addresses_of(host: str) -> set[str]:
    """The IP addresses of a host; none if it does not resolve."""
    with suppress(OSError, UnicodeError):
        return {str(entry[4][0]) for entry in socket.getaddrinfo(host, None)}
    return set()


def run(task: Task) -> str | None:
    """Do a task; the code of what went wrong, a key of ERRORS in delivery_errors.py, or None."""
    guard = Guard(task["hosts"])
    sys.addaudithook(guard)
    service = Apprise.instantiate(
        task["url"], asset=AppriseAsset(app_id="Athanor", app_desc="Athanor", image_url_mask="")
    )
    if service is None:
        return "service_unknown"
    if any("{host}" in template for template in service.templates) and service.host:
        for address in addresses_of(service.host.strip("[]")):
            with suppress(PermissionError):
                guard.check_address((address,))
    is_sent = False
    if "title" in task and not guard.is_private:
        with suppress(OSError):
            is_sent = bool(service.notify(title=task["title"], body=task["text"], notify_type=task["type"]))
    if guard.is_private:
        return "service_private"
    return None if is_sent or "title" not in task else "service_refused"


if __name__ == "__main__":
    print(json.dumps({"error": run(json.load(sys.stdin))}))  # noqa: T201 - its answer
