"""The routes of the application, for tests that try each of them."""

from collections.abc import Iterator

from app import main


def routes() -> Iterator[tuple[str, str]]:
    """Method and path of every route of a feature or page, but those that describe a protocol to everybody."""
    for prefix, modules in (("/api/v1", main.FEATURES), ("/v1", main.OPENAI), ("", main.PAGES)):
        for module in modules:
            for route in module.router.routes:
                if "methods" in vars(route):
                    yield from ((method, prefix + route.path) for method in sorted(route.methods - {"HEAD", "OPTIONS"}))
