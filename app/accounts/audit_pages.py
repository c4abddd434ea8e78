"""The page of the audit log, for admins and owners."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from app.accounts import service
from app.accounts.audit_api import PersonName, Search
from app.core import audit_log, db
from app.core.audit_log import Action
from app.core.i18n import gettext_noop
from app.web.auth import PeopleManager
from app.web.pages import page

router = APIRouter()
PAGE_LENGTH = 50
MAX_NAMES = 200  # of users that the field for a person offers

WORDS: dict[Action, str] = {
    "login": gettext_noop("Logged in with the password"),
    "login_failed": gettext_noop("Wrong password"),
    "login_by_provider": gettext_noop("Logged in with a provider"),
    "identity_connected": gettext_noop("Connected an identity"),
    "identity_disconnected": gettext_noop("Disconnected an identity"),
    "password_changed": gettext_noop("Changed the password"),
    "password_reset": gettext_noop("Chose a new password with a link"),
    "reset_link_created": gettext_noop("Created a link for a new password"),
    "user_created": gettext_noop("Created an account"),
    "user_disabled": gettext_noop("Disabled an account"),
    "user_enabled": gettext_noop("Enabled an account"),
    "user_removed": gettext_noop("Removed an account"),
    "role_changed": gettext_noop("Changed a role"),
    "quotas_changed": gettext_noop("Changed quotas"),
    "invitation_created": gettext_noop("Created an invitation"),
    "invitation_used": gettext_noop("Accepted an invitation"),
    "invitation_revoked": gettext_noop("Revoked an invitation"),
    "join_token_created": gettext_noop("Created a join token"),
    "join_token_revoked": gettext_noop("Revoked a join token"),
    "node_joined": gettext_noop("A machine joined as a node"),
    "node_removed": gettext_noop("Removed a node"),
    "node_drained": gettext_noop("Drained a node"),
    "node_resumed": gettext_noop("Let a drained node take jobs again"),
    "token_created": gettext_noop("Created an API token"),
    "token_revoked": gettext_noop("Revoked an API token"),
    "corpus_renamed": gettext_noop("Renamed a corpus"),
    "tokenizer_renamed": gettext_noop("Renamed a tokenizer"),
    "model_renamed": gettext_noop("Renamed a base model"),
    "job_renamed": gettext_noop("Renamed a job"),
    "checkpoint_renamed": gettext_noop("Renamed a checkpoint"),
    "corpus_deleted": gettext_noop("Deleted a corpus"),
    "tokenizer_deleted": gettext_noop("Deleted a tokenizer"),
    "model_deleted": gettext_noop("Deleted a base model"),
    "checkpoint_deleted": gettext_noop("Deleted a checkpoint"),
    "job_deleted": gettext_noop("Deleted a job"),
    "job_cancelled": gettext_noop("Cancelled another user's job"),
    "job_moved": gettext_noop("Moved a job in the queue"),
    "deployment_created": gettext_noop("Deployed a model"),
    "deployment_changed": gettext_noop("Changed a deployment"),
    "deployment_moved": gettext_noop("Deployed another model"),
    "sharing_changed": gettext_noop("Changed with whom something is shared"),
    "trash_restored": gettext_noop("Restored from the trash"),
    "trash_emptied": gettext_noop("Deleted for good"),
    "deployment_deleted": gettext_noop("Removed a deployment"),
    "conversation_shared": gettext_noop("Shared a conversation by a link"),
    "conversation_unshared": gettext_noop("Ended the sharing of a conversation"),
    "endpoint_created": gettext_noop("Added a model endpoint"),
    "endpoint_changed": gettext_noop("Changed a model endpoint"),
    "endpoint_deleted": gettext_noop("Deleted a model endpoint"),
    "notice_service_added": gettext_noop("Added a service for notices"),
    "notice_service_removed": gettext_noop("Removed a service for notices"),
}


@router.get("/audit-log")
def show_audit_log(
    request: Request,
    principal: PeopleManager,
    person: PersonName = "",
    action: Action | Annotated[str, Query(max_length=0)] = "",
    q: Search = "",
    after: Annotated[str | None, Query(max_length=64)] = None,
) -> Response:
    """The page of the audit log."""
    with db.transaction() as session:
        entries, cursor = audit_log.list_entries(
            session, person=person, action=action or None, search=q, limit=PAGE_LENGTH, after=after
        )
        people = [user.name for user in service.list_users(session, limit=MAX_NAMES)[0]]
    return page(
        request,
        "accounts/audit_log.html",
        principal=principal,
        entries=entries,
        next=cursor,
        people=people,
        filters={"person": person, "action": action, "q": q},
        words=WORDS,
    )
