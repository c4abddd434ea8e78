"""The files that a base model may have: configuration, safetensors and tokenizer, never pickle files or code."""

import re

from app.core.errors import PanelError, bad_field
from app.core.i18n import _

CONFIG = "config.json"
TOKENIZER = "tokenizer.json"
CHAT_TEMPLATE = "chat_template.jinja"
INDEX = ".safetensors.index.json"
WEIGHTS = ".safetensors"
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
MAX_NAME_LENGTH = 200

SETTINGS = frozenset({CONFIG, "generation_config.json", "tokenizer_config.json", "special_tokens_map.json"})
PLAIN = SETTINGS | frozenset(
    {
        TOKENIZER,
        "added_tokens.json",
        "vocab.json",
        "vocab.txt",
        "merges.txt",
        "spiece.model",
        "tokenizer.model",
        CHAT_TEMPLATE,
        "README.md",
        "LICENSE",
    }
)
_WEIGHTS = re.compile(r"[A-Za-z0-9][\w.-]*\.safetensors(\.index\.json)?", re.ASCII)
_UNSAFE = re.compile(r".*\.(bin|pt|pth|pkl|pickle|ckpt|py|pyc|so|h5|msgpack|onnx)", re.IGNORECASE)


def is_known(name: str) -> bool:
    """Whether a file of this name belongs to a model. Such a name is never a path."""
    return name in PLAIN or (len(name) <= MAX_NAME_LENGTH and _WEIGHTS.fullmatch(name) is not None)


def is_unsafe(name: str) -> bool:
    """Whether a file of this name can run code when it is opened."""
    return _UNSAFE.fullmatch(name) is not None


def is_archive(name: str) -> bool:
    """Whether a file of this name is an archive, which may contain a model."""
    return name.endswith(ARCHIVES)


def stored_name(name: str) -> str:
    """The name of an uploaded file in the model's directory. Raises PanelError for a file that is not accepted."""
    if is_archive(name):
        return "archive.zip" if name.endswith(".zip") else "archive.tar"
    if is_known(name):
        return name
    shortened = name[:MAX_NAME_LENGTH]
    if is_unsafe(name):
        message = _(
            "“{name}” is not accepted: files of this type can run code when opened. Save the weights in "
            "safetensors format.",
            name=shortened,
        )
        raise bad_field("name", "file_unsafe", message)
    raise _unknown(shortened)


def _unknown(name: str) -> PanelError:
    message = _(
        "“{name}” is not a model file. Accepted: config.json, *.safetensors with their index, tokenizer "
        "files, chat_template.jinja, README.md and LICENSE, or one .zip or .tar archive of them.",
        name=name,
    )
    return bad_field("name", "file_unknown", message)
