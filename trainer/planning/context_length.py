"""How many tokens a model can read, from the positions in its configuration."""

from typing import Any


def position_offset(model_type: str, pad_token_id: int | None) -> int:
    """How many of `max_position_embeddings` no token can use: RoBERTa's position ids start at pad_token_id + 1
    (transformers, `RobertaEmbeddings.create_position_ids_from_input_ids`). Raises ValueError without pad_token_id.
    """
    if model_type != "roberta":
        return 0
    if not isinstance(pad_token_id, int):
        raise ValueError("roberta needs a pad_token_id")
    return pad_token_id + 1


def max_context_length(model_type: str, max_positions: int | None, pad_token_id: int | None) -> int | None:
    """The longest sequence in tokens; None if positions are relative and have no end, as T5's. Raises ValueError."""
    if model_type == "t5" or max_positions is None:
        return None
    return max_positions - position_offset(model_type, pad_token_id)


def context_length(config: Any) -> int | None:
    """The same for a configuration of transformers. Raises ValueError for a RoBERTa without pad_token_id."""
    positions = getattr(config, "max_position_embeddings", None)
    return max_context_length(config.model_type, positions, getattr(config, "pad_token_id", None))
