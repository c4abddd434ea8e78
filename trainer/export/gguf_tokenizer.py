"""Writes BPE tokenizers to GGUF files: byte-level ones, with the closest pre-tokenizer of llama.cpp, and those of
SentencePiece, whose tokens have scores instead of merges.

Imports tokenizers and transformers.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

from gguf import GGUFWriter, TokenType
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from trainer.data.chat_template import end_of_turn_id
from trainer.data.tokenizer import BYTE, LLAMA_SPLIT
from trainer.limits import Limit

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# llama.cpp selects pre-tokenizers by name; these are their patterns, applied in turn (its src/llama-vocab.cpp).
PRE_TOKENIZERS = {
    "llama-bpe": [LLAMA_SPLIT],
    "qwen2": [LLAMA_SPLIT.replace("{1,3}", "")],
    "gpt-2": [_GPT2],
    "smollm": [r"\p{N}", _GPT2],
}

SPM = "spm"
SPACE = "\u2581"  # how SentencePiece spells a space
NEVER = -1e9  # the score of a token that no merge makes

# Probe texts: prose, code, Chinese and punctuation.
TEXTS = (
    "In the beginning God created the heaven and the earth. And the earth was without form, and void; and darkness was"
    " upon the face of the deep. And the Spirit of God moved upon the face of the waters.",
    "def mean(values):\n    return sum(values) / len(values)\n\nprint(mean([1, 20, 300, 4000]))  # isn't it 1080.25?\n",
    "床前明月光，疑是地上霜。举头望明月，低头思故乡。2026年11月，天气很好。",
    "  Tabs\tand   spaces,\r\n\r\nquotes “so”, emphasis — don't, WE'LL, naïve café, ½, 🙂 and 12345678.",
)


@dataclass(frozen=True)
class PreTokenizerChoice:
    """A pre-tokenizer of llama.cpp, "spm" for a tokenizer of SentencePiece; the fraction of the probe texts' tokens
    that it keeps.
    """

    name: str
    tokens_equal: float


def limit(tokenizer: PreTrainedTokenizerFast) -> Limit | None:
    """Why a tokenizer cannot be written to GGUF, or None."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    if state["model"]["type"] == "BPE" and ((state.get("decoder") or {}).get("type") == "ByteLevel" or _is_spm(state)):
        return None
    return Limit(code="gguf_tokenizer")


def _is_spm(state: dict[str, Any]) -> bool:
    """Whether a tokenizer is one of SentencePiece's BPE: spaces are spelled visibly, unknown characters as bytes."""
    return bool(state["model"].get("byte_fallback")) and SPACE in json.dumps(
        [state.get("normalizer"), state.get("pre_tokenizer")], ensure_ascii=False
    )


def rebuild_spm(
    tokens: Sequence[str], scores: Sequence[float], special: Sequence[str], space_prefix: bool
) -> Tokenizer:
    """The tokenizer that llama.cpp builds from tokens with scores: it merges the two neighbors whose union has most."""
    ids = {token: number for number, token in enumerate(tokens)}
    by_score = sorted((-score, number) for number, score in enumerate(scores) if score > NEVER)
    merges = [
        (token[:at], token[at:])
        for token in (tokens[number] for _score, number in by_score)
        for at in range(1, len(token))
        if token[:at] in ids and token[at:] in ids
    ]
    tokenizer = Tokenizer(BPE(ids, merges, byte_fallback=True, fuse_unk=True))
    spaces = normalizers.Replace(" ", SPACE)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), spaces] if space_prefix else [spaces])
    tokenizer.add_special_tokens(list(special))
    return tokenizer


def _scores(tokenizer: PreTrainedTokenizerFast, tokens: Sequence[str]) -> list[float]:
    """The score of each token: higher for one that an earlier merge makes."""
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(_merges(tokenizer)):
        ranks.setdefault(merge.replace(" ", ""), rank)
    return [-float(ranks[token]) if token in ranks else NEVER for token in tokens]


def _has_space_prefix(tokenizer: PreTrainedTokenizerFast) -> bool:
    """Whether a space is put before a text."""
    tokens = tokenizer.convert_ids_to_tokens(tokenizer("a", add_special_tokens=False)["input_ids"])
    return str(tokens[0]).startswith(SPACE)


def rebuild(tokens: Sequence[str], merges: Sequence[str], special: Sequence[str], pre_tokenizer: str) -> Tokenizer:
    """The tokenizer that llama.cpp builds from the vocabulary, merges and pre-tokenizer name of a GGUF file."""
    ids = {token: number for number, token in enumerate(tokens)}
    pairs = [(left, right) for left, right in (merge.split(" ") for merge in merges)]
    tokenizer = Tokenizer(BPE(ids, pairs))
    splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in PRE_TOKENIZERS[pre_tokenizer]]
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*splits, byte_level])
    tokenizer.add_special_tokens(list(special))
    return tokenizer


def choose_pre_tokenizer(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str] = TEXTS) -> PreTokenizerChoice:
    """The pre-tokenizer of llama.cpp that keeps most tokens of the probe texts."""
    tokens, merges = _tokens(tokenizer, len(tokenizer)), _merges(tokenizer)
    special = [token.content for token in tokenizer.added_tokens_decoder.values()]
    backend = tokenizer.backend_tokenizer
    if _is_spm(json.loads(backend.to_str())):
        candidate = rebuild_spm(tokens, _scores(tokenizer, tokens), special, _has_space_prefix(tokenizer))
        return PreTokenizerChoice(
            SPM, _fraction_equal([(_ids(backend, text), _ids(candidate, text)) for text in texts])
        )
    scores = {}
    for name in PRE_TOKENIZERS:
        candidate = rebuild(tokens, merges, special, name)
        ids = [(_ids(backend, text), _ids(candidate, text)) for text in texts]
        # With a small vocabulary tokens can be equal although the pre-tokens are not.
        pre_tokens = [(_pre_tokens(backend, text), _pre_tokens(candidate, text)) for text in texts]
        scores[name] = (_fraction_equal(ids), _fraction_equal(pre_tokens))
    name = max(scores, key=lambda name: scores[name])
    return PreTokenizerChoice(name, scores[name][0])


def _ids(tokenizer: Tokenizer, text: str) -> list[Any]:
    return list(tokenizer.encode(text, add_special_tokens=False).ids)


def _pre_tokens(tokenizer: Tokenizer, text: str) -> list[Any]:
    return [pre_token for pre_token, _span in tokenizer.pre_tokenizer.pre_tokenize_str(text)]


def _fraction_equal(pairs: Sequence[tuple[list[Any], list[Any]]]) -> float:
    """The fraction of the first lists' items that occurs, in order, in the second lists."""
    equal = sum(
        sum(block.size for block in SequenceMatcher(None, *pair, False).get_matching_blocks()) for pair in pairs
    )
    return equal / sum(len(expected) for expected, _candidate in pairs)


def _tokens(tokenizer: PreTrainedTokenizerFast, num_tokens: int) -> list[str]:
    by_number = {number: token for token, number in tokenizer.get_vocab().items()}
    return [by_number.get(number, f"[PAD{number}]") for number in range(num_tokens)]


def _merges(tokenizer: PreTrainedTokenizerFast) -> list[str]:
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    return [merge if isinstance(merge, str) else " ".join(merge) for merge in merges]


def _types(tokenizer: PreTrainedTokenizerFast, tokens: Sequence[str]) -> list[TokenType]:
    added, vocabulary = tokenizer.added_tokens_decoder, tokenizer.get_vocab()
    types = []
    for number, token in enumerate(tokens):
        if number in added:
            is_unknown = number == tokenizer.unk_token_id and tokenizer.unk_token != tokenizer.eos_token
            kind = TokenType.UNKNOWN if is_unknown else TokenType.CONTROL
            types.append(kind if added[number].special else TokenType.USER_DEFINED)
        elif BYTE.fullmatch(token):
            types.append(TokenType.BYTE)
        else:
            types.append(TokenType.NORMAL if token in vocabulary else TokenType.UNUSED)
    return types


def write(writer: GGUFWriter, tokenizer: PreTrainedTokenizerFast, vocab_size: int, pre_tokenizer: str) -> None:
    """Add a tokenizer to a GGUF file, padded to `vocab_size` with unused tokens."""
    tokens = _tokens(tokenizer, vocab_size)
    writer.add_tokenizer_model("llama" if pre_tokenizer == SPM else "gpt2")
    writer.add_tokenizer_pre("default" if pre_tokenizer == SPM else pre_tokenizer)
    writer.add_token_list(tokens)
    writer.add_token_types(_types(tokenizer, tokens))
    if pre_tokenizer == SPM:
        writer.add_token_scores(_scores(tokenizer, tokens))
        writer.add_add_space_prefix(_has_space_prefix(tokenizer))
    else:
        writer.add_token_merges(_merges(tokenizer))
    adders: dict[str, Any] = {
        "bos": writer.add_bos_token_id,
        "eos": writer.add_eos_token_id,
        "pad": writer.add_pad_token_id,
        "unk": writer.add_unk_token_id,
    }
    for name, add in adders.items():
        number = getattr(tokenizer, f"{name}_token_id")
        if number is not None:
            add(number)
    end_of_turn = end_of_turn_id(tokenizer)
    if end_of_turn is not None:
        writer.add_eot_token_id(end_of_turn)  # llama.cpp stops at it as well
    # For some pre-tokenizers llama.cpp adds a beginning-of-text token by default.
    ids = tokenizer("a")["input_ids"]
    writer.add_add_bos_token(len(ids) > 1 and ids[0] == tokenizer.bos_token_id)
    writer.add_add_eos_token(len(ids) > 1 and ids[-1] == tokenizer.eos_token_id)
    if isinstance(tokenizer.chat_template, str):
        writer.add_chat_template(tokenizer.chat_template)
