"""Where requests of users may go: the server sends what they ask for, and must not reach for them what only it can.

An address is https and all that its host resolves to is public, unless the operator lists the host, for webhooks in
ATHANOR_WEBHOOK_HOSTS. It is resolved again for each request, and the connection goes to the address that was checked.
Other features that send requests for users have rules of their own.
"""

import ipaddress
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from urllib3.connection import HTTPConnection, HTTPSConnection

from app.core.errors import PanelError, bad_field
from app.core.i18n import _, gettext_noop
from app.core.settings import settings

MAX_URL_LENGTH = 2000
PORTS = {"https": 443, "http": 80}
# They lead to an IPv4 address within them, which may be private: NAT64, 6to4, Teredo.
TRANSLATED = [ipaddress.ip_network(name) for name in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")]


@dataclass(frozen=True)
class AddressRules:
    """The hosts that an operator lists for a use of addresses, separated by commas, and what is said of others.

    `listed_hosts` may be reached by http and at private addresses. If there are `allowed_hosts`, only these and the
    listed ones are reached; `*` allows all.
    """

    field: str
    listed_hosts: Callable[[], str]
    invalid: str
    refused: str
    allowed_hosts: Callable[[], str] | None = None


WEBHOOK_RULES = AddressRules(
    "url",
    lambda: settings().webhook_hosts,
    gettext_noop("A webhook endpoint is an https URL with a host name and without a password."),
    gettext_noop(
        "Webhooks are sent by https to public addresses only. To allow {host}, list it in ATHANOR_WEBHOOK_HOSTS."
    ),
)


@dataclass(frozen=True)
class DeliveryAddress:
    """A checked URL: `address` is the IP address to connect to, `path` includes the query."""

    scheme: str
    host: str
    port: int
    address: str
    path: str

    @property
    def host_header(self) -> str:
        """The host with its port, as the Host header has it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"


def check(url: str, rules: AddressRules = WEBHOOK_RULES) -> None:
    """Raise PanelError for an address that is not allowed. A host without an address may get one."""
    with suppress(OSError):
        resolve(url, rules)


def resolve(url: str, rules: AddressRules = WEBHOOK_RULES) -> DeliveryAddress:
    """Where to connect to. Raises PanelError for what is not allowed, and OSError if the host does not resolve."""
    scheme, host, port, path = _parts(url, rules)
    addresses = [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    if not _is_listed(host, rules) and not all(map(is_public, addresses)):
        raise _refused(host, rules)
    return DeliveryAddress(scheme, host, port, addresses[0], path)


def _parts(url: str, rules: AddressRules) -> tuple[str, str, int, str]:
    """Scheme, host, port and path of a URL. Raises PanelError."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise _invalid(rules) from None
    is_plain = url.isascii() and url.isprintable() and " " not in url and len(url) <= MAX_URL_LENGTH
    if not is_plain or parts.scheme not in PORTS or not host or parts.username is not None or "%" in host:
        raise _invalid(rules)
    if not _is_listed(host, rules) and (parts.scheme == "http" or not _is_allowed(host, rules)):
        raise _refused(host, rules)
    query = f"?{parts.query}" if parts.query else ""
    return parts.scheme, host, port or PORTS[parts.scheme], f"{parts.path or '/'}{query}"


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the Internet, and not to this machine or its networks."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:  # of IPv6 with a zone
        return False
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return is_public(str(parsed.ipv4_mapped))
        if any(parsed in network for network in TRANSLATED):
            return False
    return parsed.is_global and not parsed.is_multicast


def is_loopback(host: str) -> bool:
    """Whether a host name, an IP address or the path of a socket leads to this machine only. No host means a socket."""
    try:
        parsed = ipaddress.ip_address(host)
    except ValueError:
        return host.lower() in ("", "localhost") or host.startswith("/")
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return (mapped or parsed).is_loopback


def _is_listed(host: str, rules: AddressRules) -> bool:
    return host.lower() in names_of(rules.listed_hosts())


def _is_allowed(host: str, rules: AddressRules) -> bool:
    if rules.allowed_hosts is None:
        return True
    return not names_of(rules.allowed_hosts()).isdisjoint((host.lower(), "*"))


def names_of(hosts: str) -> set[str]:
    """The hosts of a list with commas, in lower case."""
    return {name.strip().lower() for name in hosts.split(",") if name.strip()}


def _invalid(rules: AddressRules) -> PanelError:
    return bad_field(rules.field, "url_invalid", _(rules.invalid))


def _refused(host: str, rules: AddressRules) -> PanelError:
    return bad_field(rules.field, "url_refused", _(rules.refused, host=host[:100]))


def connect(target: DeliveryAddress, seconds: float) -> HTTPConnection:
    """A connection to the address that was checked, which proves to be the host. `seconds` are those of one read."""
    if target.scheme == "http":
        return HTTPConnection(target.address, target.port, timeout=seconds)
    return HTTPSConnection(
        target.address,
        target.port,
        timeout=seconds,
        server_hostname=target.host,
        assert_hostname=target.host,
        ssl_context=ssl.create_default_context(),
    )


def cut(connection: HTTPConnection) -> None:
    """End a connection that another thread may be reading from."""
    with suppress(OSError, AttributeError):
        connection.sock.shutdown(socket.SHUT_RDWR)
