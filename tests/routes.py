"""The routes of the application, for tests that try each of them."""

from collections.abc import Iterator

from fastapi.routing import APIRoute, iter_route_contexts

from app import main
from app.web.auth import Right, right_of

TUS = {
    "Tus-Resumable": "1.0.0",
    "Content-Type": "application/offset+octet-stream",
    "Upload-Offset": "0",
    "X-HTTP-Method-Override": "PATCH",
}
ENDLESS = "/notices/events"  # a stream of events, for every role
NO_ROWS = "{permission_id}"  # of checkpoints under /v1, which are never shared so
_CLEANING = b'{"steps": [{"name": "fix_unicode"}]}'
_ENDPOINT = b'{"name": "teacher", "base_url": "https://example.com/v1", "model": "large"}'
_NAME = b'{"name": "another"}'
BODIES = {
    **{f"/api/v1/{base}": _NAME for base in ("corpora/{corpus_id}", "models/{model_id}", "tokenizers/{tokenizer_id}")},
    "/api/v1/corpora/{corpus_id}/clean": _CLEANING,
    "/api/v1/corpora/{corpus_id}/preview-cleaning": _CLEANING,
    "/api/v1/model-endpoints/{model_endpoint_id}": _ENDPOINT,
    "/api/v1/record-generations/{generation_id}/review": b'{"state": "accepted"}',
}


def routes() -> Iterator[tuple[str, str]]:
    """Method and path of every route of a feature or page, but those that describe a protocol to everybody."""
    return ((method, path) for method, path, _right in rights())


def rights() -> Iterator[tuple[str, str, Right | None]]:
    """Method and path of the same routes, and the right that each needs; None for those that are open to visitors."""
    for prefix, modules in (("/api/v1", main.FEATURES), ("/v1", main.OPENAI), ("", main.PAGES)):
        for module in modules:
            for context in iter_route_contexts(module.router.routes):
                route = context.original_route
                if isinstance(route, APIRoute):
                    methods = sorted((context.methods or set()) - {"HEAD", "OPTIONS"})
                    yield from ((method, f"{prefix}{context.path}", right_of(route)) for method in methods)


def headers_of(path: str) -> dict[str, str]:
    """The headers without which a route refuses every request."""
    return TUS if path.startswith("/api/v1/uploads") else {"Content-Type": "application/json"}


def body_of(path: str) -> bytes:
    """A body whose form is right, so that the route looks for the row that its path names."""
    return BODIES.get(path, b"{}")


def query_of(path: str) -> str:
    """The query without which a route refuses every request."""
    return "?q=text" if path.endswith("/search") else ""
