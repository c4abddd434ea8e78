"""Who may log in by a provider, under which name and with which role: by the settings and the claims alone."""

import unicodedata
from collections.abc import Mapping
from typing import Any, Literal

from app.accounts.service import MAX_NAME_LENGTH
from app.core import names
from app.core.addresses import names_of
from app.core.errors import PanelError
from app.core.roles import ROLES, Role
from app.core.settings import settings

Refusal = Literal["domain", "group"]
NAME_CLAIMS = ("preferred_username", "name", "nickname", "email")
MAX_LABEL_LENGTH = 200
MAX_GROUPS = 10_000


def lacks_claims(claims: Mapping[str, Any]) -> bool:
    """Whether claims that decide about a login are not in an ID token, so that the provider is asked for them."""
    has_name = any(isinstance(claims.get(claim), str) for claim in NAME_CLAIMS)
    needs_email = bool(settings().oidc_allowed_domains) and "email" not in claims
    needs_groups = bool(settings().oidc_allowed_groups or settings().oidc_roles) and _groups_value(claims) is None
    return not has_name or needs_email or needs_groups


def completed(claims: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """The claims with those that only `more` has. An e-mail address and whether it was verified stay together."""
    kept = dict(claims) if "email" in claims else {k: v for k, v in claims.items() if k != "email_verified"}
    added = {k: v for k, v in more.items() if "email" not in claims or k != "email_verified"}
    return {**added, **kept}


def refusal(claims: Mapping[str, Any]) -> Refusal | None:
    """Why these claims may not log in; None if they may."""
    domains = names_of(settings().oidc_allowed_domains)
    if domains and verified_domain(claims) not in domains:
        return "domain"
    allowed = _listed(settings().oidc_allowed_groups)
    if allowed and allowed.isdisjoint(groups(claims)):
        return "group"
    return None


def verified_domain(claims: Mapping[str, Any]) -> str | None:
    """The domain of the e-mail address, in lower case, if the provider says that it was verified."""
    email, is_verified = claims.get("email"), claims.get("email_verified")
    if not isinstance(email, str) or (is_verified is not True and is_verified != "true"):
        return None
    local, separator, domain = email.rpartition("@")
    return domain.lower() if separator and local else None


def groups(claims: Mapping[str, Any]) -> set[str]:
    """The person's groups: the claim of the settings, by its whole name or by a path through objects such as
    `realm_access.roles`. A claim that is a text is one group.
    """
    value = _groups_value(claims)
    if isinstance(value, str):
        return {value}
    return {group for group in value[:MAX_GROUPS] if isinstance(group, str)} if isinstance(value, list) else set()


def _groups_value(claims: Mapping[str, Any]) -> Any:
    value: Any = claims.get(settings().oidc_groups_claim)
    if value is None:
        value = claims
        for part in settings().oidc_groups_claim.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
    return value


def has_roles() -> bool:
    """Whether groups decide about roles; otherwise administrators do, once an account exists."""
    return bool(settings().oidc_roles)


def role(claims: Mapping[str, Any]) -> Role:
    """The highest role that the groups name, or that of new people. It is never owner."""
    own = groups(claims)
    named = [granted for group, granted in _roles().items() if group in own]
    return max(named, key=ROLES.index, default=settings().oidc_default_role)


def _roles() -> dict[str, Role]:
    """The role of each group. A group that is listed twice has the last one."""
    entries = [entry.rpartition("=") for entry in settings().oidc_roles.split(",") if entry.strip()]
    by_name: dict[str, Role] = {each: each for each in ROLES if each != "owner"}
    return {group.strip(): by_name[granted.strip()] for group, _separator, granted in entries}


def _listed(text: str) -> set[str]:
    return {part.strip() for part in text.split(",") if part.strip()}


def user_name(claims: Mapping[str, Any]) -> str:
    """A name for a new user that can be stored: what people are called at the provider, cut and without characters
    that are not allowed.
    """
    for claim in NAME_CLAIMS:
        value = claims.get(claim)
        if isinstance(value, str):
            name = _storable(value.partition("@")[0] if claim == "email" else value)
            if name:
                return name
    return "user"


def _storable(text: str) -> str:
    composed = unicodedata.normalize("NFC", text[: 4 * MAX_NAME_LENGTH])
    visible = "".join(character for character in composed if _is_allowed(character))
    return visible.strip()[:MAX_NAME_LENGTH].strip()


def _is_allowed(character: str) -> bool:
    if character.isspace():
        return character == " "
    try:
        names.checked_name(character, max_length=1)
    except PanelError:
        return False
    return True


def label(claims: Mapping[str, Any]) -> str:
    """What the account page calls the identity: the e-mail address or the name at the provider."""
    for claim in ("email", *NAME_CLAIMS, "sub"):
        value = claims.get(claim)
        if isinstance(value, str) and value.strip():
            return names.printable_text(value.strip())[:MAX_LABEL_LENGTH]
    return ""
