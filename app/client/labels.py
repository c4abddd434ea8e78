"""The name, tags and notes that jobs, checkpoints, corpora, base models and tokenizers have."""

from collections.abc import Sequence


def label_changes(name: str | None, tags: Sequence[str] | None, notes: str | None) -> dict[str, object]:
    """The body of a change, without what is None and stays."""
    changes: dict[str, object] = {"name": name, "notes": notes, "tags": None if tags is None else [*tags]}
    return {field: value for field, value in changes.items() if value is not None}
