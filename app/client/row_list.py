"""What the lists of jobs, checkpoints, corpora, base models and tokenizers share: changes of several rows at once."""

from collections.abc import Sequence

from .shapes import ChangedRowsInfo
from .transport import Transport, address


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
