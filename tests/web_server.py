"""The application on a real socket, in a thread of this process."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from app.main import create_app
from tests.waiting import until


@contextmanager
def running() -> Iterator[str]:
    """Serve it inside the block; yields its address."""
    configuration = uvicorn.Config(create_app(), port=0, log_level="warning", timeout_graceful_shutdown=2)
    server = uvicorn.Server(configuration)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started, what="the web server")
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(10)
