"""What the lists of jobs, checkpoints, corpora, base models and tokenizers share: changes of several rows, labels."""

from collections.abc import Sequence
from typing import Generic

from .shapes import ChangedRowsInfo
from .transport import S, Transport, address


class RowList:
    """A list whose rows are changed together, at this path of the API."""

    _path: str

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def change_many(self, ids: Sequence[str], action: str, tag: str = "") -> ChangedRowsInfo:
        """Change up to 100 rows at once, each by itself. `action` is delete or tag; of jobs also cancel, of
        checkpoints also pin and unpin.
        """
        body = {"action": action, "ids": [*ids], "tag": tag}
        return self._transport.post(ChangedRowsInfo, address(self._path, "bulk"), body)


class LabeledRowList(RowList, Generic[S]):
    """A list whose rows have a name, tags and notes."""

    _shape: type[S]

    def label(
        self,
        row_id: str,
        *,
        name: str | None = None,
        tags: Sequence[str] | None = None,
        notes: str | None = None,
    ) -> S:
        """Name, tag or describe a row; what is None stays. An empty name takes that of a checkpoint away; the versions
        of a corpus are labeled together.
        """
        return self._transport.patch(self._shape, address(self._path, row_id), label_changes(name, tags, notes))


def label_changes(name: str | None, tags: Sequence[str] | None, notes: str | None) -> dict[str, object]:
    """The body of a change, without what is None and stays."""
    changes: dict[str, object] = {"name": name, "notes": notes, "tags": None if tags is None else [*tags]}
    return {field: value for field, value in changes.items() if value is not None}
