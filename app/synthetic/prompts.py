"""What a model is asked about a document: the template of the user, the form of the answer, and its JSON schema."""

import re
from typing import Any

from app.core.synthetic_shapes import RecordKind, RecordSettings

PLACEHOLDER = "{document}"
PLACEHOLDERS = (PLACEHOLDER, "{n}", "{turns}")
MAX_TEMPLATE_LENGTH = 20_000
_NAMED = re.compile(r"\{[A-Za-z_][A-Za-z0-9_]*\}")

# The task, by kind and language. {document} is required; {n} is the number of records, {turns} that of questions.
TEMPLATES: dict[RecordKind, dict[str, str]] = {
    "question_answer": {
        "en": "Write {n} questions that the text below answers, each with a complete answer. Each question makes "
        "sense without the text. Use only what the text says, and its language.\n\nText:\n{document}",
        "zh-CN": "请根据下面的文本写出 {n} 个问题，并为每个问题写出完整的答案。每个问题脱离文本也能看懂。"
        "只使用文本中的内容，并使用文本的语言。\n\n文本：\n{document}",
    },
    "chat": {
        "en": "Write {n} conversations between a user and an assistant about the text below. In each, the user asks "
        "{turns} questions one after another, and the assistant answers each. The user does not mention the text. Use "
        "only what the text says, and its language.\n\nText:\n{document}",
        "zh-CN": "请根据下面的文本写出 {n} 段用户与助手的对话。每段对话中，用户依次提出 {turns} 个问题，"
        "助手逐一回答。用户不提及该文本。只使用文本中的内容，并使用文本的语言。\n\n文本：\n{document}",
    },
    "text": {
        "en": "Rewrite the text below so that it is clear, correct and complete. Keep its facts and its language. "
        "Answer with the new text only.\n\nText:\n{document}",
        "zh-CN": "请改写下面的文本，使其清晰、正确、完整。保留其中的事实和语言。只回答新的文本。\n\n文本：\n{document}",
    },
}
_FORMATS: dict[RecordKind, dict[str, str]] = {
    "question_answer": {
        "en": 'Answer with JSON only: {"records": [{"question": "…", "answer": "…"}]}',
        "zh-CN": '只用 JSON 回答：{"records": [{"question": "…", "answer": "…"}]}',
    },
    "chat": {
        "en": 'Answer with JSON only: {"records": [{"turns": [{"user": "…", "assistant": "…"}]}]}',
        "zh-CN": '只用 JSON 回答：{"records": [{"turns": [{"user": "…", "assistant": "…"}]}]}',
    },
}


def default_template(kind: RecordKind, language: str) -> str:
    """The template of a kind in a language; in English if there is none in it."""
    return TEMPLATES[kind].get(language, TEMPLATES[kind]["en"])


def unknown_placeholders(template: str) -> list[str]:
    """The names in braces of a template that nothing is put in place of, each once."""
    return [name for name in dict.fromkeys(_NAMED.findall(template)) if name not in PLACEHOLDERS]


def prompt(settings: RecordSettings, document: str) -> str:
    """What a model is asked about a document."""
    text = settings.template.replace("{n}", str(settings.records_per_document))
    text = text.replace("{turns}", str(settings.num_turns))
    form = _FORMATS.get(settings.kind, {})
    ending = form.get(settings.language, form.get("en", ""))
    text = f"{text}\n\n{ending}" if ending else text
    return text.replace(PLACEHOLDER, document[: settings.max_characters])


def schema(settings: RecordSettings, *, with_counts: bool) -> dict[str, Any] | None:
    """The JSON schema of an answer; None for a text. Not every endpoint takes one `with_counts` of its lists."""
    if settings.kind == "text":
        return None
    if settings.kind == "question_answer":
        record = _object({"question": {"type": "string"}, "answer": {"type": "string"}})
    else:
        turn = _object({"user": {"type": "string"}, "assistant": {"type": "string"}})
        record = _object({"turns": _list(turn, settings.num_turns if with_counts else None)})
    return _object({"records": _list(record, settings.records_per_document if with_counts else None)})


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    names = list(properties)
    return {"type": "object", "properties": properties, "required": names, "additionalProperties": False}


def _list(items: dict[str, Any], count: int | None) -> dict[str, Any]:
    counts = {} if count is None else {"minItems": count, "maxItems": count}
    return {"type": "array", "items": items, **counts}
