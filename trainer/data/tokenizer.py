"""Byte-level BPE tokenizers: training, caching, loading. Imports tokenizers and transformers, never torch."""

import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast, Qwen2Tokenizer

from trainer.data import cache
from trainer.data.chat_template import default_template
from trainer.data.corpus import CorpusReader, open_all
from trainer.data.special_tokens import for_plain_text
from trainer.failure import Failure, config_invalid
from trainer.families import END_OF_TEXT, MASK, MIN_VOCAB_SIZE, NEEDED_TOKENS, PADDING, SENTINELS
from trainer.planning.scaling_laws import choose_vocab_size
from trainer.run_dir import CorpusInput, sha256_file

VERSION = 2  # increase when the same text would give a different tokenizer
# Special tokens of a model family besides end of text and padding.
SPECIAL = {"bert": [MASK], "roberta": [MASK], "t5": SENTINELS}
FILE = "tokenizer.json"
TRAINING_BYTES = 256 << 20  # more text hardly changes the merges but takes memory

# How text is split to learn merges from: as by LLAMA_SPLIT, but scripts without spaces get pre-tokens of their own, and
# none is longer than 32 characters: BPE training time grows with the square of a pre-token's length. Measured on 0.5 MB
# of Chinese verse: with punctuation, a limit of 8 characters gives the same 3.58 bytes per token as no limit; without
# it, 0.5 s against 17 s.
UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
SPLIT = "|".join(
    [
        r"'(?i:[sdmt]|ll|ve|re)(?!\p{L})",
        rf"[\p{{L}}&&[{UNSPACED}]]{{1,8}}",
        rf"[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}&&[^{UNSPACED}]]{{1,32}}",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]{1,32}[\r\n]{0,32}",
        r"\s{0,32}[\r\n]{1,32}",
        r"\s{1,32}(?!\S)",
        r"\s{1,32}",
    ]
)

# How text is split to be encoded with these merges: as by Llama 3, a pattern that gigatoken and llama.cpp have, too.
LLAMA_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)

SPLIT_DIGITS = SPLIT.replace(r"\p{N}{1,3}", r"\p{N}")  # as Qwen 2 splits numbers

BYTE = re.compile("<0x[0-9A-F]{2}>")

Progress = Callable[[int, int], None]  # called with the bytes done and the bytes in total


def train_cached(
    sources: list[CorpusInput], vocab_size: int | None, cache_path: Path, progress: Progress, model_type: str = "llama"
) -> Path:
    """The directory of a tokenizer for these corpora and model family, trained unless it is in the cache.

    Raises Failure as `train` does.
    """
    special = SPECIAL.get(model_type, [])
    parts: dict[str, Any] = {"special": special} if special else {}
    parts |= {"splits": model_type} if model_type == "qwen2" else {}
    corpora = [source.sha256 for source in sources]
    name = cache.cache_key(corpora=corpora, vocab_size=vocab_size, version=VERSION, **parts)
    entry = cache_path / "tokenizers" / name
    cache.get_or_create(
        entry,
        lambda path: save(train(sources, vocab_size, progress, special, model_type), path),
        corpora,
        waiting=lambda: progress(0, 1),
    )
    return entry


def train(
    sources: list[CorpusInput],
    vocab_size: int | None,
    progress: Progress,
    special: Sequence[str] = (),
    model_type: str = "llama",
) -> Tokenizer:
    """Train a tokenizer on corpora, of `vocab_size` tokens or as many fewer as the text yields.

    Without `vocab_size`, the size of the text determines it.

    For Qwen 2, text is split as by Qwen's own tokenizer: AutoTokenizer does so regardless of tokenizer.json.

    `special` are special tokens besides end of text and padding. With a mask token, encoding puts an end-of-text token
    before and after a text, as BERT does; with sentinels, only after it, as T5 does.

    Raises Failure if the corpora have no text.
    """
    corpora = open_all(sources)
    num_bytes = sum(corpus.num_bytes for corpus in corpora)
    text = _training_text(corpora, num_bytes, progress)
    return train_on(text, vocab_size or choose_vocab_size(num_bytes), special, model_type)


def train_on(text: Iterator[str], vocab_size: int, special: Sequence[str] = (), model_type: str = "llama") -> Tokenizer:
    """Train a tokenizer of at most `vocab_size` tokens on pieces of text, as `train` does."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = _pre_tokenizer(SPLIT if model_type != "qwen2" else SPLIT_DIGITS)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=[END_OF_TEXT, PADDING, *special],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(text, trainer)
    size = tokenizer.get_vocab_size()
    assert size >= MIN_VOCAB_SIZE, size
    if model_type == "qwen2":
        own = Qwen2Tokenizer().backend_tokenizer
        tokenizer.normalizer, tokenizer.pre_tokenizer = own.normalizer, own.pre_tokenizer
    else:
        tokenizer.pre_tokenizer = _pre_tokenizer(LLAMA_SPLIT)
    if MASK in special or SENTINELS[0] in special:
        template = f"{END_OF_TEXT} $A {END_OF_TEXT}" if MASK in special else f"$A {END_OF_TEXT}"
        ends = [(END_OF_TEXT, tokenizer.token_to_id(END_OF_TEXT))]
        tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=ends)
    return tokenizer


def _pre_tokenizer(pattern: str) -> pre_tokenizers.PreTokenizer:
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), byte_level])


def _training_text(corpora: list[CorpusReader], num_bytes: int, progress: Progress) -> Iterator[str]:
    """All chunks of the text; beyond TRAINING_BYTES every k-th one, spread over the whole text."""
    stride = math.ceil(num_bytes / TRAINING_BYTES)
    done = number = 0
    for corpus in corpora:
        for chunk in corpus.chunks():
            done += chunk.num_bytes
            if number % stride == 0:
                yield chunk.text
            number += 1
            progress(done, num_bytes)


def save(tokenizer: Tokenizer, directory: Path) -> None:
    """Write a tokenizer to a directory in Hugging Face layout."""
    extra: dict[str, Any] = {}
    if tokenizer.token_to_id(MASK) is not None:
        extra = {"mask_token": MASK, "cls_token": END_OF_TEXT, "sep_token": END_OF_TEXT}
    elif tokenizer.token_to_id(SENTINELS[0]) is not None:
        extra = {"extra_special_tokens": SENTINELS}
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=PADDING,
        clean_up_tokenization_spaces=False,
        **extra,
    )
    save_pretrained(fast, directory)


def save_pretrained(tokenizer: PreTrainedTokenizerFast, directory: Path) -> None:
    """Write a tokenizer in Hugging Face layout so that AutoTokenizer opens exactly this one, in transformers 4 and 5.

    The name of its class is the one that both versions know and that replaces nothing of tokenizer.json; what the class
    adds by default is written down.
    """
    tokenizer.save_pretrained(directory)
    path = directory / "tokenizer_config.json"
    config = json.loads(path.read_text())
    config |= {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": tokenizer.model_input_names}
    path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n")


def load(directory: Path) -> Tokenizer:
    """Open a tokenizer for encoding text. Raises Failure if it cannot be read or has no end-of-text token."""
    try:
        tokenizer = Tokenizer.from_file(str(directory / FILE))
        document_separator_id(PreTrainedTokenizerFast.from_pretrained(directory, local_files_only=True))
    except Exception as error:  # tokenizers raises bare Exception
        needed = "one with a tokenizer.json and an end-of-text token"
        raise Failure("tokenizer_mismatch", found=f"unreadable: {error}"[:200], needed=needed) from error
    return for_plain_text(tokenizer)


def require_special_tokens(tokenizer: PreTrainedTokenizerFast, objective: str) -> None:
    """Check that a tokenizer has the special tokens of an objective. Raises Failure if one is missing."""
    missing = [name for name in NEEDED_TOKENS.get(objective, ()) if not _has_token(tokenizer, name)]
    if missing:
        values = {"found": "one without " + " and ".join(missing), "needed": f"one with all tokens {objective} needs"}
        raise Failure("tokenizer_mismatch", **values)


def missing_tokens(tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """The special tokens that a tokenizer lacks, of those that some objective needs."""
    names = {name for needed in NEEDED_TOKENS.values() for name in needed}
    return sorted(name for name in names if not _has_token(tokenizer, name))


def _has_token(tokenizer: PreTrainedTokenizerFast, name: str) -> bool:
    """Whether a tokenizer has a token: one that its settings name, such as mask_token, or one of this spelling."""
    return name in tokenizer.get_vocab() or getattr(tokenizer, name, None) is not None


def document_separator_id(tokenizer: PreTrainedTokenizerFast) -> int:
    """The id of the end-of-text token, or of BERT's separator. Raises ValueError if a tokenizer has neither."""
    number = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id
    if number is None:
        raise ValueError("it has neither an end-of-text token nor a separator")
    return int(number)


def start_ids(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """The tokens that the tokenizer itself puts before a text, as its other users do, such as beginning of text."""
    return _added_ids(tokenizer)[0]


def end_ids(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """The tokens that the tokenizer itself puts after a text."""
    return _added_ids(tokenizer)[1]


def _added_ids(tokenizer: PreTrainedTokenizerFast) -> tuple[list[int], list[int]]:
    full, plain = (tokenizer("a", add_special_tokens=add)["input_ids"] for add in (True, False))
    starts = (n for n in range(len(full)) if full[n : n + len(plain)] == plain)
    start = next(starts, 0)
    return list(full[:start]), list(full[start + len(plain) :])


def encode_prompt(tokenizer: PreTrainedTokenizerFast, prompt: str) -> list[int]:
    """The tokens of a text to continue, as in training; an empty one starts a new text."""
    ids = [*start_ids(tokenizer), *tokenizer(prompt, add_special_tokens=False)["input_ids"]]
    return [int(number) for number in ids] or [start_of_text_id(tokenizer)]


def start_of_text_id(tokenizer: PreTrainedTokenizerFast) -> int:
    """The token that a text begins with: beginning of text, or end of text where there is none."""
    return int(tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id)


def import_tokenizer(base: Path, cache_path: Path, new_tokens: Sequence[str] = ()) -> Path:
    """The directory with a base model's tokenizer and new tokens, written unless it is in the cache.

    Truncation and padding settings are dropped. Without a padding token, the end-of-text token is used. Raises Failure
    if the tokenizer cannot be read or cannot have the new tokens, and ValueError if it has no end-of-text token.
    """
    files = sorted(path for path in base.iterdir() if path.suffix in (".json", ".jinja", ".txt", ".model"))
    more: dict[str, Any] = {"new_tokens": list(new_tokens)} if new_tokens else {}
    name = cache.cache_key(base={path.name: sha256_file(path) for path in files}, version=VERSION, **more)
    entry = cache_path / "tokenizers" / name

    def create(path: Path) -> None:
        tokenizer = open_base(base)
        old_pieces(tokenizer, new_tokens)
        tokenizer.add_tokens([AddedToken(token, normalized=False) for token in new_tokens])
        save_pretrained(tokenizer, path)

    cache.get_or_create(entry, create)
    return entry


def old_pieces(tokenizer: PreTrainedTokenizerFast, new_tokens: Sequence[str]) -> list[list[int]]:
    """The ids of the tokens that spell each new token in a tokenizer without them.

    Raises Failure for a token that it has already, or that it does not read.
    """
    vocabulary = tokenizer.get_vocab()
    pieces = []
    for token in new_tokens:
        ids = [int(number) for number in tokenizer(token, add_special_tokens=False)["input_ids"]]
        if token in vocabulary or not ids:
            raise config_invalid("new_tokens", "token_exists" if ids else "token_empty", token=token)
        pieces.append(ids)
    return pieces


def open_base(base: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a base model. Raises Failure if it cannot be read, ValueError if it has no end-of-text token."""
    try:
        tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(base, local_files_only=True)
    except Exception as error:  # tokenizers raises bare Exception
        raise Failure("tokenizer_mismatch", found="unreadable", needed="one with a tokenizer.json") from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token_id = document_separator_id(tokenizer)
    tokenizer.chat_template = default_template(tokenizer)
    return tokenizer


def untrained() -> PreTrainedTokenizerFast:
    """A tokenizer of single bytes with the special tokens of those trained here, to show what a template does."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(special_tokens=[END_OF_TEXT, PADDING], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=END_OF_TEXT, eos_token=END_OF_TEXT, pad_token=PADDING
    )


def sha256(directory: Path) -> str:
    """The identity of a tokenizer: SHA-256 of its tokenizer.json, in hex."""
    return sha256_file(directory / FILE)


def token_bytes(tokenizer: Tokenizer) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    """Bytes of text that each token id stands for, of shape (vocab_size,); 0 for special tokens."""
    lengths = np.zeros(tokenizer.get_vocab_size(), dtype=np.int64)
    special = {number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    # Byte-level BPE spells each byte as one character; others spell a space as "\u2581" and a byte as "<0x0A>";
    # WordPiece prefixes word continuations with "##".
    is_bytes = isinstance(tokenizer.decoder, decoders.ByteLevel)
    for token, number in tokenizer.get_vocab().items():
        if number not in special:
            plain = token.removeprefix("##").replace("\u2581", " ")
            lengths[number] = len(token) if is_bytes else 1 if BYTE.fullmatch(token) else len(plain.encode())
    return lengths
