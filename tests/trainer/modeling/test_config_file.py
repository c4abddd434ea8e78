"""Saved configurations are read the same by transformers 5 and by the keys that transformers 4 knows."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, LlamaConfig, Qwen2Config, T5Config

from trainer.modeling import config_file

LLAMA_3 = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


@pytest.mark.parametrize(
    ("config", "theta", "scaling"),
    [
        (LlamaConfig(rope_parameters=LLAMA_3), 500_000.0, {k: v for k, v in LLAMA_3.items() if k != "rope_theta"}),
        (Qwen2Config(rope_parameters={"rope_type": "default", "rope_theta": 1e6}), 1e6, None),
    ],
)
def test_rotary_settings_are_written_in_both_formats(
    tmp_path: Path, config: Any, theta: float, scaling: dict[str, Any] | None
) -> None:
    config.dtype = "float32"
    config.save_pretrained(tmp_path)
    before = AutoConfig.from_pretrained(tmp_path)
    config_file.add_old_spelling(tmp_path)

    written = json.loads((tmp_path / "config.json").read_text())
    assert (written["rope_theta"], written["rope_scaling"], written["torch_dtype"]) == (theta, scaling, "float32")
    after = AutoConfig.from_pretrained(tmp_path)
    assert after.rope_parameters == before.rope_parameters
    assert after.dtype == before.dtype


@pytest.mark.parametrize("is_tied", [True, False])
def test_a_t5_has_no_rotary_positions_and_says_whether_its_head_is_tied(tmp_path: Path, is_tied: bool) -> None:
    T5Config(tie_word_embeddings=is_tied).save_pretrained(tmp_path)
    config_file.add_old_spelling(tmp_path)

    written = json.loads((tmp_path / "config.json").read_text())
    assert not {"rope_theta", "rope_scaling"} & set(written)
    assert written["tie_word_embeddings"] is is_tied
    assert AutoConfig.from_pretrained(tmp_path).scale_decoder_outputs is is_tied
