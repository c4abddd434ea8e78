"""How many notices a user has not read, which every page shows."""

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.core.notice_models import UserNotice


def count_unread(session: Session, user_id: str) -> int:
    """The number of unread notices of a user."""
    unread = (UserNotice.user_id == user_id, UserNotice.is_listed, UserNotice.read_at.is_(None))
    return session.scalar(select(func.count()).where(*unread)) or 0
