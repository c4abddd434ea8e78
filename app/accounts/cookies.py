"""The cookies of a login, set and cleared by pages and by the API."""

from fastapi import Request, Response

from app.accounts.browser import BROWSER_COOKIE
from app.accounts.service import Login
from app.core.principal import SESSION_LIFETIME
from app.web.auth import COOKIE

BROWSER_SECONDS = 365 * 24 * 3600


def set_login_cookies(request: Request, response: Response, login: Login) -> None:
    """Set the cookies of a login. Scripts cannot read them (HttpOnly) and requests from other sites lack them."""
    lifetimes = {
        COOKIE: (login.session_secret, int(SESSION_LIFETIME.total_seconds())),
        BROWSER_COOKIE: (login.browser_secret, BROWSER_SECONDS),
    }
    secure = request.url.scheme == "https"
    for name, (secret, seconds) in lifetimes.items():
        response.set_cookie(name, secret, max_age=seconds, path="/", httponly=True, samesite="lax", secure=secure)


def clear_session_cookie(request: Request, response: Response) -> None:
    """Delete the session cookie. That of the browser stays, so that strangers cannot lock its user out."""
    secure = request.url.scheme == "https"
    response.delete_cookie(COOKIE, path="/", httponly=True, samesite="lax", secure=secure)
