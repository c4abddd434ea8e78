"""Problems of uploads: the sentence of each code that the parser reports."""

from typing import Any

from app.core.formatting import file_size
from app.core.i18n import _, gettext_noop
from app.core.json_shapes import Problem

MESSAGES = {
    "empty": gettext_noop("The corpus is empty: the file has no text, or only whitespace."),
    "undecodable": gettext_noop("The file is not valid {encoding}: the bytes at position {byte} cannot be decoded."),
    "nul": gettext_noop("The file has a NUL character at byte {byte}. Text must not contain any."),
    "half_line": gettext_noop("The JSON object ends early, at character {character}."),
    "not_json": gettext_noop("This is not valid JSON: error at character {character}."),
    "constant": gettext_noop("{word} is not a JSON value. Use null or a number."),
    "duplicate_key": gettext_noop("The object has the key “{key}” twice."),
    "too_deep": gettext_noop("The object is nested too deeply."),
    "not_object": gettext_noop('The line is JSON, but not an object. Write {{"text": "..."}}.'),
    "text_missing": gettext_noop("The object has no key “text”."),
    "text_not_string": gettext_noop("The value of “text” is not a string."),
    "text_empty": gettext_noop("The value of “text” is empty."),
    "text_nul": gettext_noop("The value of “text” has a NUL character."),
    "surrogate": gettext_noop("The value of “text” has an unpaired surrogate at character {character}."),
    "record_mixed": gettext_noop(
        "This record is of the kind {found}, but the file starts with {kind}. Use one kind per file."
    ),
    "field_missing": gettext_noop("The record has no field “{field}”."),
    "field_not_string": gettext_noop("The value of “{field}” is not a string."),
    "field_empty": gettext_noop("The value of “{field}” is empty."),
    "field_nul": gettext_noop("The value of “{field}” has a NUL character."),
    "field_not_messages": gettext_noop(
        "The value of “{field}” must be a list of messages, each with role and content."
    ),
    "message_not_object": gettext_noop("Message {number} is not an object with role and content."),
    "role_unknown": gettext_noop("Message {number} has the role “{role}”; use system, user, assistant or tool."),
    "role_first": gettext_noop(
        "The conversation must start with a user message, which one system message may precede."
    ),
    "role_system_late": gettext_noop("Message {number} is a system message; only the first message may be one."),
    "messages_unanswered": gettext_noop("The conversation has no assistant message, so there is nothing to learn."),
    "weight_invalid": gettext_noop("The weight of message {number} must be a number of at least 0."),
    "answers_same": gettext_noop("“chosen” and “rejected” are the same, so there is no preference to learn."),
    "label_invalid": gettext_noop("The label must be a non-empty string of at most 200 characters, or an integer."),
    "labels_many": gettext_noop("There are more than {limit} different labels. Is this the right column?"),
    "choices_invalid": gettext_noop("“choices” must be a list of at least two different strings."),
    "answer_invalid": gettext_noop("“answer” must be one of the choices or its index, counted from 0."),
    "columns": gettext_noop(
        "The first row must contain column names: text and label, prompt and completion, source and target, "
        "or prompt, chosen and rejected. It contains: {found}."
    ),
    "row_length": gettext_noop("The row has {found} cells, but the first row has {expected}."),
    "csv": gettext_noop("The row cannot be read: {why}."),
    "line_too_long": gettext_noop("The line is longer than 16 MiB. Split the document."),
    "out_of_memory": gettext_noop("Parsing was stopped: it needed more than {limit} of memory."),
    "storage": gettext_noop("The parsed text could not be written to disk: {why}."),
    "parser_died": gettext_noop("Parsing took too long or was stopped. Parse the file again, or split it."),
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
