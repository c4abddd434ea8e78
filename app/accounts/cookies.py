"""The cookie that holds a session's secret: set and taken away the same way by pages and by the API."""

from fastapi import Request, Response

from app.core.principal import SESSION_LIFETIME
from app.web.auth import COOKIE


def set_session_cookie(request: Request, response: Response, secret: str) -> None:
    """Log this browser in. Scripts cannot read the cookie, and other sites' requests do not carry it."""
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
    """Log this browser out."""
    secure = request.url.scheme == "https"
    response.delete_cookie(COOKIE, path="/", httponly=True, samesite="lax", secure=secure)
