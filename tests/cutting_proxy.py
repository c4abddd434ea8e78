"""A proxy that cuts connections after so many bytes from clients, or holds bytes back, in threads of this process."""

import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

CHUNK_BYTES = 16 * 1024
HELD_BYTES = 100_000  # what a connection may send while the gate is closed: requests without a file


class CuttingProxy:
    """Forwards TCP connections. Each limit, in bytes from all clients, cuts the connection that reaches it, once."""

    def __init__(self, port: int, limits: list[int], before_cut: Callable[[], object]) -> None:
        self._upstream = ("127.0.0.1", port)
        self._limits = list(limits)
        self._before_cut = before_cut
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._since_cut = 0
        self._gate_closes_at: int | None = None
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.num_cuts = 0
        self.num_bytes = 0  # from clients
        self.gate = threading.Event()  # while it is not set, files stop on their way
        self.gate.set()

    def cut_after(self, limits: list[int]) -> None:
        """Count from here: each limit is a cut."""
        with self._lock:
            self._since_cut = 0
            self._limits = list(limits)

    def close_gate_after(self, num_bytes: int) -> None:
        """Hold files back after so many more bytes."""
        with self._lock:
            self._gate_closes_at = self.num_bytes + num_bytes

    def serve(self) -> None:
        """Forward connections until the listener is closed."""
        with suppress(OSError):
            while True:
                client, _address = self._listener.accept()
                threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        with suppress(OSError), client, socket.create_connection(self._upstream) as server:
            self._forward(client, server)

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        num_sent = 0
        while True:
            for source in select.select([client, server], [], [])[0]:
                data = source.recv(CHUNK_BYTES)
                if not data:
                    return
                if source is client:
                    num_sent += len(data)
                    if num_sent > HELD_BYTES:
                        self.gate.wait()
                (server if source is client else client).sendall(data)
                if source is client and self._is_cut(len(data)):
                    return

    def _is_cut(self, num_bytes: int) -> bool:
        with self._lock:
            self.num_bytes += num_bytes
            self._since_cut += num_bytes
            if self._gate_closes_at is not None and self.num_bytes > self._gate_closes_at:
                self._gate_closes_at = None
                self.gate.clear()
            if not self._limits or self._since_cut <= self._limits[0]:
                return False
            self._since_cut = 0
            self._limits.pop(0)
            self._before_cut()
            self.num_cuts += 1
            return True

    def close(self) -> None:
        """Accept nothing more."""
        self.gate.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@contextmanager
def running(port: int, limits: list[int], before_cut: Callable[[], object] = lambda: None) -> Iterator[CuttingProxy]:
    """A proxy in front of a port of this machine."""
    proxy = CuttingProxy(port, limits, before_cut)
    thread = threading.Thread(target=proxy.serve, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.close()
        thread.join(10)
