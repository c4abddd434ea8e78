"""Why a record or a text cannot be encoded. Imports pydantic only."""

from typing import Any

from trainer.formats.messages import Message

MESSAGES = {
    "mark": "its text contains {mark}, with which the chat template separates messages",
    "order": "the chat template does not keep the order of the messages",
    "tools": "the chat template leaves out its tools",
    "key": "the chat template leaves out its {key}",
    "message": "the chat template leaves out message {number}, of the role {role}",
    "answer": "the chat template leaves out an answer when other messages follow",
    "differently": "the chat template renders messages differently when an answer follows them",
    "template": "{why}",  # what the chat template raised
    "no_template": "there is no chat template",
    "output": "the chat template writes more than {limit} characters",
    # from the process that encodes, see server_process.py
    "time": "encoding takes more than {seconds} s of computing time",
    "memory": "encoding takes more than {megabytes} MB of memory",
    "crash": "the tokenizer library crashed: {why}",
}


class RecordRefused(ValueError):
    """A record cannot be encoded, for the reason in `message`; other records can."""

    def __init__(self, code: str, **values: Any) -> None:
        self.message = Message(code=code, template=MESSAGES[code], values=values)
        super().__init__(str(self.message))
