"""HTML routes of the nodes: the list, the removal of a node, and join tokens for further ones."""

from typing import Any

from fastapi import APIRouter, Request, Response
from sqlalchemy.orm import Session

from app.core import db, storage
from app.core.errors import PanelError
from app.core.models import HELD
from app.core.principal import Principal
from app.jobs import schemas, service
from app.jobs.cluster import join_tokens, node_configuration, nodes
from app.jobs.cluster.join_schemas import join_token_answer, new_join_token_answer
from app.jobs.lifecycle.notifications import notify_scheduler
from app.web.auth import Owner, Reader
from app.web.client_address import panel_address
from app.web.pages import handle_form_action, page
from app.web.parameters import Id, NodeName

router = APIRouter()

NUM_TOKENS = 20  # the newest, on the page


def node_answers(session: Session, principal: Principal) -> list[schemas.NodeAnswer]:
    """All nodes, each with the user's jobs on it."""
    jobs, _more = service.list_jobs(session, principal=principal, limit=200, states=HELD)
    return [
        schemas.node_answer(
            node, live=nodes.is_live(node, db.now()), running=[job.id for job in jobs if job.node == node.name]
        )
        for node in nodes.list_nodes(session)
    ]


def _nodes_page(request: Request, principal: Principal, error: PanelError | None = None, **context: Any) -> Response:
    with db.transaction() as session:
        machines = node_answers(session, principal)
        ids = dict.fromkeys(job_id for node in machines for job_id in node.running)
        names = {job_id: service.get(session, principal=principal, job_id=job_id).name for job_id in ids}
        tokens = join_tokens.list_tokens(session, limit=NUM_TOKENS)[0] if principal.is_at_least("owner") else []
        listed = [join_token_answer(row, creator) for row, creator in tokens]
    panel = panel_address(request)
    variables: dict[str, Any] = {
        "nodes": machines,
        "names": names,
        "join_tokens": listed,
        "new_token": None,
        "hints": node_configuration.hints(panel),
        "panel": panel,
        "data": storage.data(),
        "problem": error,
        **context,
    }
    return page(request, "nodes/list.html", error.status if error else 200, principal=principal, **variables)


@router.get("/nodes")
def list_nodes(request: Request, principal: Reader) -> Response:
    """The nodes, with their hardware and the jobs that run on them."""
    return _nodes_page(request, principal)


@router.post("/nodes")
def create_join_token(request: Request, principal: Owner) -> Response:
    """Create a join token and show its command once."""
    with db.transaction() as session:
        row, token = join_tokens.create(session, principal=principal)
    answer = new_join_token_answer(row, principal.name, token, panel_address(request))
    return _nodes_page(request, principal, new_token=answer)


@router.post("/nodes/join-tokens/{join_token_id}/revoke")
def revoke_join_token(request: Request, principal: Owner, join_token_id: Id) -> Response:
    """Revoke a join token."""
    return handle_form_action(
        lambda session: join_tokens.revoke(session, principal=principal, token_id=join_token_id),
        "/nodes",
        lambda error: _nodes_page(request, principal, error),
    )


@router.post("/nodes/{name}/remove")
def remove_node(request: Request, principal: Owner, name: NodeName) -> Response:
    """Remove a node that is offline and has no work from the list."""
    return handle_form_action(
        lambda session: nodes.remove(session, principal=principal, name=name),
        "/nodes",
        lambda error: _nodes_page(request, principal, error),
    )


@router.post("/nodes/{name}/drain")
def drain_node(request: Request, principal: Owner, name: NodeName) -> Response:
    """Drain a node: no further job is placed there."""
    return _set_draining(request, principal, name, is_draining=True)


@router.post("/nodes/{name}/resume")
def resume_node(request: Request, principal: Owner, name: NodeName) -> Response:
    """Let a drained node take jobs again."""
    return _set_draining(request, principal, name, is_draining=False)


def _set_draining(request: Request, principal: Principal, name: str, *, is_draining: bool) -> Response:
    answer = handle_form_action(
        lambda session: nodes.set_draining(session, principal=principal, name=name, is_draining=is_draining),
        "/nodes",
        lambda error: _nodes_page(request, principal, error),
    )
    notify_scheduler()
    return answer
