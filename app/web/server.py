"""The HTTP server: uvicorn with our limits of connections, and as many files as they need."""

import gc
import resource
import socket
import sys
from typing import Any

import uvicorn

from app.web.connections import BoundedProtocol, protocol_with

MAX_FILES = 65_536  # more than the connections need: uploads, the database, static files

# How long a thread may keep the interpreter's lock while others wait for it, in seconds. With Python's 5 ms the event
# loop would wait for 16 busy threads 80 ms each time that it needs the lock, several times for each request.
SWITCH_SECONDS = 0.0005

# A full collection of garbage stops the process for 0.5 µs per object, and each open stream has some 300. With
# Python's 10, one of 0.1 s followed the other while 500 viewers connected; with 100 there is one per 700,000 objects.
FULL_COLLECTION_THRESHOLD = 100


class WebServer(uvicorn.Server):
    """A server whose garbage collections do not look at what it loaded, which takes 0.13 s, and are seldom full."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Load the application and listen."""
        await super().startup(sockets)
        gc.freeze()
        gc.set_threshold(*gc.get_threshold()[:2], FULL_COLLECTION_THRESHOLD)


def create_server(application: Any, **limits: Any) -> WebServer:
    """A server for an ASGI application, or the import path of one. `limits` replace attributes of BoundedProtocol."""
    sys.setswitchinterval(SWITCH_SECONDS)
    num_files = raise_file_limit()
    limits = {"max_connections": min(BoundedProtocol.max_connections, num_files // 2), **limits}
    config = uvicorn.Config(
        application,
        http=protocol_with(**limits),
        ws="none",
        log_config=None,
        log_level="error",  # its warnings are about what clients send: anybody could fill the log with them
        access_log=False,  # an address may hold a one-time code
        timeout_keep_alive=5,
        timeout_graceful_shutdown=5,
    )
    return WebServer(config)


def raise_file_limit() -> int:
    """Raise this process's limit of open files as far as it may, up to MAX_FILES, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_FILES)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        return allowed
    return min(MAX_FILES, soft) if soft != resource.RLIM_INFINITY else MAX_FILES
