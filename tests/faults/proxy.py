"""A TCP proxy that can be cut, in place of the network between a worker and its database."""

import selectors
import socket
import threading
from contextlib import suppress
from typing import Literal


class Proxy:
    """Forwards connections from one local port to another. While it is cut, it forwards nothing."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._cut: Literal["silent", "reset"] | None = None
        self._wake, self._woken = socket.socketpair()
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def cut(self, how: Literal["silent", "reset"] = "silent") -> None:
        """Cut the connection: "silent" loses packets, like a pulled cable; "reset" closes all connections."""
        self._cut = how
        self._wake.send(b".")

    def heal(self) -> None:
        """Forward again, including the data that has arrived while it was cut."""
        self._cut = None
        self._wake.send(b".")

    def close(self) -> None:
        """Stop the proxy and close all connections."""
        self._is_closed = True
        self._wake.send(b".")
        self._thread.join(5)

    def _run(self) -> None:
        while not self._is_closed:
            if self._cut == "reset":
                for end in list(self._pairs):
                    self._drop(end)
            with selectors.DefaultSelector() as selector:
                selector.register(self._woken, selectors.EVENT_READ)
                if self._cut != "silent":
                    selector.register(self._listener, selectors.EVENT_READ)
                    for end in self._pairs:
                        selector.register(end, selectors.EVENT_READ)
                for key, _events in selector.select():
                    self._handle(key.fileobj)  # type: ignore[arg-type]
        for end in (*self._pairs, self._listener):
            end.close()

    def _handle(self, ready: socket.socket) -> None:
        if ready is self._woken:
            self._woken.recv(64)
        elif ready is self._listener:
            self._accept()
        elif ready in self._pairs:
            self._forward(ready)

    def _accept(self) -> None:
        near, _address = self._listener.accept()
        try:
            if self._cut is not None:
                raise ConnectionRefusedError
            far = socket.create_connection(("127.0.0.1", self._target), 5)
        except OSError:
            near.close()
            return
        self._pairs[near], self._pairs[far] = far, near

    def _forward(self, end: socket.socket) -> None:
        try:
            data = end.recv(65_536)
            if data:
                self._pairs[end].sendall(data)
        except OSError:
            data = b""
        if not data:
            self._drop(end)

    def _drop(self, end: socket.socket) -> None:
        other = self._pairs.pop(end, None)
        if other is not None:
            self._pairs.pop(other, None)
            for part in (end, other):
                with suppress(OSError):
                    part.close()
