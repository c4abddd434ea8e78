"""Addresses that will be removed, with the headers that announce it (RFC 9745, RFC 8594)."""

from datetime import UTC, datetime
from urllib.parse import quote

# Each prefix with that of its successor, and since when it is deprecated.
DEPRECATED = {
    "/api/v1/works": ("/api/v1/tasks", datetime(2026, 11, 1, tzinfo=UTC)),
    "/api/v1/checkpoint-tasks": ("/api/v1/tasks", datetime(2026, 12, 1, tzinfo=UTC)),
}


def deprecation_headers(path: str) -> dict[str, str]:
    """The headers of every answer at a deprecated address; none elsewhere."""
    for prefix, (successor, since) in DEPRECATED.items():
        if path == prefix or path.startswith(f"{prefix}/"):
            link = f'<{successor}{quote(path.removeprefix(prefix))}>; rel="successor-version"'
            return {"Deprecation": f"@{int(since.timestamp())}", "Link": link}
    return {}
