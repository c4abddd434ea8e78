"""The tables of deployments, without logic."""

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, func
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import Text

from app.core.account_models import User
from app.core.model_base import Base, new_id, one_of

ACCESS = ("owner", "users", "everyone")
REPLICA_STATES = ("loading", "ready", "failed")


class Deployment(Base):
    """A name under which a model is kept in memory and called. The model can be replaced by another one."""

    __tablename__ = "deployment"

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    owner_id: Mapped[str] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"))
    name: Mapped[str]
    name_key: Mapped[str] = mapped_column(unique=True)  # see app/core/names.py
    model_id: Mapped[str]  # a checkpoint or an imported model
    path: Mapped[str]  # of the model's directory, relative to the data directory
    num_replicas: Mapped[int] = mapped_column(server_default="1")
    nodes: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default="{}")  # that may hold it; empty: any
    access: Mapped[str] = mapped_column(server_default="owner")  # who may call it besides its owner
    user_ids: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default="{}")  # with the access "users"
    requests_per_minute: Mapped[int | None]  # of each API token and session
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        CheckConstraint(one_of("access", ACCESS), name="access"),
        Index("ix_deployment_model_id", "model_id"),
    )


class Replica(Base):
    """A deployment in the memory of a node, as the node last reported it."""

    __tablename__ = "replica"

    deployment_id: Mapped[str] = mapped_column(ForeignKey("deployment.id", ondelete="CASCADE"), primary_key=True)
    node: Mapped[str] = mapped_column(primary_key=True)
    path: Mapped[str]  # of the model that is in memory: until a new one is loaded, the old one
    state: Mapped[str]
    failure: Mapped[str | None]  # of the newest model: one of app/playground/failures.py; the old one may be ready
    seen_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (CheckConstraint(one_of("state", REPLICA_STATES), name="state"),)


class DeploymentCall(Base):
    """A request to a deployment, of one text or several; refusals of the same minute share a row."""

    __tablename__ = "deployment_call"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    deployment_id: Mapped[str] = mapped_column(ForeignKey("deployment.id", ondelete="CASCADE"))
    user_id: Mapped[str]
    milliseconds: Mapped[int]  # from the request to the last token, time in the queue included
    first_milliseconds: Mapped[int | None]  # to the first token
    num_prompt_tokens: Mapped[int] = mapped_column(server_default="0")
    num_tokens: Mapped[int] = mapped_column(server_default="0")
    failure: Mapped[str | None]
    num_requests: Mapped[int] = mapped_column(server_default="1")  # that the row stands for
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (Index("ix_deployment_call_deployment_id_created_at", "deployment_id", "created_at"),)
