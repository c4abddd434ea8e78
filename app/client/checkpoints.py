"""Checkpoints: saved weights of jobs."""

import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx2

from .errors import BrokenDownload
from .files import OnProgress, nothing, sha256_of
from .labels import LabeledRowList
from .language import _
from .shapes import CheckpointDetails, CheckpointInfo
from .transport import address


class Checkpoints(LabeledRowList[CheckpointInfo]):
    """Saved weights at steps of jobs."""

    _path = "checkpoints"
    _shape = CheckpointInfo

    def list(
        self,
        job_id: str | None = None,
        limit: int = 50,
        *,
        search: str | None = None,
        tag: str | None = None,
        pinned: bool | None = None,
        owner: str | None = None,
        order: str | None = None,
    ) -> Iterator[CheckpointInfo]:
        """Your checkpoints, newest first, of one job or of all, read in pages of `limit`: all, those with a text in
        their name, notes, tags or the name of their job, with a `tag`, that are pinned or not, or of an `owner` (own or
        shared). `order` is newest, name (of the job), size or eval_loss.
        """
        query = {"job": job_id, "q": search, "tag": tag, "pinned": pinned, "owner": owner, "order": order}
        return self._transport.pages(CheckpointInfo, "/checkpoints", limit=limit, **query)

    def get(self, checkpoint_id: str) -> CheckpointDetails:
        """A checkpoint with its manifest."""
        return self._transport.get(CheckpointDetails, address("checkpoints", checkpoint_id))

    def pin(self, checkpoint_id: str) -> CheckpointInfo:
        """Pin a checkpoint, so that its job never deletes it."""
        return self._transport.post(CheckpointInfo, address("checkpoints", checkpoint_id, "pin"))

    def unpin(self, checkpoint_id: str) -> CheckpointInfo:
        """Unpin a checkpoint."""
        return self._transport.post(CheckpointInfo, address("checkpoints", checkpoint_id, "unpin"))

    def delete(self, checkpoint_id: str) -> None:
        """Delete a checkpoint."""
        self._transport.delete(address("checkpoints", checkpoint_id))

    def download(self, checkpoint_id: str, directory: Path | str, on_progress: OnProgress = nothing) -> Path:
        """Download a checkpoint as saved, without optimizer state, and unpack it into a directory.

        Each file is compared with the SHA-256 of the manifest. The server makes the archive while it sends it, so an
        interrupted download starts again; `exports.download` resumes. Raises BrokenDownload.
        """
        manifest = self.get(checkpoint_id).manifest
        target = Path(directory)
        target.mkdir(parents=True, exist_ok=True)
        archive = target / f"{checkpoint_id}.zip.part"
        try:
            self._receive(checkpoint_id, archive, sum(file["size"] for file in manifest["files"]), on_progress)
            _unpack(archive, target, {file["name"]: file["sha256"] for file in manifest["files"]})
        finally:
            archive.unlink(missing_ok=True)
        return target

    def _receive(self, checkpoint_id: str, archive: Path, total: int, on_progress: OnProgress) -> None:
        where = address("checkpoints", checkpoint_id, "download")
        try:
            with self._transport.open("GET", where) as response, archive.open("wb") as file:
                for chunk in response.iter_bytes():
                    file.write(chunk)
                    on_progress(min(file.tell(), total), total)
        except httpx2.TransportError as error:
            raise self._transport.unreachable(error) from error


def _unpack(archive: Path, target: Path, hashes: dict[str, str]) -> None:
    with zipfile.ZipFile(archive) as files:
        for name in files.namelist():
            path = Path(files.extract(name, target))  # which stays below the directory, whatever the name
            if name in hashes and sha256_of(path) != hashes[name]:
                path.unlink()
                raise BrokenDownload(_("{name} arrived damaged and was deleted. Download it again.", name=name))
