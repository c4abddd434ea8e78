"""A program in a pseudo-terminal: what it writes, and keys that a person would press."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time
from pathlib import Path

CTRL_C, CTRL_D = "\x03", "\x04"


class Terminal:
    """A running program whose standard streams are a terminal of its own."""

    def __init__(
        self, command: list[str], environment: dict[str, str], directory: Path, rows: int = 40, columns: int = 100
    ) -> None:
        self.text = ""
        self.process_id, self._file = pty.fork()
        if self.process_id == 0:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs, such as these tests, ignore it
            os.chdir(directory)
            os.execve(command[0], command, {"TERM": "xterm-256color", **environment})
        fcntl.ioctl(self._file, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def expect(self, pattern: str, seconds: float = 60) -> None:
        """Read until a pattern appears behind what was expected before."""
        deadline = time.monotonic() + seconds
        start = getattr(self, "_expected", 0)
        while not (match := re.search(pattern, self.text[start:])):
            assert self._read(deadline), f"{pattern!r} did not appear in:\n{self.text}"
        self._expected = start + match.end()

    def send(self, keys: str) -> None:
        """Press keys."""
        os.write(self._file, keys.encode())

    def wait(self, seconds: float = 60) -> int:
        """The exit code, once the program has ended by itself."""
        deadline = time.monotonic() + seconds
        while self._read(deadline):
            pass
        assert time.monotonic() < deadline, f"it did not end:\n{self.text}"
        _process_id, status = os.waitpid(self.process_id, 0)
        os.close(self._file)
        return os.waitstatus_to_exitcode(status)

    def _read(self, deadline: float) -> bool:
        """Read what there is; False once the program closed its terminal or the time is over."""
        ready, _write, _error = select.select([self._file], [], [], max(0.0, deadline - time.monotonic()))
        try:
            data = os.read(self._file, 65536) if ready else b""
        except OSError:  # how Linux says that the program has ended
            data = b""
        self.text += data.decode(errors="replace")
        return bool(data)
