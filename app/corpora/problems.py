"""What can be wrong with an upload: the sentence of each code that the parser reports."""

from typing import Any

from app.core.formatting import file_size
from app.core.i18n import _, gettext_noop
from app.core.json_shapes import Problem

MESSAGES = {
    "empty": gettext_noop("The corpus is empty: the file holds no text, or only white space."),
    "undecodable": gettext_noop("The file is not text in {encoding}: the bytes at position {byte} mean nothing there."),
    "nul": gettext_noop("The file holds a NUL character at byte {byte}, which text does not have."),
    "half_line": gettext_noop("The JSON object breaks off at character {character}."),
    "not_json": gettext_noop("This is not JSON: it goes wrong at character {character}."),
    "constant": gettext_noop("JSON has no value {word}. Write null or a number."),
    "duplicate_key": gettext_noop("The key “{key}” stands twice in one object."),
    "too_deep": gettext_noop("The object is nested too deeply."),
    "not_object": gettext_noop('The line is JSON but no object. Write {{"text": "..."}}.'),
    "text_missing": gettext_noop("The object has no key “text”."),
    "text_not_string": gettext_noop("The value of “text” is not a string."),
    "text_empty": gettext_noop("The value of “text” is empty."),
    "text_nul": gettext_noop("The value of “text” holds a NUL character."),
    "surrogate": gettext_noop(
        "The value of “text” holds half of a surrogate pair at character {character}, which is no character."
    ),
    "record_mixed": gettext_noop(
        "The record is of the kind {found}, but the file began with {kind}. Keep one kind in a file."
    ),
    "field_missing": gettext_noop("The record has no “{field}”."),
    "field_not_string": gettext_noop("The value of “{field}” is not a string."),
    "field_empty": gettext_noop("The value of “{field}” is empty."),
    "field_nul": gettext_noop("The value of “{field}” holds a NUL character."),
    "field_not_messages": gettext_noop(
        "The value of “{field}” must be a list of messages, each with role and content."
    ),
    "message_not_object": gettext_noop("Message {number} is no object with role and content."),
    "role_unknown": gettext_noop("Message {number} has the role “{role}”; roles are system, user, assistant and tool."),
    "role_first": gettext_noop("The conversation must begin with the user, or with the system and then the user."),
    "role_system_late": gettext_noop("Message {number} is of the system, which speaks at the beginning only."),
    "messages_unanswered": gettext_noop("The assistant says nothing in this conversation: there is nothing to learn."),
    "weight_invalid": gettext_noop("The weight of message {number} must be a number of at least 0."),
    "answers_same": gettext_noop("“chosen” and “rejected” are the same: nothing is preferred."),
    "label_invalid": gettext_noop(
        "The label must be a string or a whole number, not empty and at most 200 characters long."
    ),
    "labels_many": gettext_noop("There are more than {limit} different labels. Is this the right column?"),
    "choices_invalid": gettext_noop("“choices” must be a list of at least two different strings."),
    "answer_invalid": gettext_noop("“answer” must be one of the choices, or its number, counted from 0."),
    "columns": gettext_noop(
        "The first row must name the columns: text and label, prompt and completion, source and target, or prompt, "
        "chosen and rejected. It names: {found}."
    ),
    "row_length": gettext_noop("The row has {found} cells, but the first row names {expected}."),
    "csv": gettext_noop("The row cannot be read: {why}."),
    "line_too_long": gettext_noop("The line is longer than 16 MiB. Split the document."),
    "out_of_memory": gettext_noop("Reading the file needed more than {limit} of memory and was stopped."),
    "storage": gettext_noop("The disk did not take the parsed text: {why}."),
    "parser_died": gettext_noop("Reading the file took too long or was stopped. Read it again, or split it."),
}

# How people call the encodings.
ENCODINGS = {
    "utf-8": "UTF-8",
    "utf-16-le": "UTF-16 LE",
    "utf-16-be": "UTF-16 BE",
    "gb18030": "GB18030 (GBK, GB2312)",
    "big5": "Big5",
    "windows-1252": "Windows-1252 (Latin)",
}


def sentence(problem: Problem) -> str:
    """A problem in the reader's language."""
    message = MESSAGES[problem.code]
    values: dict[str, Any] = problem.values
    if "encoding" in values:
        values["encoding"] = ENCODINGS[values["encoding"]]
    if "limit_bytes" in values:
        values["limit"] = file_size(values["limit_bytes"])
    return _(message, **values or {"n": 0})  # a sentence without values is filled too: its braces stand twice
