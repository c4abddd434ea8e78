"""Nodes, and how machines become nodes: join tokens, for an owner's token with the scope admin, and their use."""

from collections.abc import Iterator
from datetime import datetime

import httpx2

from .errors import ServerUnreachable
from .language import _
from .shapes import Shape
from .transport import Transport, address


class GpuInfo(Shape):
    """A GPU of a node."""

    index: int
    uuid: str
    name: str
    memory_bytes: int


class GpuUsageInfo(Shape):
    """How busy a GPU of a node is."""

    index: int
    memory_used_bytes: int
    percent: int


class TelemetryInfo(Shape):
    """How busy a node was when it last reported, and the versions of its software. None: it did not report it."""

    cpu_percent: float | None = None
    memory_used_bytes: int | None = None
    disk_bytes: int | None = None
    disk_free_bytes: int | None = None
    gpus: list[GpuUsageInfo] = []
    versions: dict[str, str] = {}


class NodeInfo(Shape):
    """A machine that runs jobs."""

    name: str
    live: bool
    num_cpus: int
    memory_bytes: int
    gpus: list[GpuInfo]
    slots: int
    running: list[str]
    is_draining: bool
    telemetry: TelemetryInfo
    started_at: datetime
    last_seen_at: datetime


class JobUseInfo(Shape):
    """What a running job uses. None: it has not measured that yet, or its machine does not report it."""

    id: str
    name: str
    node: str
    cpu_cores: float | None
    memory_bytes: int | None
    num_gpus: int
    gpu_percent: float | None
    disk_bytes: int


class UserUseInfo(Shape):
    """What a user uses: the sums over the running jobs, and the disk space that counts toward the quota."""

    name: str
    cpu_cores: float
    memory_bytes: int
    num_gpus: int
    disk_bytes: int
    jobs: list[JobUseInfo]


class JoinTokenInfo(Shape):
    """A join token. `state` is unused, used or expired; `node` is the name of the node that joined with it."""

    id: str
    state: str
    creator: str
    created_at: datetime
    expires_at: datetime
    used_at: datetime | None
    node: str | None


class NewJoinTokenInfo(JoinTokenInfo):
    """A new join token, which is shown only here, with the command to run on the other machine.

    `hints` says why other machines cannot join yet, and what to do.
    """

    token: str
    command: str
    hints: list[str]


class NodeConfigurationInfo(Shape):
    """What a node needs. The addresses name certificates by their names in `files`, which has their text."""

    database_url: str
    redis_url: str
    data: str
    key_sha256: str
    files: dict[str, str]


class PartInfo(Shape):
    """The state of one part of Athanor: good, wait or bad. `remedy` says what to do if it is not good."""

    kind: str
    name: str
    state: str
    description: str
    at: datetime | None
    remedy: str | None
    unneeded_bytes: int


class HealthInfo(Shape):
    """The state of all parts. `client.delete_unneeded_cache` frees the `unneeded_bytes` of the cache."""

    parts: list[PartInfo]


class JoinTokens:
    """Tokens with which machines become nodes."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self, limit: int = 50) -> Iterator[JoinTokenInfo]:
        """The join tokens, newest first, read in pages of `limit`."""
        return self._transport.pages(JoinTokenInfo, "/join-tokens", limit=limit)

    def create(self, minutes: int = 60) -> NewJoinTokenInfo:
        """Create a token with which a machine becomes a node, once, within so many minutes."""
        return self._transport.post(NewJoinTokenInfo, "/join-tokens", {"minutes": minutes})

    def revoke(self, token_id: str) -> None:
        """Revoke a join token that was not used."""
        self._transport.delete(address("join-tokens", token_id))


def join(
    url: str, token: str, name: str, revision: str, transport: httpx2.BaseTransport | None = None
) -> NodeConfigurationInfo:
    """Use a join token: what the node of this name needs. `revision` is that of the schema which the machine expects.

    Raises Forbidden for a token that is wrong, used, revoked or too old, Conflict where the machine cannot join, and
    ServerUnreachable: where the connection broke after the token was sent, the token may be used.
    """
    visitor = Transport(url, "", transport=transport)
    try:
        body = {"token": token, "name": name, "revision": revision}
        return visitor.post_once(NodeConfigurationInfo, "/nodes/join", body)
    except ServerUnreachable as error:
        if isinstance(error.__cause__, httpx2.ConnectError | httpx2.ConnectTimeout):
            raise
        sentence = _("The connection to {url} broke, and the join token may be used now. Create a new one.", url=url)
        raise ServerUnreachable(sentence) from error
    finally:
        visitor.close()
