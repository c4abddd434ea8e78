"""JSON objects, one a line, over sockets and pipes. Standard library only.

All pairs of processes communicate this way: supervisor and gang, worker and inference process, worker and sandbox.
"""

import json
import socket
from typing import IO, Any

MAX_LINE_BYTES = 64 << 20

Message = dict[str, Any]


class LineTooLong(ValueError):
    """A line is longer than its reader allows."""


def encode(message: Message) -> bytes:
    """The message as a line with its newline. Raises ValueError for NaN and infinities, which JSON lacks."""
    return json.dumps(message, allow_nan=False).encode() + b"\n"


def write(file: IO[str], message: Message) -> None:
    """Write a message to a text file, usually standard output, and flush it."""
    file.write(encode(message).decode())
    file.flush()


def send(connection: socket.socket, message: Message) -> None:
    """Send a message over a stream socket. Raises OSError if the peer has closed it."""
    connection.sendall(encode(message))


def receive(connection: socket.socket, max_bytes: int = MAX_LINE_BYTES) -> Message | None:
    """Wait for one message and read no byte after its newline; None if the peer closed the connection first.

    Raises TimeoutError after the socket's timeout, LineTooLong, and ValueError for a line that is not JSON.
    """
    line = b""
    while not line.endswith(b"\n"):
        # Look first, then take: what follows the newline may be meant for another process.
        waiting = connection.recv(65_536, socket.MSG_PEEK)
        if not waiting:
            return None
        line += connection.recv(waiting.find(b"\n") + 1 or len(waiting))
        if len(line) > max_bytes:
            raise LineTooLong(f"a line is longer than {max_bytes} bytes")
    message: Message = json.loads(line)
    return message


class LineSplitter:
    """Cuts bytes, as they arrive, into messages; keeps the beginning of an unfinished line."""

    def __init__(self, max_bytes: int = MAX_LINE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._rest = b""

    def lines(self, data: bytes) -> list[bytes]:
        """The lines that `data` completes, without newlines. Raises LineTooLong."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > self._max_bytes:
            raise LineTooLong(f"a line is longer than {self._max_bytes} bytes")
        return lines

    def messages(self, data: bytes) -> list[Message]:
        """The messages that `data` completes. Raises LineTooLong, and ValueError for a line that is not JSON."""
        return [json.loads(line) for line in self.lines(data)]
