"""The tables of what users save under a name to use it again, without logic."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, UniqueConstraint, false, func
from sqlalchemy.orm import Mapped, mapped_column

from app.core.account_models import User
from app.core.json_columns import JsonColumn
from app.core.json_shapes import CorpusMapping
from app.core.model_base import Base, new_id


class NamedMapping(Base):
    """A mapping of columns by hand that its user offers for other corpora: it outlives those that were read with it."""

    __tablename__ = "named_mapping"

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    owner_id: Mapped[str] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"))
    name: Mapped[str]
    mapping: Mapped[CorpusMapping] = mapped_column(JsonColumn(CorpusMapping))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (UniqueConstraint("owner_id", "name"),)


class JobPreset(Base):
    """Settings of jobs that a user saved to fill the form of another one in with, for themselves or for everyone."""

    __tablename__ = "job_preset"

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    owner_id: Mapped[str] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"))
    name: Mapped[str]
    spec: Mapped[dict[str, Any]] = mapped_column(JsonColumn(dict[str, Any]))  # a partial TrainSpec without corpora
    is_for_everyone: Mapped[bool] = mapped_column(server_default=false(), index=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (UniqueConstraint("owner_id", "name"),)
