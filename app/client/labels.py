"""Names, tags and notes of rows."""

from collections.abc import Sequence
from typing import Generic

from .row_list import RowList
from .transport import S, address


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
