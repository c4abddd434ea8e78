"""Sends e-mail by the operator's SMTP server. A password is only sent over an encrypted connection."""

import smtplib
import ssl
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate, make_msgid
from typing import Literal

from app.core.settings import settings
from app.notices.delivery_errors import DeliveryFailed

POLICY = SMTP.clone(max_line_length=998)  # shorter lines would have long links encoded, which programs do not read
TIMEOUT_SECONDS = 15.0  # of each answer of the server


def is_configured() -> bool:
    """Whether the operator has named a server and a sender."""
    return bool(settings().smtp_host and settings().smtp_sender)


def send(recipient: str, subject: str, text: str, unsubscribe_url: str | None = None) -> None:
    """Send a message. Raises DeliveryFailed."""
    if not is_configured():
        raise DeliveryFailed("email_unconfigured")
    message = _message(recipient, subject, text, unsubscribe_url)
    step: Literal["email_unreachable", "email_unencrypted", "email_login", "email_refused"] = "email_unreachable"
    try:
        with _connected() as server:
            if settings().smtp_security == "starttls":
                step = "email_unencrypted"
                server.starttls(context=ssl.create_default_context())
            if settings().smtp_user:
                step = "email_login"
                _log_in(server)
            step = "email_refused"
            server.send_message(message)
    except ssl.SSLError:
        raise DeliveryFailed("email_unencrypted") from None
    except smtplib.SMTPRecipientsRefused as error:
        is_final = all(code >= 500 for code, _text in error.recipients.values())
        raise DeliveryFailed("email_recipient" if is_final else "email_refused") from None
    except (smtplib.SMTPServerDisconnected, smtplib.SMTPException, OSError, ValueError) as error:
        is_cut = (
            isinstance(error, smtplib.SMTPServerDisconnected) and step != "email_login"
        )  # as servers refuse guesses
        raise DeliveryFailed("email_unreachable" if is_cut or isinstance(error, TimeoutError) else step) from None


def _connected() -> smtplib.SMTP:
    if settings().smtp_security == "tls":
        context = ssl.create_default_context()
        return smtplib.SMTP_SSL(settings().smtp_host, settings().smtp_port, timeout=TIMEOUT_SECONDS, context=context)
    return smtplib.SMTP(settings().smtp_host, settings().smtp_port, timeout=TIMEOUT_SECONDS)


def _log_in(server: smtplib.SMTP) -> None:
    if settings().smtp_security == "none":
        raise DeliveryFailed("email_unencrypted")
    server.login(settings().smtp_user, settings().smtp_password.get_secret_value())


def _message(recipient: str, subject: str, text: str, unsubscribe_url: str | None) -> EmailMessage:
    """A plain message. Raises ValueError for a line break in a header."""
    message = EmailMessage(POLICY)
    message["From"], message["To"], message["Subject"] = settings().smtp_sender, recipient, subject
    message["Date"] = formatdate()
    message["Message-ID"] = make_msgid(domain=settings().smtp_sender.rpartition("@")[2].rstrip(">") or None)
    message["Auto-Submitted"] = "auto-generated"
    if unsubscribe_url is not None:
        message["List-Unsubscribe"] = f"<{unsubscribe_url}>"
        if unsubscribe_url.startswith("https://"):
            message["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
    message.set_content(text)
    return message
