"""`athanor reset-password`: a reset link for whoever may run commands on the machine of the installation."""

from app.accounts import service
from app.accounts.api import reset_link
from app.core import db
from app.core.errors import PanelError
from app.core.i18n import _
from app.core.settings import settings
from app.launcher.up import url_host


def create_link(name: str) -> str:
    """A link with which the user of this name chooses a new password. Raises PanelError."""
    with db.transaction() as session:
        user = service.find_user(session, name=name)
        if user is None:
            raise PanelError(404, "not_found", _("There is no account {name}.", name=name))
        code = service.create_password_reset(session, user=user, principal=None)
    return reset_link(f"http://{url_host(settings().host)}:{settings().port}", code)
