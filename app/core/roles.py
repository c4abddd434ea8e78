"""The roles of users: what each may do more than the one before it. Routes name the least role that they need."""

from typing import Literal

from app.core.errors import PanelError
from app.core.i18n import _

Role = Literal["viewer", "member", "admin", "owner"]

# viewer: reads what is theirs or shared, and changes their own account. member: also starts and changes what is theirs.
# admin: also manages viewers and members, and sees everybody's jobs. owner: also manages admins and owners.
ROLES: tuple[Role, ...] = ("viewer", "member", "admin", "owner")


def is_at_least(role: str, least: Role) -> bool:
    """Whether a role may do what `least` may."""
    return ROLES.index(role) >= ROLES.index(least)


def may_manage(role: str, other: str) -> bool:
    """Whether a role may give the role `other` to somebody, and manage the accounts that have it."""
    return role == "owner" or (role == "admin" and not is_at_least(other, "admin"))


def refusal(role: str, least: Role) -> PanelError:
    """The error for a user whose role is below the least one."""
    if least == "member":
        message = _(
            "Your role is viewer: you can read, but not start or change anything. Ask an administrator for the role "
            "member."
        )
    elif least == "owner":
        message = _("Only an owner of this installation may do this.")
    elif role == "viewer":
        message = _("Your role is viewer: this is for administrators and owners.")
    else:
        message = _("Your role is member: this is for administrators and owners.")
    return PanelError(403, "role_missing", message)
