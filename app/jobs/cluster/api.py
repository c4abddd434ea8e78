"""JSON routes with which machines become nodes, and are removed."""

from fastapi import APIRouter, Request, Response

from app.core import db
from app.core.paging import Listing
from app.core.principal import Principal
from app.jobs.cluster import join_tokens, nodes
from app.jobs.cluster.join_schemas import (
    JoinRequest,
    JoinTokenAnswer,
    JoinTokenRequest,
    NewJoinTokenAnswer,
    NodeConfigurationAnswer,
    join_token_answer,
    new_join_token_answer,
    node_configuration_answer,
)
from app.jobs.lifecycle.notifications import notify_scheduler
from app.web import guess_limits
from app.web.auth import Owner
from app.web.client_address import is_local, panel_address
from app.web.idempotency import ApiRoute
from app.web.paging import After, Limit
from app.web.parameters import Id, NodeName
from app.web.problem_types import errors

router = APIRouter(route_class=ApiRoute, tags=["nodes"])


@router.get("/join-tokens", responses=errors("role_missing"))
def list_join_tokens(_principal: Owner, limit: Limit = 50, after: After = None) -> Listing[JoinTokenAnswer]:
    """List the tokens with which machines become nodes, newest first, each with the node that joined with it."""
    with db.transaction() as session:
        rows, cursor = join_tokens.list_tokens(session, limit=limit, after=after)
        return Listing(data=[join_token_answer(row, creator) for row, creator in rows], next=cursor)


@router.post("/join-tokens", status_code=201, responses=errors("role_missing", "answer_secret"))
def create_join_token(request: Request, principal: Owner, body: JoinTokenRequest) -> NewJoinTokenAnswer:
    """Create a token with which a machine becomes a node, once, and the command to run there.

    The machine then has what every node has: the credentials of the database and the broker.
    """
    with db.transaction() as session:
        row, token = join_tokens.create(session, principal=principal, minutes=body.minutes)
        return new_join_token_answer(row, principal.name, token, panel_address(request))


@router.delete("/join-tokens/{join_token_id}", status_code=204, responses=errors("role_missing"))
def revoke_join_token(principal: Owner, join_token_id: Id) -> Response:
    """Revoke a join token that was not used. A node that has joined stays."""
    with db.transaction() as session:
        join_tokens.revoke(session, principal=principal, token_id=join_token_id)
    return Response(status_code=204)


@router.post(
    "/nodes/join",
    responses=errors(
        "join_token_wrong", "guesses_limited", "join_unavailable", "version_differs", "node_online", "node_name_invalid"
    ),
)
def join_node(request: Request, body: JoinRequest) -> NodeConfigurationAnswer:
    """Become a node, once for each join token: the answer has the addresses and credentials that its worker needs.

    `athanor join` sends this. While the panel, the database or the broker is reached on its own machine only, no other
    machine gets an answer.
    """
    with guess_limits.count_wrong_code(guess_limits.from_address(request, "code")) as session:
        join_tokens.of_secret(session, secret=body.token)
    with db.transaction() as session:
        configuration = join_tokens.redeem(
            session, secret=body.token, name=body.name, revision=body.revision, is_local=is_local(request)
        )
    return node_configuration_answer(configuration)


@router.delete("/nodes/{name}", status_code=204, responses=errors("role_missing", "node_online", "node_busy"))
def remove_node(principal: Owner, name: NodeName) -> Response:
    """Remove a node that is offline and has no work from the list. It comes back when its worker reports again.

    The history of the jobs that ran on it stays.
    """
    with db.transaction() as session:
        nodes.remove(session, principal=principal, name=name)
    return Response(status_code=204)


@router.post("/nodes/{name}/drain", status_code=204, responses=errors("role_missing"))
def drain_node(principal: Owner, name: NodeName) -> Response:
    """Drain a node: its running jobs go on to their end, and no other job is placed there. Deployments stay."""
    return _set_draining(principal, name, is_draining=True)


@router.post("/nodes/{name}/resume", status_code=204, responses=errors("role_missing"))
def resume_node(principal: Owner, name: NodeName) -> Response:
    """Let a drained node take jobs again."""
    return _set_draining(principal, name, is_draining=False)


def _set_draining(principal: Principal, name: str, *, is_draining: bool) -> Response:
    with db.transaction() as session:
        nodes.set_draining(session, principal=principal, name=name, is_draining=is_draining)
    notify_scheduler()
    return Response(status_code=204)
