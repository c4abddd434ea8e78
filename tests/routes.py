"""The routes of the application, for tests that try each of them."""

from collections.abc import Iterator

from fastapi.routing import APIRoute, iter_route_contexts

from app import main
from app.web.auth import Right, right_of


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
