"""Endpoints of models elsewhere, behind APIs like OpenAI's: the only writer of their table.

The key of an endpoint is stored as it is, because requests carry it, and is never answered again.
"""

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.core import addresses, audit_log, paging
from app.core.addresses import AddressRules
from app.core.errors import bad_field
from app.core.i18n import _, gettext_noop
from app.core.names import checked_name
from app.core.principal import Principal, not_found, visible_to
from app.core.settings import settings
from app.core.synthetic_models import ModelEndpoint
from app.synthetic.endpoint_schemas import ModelEndpointRequest

MAX_NAME_LENGTH = 120
MAX_ENDPOINTS = 50  # of a user
RULES = AddressRules(
    "base_url",
    lambda: settings().endpoint_hosts,
    gettext_noop("The address of a model endpoint is an https URL with a host name and without a password."),
    gettext_noop(
        "Model endpoints are reached by https at public addresses only. To allow {host}, list it in "
        "ATHANOR_ENDPOINT_HOSTS."
    ),
)


def create(session: Session, *, principal: Principal, request: ModelEndpointRequest) -> ModelEndpoint:
    """Add an endpoint. Raises PanelError for an address that is not allowed, a model that is there, and too many."""
    own = select(func.count()).select_from(ModelEndpoint).where(ModelEndpoint.owner_id == principal.user_id)
    if (session.scalar(own) or 0) >= MAX_ENDPOINTS:
        message = _("You have {limit} model endpoints, which is the limit. Delete one.", limit=MAX_ENDPOINTS)
        raise bad_field("base_url", "endpoints_many", message)
    endpoint = ModelEndpoint(owner_id=principal.user_id)
    _assign(endpoint, request)
    _refuse_twice(session, endpoint)
    session.add(endpoint)
    session.flush()
    _record(session, "endpoint_created", principal, endpoint)
    return endpoint


def _assign(endpoint: ModelEndpoint, request: ModelEndpointRequest) -> None:
    """Set the fields of a request; the key only if it has one. Raises PanelError."""
    base_url = request.base_url.strip().rstrip("/")
    addresses.check(base_url, RULES)
    if "?" in base_url or "#" in base_url:
        raise bad_field("base_url", "url_invalid", _(RULES.invalid))
    key = request.api_key
    if key is not None and not (key.isascii() and key.isprintable()):
        raise bad_field("api_key", "api_key_invalid", _("The API key contains a character that no request can carry."))
    endpoint.name = checked_name(request.name, max_length=MAX_NAME_LENGTH)
    endpoint.model = checked_name(request.model, max_length=200, field="model")
    endpoint.base_url = base_url
    endpoint.input_price, endpoint.output_price = request.input_price, request.output_price
    if key is not None:
        endpoint.api_key = key.strip()


def _refuse_twice(session: Session, endpoint: ModelEndpoint) -> None:
    """Raises PanelError if another endpoint of the user is the same model at the same address."""
    same = (
        ModelEndpoint.owner_id == endpoint.owner_id,
        ModelEndpoint.base_url == endpoint.base_url,
        ModelEndpoint.model == endpoint.model,
    )
    with session.no_autoflush:
        other = session.scalar(select(ModelEndpoint).where(*same, ModelEndpoint.id != (endpoint.id or "")))
    if other is not None:
        message = _("Your endpoint “{name}” is the same model at the same address. Change that one.", name=other.name)
        raise bad_field("model", "endpoint_exists", message)


def get(session: Session, *, principal: Principal, endpoint_id: str) -> ModelEndpoint:
    """An endpoint of the user, locked. Raises 404."""
    own = (ModelEndpoint.id == endpoint_id, visible_to(ModelEndpoint.owner_id, principal))
    endpoint = session.scalar(select(ModelEndpoint).where(*own).with_for_update())
    if endpoint is None:
        raise not_found()
    return endpoint


def list_endpoints(
    session: Session, *, principal: Principal, limit: int, after: str | None = None
) -> tuple[list[ModelEndpoint], str | None]:
    """The endpoints of the user, newest first, and the cursor of the next page."""
    query = select(ModelEndpoint).where(visible_to(ModelEndpoint.owner_id, principal))
    return paging.newest(session, query, ModelEndpoint.id, limit, after)


def change(session: Session, *, principal: Principal, endpoint_id: str, request: ModelEndpointRequest) -> ModelEndpoint:
    """Replace the fields of an endpoint. Without a key it keeps its own, unless another host would then get that.

    Raises PanelError as `create` does.
    """
    endpoint = get(session, principal=principal, endpoint_id=endpoint_id)
    before = endpoint.base_url
    _assign(endpoint, request)
    if endpoint.base_url != before and request.api_key is None and endpoint.api_key:
        message = _("The address is another one. Enter the API key again.")
        raise bad_field("api_key", "api_key_missing", message)
    _refuse_twice(session, endpoint)
    session.flush()
    _record(session, "endpoint_changed", principal, endpoint)
    return endpoint


def delete(session: Session, *, principal: Principal, endpoint_id: str) -> None:
    """Delete an endpoint. Generations that use it end with their next answer."""
    endpoint = get(session, principal=principal, endpoint_id=endpoint_id)
    _record(session, "endpoint_deleted", principal, endpoint)
    session.delete(endpoint)


def _record(session: Session, action: audit_log.Action, principal: Principal, endpoint: ModelEndpoint) -> None:
    values = {"subject": endpoint.name, "subject_id": endpoint.id, "detail": endpoint.base_url}
    audit_log.record(session, action, principal, **values)
