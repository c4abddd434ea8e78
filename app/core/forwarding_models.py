"""The table of what has been forwarded to experiment trackers, without logic."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from app.core.json_shapes import FailureReason, MessageValues
from app.core.model_base import Base
from app.core.models import Job


class JobForwarding(Base):
    """How far a job has been forwarded to a tracker. Written only by app/jobs/forwarding/service.py.

    `fence` and `seq` name the last journal line that the tracker has, `steps` the last step of each series.
    """

    __tablename__ = "job_forwarding"

    job_id: Mapped[str] = mapped_column(ForeignKey(Job.id, ondelete="CASCADE"), primary_key=True)
    tracker: Mapped[str] = mapped_column(primary_key=True)  # a name in app/jobs/forwarding/trackers.py
    is_enabled: Mapped[bool] = mapped_column(server_default=text("true"))
    target: Mapped[str] = mapped_column(server_default="")  # where it is forwarded to; another one gets everything
    fence: Mapped[int] = mapped_column(server_default="0")
    seq: Mapped[int] = mapped_column(server_default="0")
    steps: Mapped[dict[str, int]] = mapped_column(server_default="{}")
    remote: Mapped[MessageValues] = mapped_column(server_default="{}")  # the tracker's run, as its client knows it
    due_at: Mapped[datetime] = mapped_column(server_default=func.now())  # later while it is being sent, or after errors
    num_failures: Mapped[int] = mapped_column(server_default="0")  # in a row
    error: Mapped[FailureReason | None] = mapped_column(server_default="{}", nullable=False)  # of the last try
    failed_at: Mapped[datetime | None]  # the last time
    forwarded_at: Mapped[datetime | None]  # the last time
    finished_at: Mapped[datetime | None]  # the tracker has everything, and the end of the job

    __table_args__ = (Index("ix_job_forwarding_open", "tracker", postgresql_where=text("finished_at IS NULL")),)
