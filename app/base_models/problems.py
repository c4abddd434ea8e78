"""Problems of base models that cannot be imported, and remarks on those that can: the sentence of each code."""

from typing import Any

from app.core.formatting import file_size
from app.core.i18n import Plural, _, gettext_noop
from app.core.json_shapes import Problem

MESSAGES: dict[str, str | Plural] = {
    "result_unstorable": gettext_noop(
        "What the model's files say could not be stored ({why}). Check their names and texts for control characters."
    ),
    # what was sent
    "file_missing": gettext_noop("The file {file} is missing."),
    "weights_missing": gettext_noop("There is no .safetensors file. Save the weights in safetensors format."),
    "archive_broken": gettext_noop("The archive cannot be read: {why}."),
    "archive_unsafe": gettext_noop(
        "The archive contains {file}, which can run code when opened. Remove it and upload the archive again."
    ),
    "archive_empty": gettext_noop("The archive contains no model files."),
    "archive_twice": gettext_noop("The archive contains {file} twice. Pack only one model."),
    "archive_link": gettext_noop("{file} in the archive is a link or a device, not a file. Pack the file itself."),
    "archive_sparse": gettext_noop("{file} in the archive is a sparse file. Pack it without the option --sparse."),
    "too_large": gettext_noop("The files are {size} in total; the limit for a base model is {limit}."),
    "disk_full": gettext_noop("The files need {size}, but only {free} of disk space is left."),
    "disk_filled_up": gettext_noop(
        "The disk of the data directory became full, so the import was stopped. Free some space, then start it again."
    ),
    # configuration
    "not_json": gettext_noop("{file} is not valid JSON: error at byte {byte}."),
    "number_infinite": gettext_noop("{file} contains {word}, which is not a finite number. Use a finite one."),
    "not_object": gettext_noop("{file} is JSON, but not an object."),
    "remote_code": gettext_noop(
        "{file} requires custom code ({field}), which Athanor never runs. Choose a model that transformers "
        "supports natively."
    ),
    "model_type_unknown": gettext_noop("{file} has the architecture “{found}”; supported are {expected}."),
    "mistral_differs": gettext_noop(
        "{file} describes a Mistral with a sliding window of {window} tokens, which the Llama architecture lacks."
    ),
    "quantized": gettext_noop("The weights are quantized. Use the model in its original precision."),
    "config_invalid": gettext_noop("{file} cannot be read as a configuration of {model_type}: {why}."),
    "network_unusual": gettext_noop("{file} sets {field} to {found}; only {expected} is supported."),
    "spec_field": gettext_noop("{file} is not supported: {field} {why}."),
    # weights
    "header_short": gettext_noop("{file} ends inside its header, at byte {byte}."),
    "header_length": gettext_noop(
        "{file} claims a header of {length} bytes, which is larger than the file or the limit."
    ),
    "header_json": gettext_noop("The header of {file} is not valid JSON: error at byte {byte}."),
    "header_entry": gettext_noop("{file} has an invalid entry for the tensor {tensor}: {why}."),
    "dtype": gettext_noop("The tensor {tensor} in {file} has the data type {found}; weights must be {expected}."),
    "offsets": gettext_noop("The tensor {tensor} in {file} extends past the end of the file, at byte {byte}."),
    "overlap": gettext_noop("The tensor {tensor} in {file} overlaps the one before it, at byte {byte}."),
    "gap": gettext_noop("{file} has bytes before the tensor {tensor} that belong to no tensor, at byte {byte}."),
    "trailing": gettext_noop("{file} has bytes after its last tensor, at byte {byte}."),
    "size": Plural(
        "The tensor {tensor} in {file} has {found} byte; its shape requires {expected}.",
        "The tensor {tensor} in {file} has {found} bytes; its shape requires {expected}.",
        "found",
    ),
    "nonfinite": gettext_noop("The tensor {tensor} in {file} has a NaN or infinite value at byte {byte}."),
    "index_missing": gettext_noop("The index {file} lists {part}, which is missing."),
    "index_tensor": gettext_noop("The index {file} places {tensor} in {part}, but it is not there."),
    "index_extra": gettext_noop("{part} is not listed in the index {file}."),
    "index_needed": gettext_noop("There are {count} .safetensors files, but no index file that maps tensors to them."),
    "tensor_twice": gettext_noop("The tensor {tensor} is in both {file} and {part}."),
    "tensor_missing": gettext_noop("The tensor {tensor} is missing; {model_type} requires it."),
    "tensor_unexpected": gettext_noop("The tensor {tensor} in {file} is not part of {model_type}."),
    "tensor_shape": gettext_noop(
        "The tensor {tensor} in {file} has the shape {found}; the configuration requires {expected}."
    ),
    # tokenizer
    "tokenizer_missing": gettext_noop("There is no tokenizer.json, nor an older vocabulary file to create it from."),
    "tokenizer_sentencepiece": gettext_noop(
        "The tokenizer is only in {file}, which cannot be converted: the package sentencepiece is not installed. Open "
        "the model's folder with AutoTokenizer.from_pretrained and save_pretrained of transformers, and add the "
        "tokenizer.json that this writes."
    ),
    "tokenizer_no_end": gettext_noop(
        "Neither the tokenizer nor the configuration names an end-of-text token. Add eos_token to "
        "tokenizer_config.json."
    ),
    "tokenizer_unreadable": gettext_noop("The tokenizer cannot be loaded: {why}."),
    "tokenizer_size": gettext_noop("tokenizer.json has {size}; the limit is {limit}."),
    "tokenizer_growth": gettext_noop(
        "The tokenizer's {part} makes a text up to {found} times longer; the limit is {limit_times} times. Remove the "
        "rules that multiply it."
    ),
    "tokenizer_token_long": gettext_noop(
        "The tokenizer has a token of {found} characters; the limit is {limit_characters}."
    ),
    "tokenizer_memory": gettext_noop("The tokenizer needs more than {limit} of memory for a short text."),
    "tokenizer_slow_text": gettext_noop(
        "The tokenizer or the chat template needs more than {seconds} s of computing time for a short text. Look for "
        "an endless loop or a slow regular expression in it."
    ),
    "tokenizer_crashed": gettext_noop("The tokenizer library crashed on this file: {why}."),
    "tokenizer_slow": gettext_noop("The tokenizer is a slow one. Save its fast version, tokenizer.json."),
    "tokenizer_large": gettext_noop("The tokenizer has token IDs up to {found}, but the embedding ends at {expected}."),
    # the hub
    "hub_unknown": gettext_noop("The hub has no model {reference}, or it is private: then set HF_TOKEN."),
    "hub_gated": gettext_noop("{reference} is a gated model. Request access on its page, then set HF_TOKEN."),
    "hub_revision": gettext_noop("The model {reference} has no such revision."),
    "hub_away": gettext_noop("The hub at {endpoint} cannot be reached: {why}."),
    "hub_refused": gettext_noop("The hub answered the request for {reference} with status {status}."),
    # the machine
    "out_of_memory": gettext_noop("Validation was stopped: it needed more than {limit} of memory."),
    "storage": gettext_noop("A file could not be written to disk: {why}."),
    "unforeseen": gettext_noop("Validation failed with an unexpected error ({why}). See the worker's log."),
    "import_cancelled": gettext_noop("The import was cancelled. Start it again, or delete the model."),
    "importer_lost": gettext_noop(
        "The worker was lost {count} times during this import. Look at the memory and the log of the worker, then "
        "start the import again."
    ),
    "importer_died": gettext_noop("The import took too long or was stopped. Start it again."),
    # remarks about a good one
    "head_missing": gettext_noop(
        "The model has no language-modeling head; training starts with a newly initialized one."
    ),
    "tensors_unused": Plural(
        "{count} tensor is not used: {tensor}.", "{count} tensors are not used, for example {tensor}.", "count"
    ),
    "as_llama": gettext_noop("This Mistral has no sliding window, so it is loaded as an equivalent Llama."),
    "tokenizer_converted": gettext_noop("tokenizer.json was converted from the tokenizer's older files."),
    "tokenizer_replaced": gettext_noop(
        "Athanor uses tokenizer.json as it is. AutoTokenizer of transformers 5 ({tokenizer}) replaces parts of it and "
        "gives other tokens."
    ),
    "end_from_config": gettext_noop(
        "The tokenizer names no end-of-text token; {token} is used, as the configuration says."
    ),
    "decoder_start": gettext_noop(
        "The configuration names no token that the decoder starts with; the padding token {token} is used, as in T5."
    ),
    "head_untied": gettext_noop(
        "The configuration says that output and input embeddings are tied, but the files hold two different ones: they "
        "are used as they are."
    ),
    "weights_skipped": gettext_noop("{file} was skipped: it holds the same weights in another layout."),
    "weights_16_bit": gettext_noop("The weights are 16-bit; fp32 training converts them."),
}

_BYTES = ("limit", "size", "free")


def sentence(problem: Problem) -> str:
    """A problem in the reader's language."""
    values: dict[str, Any] = problem.values
    values |= {"limit": values["limit_bytes"]} if "limit_bytes" in values else {}
    values |= {key: file_size(values[key]) for key in _BYTES if isinstance(values.get(key), int)}
    return _(MESSAGES[problem.code], **values)
