"""Checks a base model's configuration, names and shapes of tensors, and tokenizer with transformers, without weights.

Imports torch and transformers, so it runs in a child (examine.py). Networks are made on the meta device.
"""

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging as transformers_logging

from app.base_models import names
from trainer.families import DECODERS, ENCODERS
from trainer.modeling import architectures
from trainer.planning.context_length import context_length
from trainer.spec import resolve
from trainer.spec_errors import SpecError
from worker.sandbox.model_import import safetensors_scan, tokenizer_checks
from worker.sandbox.model_import.safetensors_scan import FLOATS, InvalidModel, Tensor, read_json

MODEL_TYPES = (*DECODERS, *ENCODERS, "t5")
MAX_CONFIG_BYTES = 16 << 20
# The largest numbers and the longest lists of a configuration, by the names of its fields.
MAX_SIZES = {
    r"num_labels|id2label|label2id": 10_000,
    r"n(um)?_(hidden_|encoder_|decoder_)?layers?|layer_types|n(um)?_(attention_|key_value_)?heads?": 10_000,
}
MAX_SIZE = 10**12
MIN_CONTEXT_LENGTH = 8  # the shortest sequence_length of a spec, in tokens
# What a file may hold beyond the network that is built here: other heads, and constants that old versions saved.
_UNUSED = re.compile(
    r"(^|\.)(pooler|cls|classifier|score|qa_outputs|pre_classifier|lm_head|vocab_projector|vocab_transform)\."
    r"|(^|\.)(position_ids|token_type_ids|inv_freq|masked_bias)$|attn\.bias$"
)
_SENTENCEPIECE = ("spiece.model", "tokenizer.model")
_OLDER_TOKENIZERS = ("vocab.json", "vocab.txt", *_SENTENCEPIECE)
_PROBE = "In 1990 the  old\n\nkettle doesn't hold cafe\u0301; 山上有一座旧的桥。 <s>"
_FILES = ("vocab", "merges")  # transformers opens them where they are strings
_PATHS = (*_FILES, "name_or_path")
_EMBEDDINGS = ("model.embed_tokens.weight", "transformer.wte.weight", "wte.weight", "shared.weight")
# Tensors that an encoder may lack: its head is then initialized.
_HEAD = re.compile(r"^(cls|lm_head)\.|(^|\.)pooler\.")


def read_config(directory: Path) -> tuple[PreTrainedConfig, list[dict[str, Any]]]:
    """The configuration of the model in a directory, and remarks on it. Raises InvalidModel."""
    raw = _raw_config(directory)
    remarks: list[dict[str, Any]] = []
    if raw["model_type"] == "mistral":
        raw = _as_llama(directory, raw)
        remarks.append({"code": "as_llama"})
    if raw["model_type"] not in MODEL_TYPES:
        values = {"found": str(raw["model_type"])[:60], "expected": ", ".join(MODEL_TYPES)}
        raise InvalidModel("model_type_unknown", file=names.CONFIG, **values)
    if raw.get("quantization_config") is not None:
        raise InvalidModel("quantized")
    _check_sizes(raw)
    try:
        config = AutoConfig.from_pretrained(directory, local_files_only=True)
    except Exception as error:  # whatever a strange value makes of it
        values = {"model_type": raw["model_type"], "why": _first_line(error, directory)}
        raise InvalidModel("config_invalid", file=names.CONFIG, **values) from None
    return config, remarks + _name_decoder_start(directory, config)


def _check_sizes(raw: dict[str, Any]) -> None:
    """Check the sizes in a configuration before transformers makes lists of that length. Raises InvalidModel."""
    for field, value in raw.items():
        number = len(value) if isinstance(value, dict | list) else value
        largest = next((size for pattern, size in MAX_SIZES.items() if re.fullmatch(pattern, field)), MAX_SIZE)
        if isinstance(number, int | float) and abs(number) > largest:
            values = {"field": field[:60], "found": str(number)[:60], "expected": f"≤ {largest}"}
            raise InvalidModel("network_unusual", file=names.CONFIG, **values)


def _name_decoder_start(directory: Path, config: PreTrainedConfig) -> list[dict[str, Any]]:
    """Write down the token that a T5's decoder starts with, its padding token, where nothing does; with a remark.

    Raises InvalidModel where there is no padding token either.
    """
    if config.model_type != "t5" or getattr(config, "decoder_start_token_id", None) is not None:
        return []
    if not isinstance(config.pad_token_id, int):
        values = {"field": "pad_token_id", "found": str(config.pad_token_id), "expected": "≥ 0"}
        raise InvalidModel("network_unusual", file=names.CONFIG, **values)
    config.decoder_start_token_id = config.pad_token_id
    _write(directory / names.CONFIG, {**read(directory / names.CONFIG), "decoder_start_token_id": config.pad_token_id})
    return [{"code": "decoder_start", "token": config.pad_token_id}]


def _raw_config(directory: Path) -> dict[str, Any]:
    path = directory / names.CONFIG
    if not path.is_file():
        raise InvalidModel("file_missing", file=names.CONFIG)
    for other in sorted(names.SETTINGS):
        if (directory / other).is_file():
            read(directory / other)
    raw = read(path)
    if not isinstance(raw.get("model_type"), str):
        raise InvalidModel("model_type_unknown", file=path.name, found="–", expected=", ".join(MODEL_TYPES))
    return raw


def read(path: Path) -> dict[str, Any]:
    """The content of a small JSON file. Raises InvalidModel if it is invalid or requires custom code."""
    with path.open("rb") as file:
        raw = read_json(file.read(MAX_CONFIG_BYTES), path.name)
    for field in ("auto_map", "attn_implementation", "_attn_implementation"):
        # A kernel of a hub is named owner/name.
        if field in raw and (field == "auto_map" or "/" in str(raw[field])):
            raise InvalidModel("remote_code", file=path.name, field=field)
    return raw


def _as_llama(directory: Path, raw: dict[str, Any]) -> dict[str, Any]:
    """Convert the configuration of a Mistral without an effective sliding window to that of an equivalent Llama."""
    window, context = raw.get("sliding_window"), raw.get("max_position_embeddings")
    if "sliding_window" not in raw:
        window = 4096  # the default of transformers
    if window is not None and not (isinstance(context, int) and isinstance(window, int) and window >= context):
        raise InvalidModel("mistral_differs", file=names.CONFIG, window=window)
    llama = {key: value for key, value in raw.items() if key != "sliding_window"}
    llama |= {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    _write(directory / names.CONFIG, llama)
    return llama


def untie(directory: Path, config: PreTrainedConfig, tensors: dict[str, tuple[str, Tensor]]) -> list[dict[str, Any]]:
    """Set tie_word_embeddings to false if the weights have a separate head, and return a note about it.

    Programs differ in whether they follow the configuration or the weights.
    """
    head = tensors.get("lm_head.weight")
    embedding = next((tensors[name] for name in _EMBEDDINGS if name in tensors), None)
    if not getattr(config, "tie_word_embeddings", False) or head is None or embedding is None:
        return []
    if safetensors_scan.same_bytes(directory, head, embedding):
        return []
    config.tie_word_embeddings = False
    _write(directory / names.CONFIG, {**read(directory / names.CONFIG), "tie_word_embeddings": False})
    return [{"code": "head_untied"}]


def _check_usual(config: PreTrainedConfig) -> None:
    """Raise InvalidModel for settings that TrainSpec cannot express, with which another model would be trained."""
    usual: dict[str, dict[str, Any]] = {
        "llama": {"hidden_act": "silu"},
        "qwen2": {"use_sliding_window": False, "hidden_act": "silu"},
        "gpt2": {"add_cross_attention": False, "scale_attn_by_inverse_layer_idx": False},
        "bert": {"is_decoder": False, "position_embedding_type": "absolute"},
        "roberta": {"is_decoder": False, "position_embedding_type": "absolute"},
        "t5": {"num_decoder_layers": config.num_hidden_layers},
    }
    for field, expected in usual[config.model_type].items():
        value = getattr(config, field, expected)
        if value is not None and value != expected:
            raise InvalidModel(
                "network_unusual", file=names.CONFIG, field=field, found=str(value)[:60], expected=str(expected)
            )


def spec_fields(config: PreTrainedConfig) -> dict[str, Any]:
    """The architecture fields of TrainSpec, with vocab_size and context length. Raises InvalidModel."""
    model_type = config.model_type
    fields = {**architectures.network_fields(config), "vocab_size": config.vocab_size}
    objective = {"t5": "seq2seq"}.get(model_type, "masked" if model_type in ENCODERS else "causal")
    recipe = {"seq2seq": "tiny-t5", "masked": "tiny-bert", "causal": "tiny"}[objective]
    try:
        resolve({"recipe": recipe, "objective": objective, "corpora": ["any"], "base_model": "this", **fields})
    except SpecError as error:
        problem = error.problems[0]
        raise InvalidModel("spec_field", file=names.CONFIG, field=problem.field, why=str(problem.message)) from None
    _check_usual(config)
    return {**fields, "context": _context(config)}


def _context(config: PreTrainedConfig) -> int | None:
    """The context length in tokens; None if positions are relative and unlimited."""
    try:
        length = context_length(config)
    except ValueError:
        pad = str(config.pad_token_id)
        raise InvalidModel(
            "network_unusual", file=names.CONFIG, field="pad_token_id", found=pad, expected="1"
        ) from None
    if config.model_type != "t5" and (length is None or length < MIN_CONTEXT_LENGTH):
        values = {"found": str(length), "expected": f"≥ {MIN_CONTEXT_LENGTH}"}
        raise InvalidModel("network_unusual", file=names.CONFIG, field="max_position_embeddings", **values)
    return length


def check_tensors(
    directory: Path, config: PreTrainedConfig, tensors: dict[str, tuple[str, Tensor]], *, is_classifier: bool = False
) -> tuple[int, list[dict[str, Any]]]:
    """Compare with the network of the configuration. The number of its parameters, and remarks. Raises InvalidModel.

    `tensors` gives for each tensor its file; of a classifier, the head is its own. Names are matched as transformers
    matches them when it opens the model.
    """
    loader = AutoModelForCausalLM if config.model_type in DECODERS else AutoModelForMaskedLM
    if config.model_type == "t5":
        loader = AutoModelForSeq2SeqLM
    if is_classifier:
        loader = AutoModelForSequenceClassification
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        model, info = loader.from_pretrained(
            directory,
            config=config,
            device_map="meta",
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            use_safetensors=True,
            local_files_only=True,
        )
    except Exception as error:  # whatever a strange value makes of it
        raise InvalidModel(
            "config_invalid", file=names.CONFIG, model_type=config.model_type, why=_first_line(error, directory)
        ) from None
    _check_shapes(info["mismatched_keys"], tensors)
    remarks = _check_missing(config, sorted(info["missing_keys"])) + _check_extra(
        config, sorted(info["unexpected_keys"]), tensors
    )
    return sum(parameter.numel() for parameter in model.parameters()), remarks


def _check_shapes(mismatched: set[Any], tensors: dict[str, tuple[str, Tensor]]) -> None:
    for name, shape, expected_shape in sorted(mismatched):
        values = {"found": " x ".join(map(str, shape)), "expected": " x ".join(map(str, expected_shape))}
        raise InvalidModel("tensor_shape", file=_file_of(name, tensors), tensor=name, **values)


def _check_missing(config: PreTrainedConfig, missing: list[str]) -> list[dict[str, Any]]:
    heads = [name for name in missing if config.model_type in ENCODERS and _HEAD.search(name)]
    for name in missing:
        if name not in heads:
            raise InvalidModel("tensor_missing", tensor=name, model_type=config.model_type)
    return [{"code": "head_missing"}] if any(not name.startswith("pooler") for name in heads) else []


def _check_extra(
    config: PreTrainedConfig, unexpected: list[str], tensors: dict[str, tuple[str, Tensor]]
) -> list[dict[str, Any]]:
    for name in unexpected:
        if not _UNUSED.search(name):
            raise InvalidModel(
                "tensor_unexpected", file=_file_of(name, tensors), tensor=name, model_type=config.model_type
            )
    return [{"code": "tensors_unused", "count": len(unexpected), "tensor": unexpected[0]}] if unexpected else []


def _file_of(name: str, tensors: dict[str, tuple[str, Tensor]]) -> str:
    """The file of a tensor, whose name in the model may have one prefix more or less than in the file."""
    short = name.partition(".")[2]
    file = next((file for other, (file, _t) in tensors.items() if name in (other, other.partition(".")[2])), None)
    return file or tensors.get(short, ("–",))[0]


def check_dtypes(tensors: dict[str, tuple[str, Tensor]]) -> str:
    """The data type of the weights. Raises InvalidModel for a tensor that is neither a weight nor a known constant."""
    for name, (file, tensor) in tensors.items():
        if tensor.dtype not in FLOATS and not _UNUSED.search(name):
            raise InvalidModel("dtype", file=file, tensor=name, found=tensor.dtype, expected=", ".join(FLOATS))
    kinds = [tensor.dtype for _file, tensor in tensors.values() if tensor.dtype in FLOATS]
    return max(set(kinds), key=kinds.count) if kinds else "–"


def check_tokenizer(directory: Path, config: PreTrainedConfig) -> list[dict[str, Any]]:
    """Remarks on the tokenizer. Raises InvalidModel if it does not fit."""
    is_new = not (directory / names.TOKENIZER).is_file()
    older = next((name for name in _OLDER_TOKENIZERS if (directory / name).is_file()), None)
    if is_new and older is None:
        raise InvalidModel("tokenizer_missing")
    if is_new and older in _SENTENCEPIECE and not _has_sentencepiece():
        raise InvalidModel("tokenizer_sentencepiece", file=older)
    _drop_paths(directory)
    tokenizer_checks.check_rules(directory)
    try:
        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
        is_fast = isinstance(tokenizer, PreTrainedTokenizerFast)
        largest = max(tokenizer.get_vocab().values(), default=-1)
    except Exception as error:  # the library raises what it likes
        raise InvalidModel("tokenizer_unreadable", why=_first_line(error, directory)) from None
    if not is_fast:
        raise InvalidModel("tokenizer_slow")
    tokenizer_checks.probe(tokenizer)
    if not 0 <= largest < config.vocab_size:
        raise InvalidModel("tokenizer_large", found=largest, expected=config.vocab_size - 1)
    if is_new:
        tokenizer.save_pretrained(directory)
        tokenizer_checks.check_rules(directory)
    remarks = [{"code": "tokenizer_converted"}] if is_new else _compare_tokens(directory, tokenizer)
    _name_special_tokens(directory, tokenizer)
    return remarks + _name_end(directory, config)


def _has_sentencepiece() -> bool:
    return importlib.util.find_spec("sentencepiece") is not None


def _open_own(directory: Path) -> PreTrainedTokenizerFast:
    """The tokenizer as its files describe it, without the defaults of transformers' class for the architecture."""
    own: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(directory, local_files_only=True)
    return own


def _compare_tokens(directory: Path, tokenizer: PreTrainedTokenizerFast) -> list[dict[str, Any]]:
    """A remark where transformers' class for the architecture does not give the tokens of tokenizer.json."""
    same = _open_own(directory)(_PROBE)["input_ids"] == tokenizer(_PROBE)["input_ids"]
    return [] if same else [{"code": "tokenizer_replaced", "tokenizer": type(tokenizer).__name__}]


def _name_special_tokens(directory: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """Write down the special tokens that only transformers' class for the architecture names, as of GPT-2 and BERT."""
    own = _open_own(directory)
    vocab, own_tokens = own.get_vocab(), own.special_tokens_map
    tokens = {name: token for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
    _write_settings(
        directory, {name: token for name, token in tokens.items() if name not in own_tokens and token in vocab}
    )


def _name_end(directory: Path, config: PreTrainedConfig) -> list[dict[str, Any]]:
    """Write down the end-of-text token that only the model's configuration names. Raises InvalidModel without one."""
    own = _open_own(directory)
    if own.eos_token_id is not None or (config.model_type in ENCODERS and own.sep_token_id is not None):
        return []
    generation = directory / "generation_config.json"
    named = [config.eos_token_id, read(generation).get("eos_token_id") if generation.is_file() else None]
    ids = [str(number) for value in named for number in (value if isinstance(value, list) else [value])]
    special = {str(number): token.content for number, token in own.added_tokens_decoder.items() if token.special}
    end = next((special[number] for number in ids if number in special), None)
    if end is None:
        raise InvalidModel("tokenizer_no_end")
    _write_settings(directory, {"eos_token": end})
    return [{"code": "end_from_config", "token": end}]


def _write_settings(directory: Path, changes: dict[str, str]) -> None:
    """Change tokenizer_config.json."""
    path = directory / "tokenizer_config.json"
    if changes:
        _write(path, {**(read(path) if path.is_file() else {}), **changes})


def path_settings(directory: Path) -> list[str]:
    """The settings of a tokenizer that name files, which transformers would open."""
    path = directory / "tokenizer_config.json"
    raw = read(path) if path.is_file() else {}
    return [key for key, value in raw.items() if isinstance(value, str) and (key in _FILES or key.endswith("_file"))]


def _drop_paths(directory: Path) -> None:
    """Remove paths from the tokenizer's settings: those of its author's machine and of this one."""
    path = directory / "tokenizer_config.json"
    if not path.is_file():
        return
    raw = read(path)
    without_paths = {key: value for key, value in raw.items() if key not in _PATHS and not key.endswith("_file")}
    if without_paths != raw:
        _write(path, without_paths)


def _write(path: Path, content: dict[str, Any]) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(content, indent=2, ensure_ascii=False))
    part.rename(path)


def _first_line(error: Exception, directory: Path) -> str:
    """The message of an error without paths of this machine."""
    lines = str(error).replace(str(directory), "").strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]
