"""What the API answers about people and invitations."""

from datetime import datetime

from .shapes import Shape


class PersonInfo(Shape):
    """A user. `disabled_at` is since when the user can neither log in nor use tokens."""

    id: str
    name: str
    role: str
    created_at: datetime
    disabled_at: datetime | None


class PersonDetails(PersonInfo):
    """A user, and how much they have. `num_unfinished` counts jobs and background tasks."""

    num_jobs: int
    num_checkpoints: int
    num_corpora: int
    num_tokenizers: int
    num_models: int
    num_conversations: int
    num_deployments: int
    num_unfinished: int


class AuditEntryInfo(Shape):
    """An action. `user` is the name that who did it had then, and `subject` that of what it was done to.

    `num_times` counts wrong passwords, for `user_id` null.
    """

    id: str
    at: datetime
    user_id: str | None
    user: str
    address: str
    action: str
    subject_id: str | None
    subject: str
    detail: str
    num_times: int


class ResetLinkInfo(Shape):
    """A link with which a user chooses a new password."""

    link: str
    expires_at: datetime


class InvitationInfo(Shape):
    """An invitation that can be used. `inviter` is the name of who invites."""

    id: str
    role: str
    inviter: str
    created_at: datetime
    expires_at: datetime


class NewInvitationInfo(InvitationInfo):
    """A new invitation with its link, which is shown only here."""

    link: str


class QuotasInfo(Shape):
    """What a user may take at most; None: as much as there is."""

    disk_bytes: int | None
    running_jobs: int | None
    gpu_hours: float | None


class PersonUsage(Shape):
    """What a user takes, and may take. `gpu_hours` are those of the last thirty days."""

    disk_bytes: int
    running_jobs: int
    gpu_hours: float
    quotas: QuotasInfo
