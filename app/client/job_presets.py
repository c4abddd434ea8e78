"""Settings of jobs that are saved under a name."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from .shapes import Shape
from .transport import Transport, address


class JobPresetInfo(Shape):
    """A preset: submit its `spec` with a name and corpora."""

    id: str
    name: str
    spec: dict[str, Any]
    everyone: bool
    owner: str
    own: bool
    created_at: datetime


class JobPresets:
    """Your presets of jobs, and those for everyone."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self, limit: int = 50) -> Iterator[JobPresetInfo]:
        """All that you can use, newest first, read in pages of `limit`."""
        return self._transport.pages(JobPresetInfo, "/job-presets", limit=limit)

    def get(self, preset_id: str) -> JobPresetInfo:
        """A preset."""
        return self._transport.get(JobPresetInfo, address("job-presets", preset_id))

    def save(self, name: str, spec: Mapping[str, Any], *, everyone: bool = False) -> JobPresetInfo:
        """Save the fields of a partial spec under a name, in place of an earlier preset of yours with that name."""
        body = {"name": name, "spec": {**spec}, "everyone": everyone}
        return self._transport.post(JobPresetInfo, "/job-presets", body)

    def delete(self, preset_id: str) -> None:
        """Delete a preset. Jobs that were submitted with it stay."""
        self._transport.delete(address("job-presets", preset_id))
