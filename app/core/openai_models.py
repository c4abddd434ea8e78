"""The tables of uploads in progress, and those behind OpenAI's API: jobs that wait for their corpora, and webhooks."""

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column

from app.core.account_models import User
from app.core.json_shapes import MessageValues
from app.core.model_base import Base, new_id, one_of
from app.core.models import Corpus, Job

UPLOAD_STATES = ("pending", "completed", "cancelled")
SUBMISSION_STATES = ("waiting", "submitted", "failed", "cancelled")


class Upload(Base):
    """A file that is being uploaded: in parts as under /v1, or resumably by the tus protocol. Once completed it is a
    corpus, or one of its files.
    """

    __tablename__ = "upload"

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    owner_id: Mapped[str] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"), index=True)
    filename: Mapped[str]
    purpose: Mapped[str | None]  # of a file under /v1
    num_bytes: Mapped[int] = mapped_column(BigInteger)  # that were announced
    num_received: Mapped[int] = mapped_column(BigInteger, server_default="0")  # of a resumable one, until lately
    sha256: Mapped[str | None]  # of a resumable one whose bytes have all arrived
    tus_metadata: Mapped[str | None]  # the header with which a resumable one began; None for one in parts
    state: Mapped[str] = mapped_column(server_default="pending")
    file_lifetime: Mapped[int | None]  # seconds from the completion, after which the corpus is deleted
    part_ids: Mapped[list[str]] = mapped_column(server_default="[]")  # of which it was completed, in this order
    corpus_id: Mapped[str | None] = mapped_column(ForeignKey(Corpus.id, ondelete="SET NULL"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]

    __table_args__ = (
        CheckConstraint(one_of("state", UPLOAD_STATES), name="state"),
        Index("ix_upload_state_pending", "state", postgresql_where=text("state = 'pending'")),
    )


class UploadPart(Base):
    """A part of a file, stored under its ID. Sent again it is another part."""

    __tablename__ = "upload_part"

    id: Mapped[str] = mapped_column(primary_key=True)
    upload_id: Mapped[str] = mapped_column(ForeignKey(Upload.id, ondelete="CASCADE"), index=True)
    num_bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Submission(Base):
    """A request for a job that waits until its corpora are read: then it becomes the job with its ID, or fails."""

    __tablename__ = "submission"

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)  # also of its job
    owner_id: Mapped[str] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"))
    request: Mapped[MessageValues]  # a partial TrainSpec
    details: Mapped[MessageValues]  # what OpenAI's API answers again: the request in its words
    body_sha256: Mapped[str]
    idempotency_key: Mapped[str | None]
    desired: Mapped[str] = mapped_column(server_default="run")
    state: Mapped[str] = mapped_column(server_default="waiting")
    failure: Mapped[MessageValues] = mapped_column(server_default="{}")  # code, message, field
    job_id: Mapped[str | None] = mapped_column(ForeignKey(Job.id, ondelete="CASCADE"), unique=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    finished_at: Mapped[datetime | None]  # that of the job is there

    __table_args__ = (
        CheckConstraint(one_of("state", SUBMISSION_STATES), name="state"),
        CheckConstraint(one_of("desired", ("run", "pause")), name="desired"),
        UniqueConstraint("owner_id", "idempotency_key"),
        Index("ix_submission_owner_id_id", "owner_id", "id"),
        Index("ix_submission_state_waiting", "state", postgresql_where=text("state = 'waiting'")),
    )


class WebhookEndpoint(Base):
    """An address that is notified when jobs of its owner end."""

    __tablename__ = "webhook_endpoint"

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    owner_id: Mapped[str] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"), index=True)
    name: Mapped[str]
    url: Mapped[str]
    event_types: Mapped[list[str]]
    secret: Mapped[str]  # as its owner has it: signing needs it
    old_secret: Mapped[str | None]  # until old_secret_until, deliveries are signed with it too
    old_secret_until: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class WebhookDelivery(Base):
    """A notification to an endpoint, until it was delivered or given up."""

    __tablename__ = "webhook_delivery"

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    endpoint_id: Mapped[str] = mapped_column(ForeignKey(WebhookEndpoint.id, ondelete="CASCADE"), index=True)
    body: Mapped[str]  # as it is signed
    num_tries: Mapped[int] = mapped_column(server_default="0")
    due_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
