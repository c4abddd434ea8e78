"""What a machine needs to become a node: addresses with their credentials, certificates, the data directory."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from sqlalchemy import make_url

from app.checkpoints import signature
from app.core import storage
from app.core.addresses import is_loopback, names_of
from app.core.errors import PanelError
from app.core.i18n import _
from app.core.settings import settings

# Parameters of DATABASE_URL and REDIS_URL that name files: certificates and private keys.
FILE_PARAMETERS = re.compile(
    r"(?<=[?&])(sslrootcert|sslcert|sslkey|sslcrl|ssl_ca_certs|ssl_certfile|ssl_keyfile)=([^&#]+)"
)
SYSTEM_CERTIFICATES = "system"  # a value of sslrootcert that names no file


@dataclass(frozen=True)
class NodeConfiguration:
    """What a node gets. The addresses name certificates by their names in `files`, which has their text."""

    database_url: str
    redis_url: str
    data: str  # path of the data directory on the machine of the panel
    key_sha256: str  # of the signing key in it
    files: dict[str, str]


def read() -> NodeConfiguration:
    """The configuration of this installation. Raises PanelError (409) for a certificate that cannot be read."""
    files: dict[str, str] = {}
    database_url = _take_files(settings().database_url, "database", files)
    redis_url = _take_files(settings().redis_url, "broker", files)
    return NodeConfiguration(database_url, redis_url, str(storage.data()), signature.key_sha256(), files)


def _take_files(url: str, server: str, files: dict[str, str]) -> str:
    """Read the files that an address names into `files`; returns the address with their names there."""

    def take(parameter: re.Match[str]) -> str:
        path = unquote(parameter[2])
        if path == SYSTEM_CERTIFICATES:
            return parameter[0]
        name = f"{server}_{parameter[1]}.pem"
        try:
            files[name] = Path(path).read_text()
        except (OSError, ValueError):
            message = _("{path}, which the panel's settings name, cannot be read there as a certificate.", path=path)
            raise PanelError(409, "join_unavailable", message) from None
        return f"{parameter[1]}={name}"

    return FILE_PARAMETERS.sub(take, url)


def with_files(url: str, paths: Mapping[str, Path]) -> str:
    """An address of a NodeConfiguration with the paths of the files on this machine, by their names."""

    def put(parameter: re.Match[str]) -> str:
        path = paths.get(parameter[2])
        return parameter[0] if path is None else f"{parameter[1]}={quote(str(path), safe='')}"

    return FILE_PARAMETERS.sub(put, url)


def panel_names() -> list[str]:
    """The host names and addresses by which other machines may reach the panel, see `check_host` in the middleware."""
    wildcards = ("0.0.0.0", "::")  # noqa: S104 - compared, not bound
    names = [settings().host.lower(), *sorted(names_of(settings().allowed_hosts))]
    return [name for name in names if name not in wildcards and not is_loopback(name)]


def obstacles() -> list[str]:
    """Why no other machine can become a node now: sentences that say what to set."""
    sentences = []
    if not panel_names():
        sentences.append(
            _(
                "Other machines cannot reach the panel: set ATHANOR_HOST to an address of this machine that they "
                "reach, or list the name under which they reach it, such as that of a proxy with TLS, in "
                "ATHANOR_ALLOWED_HOSTS."
            )
        )
    if all(map(is_loopback, _database_hosts())):
        sentences.append(
            _("PostgreSQL is reached on this machine only: set DATABASE_URL to a server that all machines reach.")
        )
    if is_loopback(urlsplit(settings().redis_url).hostname or ""):
        sentences.append(
            _("Valkey is reached on this machine only: set REDIS_URL to a server that all machines reach.")
        )
    return sentences


def hints(address: str) -> list[str]:
    """Why no other machine can become a node, or not by this address of the panel: sentences that say what to do."""
    sentences, names, parts = obstacles(), panel_names(), urlsplit(address)
    if names and is_loopback(parts.hostname or ""):
        sentences.append(
            _(
                "In the command, replace {address} with the address by which the other machine reaches the panel, "
                "at one of these names: {names}.",
                address=address,
                names=", ".join(names),
            )
        )
    elif names and parts.scheme == "http":
        sentences.append(
            _(
                "This address is plain HTTP, so the command refuses to send credentials. Put a proxy with TLS in "
                "front of the panel or, in a network that nobody else reads, add --allow-http to the command."
            )
        )
    return sentences


def _database_hosts() -> list[str]:
    """The hosts of DATABASE_URL, or the directories of its sockets, without ports."""
    url = make_url(settings().database_url)
    if url.host:
        return [url.host]
    named = url.query.get("host", "")
    return [host.partition(":")[0] for host in ([named] if isinstance(named, str) else named)]
