"""The config.json of a model, in the spelling of transformers 5 and of earlier releases. Standard library only."""

import json
from pathlib import Path

CONFIG = "config.json"


def add_old_spelling(directory: Path) -> None:
    """Add the keys by which transformers 4 reads rotary positions, the number format and the heads of T5.

    transformers 5 writes `rope_parameters`, `dtype` and `scale_decoder_outputs`; transformers 4 ignores them and would
    silently take its default positions, or the embedding of a T5 for its head. transformers 5 reads both spellings.
    """
    path = directory / CONFIG
    config = json.loads(path.read_text())
    rope = config.get("rope_parameters")
    if rope is not None:
        config["rope_theta"] = rope["rope_theta"]
        is_scaled = rope.get("rope_type", "default") != "default"
        config["rope_scaling"] = (
            {name: value for name, value in rope.items() if name != "rope_theta"} if is_scaled else None
        )
    if config.get("scale_decoder_outputs") is False:  # what transformers 4 does for a head that is not tied
        config["tie_word_embeddings"] = False
    if "dtype" in config:
        config["torch_dtype"] = config["dtype"]
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
