"""The accounts of a server and invitations to it, for a token with the scope admin of an admin or owner."""

from collections.abc import Iterator

from .people_shapes import (
    AuditEntryInfo,
    InvitationInfo,
    NewInvitationInfo,
    PersonDetails,
    PersonInfo,
    PersonUsage,
    ResetLinkInfo,
)
from .transport import Transport, address


class People:
    """Users. `role` is viewer, member, admin or owner; admins manage viewers and members only."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(
        self,
        limit: int = 50,
        *,
        search: str | None = None,
        role: str | None = None,
        access: str | None = None,
        order: str | None = None,
    ) -> Iterator[PersonInfo]:
        """The users, newest first, read in pages of `limit`: all, or those with a text in their name, with a role, or
        with an `access` (enabled or disabled). `order` is newest or name.
        """
        query = {"q": search, "role": role, "access": access, "order": order}
        return self._transport.pages(PersonInfo, "/users", limit=limit, **query)

    def get(self, user_id: str) -> PersonDetails:
        """A user, with how much they have."""
        return self._transport.get(PersonDetails, address("users", user_id))

    def create(self, name: str, password: str, role: str = "member") -> PersonInfo:
        """Create an account with an initial password."""
        return self._transport.post(PersonInfo, "/users", {"name": name, "password": password, "role": role})

    def change_role(self, user_id: str, role: str) -> PersonInfo:
        """Give a user another role, effective immediately."""
        return self._transport.patch(PersonInfo, address("users", user_id), {"role": role})

    def disable(self, user_id: str) -> PersonInfo:
        """Refuse the password, sessions and tokens of a user at once; running jobs keep running."""
        return self._transport.post(PersonInfo, address("users", user_id, "disable"))

    def enable(self, user_id: str) -> PersonInfo:
        """Accept a user's password and tokens again."""
        return self._transport.post(PersonInfo, address("users", user_id, "enable"))

    def usage(self, user_id: str | None = None) -> PersonUsage:
        """What a user, or you, take of disk, nodes and GPUs, and may take."""
        return self._transport.get(PersonUsage, "/me/usage" if user_id is None else address("users", user_id, "usage"))

    def set_quotas(
        self,
        user_id: str,
        *,
        disk_bytes: int | None = None,
        running_jobs: int | None = None,
        gpu_hours: float | None = None,
    ) -> PersonUsage:
        """Change what a user may take at most; None: as much as there is."""
        body = {"disk_bytes": disk_bytes, "running_jobs": running_jobs, "gpu_hours": gpu_hours}
        return self._transport.put(PersonUsage, address("users", user_id, "quotas"), body)

    def create_reset_link(self, user_id: str) -> ResetLinkInfo:
        """Create a link with which a user chooses a new password, once, within 24 hours."""
        return self._transport.post(ResetLinkInfo, address("users", user_id, "password-reset"))

    def remove(self, user_id: str, data: str) -> None:
        """Remove a user; `data` says what happens to what they have: delete, or transfer to the user of the token."""
        self._transport.delete(address("users", user_id), data=data)

    def invitations(self, limit: int = 50) -> Iterator[InvitationInfo]:
        """The invitations that can still be used, newest first."""
        return self._transport.pages(InvitationInfo, "/invitations", limit=limit)

    def invite(self, role: str = "member", days: int = 7) -> NewInvitationInfo:
        """Create a link with which somebody creates an account of this role, once."""
        return self._transport.post(NewInvitationInfo, "/invitations", {"role": role, "days": days})

    def audit_log(
        self, *, person: str = "", action: str | None = None, search: str = "", limit: int = 50
    ) -> Iterator[AuditEntryInfo]:
        """What was done, newest first: by or to a person, of one kind, with a part of a text."""
        return self._transport.pages(AuditEntryInfo, "/audit-log", limit=limit, person=person, action=action, q=search)

    def revoke_invitation(self, invitation_id: str) -> None:
        """Revoke an invitation: its link stops working."""
        self._transport.delete(address("invitations", invitation_id))
