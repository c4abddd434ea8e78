"""The session cookie, set and cleared by pages and by the API."""

from fastapi import Request, Response

from app.core.principal import SESSION_LIFETIME
from app.web.auth import COOKIE


def set_session_cookie(request: Request, response: Response, secret: str) -> None:
    """Set the session cookie. Scripts cannot read it (HttpOnly) and requests from other sites lack it (SameSite)."""
    response.set_cookie(
        COOKIE,
        secret,
        max_age=int(SESSION_LIFETIME.total_seconds()),
        path="/",
        httponly=True,
        samesite="lax",
        secure=request.url.scheme == "https",
    )


def clear_session_cookie(request: Request, response: Response) -> None:
    """Delete the session cookie."""
    secure = request.url.scheme == "https"
    response.delete_cookie(COOKIE, path="/", httponly=True, samesite="lax", secure=secure)
