"""The verbs of checkpoints: the only writer of their table. Files are put in place by the supervisor before."""

import io
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app import auth, paging, storage
from app.auth import Principal
from app.errors import PanelError
from app.i18n import _
from app.models import Checkpoint, Job, new_id

CHUNK_BYTES = 1 << 20


def record(
    session: Session,
    *,
    owner_id: str,
    job_id: str,
    step: int,
    fence: int,
    path: str,
    manifest: dict[str, Any],
    metrics: dict[str, Any],
) -> Checkpoint:
    """Keep a published checkpoint. Repeating it does no harm."""
    values = {
        "owner_id": owner_id,
        "job_id": job_id,
        "step": step,
        "fence": fence,
        "path": path,
        "num_bytes": sum(entry["size"] for entry in manifest["files"]),
        "manifest": manifest,
        "metrics": metrics,
    }
    session.execute(insert(Checkpoint).values(id=new_id(), **values).on_conflict_do_nothing())
    same = (Checkpoint.job_id == job_id, Checkpoint.step == step, Checkpoint.fence == fence)
    return session.execute(select(Checkpoint).where(*same)).scalar_one()


def get(session: Session, *, principal: Principal, checkpoint_id: str) -> Checkpoint:
    """A checkpoint the user may see. Raises 404."""
    return auth.visible(session, Checkpoint, checkpoint_id, principal=principal)


def list_checkpoints(
    session: Session, *, principal: Principal, job_id: str | None = None, limit: int = 100, after: str | None = None
) -> tuple[list[Checkpoint], str | None]:
    """The checkpoints the user may see, of one job or of all, newest first, and the cursor of the next page."""
    query = select(Checkpoint).where(auth.visible_to(Checkpoint.owner_id, principal))
    if job_id is not None:
        query = query.where(Checkpoint.job_id == job_id)
    return paging.newest(session, query, Checkpoint.id, limit, after)


def archive_name(session: Session, *, checkpoint: Checkpoint) -> str:
    """The name a download is saved under: the job's name as a file name, and the step."""
    name = session.execute(select(Job.name).where(Job.id == checkpoint.job_id)).scalar_one()
    stem = re.sub(r"[^\w.-]+", "-", name).strip("-.") or "model"
    return f"{stem}-step-{checkpoint.step}.zip"


def files(checkpoint: Checkpoint) -> list[Path]:
    """The files of a checkpoint, by its manifest. Raises 409 where they are gone from the disk."""
    directory = storage.checkpoint(checkpoint.path)
    paths = [directory / entry["name"] for entry in checkpoint.manifest["files"]]
    paths.append(directory / "MANIFEST.json")
    missing = next((path.name for path in paths if not path.is_file()), None)
    if missing is not None:
        message = _("The file {name} of this checkpoint is gone from the disk.", name=missing)
        raise PanelError(409, "checkpoint_missing", message)
    return paths


def zip_chunks(checkpoint: Checkpoint) -> Iterator[bytes]:
    """The checkpoint as a zip archive, made while it is sent: weights do not compress, so nothing is compressed."""
    out = _Outlet()
    directory = storage.checkpoint(checkpoint.path)
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for path in files(checkpoint):
            entry = zipfile.ZipInfo(str(path.relative_to(directory)), checkpoint.created_at.timetuple()[:6])
            entry.external_attr = 0o644 << 16
            with path.open("rb") as source, archive.open(entry, "w", force_zip64=True) as target:
                while chunk := source.read(CHUNK_BYTES):
                    target.write(chunk)
                    yield out.take()
    yield out.take()


class _Outlet(io.RawIOBase):
    """A stream that cannot seek; what was written is taken out piece by piece."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._pending += data
        return len(data)

    def take(self) -> bytes:
        """What was written since the last call."""
        taken = bytes(self._pending)
        self._pending.clear()
        return taken
