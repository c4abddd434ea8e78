"""Removes user names and passwords from addresses, so that these can be stored and shown."""

import re

USER_INFO = re.compile(r"//[^/?#\s]*@")  # of a URL, up to the last @ of its host


def without_user_info(text: str) -> str:
    """A URL, or a text with URLs, without the user names and passwords in them."""
    return USER_INFO.sub("//", text)
