"""Failures that end a run: their codes, exit codes and log messages. Pydantic only."""

from typing import Any

from trainer.events import EXIT_BAD_INPUT, EXIT_NONFINITE, EXIT_OUT_OF_MEMORY, EXIT_RESUMABLE
from trainer.formats.messages import Message, message

EXIT_CODES = {
    "config_invalid": EXIT_BAD_INPUT,
    "data_empty": EXIT_BAD_INPUT,
    "data_short": EXIT_BAD_INPUT,
    "records_few": EXIT_BAD_INPUT,
    "split_empty": EXIT_BAD_INPUT,
    "split_unnamed": EXIT_BAD_INPUT,
    "groups_missing": EXIT_BAD_INPUT,
    "corpus_short": EXIT_BAD_INPUT,
    "records_empty": EXIT_BAD_INPUT,
    "record_refused": EXIT_BAD_INPUT,
    "records_refused": EXIT_BAD_INPUT,
    "label_unknown": EXIT_BAD_INPUT,
    "labels_one": EXIT_BAD_INPUT,
    "answers_equal": EXIT_BAD_INPUT,
    "chat_template_unusable": EXIT_BAD_INPUT,
    "tokenizer_mismatch": EXIT_BAD_INPUT,
    "data_changed": EXIT_BAD_INPUT,
    "checkpoint_unreadable": EXIT_BAD_INPUT,
    "check_failed": EXIT_BAD_INPUT,
    "nan_loss": EXIT_NONFINITE,
    "loss_diverged": EXIT_NONFINITE,
    "disk_full": EXIT_RESUMABLE,
    "no_space": EXIT_RESUMABLE,
    "oom_gpu": EXIT_OUT_OF_MEMORY,
    "oom_host": EXIT_OUT_OF_MEMORY,
}

MESSAGES = {
    "config_invalid": "{field} {why}",
    "data_empty": "the corpora contain no text",
    "data_short": "tokens of the text: {found}, but at least {needed} are needed",
    "records_few": "usable records: {found}, but training and validation need two; left out: {dropped}",
    "split_empty": "documents held out: {held_out} of {documents}, so that one side has none",
    "split_unnamed": "documents that their column calls neither train nor validation: {documents}",
    "groups_missing": "corpus {corpus} was read without a column of groups",
    "corpus_short": "corpus {corpus} has no training sample of its own, so it cannot have a share",
    "records_empty": "no record has anything to learn from; left out: {dropped}",
    "record_refused": "record {record} of corpus {corpus} cannot be used: {why}",
    "records_refused": "none of the records ({dropped}) can be used; record {record} of corpus {corpus}: {why}",
    "label_unknown": "the label {label} is not one of the labels to train on: {labels}",
    "labels_one": "all records have the label {label}, so there is nothing to tell apart",
    "answers_equal": "within {length} tokens the answers of all pairs ({count}) are equal",
    "chat_template_unusable": "the tokenizer's chat template cannot be used: {why}",
    "tokenizer_mismatch": "the tokenizer is {found}, but must be {needed}",
    "data_changed": "the text is {found}, but the checkpoint was trained on {needed}",
    "checkpoint_unreadable": "the checkpoint cannot be read: {why}",
    "loss_diverged": "the loss jumped from {median:.4g} to {loss:.4g} at step {step}",
    "check_failed": "{check} is {found:.6g} at the first step, but must be between {least:.6g} and {most:.6g}",
    "nan_loss": "{series} became {value} at step {step}",
    "no_space": "the disk filled up during the phase {what}",
    "disk_full": "the last checkpoint, of step {step}, needs {needed} bytes, but only {free} are free",
    "oom_gpu": "the GPU ran out of memory at step {step}; lower per_device_batch_size",
    "oom_host": "the machine ran out of memory at step {step}; lower per_device_batch_size",
}

# Why a field of the spec cannot be: what config_invalid says after the name of the field.
REASONS = {
    "processes": "is {value}, but {num_started} started; see torchrun --nproc-per-node",
    "interface": (
        "is {value}, on several machines: set {variable} to the network interface between them, which no one else "
        "may reach"
    ),
    "base_differs": "is {value}, but the base model's is {base_value}",
    "token_exists": "has {token}, which is a token of the base model already: leave it out",
    "token_empty": "has {token}, which the base model's tokenizer does not read at all: leave it out",
    "context": "is {value}, but the base model reads at most {longest} tokens: lower it",
    "qlora": "is qlora, which needs an NVIDIA GPU and the package bitsandbytes: lora runs without them",
    "base_changed": "is not the model that the checkpoint was trained from",
    "base_missing": "is set, but inputs.json has no path for it in base",
    "base_unreadable": "cannot be read: {error}",
    "weight_missing": "lacks {name}",
    "epochs": "takes {steps} steps, each of a batch of {batch_size}; at most {longest} are possible",
}


class Failure(Exception):
    """Ends a run with a code of EXIT_CODES and the values of its message. Raises KeyError for an unknown code.

    A value can be a message itself: it is translated with the sentence that it stands in.
    """

    def __init__(self, code: str, **values: Any) -> None:
        super().__init__(str(message(MESSAGES, code, **values)))
        self.code = code
        self.values = {name: v.model_dump() if isinstance(v, Message) else v for name, v in values.items()}

    @property
    def exit_code(self) -> int:
        """The exit code of the process."""
        return EXIT_CODES[self.code]


def config_invalid(field: str, reason: str, **values: Any) -> Failure:
    """The failure of a run whose spec has a wrong field, for one of REASONS. Raises KeyError for another."""
    return Failure("config_invalid", field=field, why=message(REASONS, reason, **values))


def memory_code(error: BaseException) -> str | None:
    """The code of a failed allocation, on a GPU or in main memory; None for any other error."""
    if type(error).__name__ == "OutOfMemoryError":  # torch's, for accelerators
        return "oom_gpu"
    if isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error):
        return "oom_host"
    return None
