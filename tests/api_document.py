"""The tables of docs/api.md and docs/rights.md, made from the application. `python -m tests.api_document` writes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from app.core.roles import ROLES, is_at_least
from app.main import create_app
from app.web.problem_types import PROBLEM_TYPES
from tests import routes

DOCUMENT = Path(__file__).parents[1] / "docs" / "api.md"
RIGHTS = DOCUMENT.with_name("rights.md")


def operations(schema: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Method, path and description of every operation of an OpenAPI document."""
    for path, item in schema["paths"].items():
        for method, operation in item.items():
            yield method.upper(), path, operation


def scope(operation: dict[str, Any]) -> str | None:
    """The scope that an operation needs; None if it is open to visitors."""
    requirements = operation.get("security", [])
    scopes = {name for requirement in requirements for names in requirement.values() for name in names}
    return scopes.pop() if scopes else None


def updated(text: str) -> str:
    """The document with its tables made again."""
    head = text.partition("\n## Operations\n")[0]
    rows = [
        f"| {method} | `{path}` | `{operation['operationId']}` | {scope(operation) or '–'} |"
        for method, path, operation in sorted(operations(create_app().openapi()), key=lambda row: (row[1], row[0]))
    ]
    codes = [
        f"| `{code}` | {', '.join(map(str, statuses))} | {meaning} |"
        for code, (statuses, meaning) in sorted(PROBLEM_TYPES.items())
    ]
    return "\n".join(
        [
            f"{head}\n## Operations\n\n| Method | Path | Operation | Scope |\n| --- | --- | --- | --- |",
            *rows,
            "\n## Error codes\n\nJobs end with codes of their own: [failures.md](failures.md).\n",
            "| Code | Status | Meaning |\n| --- | --- | --- |",
            *codes,
            "",
        ]
    )


def updated_rights(text: str) -> str:
    """The document of rights with its table made again."""
    head = text.partition("\n## Routes\n")[0]
    rows = []
    for method, path, right in sorted(routes.rights(), key=lambda row: (row[1], row[0])):
        cells = ["yes" if right is None else "–"]
        cells += ["yes" if right is None or is_at_least(role, right.role) else "–" for role in ROLES]
        rows.append(f"| {method} | `{path}` | {' | '.join(cells)} |")
    title = f"| Method | Path | visitor | {' | '.join(ROLES)} |"
    return "\n".join([f"{head}\n## Routes\n\n{title}", f"|{' --- |' * (3 + len(ROLES))}", *rows, ""])


if __name__ == "__main__":
    DOCUMENT.write_text(updated(DOCUMENT.read_text()))
    RIGHTS.write_text(updated_rights(RIGHTS.read_text()))
