"""Why a notice could not be delivered. Stored as a code; nothing that a server answered is, which may hold secrets."""

from app.core.i18n import gettext_noop, translate

ERRORS = {
    "email_unconfigured": gettext_noop("The operator has configured no mail server."),
    "email_unreachable": gettext_noop("The mail server cannot be reached."),
    "email_unencrypted": gettext_noop("The mail server offers no encryption, or none that can be trusted."),
    "email_login": gettext_noop("The mail server refuses the login of the panel."),
    "email_recipient": gettext_noop("The mail server refuses the address of the recipient."),
    "email_refused": gettext_noop("The mail server refuses the message."),
    "email_removed": gettext_noop("The address was removed in the meantime."),
    "user_disabled": gettext_noop("The account was disabled in the meantime."),
    "service_unknown": gettext_noop("This is no Apprise URL of a service that can be used here."),
    "service_refused": gettext_noop("The service cannot be reached, or did not accept the notice."),
    "service_private": gettext_noop(
        "The service is at a private address. To allow its host, list it in ATHANOR_WEBHOOK_HOSTS."
    ),
    "service_slow": gettext_noop("The service did not answer in time."),
    "apprise_missing": gettext_noop(
        "The package apprise is not installed on the server. The operator installs it with: pip install '.[notices]'"
    ),
}
FINAL = ("email_recipient", "email_removed", "user_disabled")  # which another try does not change


class DeliveryFailed(Exception):
    """A delivery failed; `code` is one of ERRORS."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def sentence(code: str) -> str:
    """The reason in the reader's language."""
    return translate(ERRORS[code])
