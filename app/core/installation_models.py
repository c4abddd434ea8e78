"""The tables of what an installation remembers about itself and its requests, without logic."""

from datetime import datetime

from sqlalchemy import ForeignKey, func
from sqlalchemy.orm import Mapped, mapped_column

from app.core.model_base import Base


class Heartbeat(Base):
    """When a process of which one runs per installation last reported. `facts` is what it last did."""

    __tablename__ = "heartbeat"

    name: Mapped[str] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=func.now())
    facts: Mapped[dict[str, int]] = mapped_column(server_default="{}")


class IdempotencyKey(Base):
    """A request that was sent with an Idempotency-Key, and its answer. Written only by app/core/idempotency.py."""

    __tablename__ = "idempotency_key"

    owner_id: Mapped[str] = mapped_column(ForeignKey("user.id", ondelete="CASCADE"), primary_key=True)
    key_sha256: Mapped[str] = mapped_column(primary_key=True)
    fingerprint: Mapped[str | None]  # of the request; None until it was carried out
    status: Mapped[int | None]
    body: Mapped[str | None]  # None if it contained a secret
    location: Mapped[str | None]
    lease_until: Mapped[datetime]  # while the request is being carried out
    created_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)


class DeletedDirectory(Base):
    """A directory whose rows were deleted, until a day after the sweep has removed it."""

    __tablename__ = "deleted_directory"

    path: Mapped[str] = mapped_column(primary_key=True)  # below the data directory
    removed_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
