"""What a GGUF file holds of a byte-level BPE tokenizer, and which pre-tokenizer of llama.cpp comes nearest to its own.
Imports tokenizers and transformers.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

from gguf import GGUFReader, GGUFWriter, TokenType
from tokenizers import Regex, Tokenizer, pre_tokenizers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}DIGITS| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
# llama.cpp knows pre-tokenizers by name only; these are their expressions (its src/llama-vocab.cpp), one a round.
PRE_TOKENIZERS = {
    "llama-bpe": [_WORDS.replace("DIGITS", "{1,3}")],
    "qwen2": [_WORDS.replace("DIGITS", "")],
    "gpt-2": [_GPT2],
    "smollm": [r"\p{N}", _GPT2],
}

# What they are compared on: prose, code, Chinese, and signs of all kinds.
TEXTS = (
    "In the beginning God created the heaven and the earth. And the earth was without form, and void; and darkness was"
    " upon the face of the deep. And the Spirit of God moved upon the face of the waters.",
    "def mean(values):\n    return sum(values) / len(values)\n\nprint(mean([1, 20, 300, 4000]))  # isn't it 1080.25?\n",
    "床前明月光，疑是地上霜。举头望明月，低头思故乡。2026年11月，天气很好。",
    "  Tabs\tand   spaces,\r\n\r\nquotes “so”, emphasis — don't, WE'LL, naïve café, ½, 🙂 and 12345678.",
)


@dataclass(frozen=True)
class PreTokenizerChoice:
    """A pre-tokenizer of llama.cpp, and the share of the tokens of probe texts that it leaves as they were."""

    name: str
    tokens_equal: float


def unsupported_reason(tokenizer: PreTrainedTokenizerFast) -> str | None:
    """Why a tokenizer cannot be written; None where it can."""
    known = json.loads(tokenizer.backend_tokenizer.to_str())
    if known["model"]["type"] != "BPE" or (known.get("decoder") or {}).get("type") != "ByteLevel":
        return "its tokenizer is no byte-level BPE, the only kind that is written to GGUF here"
    return None


def rebuild(tokens: Sequence[str], merges: Sequence[str], special: Sequence[str], pre: str) -> Tokenizer:
    """A tokenizer as llama.cpp makes one of these parts of a GGUF file."""
    numbers = {token: number for number, token in enumerate(tokens)}
    pairs = [(left, right) for left, right in (merge.split(" ") for merge in merges)]
    made = Tokenizer(BPE(numbers, pairs))
    rounds = [pre_tokenizers.Split(Regex(expression), "isolated") for expression in PRE_TOKENIZERS[pre]]
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.pre_tokenizer = pre_tokenizers.Sequence([*rounds, bytes_])
    made.add_special_tokens(list(special))
    return made


def choose_pre_tokenizer(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str] = TEXTS) -> PreTokenizerChoice:
    """The pre-tokenizer that gives most of the probe texts' tokens as they are."""
    tokens, merges = _tokens(tokenizer, len(tokenizer)), _merges(tokenizer)
    special = [token.content for token in tokenizer.added_tokens_decoder.values()]
    backend = tokenizer.backend_tokenizer
    shares = {}
    for name in PRE_TOKENIZERS:
        made = rebuild(tokens, merges, special, name)
        ids = [(_ids(backend, text), _ids(made, text)) for text in texts]
        # Tokens of a small vocabulary are equal although the pieces that they lie in are not.
        pieces = [(_pieces(backend, text), _pieces(made, text)) for text in texts]
        shares[name] = (_share(ids), _share(pieces))
    name = max(shares, key=lambda name: shares[name])
    return PreTokenizerChoice(name, shares[name][0])


def _ids(tokenizer: Tokenizer, text: str) -> list[Any]:
    return list(tokenizer.encode(text, add_special_tokens=False).ids)


def _pieces(tokenizer: Tokenizer, text: str) -> list[Any]:
    return [piece for piece, _place in tokenizer.pre_tokenizer.pre_tokenize_str(text)]


def _share(pairs: Sequence[tuple[list[Any], list[Any]]]) -> float:
    """How much of the first lists is found, in order, in the second."""
    equal = sum(
        sum(block.size for block in SequenceMatcher(None, *pair, False).get_matching_blocks()) for pair in pairs
    )
    return equal / sum(len(wanted) for wanted, _given in pairs)


def _tokens(tokenizer: PreTrainedTokenizerFast, num_tokens: int) -> list[str]:
    by_number = {number: token for token, number in tokenizer.get_vocab().items()}
    return [by_number.get(number, f"[PAD{number}]") for number in range(num_tokens)]


def _merges(tokenizer: PreTrainedTokenizerFast) -> list[str]:
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    return [merge if isinstance(merge, str) else " ".join(merge) for merge in merges]


def _types(tokenizer: PreTrainedTokenizerFast, tokens: Sequence[str]) -> list[TokenType]:
    added, known = tokenizer.added_tokens_decoder, tokenizer.get_vocab()
    types = []
    for number, token in enumerate(tokens):
        if number in added:
            types.append(TokenType.CONTROL if added[number].special else TokenType.USER_DEFINED)
        else:
            types.append(TokenType.NORMAL if token in known else TokenType.UNUSED)
    return types


def write(writer: GGUFWriter, tokenizer: PreTrainedTokenizerFast, vocab_size: int, pre: str) -> None:
    """Add a tokenizer to a GGUF file. A vocabulary that is larger than the tokenizer's ends in unused tokens."""
    tokens = _tokens(tokenizer, vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(_types(tokenizer, tokens))
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
    # llama.cpp adds a beginning for some pre-tokenizers unless it is told.
    ids = tokenizer("a")["input_ids"]
    writer.add_add_bos_token(len(ids) > 1 and ids[0] == tokenizer.bos_token_id)
    writer.add_add_eos_token(len(ids) > 1 and ids[-1] == tokenizer.eos_token_id)
    if isinstance(tokenizer.chat_template, str):
        writer.add_chat_template(tokenizer.chat_template)


def read(reader: GGUFReader) -> Tokenizer:
    """The tokenizer in a GGUF file, as llama.cpp makes it."""
    fields = {name: field.contents() for name, field in reader.fields.items() if name.startswith("tokenizer.")}
    tokens, types = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    marked = (TokenType.CONTROL, TokenType.USER_DEFINED)
    special = [token for token, kind in zip(tokens, types, strict=True) if kind in marked]
    return rebuild(tokens, fields["tokenizer.ggml.merges"], special, fields["tokenizer.ggml.pre"])
