"""A small server with an API like OpenAI's: what it answers is scripted, and what it was asked is kept."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, dict[str, str], Any]


def completion(text: str, *, finish_reason: str = "stop", tokens: tuple[int, int] = (10, 20)) -> Reply:
    """A chat completion."""
    usage = {"prompt_tokens": tokens[0], "completion_tokens": tokens[1], "total_tokens": sum(tokens)}
    message = {"role": "assistant", "content": text}
    return 200, {}, {"choices": [{"index": 0, "message": message, "finish_reason": finish_reason}], "usage": usage}


def pairs(*texts: str) -> str:
    """The JSON of question-answer pairs."""
    return json.dumps({"records": [{"question": f"{text}?", "answer": f"{text}!"} for text in texts]})


def refusal(status: int, message: str, **headers: str) -> Reply:
    """An error as OpenAI's API answers it."""
    return status, headers, {"error": {"message": message, "type": "invalid_request_error"}}


def prompt_of(request: dict[str, Any]) -> str:
    """What a request asks."""
    text: str = request["messages"][0]["content"]
    return text


@dataclass
class Teacher:
    """The running server. `answer` makes the reply to each request."""

    url: str
    answer: Callable[[dict[str, Any]], Reply]
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def script(self, *replies: Reply) -> None:
        """Answer with these one after another, and then with the last of them."""
        left = list(replies)
        self.answer = lambda _request: left.pop(0) if len(left) > 1 else left[0]


@contextmanager
def running() -> Iterator[Teacher]:
    """The server on a free port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with teacher.lock:
                teacher.requests.append({**request, "path": self.path})
                teacher.headers.append(dict(self.headers))
                status, headers, body = teacher.answer(request)
            content = json.dumps(body).encode()
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_arguments: Any) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    teacher = Teacher(f"http://127.0.0.1:{server.server_port}/v1", lambda _request: completion(pairs("a")))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield teacher
    finally:
        server.shutdown()
        server.server_close()
