"""What of a base model decides about its uses: asked of the code that will use it, so that nothing fails later."""

from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig, PreTrainedTokenizerFast

from trainer.data.encoding_budget import encoding_budget, enforced
from trainer.data.record_encoding import RecordEncoder
from trainer.data.record_refused import RecordRefused
from trainer.data.tokenizer import missing_tokens, open_base
from trainer.export import gguf_writer
from trainer.failure import Failure
from trainer.limits import Traits
from trainer.modeling.architectures import is_classifier
from trainer.processes.child_limits import data_bytes
from worker.sandbox.model_import.safetensors_scan import InvalidModel

TALK = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "The old kettle."}]


def find_traits(directory: Path, config: PreTrainedConfig) -> dict[str, Any]:
    """The fields of Traits of a model whose tokenizer was checked. Raises InvalidModel."""
    try:
        tokenizer = open_base(directory)
    except Failure as failure:
        raise InvalidModel("tokenizer_unreadable", why=str(failure)) from None
    traits = Traits(
        model_type=config.model_type,
        is_classifier=is_classifier(config),
        has_chat_template=tokenizer.chat_template is not None,
        template_error=_template_error(tokenizer),
        missing_tokens=missing_tokens(tokenizer),
        gguf_limit=gguf_writer.own_limit(config, tokenizer),
    )
    return traits.model_dump()


def _template_error(tokenizer: PreTrainedTokenizerFast) -> str | None:
    """Why the chat template cannot render a question with its answer, or None."""
    if tokenizer.chat_template is None:
        return None
    try:
        with enforced(encoding_budget(len(str(TALK))), data_bytes()):
            RecordEncoder("chat", tokenizer).encode_conversation(TALK)
    except MemoryError:
        return str(RecordRefused("memory", megabytes=encoding_budget(len(str(TALK))).megabytes))
    except RecordRefused as refused:
        return str(refused)[:200]
    return None
