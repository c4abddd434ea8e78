"""Records that people write by hand: the columns of their table, which are roles in chat and else keys of a record."""

from app.core.i18n import gettext_noop

COLUMNS = {
    "chat": {"user": gettext_noop("Question"), "assistant": gettext_noop("Answer")},
    "completion": {"prompt": gettext_noop("Prompt"), "completion": gettext_noop("Completion")},
    "classification": {"text": gettext_noop("Text"), "label": gettext_noop("Label")},
    "questions": {
        "question": gettext_noop("Question"),
        "answer": gettext_noop("Right answer"),
        "check": gettext_noop("Check"),
    },
    "seq2seq": {"source": gettext_noop("Source text"), "target": gettext_noop("Target text")},
    "preference": {
        "prompt": gettext_noop("Prompt"),
        "chosen": gettext_noop("Better answer"),
        "rejected": gettext_noop("Worse answer"),
    },
}
