"""What can be wrong with a base model, and what is worth knowing of a good one: the sentence of each code."""

from typing import Any

from app.core.formatting import file_size
from app.core.i18n import _, gettext_noop
from app.core.json_shapes import Problem

MESSAGES = {
    # what was sent
    "file_missing": gettext_noop("The file {file} is missing."),
    "weights_missing": gettext_noop("There is no .safetensors file. Save the weights as safetensors."),
    "archive_broken": gettext_noop("The archive cannot be read: {why}."),
    "archive_unsafe": gettext_noop(
        "The archive holds {file}, which can run code where it is opened. Leave it out and send the archive again."
    ),
    "archive_empty": gettext_noop("The archive holds no file of a model."),
    "archive_twice": gettext_noop("The archive holds {file} twice. Pack one model."),
    "archive_link": gettext_noop("{file} in the archive is a link or a device, not a file. Pack the file itself."),
    "too_large": gettext_noop("The files have {size} in all; a base model may have {limit}."),
    "disk_full": gettext_noop("The files have {size}, but the disk has only {free} left."),
    # configuration
    "not_json": gettext_noop("{file} is not JSON: it goes wrong at byte {byte}."),
    "not_object": gettext_noop("{file} is JSON but no object."),
    "remote_code": gettext_noop(
        "{file} asks for code of its own ({field}), which is never run here. Choose a model that transformers "
        "knows by itself."
    ),
    "model_type_unknown": gettext_noop("{file} names the architecture “{found}”; here are trained {expected}."),
    "mistral_differs": gettext_noop(
        "{file} is of Mistral with a sliding window of {window} tokens, which a Llama does not have."
    ),
    "quantized": gettext_noop("The weights are quantized. Choose the model in its original precision."),
    "config_invalid": gettext_noop("{file} cannot be read as a configuration of {model_type}: {why}."),
    "network_unusual": gettext_noop("{file} has {field} {found}, but here it must be {expected}."),
    "spec_field": gettext_noop("{file} does not fit: {field} {why}."),
    # weights
    "header_short": gettext_noop("{file} ends inside its header, at byte {byte}."),
    "header_length": gettext_noop(
        "{file} says that its header has {length} bytes, more than the file or the limit allows."
    ),
    "header_json": gettext_noop("The header of {file} is not JSON: it goes wrong at byte {byte}."),
    "header_entry": gettext_noop("{file} describes the tensor {tensor} wrongly: {why}."),
    "dtype": gettext_noop("The tensor {tensor} in {file} has the number format {found}; weights must be {expected}."),
    "offsets": gettext_noop("The tensor {tensor} in {file} lies outside the file, at byte {byte}."),
    "overlap": gettext_noop("The tensor {tensor} in {file} overlaps the one before it, at byte {byte}."),
    "gap": gettext_noop("Before the tensor {tensor} in {file} lie bytes that belong to none, at byte {byte}."),
    "trailing": gettext_noop("Behind the last tensor in {file} lie bytes that belong to none, at byte {byte}."),
    "size": gettext_noop("The tensor {tensor} in {file} has {found} bytes; its shape needs {expected}."),
    "nonfinite": gettext_noop("The tensor {tensor} in {file} holds a value that is not finite, at byte {byte}."),
    "index_missing": gettext_noop("The index {file} names {part}, which is missing."),
    "index_tensor": gettext_noop("The index {file} says that {tensor} lies in {part}, but it does not."),
    "index_extra": gettext_noop("{part} is not named by the index {file}."),
    "index_needed": gettext_noop("There are {count} .safetensors files without an index that says what lies where."),
    "tensor_twice": gettext_noop("The tensor {tensor} lies in {file} and in {part}."),
    "tensor_missing": gettext_noop("The tensor {tensor} is missing; {model_type} needs it."),
    "tensor_unexpected": gettext_noop("The tensor {tensor} in {file} belongs to no part of {model_type}."),
    "tensor_shape": gettext_noop(
        "The tensor {tensor} in {file} has the shape {found}; the configuration needs {expected}."
    ),
    # tokenizer
    "tokenizer_missing": gettext_noop("There is no tokenizer.json, nor an older vocabulary that it could be made of."),
    "tokenizer_unreadable": gettext_noop("The tokenizer cannot be opened: {why}."),
    "tokenizer_slow": gettext_noop("The tokenizer has no fast form. Save it with one, as tokenizer.json."),
    "tokenizer_large": gettext_noop("The tokenizer has tokens up to {found}, but the embedding ends at {expected}."),
    # the hub
    "hub_unknown": gettext_noop("The hub has no model {reference}, or does not show it to everybody: set HF_TOKEN."),
    "hub_gated": gettext_noop(
        "The hub gives {reference} only to those who asked for it. Ask on its page, then set HF_TOKEN."
    ),
    "hub_revision": gettext_noop("The model {reference} has no such revision."),
    "hub_away": gettext_noop("The hub at {endpoint} cannot be reached: {why}."),
    "hub_refused": gettext_noop("The hub answered {status} to the request for {reference}."),
    # the machine
    "out_of_memory": gettext_noop("Checking the model needed more than {limit} of memory and was stopped."),
    "storage": gettext_noop("The disk refused a file: {why}."),
    "unforeseen": gettext_noop("The check met something that it does not know ({why}). The worker's log tells more."),
    "importer_died": gettext_noop("Importing took too long or was stopped. Start it again."),
    # remarks about a good one
    "head_missing": gettext_noop("It has no head that predicts tokens; training for that starts with a fresh one."),
    "tensors_unused": gettext_noop("{count} tensors are not used, such as {tensor}."),
    "as_llama": gettext_noop("It is a Mistral without a sliding window, which is a Llama, and is opened as one."),
    "tokenizer_converted": gettext_noop("tokenizer.json was made from the older files of the tokenizer."),
    "weights_16_bit": gettext_noop("The weights have 16 bits; training in fp32 widens them."),
}

_BYTES = ("limit", "size", "free")


def sentence(problem: Problem) -> str:
    """A problem in the reader's language."""
    values: dict[str, Any] = problem.values
    values |= {key: file_size(values[key]) for key in _BYTES if isinstance(values.get(key), int)}
    return _(MESSAGES[problem.code], **values)
