"""Model families and objectives: which supports which, and their limits. Standard library only."""

from collections.abc import Mapping
from typing import Any

DECODERS = ("llama", "qwen2", "gpt2")
ENCODERS = ("bert", "roberta")
ENCODER_DECODERS = ("t5",)
ROTARY = ("llama", "qwen2")
OWN_HEAD_DIM = ("llama", "qwen2", "t5")  # families whose heads need not divide the hidden size
GGUF_MODEL_TYPES = DECODERS  # those that trainer/export/gguf_writer.py can write
# The fields that define a network, and that a base model decides.
NETWORK_FIELDS = (
    *("model_type", "num_hidden_layers", "hidden_size", "intermediate_size"),
    *("num_attention_heads", "num_key_value_heads", "head_dim", "tie_word_embeddings"),
)
# Model families that support each objective.
FAMILIES = {
    "causal": DECODERS,
    "masked": ENCODERS,
    "span_corruption": ENCODER_DECODERS,
    "seq2seq": ENCODER_DECODERS,
    "chat": DECODERS,
    "completion": DECODERS,
    "classification": (*ENCODERS, *DECODERS),
    "dpo": DECODERS,
}
# Special tokens that an objective needs.
NEEDED_TOKENS = {
    "masked": ("mask_token", "cls_token", "sep_token", "pad_token"),
    "span_corruption": ("pad_token", "<extra_id_0>"),
    "seq2seq": ("pad_token",),
    "classification": ("pad_token",),
}
TEXT_OBJECTIVES = ("causal", "masked", "span_corruption")  # cut running text into sequences; the others use records
NUM_SENTINELS = 100  # sentinel tokens of T5: the most spans that can be hidden in a text
# The special tokens of tokenizers that are trained here. A mask or a sentinel makes one for encoders or for T5.
END_OF_TEXT = "<|endoftext|>"
PADDING = "<|padding|>"
MASK = "<|mask|>"
SENTINELS = [f"<extra_id_{number}>" for number in range(NUM_SENTINELS)]
RESERVED_TOKENS = frozenset({END_OF_TEXT, PADDING, MASK, *SENTINELS})
CHAT_TEMPLATES = ("chatml", "llama-3", "mistral", "zephyr", "plain")  # presets of trainer/data/chat_template.py
DEFAULT_CHAT_TEMPLATE = "chatml"
CHAT_OBJECTIVES = ("chat", "dpo")
TOKEN_OBJECTIVES = tuple(
    objective for objective in FAMILIES if objective not in ("classification", "dpo")
)  # predict tokens
ANSWER_OBJECTIVES = ("chat", "completion", "dpo")  # learn the answers in records
PACKED_OBJECTIVES = ("chat", "completion")  # several records can share a sequence
MIN_VOCAB_SIZE = 258  # byte-level BPE starts from 256 bytes and two special tokens


def smallest_vocabulary(model_type: str) -> int:
    """The tokens of a new tokenizer for this family before any merge."""
    return MIN_VOCAB_SIZE + {"t5": NUM_SENTINELS, "bert": 1, "roberta": 1}.get(model_type, 0)


# Fields of a spec that only these objectives use; all objectives use the others.
USED_BY = {
    "packing": PACKED_OBJECTIVES,
    "chat_template": CHAT_OBJECTIVES,
    "on_record_error": CHAT_OBJECTIVES,
    "mlm_probability": ("masked",),
    "noise_density": ("span_corruption",),
    "mean_noise_span_length": ("span_corruption",),
    "dpo_beta": ("dpo",),
    "sample_prompt": ("causal",),
}
# Fields that only these values of another field use.
USED_WITH = {
    "lora_rank": ("tuning", ("lora", "qlora")),
    "lora_alpha": ("tuning", ("lora", "qlora")),
    "lora_dropout": ("tuning", ("lora", "qlora")),
    "decay_steps": ("lr_scheduler_type", ("warmup_stable_decay",)),
}


def uses(spec: Mapping[str, Any], name: str) -> bool:
    """Whether a run with this spec uses a field; a spec may lack fields."""
    other, values = USED_WITH.get(name, ("objective", USED_BY.get(name, ())))
    return not values or other not in spec or spec[other] in values
