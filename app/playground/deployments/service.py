"""Operations on deployments: the only writer of their table. Replicas and calls are written by the other modules."""

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.core import audit_log, db, paging
from app.core.account_models import User
from app.core.deployment_models import Deployment, Replica
from app.core.errors import PanelError, bad_field
from app.core.i18n import _, ngettext
from app.core.models import Checkpoint, ImportedModel, Node
from app.core.names import checked_name, comparison_key
from app.core.principal import Principal, not_found
from app.playground import failures
from app.playground.deployments import calls, replicas
from app.playground.deployments.schemas import DeploymentAnswer, ReplicaAnswer, state_of
from app.playground.service import model_path

MAX_NAME_LENGTH = 64
MAX_DEPLOYMENTS = 50  # of one user
NULLABLE = ("requests_per_minute",)  # with null: no limit; null for another setting leaves it as it is
DAY = timedelta(days=1)


def create(session: Session, *, principal: Principal, name: str, model_id: str, **settings: Any) -> Deployment:
    """Deploy a model: nodes load it within seconds and keep it. Raises PanelError."""
    name = checked_name(name, max_length=MAX_NAME_LENGTH)
    if session.get(Checkpoint, comparison_key(name)) or session.get(ImportedModel, comparison_key(name)):
        message = _("“{name}” is the ID of a checkpoint or base model. Choose another name.", name=name)
        raise bad_field("name", "deployment_name_reserved", message, 409)  # who calls that model would get this one
    own = session.scalar(select(func.count()).where(Deployment.owner_id == principal.user_id)) or 0
    if own >= MAX_DEPLOYMENTS:
        message = _("You have {n} deployments, which is the limit. Remove one first.", n=own)
        raise PanelError(409, "deployments_limit", message)
    row = Deployment(
        owner_id=principal.user_id,
        name=name,
        name_key=comparison_key(name),
        model_id=model_id,
        path=_path(session, principal, model_id),
        **_stored(session, settings),
    )
    session.add(row)
    try:
        session.flush()
    except IntegrityError:
        message = _("Another deployment is called “{name}”. Choose another name.", name=name)
        raise bad_field("name", "deployment_name_taken", message, 409) from None
    audit_log.record(session, "deployment_created", principal, subject=name, subject_id=row.id, detail=model_id)
    return row


def change(session: Session, *, principal: Principal, deployment_id: str, changes: dict[str, Any]) -> Deployment:
    """Change a deployment. With another `model`, calls go to the old one until the new one is loaded."""
    row = get_own(session, principal=principal, deployment_id=deployment_id, for_update=True)
    changes = {name: value for name, value in changes.items() if value is not None or name in NULLABLE}
    model_id = changes.pop("model", None)
    action: audit_log.Action = "deployment_changed" if model_id in (None, row.model_id) else "deployment_moved"
    detail = model_id if action == "deployment_moved" else ", ".join(sorted(changes))
    audit_log.record(session, action, principal, subject=row.name, subject_id=row.id, detail=detail)
    if model_id is not None:
        row.path = _path(session, principal, model_id)
        row.model_id = model_id
    for column, value in _stored(session, changes).items():
        setattr(row, column, value)
    row.updated_at = db.now()
    session.flush()
    return row


def _path(session: Session, principal: Principal, model_id: str) -> str:
    """The directory of a model of the user's own: others share theirs until they say otherwise."""
    path = model_path(session, principal, model_id, "embed")  # as every model can
    owners = [select(table.owner_id).where(table.id == model_id) for table in (Checkpoint, ImportedModel)]
    if any(session.scalar(owner) not in (None, principal.user_id) for owner in owners):
        message = _(
            "Another user shares this model with you. Only its owner can deploy it; you can talk to it as it is."
        )
        raise bad_field("model", "not_owner", message, 403)
    return path


def _stored(session: Session, settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as columns: names of users become their IDs, and nodes have to be listed."""
    columns = {key: value for key, value in settings.items() if key != "users"}
    if "users" in settings:
        columns["user_ids"] = _user_ids(session, settings["users"])
    nodes = settings.get("nodes", [])
    not_listed = _not_listed(session, nodes)
    missing = [name for name in nodes if name in not_listed]
    if missing:
        message = ngettext(
            "There is no node {names}: it was removed, or never joined. Leave it out.",
            "There are no nodes {names}: they were removed, or never joined. Leave them out.",
            len(missing),
            names=", ".join(f"“{name}”" for name in missing),
        )
        raise bad_field("nodes", "node_unknown", message)
    return columns


def _not_listed(session: Session, names: Collection[str]) -> set[str]:
    """Those of these nodes that were removed, or never were."""
    return {*names} - {*session.scalars(select(Node.name).where(Node.name.in_(names), Node.removed_at.is_(None)))}


def _user_ids(session: Session, names: Sequence[str]) -> list[str]:
    keys = {comparison_key(name): name for name in names}
    rows = session.execute(select(User.name_key, User.id).where(User.name_key.in_(keys))).all()
    missing = next((name for key, name in keys.items() if key not in {row.name_key for row in rows}), None)
    if missing is not None:
        raise bad_field("users", "user_unknown", _("There is no user “{name}”.", name=missing))
    return [row.id for row in rows]


def delete(session: Session, *, principal: Principal, deployment_id: str) -> None:
    """Remove a deployment with its counts; the nodes free its memory within seconds."""
    row = get_own(session, principal=principal, deployment_id=deployment_id, for_update=True)
    audit_log.record(session, "deployment_deleted", principal, subject=row.name, subject_id=row.id)
    session.delete(row)


def get_own(session: Session, *, principal: Principal, deployment_id: str, for_update: bool = False) -> Deployment:
    """A deployment of the user. Raises 404, and 403 for one that the user may only call."""
    row = get(session, principal=principal, deployment_id=deployment_id, for_update=for_update)
    if row.owner_id != principal.user_id:
        raise PanelError(403, "deployment_not_yours", _("Only the user who made this deployment can change it."))
    return row


def get(session: Session, *, principal: Principal, deployment_id: str, for_update: bool = False) -> Deployment:
    """A deployment that the user may call. Raises 404."""
    query = select(Deployment).where(Deployment.id == deployment_id, calls.callable_by(principal))
    row = session.scalar(query.with_for_update() if for_update else query)
    if row is None:
        raise not_found()
    return row


def list_deployments(
    session: Session, *, principal: Principal, limit: int, after: str | None
) -> tuple[list[Deployment], str | None]:
    """The deployments that the user may call, newest first, and the cursor of the next page."""
    query = select(Deployment).where(calls.callable_by(principal))
    return paging.newest(session, query, Deployment.id, limit, after)


def answer(session: Session, row: Deployment, principal: Principal) -> DeploymentAnswer:
    """A deployment with its replicas and the calls of the last day."""
    (result,) = answers(session, [row], principal)
    return result


def answers(session: Session, rows: Sequence[Deployment], principal: Principal) -> list[DeploymentAnswer]:
    """The same of several deployments, in as many statements."""
    ids = [row.id for row in rows]
    by_deployment: dict[str, list[Replica]] = {deployment_id: [] for deployment_id in ids}
    live = select(Replica).where(Replica.deployment_id.in_(ids), Replica.node.in_(replicas.live_nodes(session)))
    for replica in session.scalars(live.order_by(Replica.node)):
        by_deployment[replica.deployment_id].append(replica)
    not_listed = _not_listed(session, {name for row in rows for name in row.nodes})
    user_ids = {user_id for row in rows if row.owner_id == principal.user_id for user_id in row.user_ids}
    users = session.execute(select(User.id, User.name).where(User.id.in_(user_ids)).order_by(User.name)).all()
    usages = calls.usages(session, ids, db.now() - DAY)
    loading = {one.node for row in rows for one in by_deployment[row.id] if _is_loading(one, row)}
    percents = replicas.percents(sorted(loading))
    result = []
    for row in rows:
        listed = [_replica(one, row, percents) for one in by_deployment[row.id]]
        is_mine = row.owner_id == principal.user_id
        result.append(
            DeploymentAnswer(
                id=row.id,
                name=row.name,
                model=row.model_id,
                is_mine=is_mine,
                state=state_of(listed),
                replicas=listed,
                num_replicas=row.num_replicas,
                nodes=row.nodes,
                removed_nodes=[name for name in row.nodes if name in not_listed],
                access=row.access,
                users=[user.name for user in users if user.id in row.user_ids] if is_mine else [],
                requests_per_minute=row.requests_per_minute,
                last_day=usages[row.id],
                created_at=row.created_at,
                updated_at=row.updated_at,
            )
        )
    return result


def _is_loading(replica: Replica, row: Deployment) -> bool:
    return replica.state == "loading" or replica.path != row.path


def _replica(replica: Replica, row: Deployment, percents: Mapping[str, Mapping[str, int]]) -> ReplicaAnswer:
    message = None if replica.failure is None else failures.sentence(replica.failure, {})
    return ReplicaAnswer(
        node=replica.node,
        state=replica.state,
        is_current=replica.path == row.path,
        message=message,
        loading_percent=percents.get(replica.node, {}).get(row.path) if _is_loading(replica, row) else None,
    )
