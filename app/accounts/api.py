"""JSON routes of accounts."""

from fastapi import APIRouter, Request, Response

from app.accounts import access, cookies, schemas, service
from app.accounts.browser import browser_of
from app.accounts.passwords import HASHING
from app.accounts.schemas import (
    AcceptRequest,
    LoginRequest,
    MeAnswer,
    NewTokenAnswer,
    PasswordRequest,
    PasswordResetRequest,
    SessionAnswer,
    SetupRequest,
    TokenAnswer,
    TokenRequest,
    UserUsageAnswer,
)
from app.accounts.service import Login
from app.core import db, quotas
from app.core.paging import Listing
from app.web import auth, guess_limits
from app.web.auth import OwnAccount, Reader
from app.web.idempotency import ApiRoute
from app.web.paging import After, Limit
from app.web.parameters import Id
from app.web.problem_types import errors

router = APIRouter(route_class=ApiRoute, tags=["accounts"])
# Errors of a new name and of a new password.
NEW_NAME = ("name_missing", "name_too_long", "character_invalid", "name_taken")
NEW_PASSWORD = ("password_too_short", "password_too_long", "password_is_name", "password_weak", "login_busy")


@router.post(
    "/setup",
    status_code=204,
    responses=errors(
        "setup_code_wrong",
        "setup_done",
        "guesses_limited",
        *NEW_NAME,
        *NEW_PASSWORD,
    ),
)
@HASHING
def set_up(request: Request, body: SetupRequest) -> Response:
    """Create the owner's account with the code of the setup link, and log in with a cookie."""
    address = guess_limits.from_address(request, "code")
    return _logged_in(request, access.set_up(body.code, body.name, body.password, browser_of(request), address))


@router.post("/login", status_code=204, responses=errors("login_failed", "login_locked", "login_busy"))
@HASHING
def log_in(request: Request, body: LoginRequest) -> Response:
    """Log in with a cookie. Programs should send an API token instead: `Authorization: Bearer ath_...`."""
    return _logged_in(request, access.log_in(body.name, body.password, browser_of(request)))


@router.post("/logout", status_code=204)
def log_out(request: Request) -> Response:
    """End the session of the cookie."""
    response = Response(status_code=204)
    end_session(request, response)
    return response


def end_session(request: Request, response: Response) -> None:
    """Delete the session of the request's cookie, and the cookie."""
    secret = request.cookies.get(auth.COOKIE)
    if secret is not None:
        with db.transaction() as session:
            service.close_session(session, secret=secret)
    cookies.clear_session_cookie(request, response)


def _logged_in(request: Request, login: Login | None) -> Response:
    response = Response(status_code=204)
    if login is not None:
        cookies.set_login_cookies(request, response, login)
    return response


@router.get("/me")
def get_me(principal: Reader) -> MeAnswer:
    """Get the current user and the scopes of this session or token."""
    return schemas.me_answer(principal)


@router.get("/me/usage")
def get_own_usage(principal: Reader) -> UserUsageAnswer:
    """Get what you take of the disk, the nodes and the GPUs, and how much you may take."""
    with db.transaction() as session:
        user = service.get_user(session, user_id=principal.user_id)
        return schemas.usage_answer(user, quotas.usage(session, principal.user_id))


@router.post(
    "/me/password",
    status_code=204,
    responses=errors(
        "password_wrong",
        "password_too_short",
        "password_too_long",
        "password_is_name",
        "password_weak",
        "login_locked",
        "login_busy",
    ),
)
@HASHING
def change_password(request: Request, principal: OwnAccount, body: PasswordRequest) -> Response:
    """Change your password. Every session ends but that of the cookie, and every API token unless told otherwise."""
    browser, revoke = browser_of(request), body.revoke_tokens
    login = access.change_password(principal, body.present_password, body.password, browser, revoke_tokens=revoke)
    return _logged_in(request, login)


@router.get("/sessions")
def list_sessions(principal: OwnAccount) -> Listing[SessionAnswer]:
    """List the browsers in which you are logged in, the last used first."""
    with db.transaction() as session:
        rows = service.list_sessions(session, principal=principal)
    return Listing(data=[schemas.session_answer(row, principal) for row in rows], next=None)


@router.delete("/sessions", status_code=204)
def revoke_other_sessions(principal: OwnAccount) -> Response:
    """Log out every browser but the one that asks."""
    with db.transaction() as session:
        service.revoke_other_sessions(session, principal=principal)
    return Response(status_code=204)


@router.delete("/sessions/{session_id}", status_code=204)
def revoke_session(principal: OwnAccount, session_id: Id) -> Response:
    """Log out a browser, effective immediately."""
    with db.transaction() as session:
        service.revoke_session(session, principal=principal, session_id=session_id)
    return Response(status_code=204)


@router.get("/tokens")
def list_tokens(principal: OwnAccount, limit: Limit = 50, after: After = None) -> Listing[TokenAnswer]:
    """List your API tokens that are not revoked, newest first."""
    with db.transaction() as session:
        rows, cursor = service.list_tokens(session, principal=principal, limit=limit, after=after)
    return Listing(data=[schemas.token_answer(row) for row in rows], next=cursor)


@router.post(
    "/tokens",
    status_code=201,
    responses=errors("name_missing", "name_too_long", "character_invalid", "scopes_invalid", "answer_secret"),
)
def create_token(principal: OwnAccount, body: TokenRequest) -> NewTokenAnswer:
    """Create an API token. Its secret is shown only once."""
    with db.transaction() as session:
        token, secret = service.create_token(session, principal=principal, name=body.name, scopes=body.scopes)
    return NewTokenAnswer(token=secret, **schemas.token_answer(token).model_dump())


@router.delete("/tokens/{token_id}", status_code=204)
def revoke_token(principal: OwnAccount, token_id: Id) -> Response:
    """Revoke a token, effective immediately."""
    with db.transaction() as session:
        service.revoke_token(session, principal=principal, token_id=token_id)
    return Response(status_code=204)


def reset_link(address: str, code: str) -> str:
    """The link with a code of `create_password_reset`."""
    return f"{address.rstrip('/')}/reset-password?code={code}"


@router.post(
    "/password-reset",
    status_code=204,
    responses=errors(
        "reset_code_wrong",
        "guesses_limited",
        *NEW_PASSWORD,
    ),
)
@HASHING
def reset_password(request: Request, body: PasswordResetRequest) -> Response:
    """Choose a new password with the code of a reset link, and log in with a cookie. All other sessions end."""
    address, browser = guess_limits.from_address(request, "code"), browser_of(request)
    revoke = body.revoke_tokens
    return _logged_in(request, access.reset_password(body.code, body.password, browser, address, revoke_tokens=revoke))


@router.post(
    "/invitations/accept",
    status_code=204,
    responses=errors("invitation_wrong", "guesses_limited", *NEW_NAME, *NEW_PASSWORD),
)
@HASHING
def accept_invitation(request: Request, body: AcceptRequest) -> Response:
    """Create an account with the code of an invitation, and log in with a cookie."""
    address, browser = guess_limits.from_address(request, "code"), browser_of(request)
    return _logged_in(request, access.accept_invitation(body.code, body.name, body.password, browser, address))
