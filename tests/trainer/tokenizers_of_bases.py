"""Tiny tokenizers of the kinds that base models come with, built by the tokenizers library from a few sentences."""

import json
from collections.abc import Sequence

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

TEXT = [
    "The old kettle holds the quiet garden. The narrow bridge opens the wooden gate, doesn't it?",
    "山上有一座旧的桥，桥下的河水很慢。In 1990 it cost 12345 coins; caffè, naïve.",
]
CHAT_TOKENS = ("<|im_start|>", "<|im_end|>")


def byte_level(special: Sequence[str] = ("<s>", "</s>"), vocab_size: int = 320) -> Tokenizer:
    """As GPT-2, Llama 3 and Qwen have: every byte has a token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        TEXT,
        trainers.BpeTrainer(
            vocab_size=vocab_size, special_tokens=list(special), initial_alphabet=alphabet, show_progress=False
        ),
    )
    return tokenizer


def byte_fallback(special: Sequence[str] = ("<s>", "</s>")) -> Tokenizer:
    """As Llama 2 has: a space is put before a text and taken off when decoding, unknown characters are bytes."""
    trained = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    byte_tokens = [f"<0x{number:02X}>" for number in range(256)]
    trained.train_from_iterator(
        TEXT[:1],
        trainers.BpeTrainer(vocab_size=400, special_tokens=["<unk>", *special, *byte_tokens], show_progress=False),
    )
    state = json.loads(trained.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if token["content"] not in byte_tokens]
    tokenizer = Tokenizer.from_str(json.dumps({**state, "pre_tokenizer": None}))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    start = special[0]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A", special_tokens=[(start, tokenizer.token_to_id(start))]
    )
    return tokenizer


def metaspace(special: Sequence[str] = ("<s>", "</s>")) -> Tokenizer:
    """Byte fallback with the newer Metaspace pre-tokenizer and decoder."""
    state = json.loads(byte_fallback(special).to_str())
    tokenizer = Tokenizer.from_str(json.dumps({**state, "normalizer": None}))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="first"), decoders.Fuse()]
    )
    return tokenizer


def word_piece(special: Sequence[str] = ("[CLS]", "[SEP]")) -> Tokenizer:
    """As BERT has."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    words = ["[UNK]", "[PAD]", "[MASK]", *special]
    tokenizer.train_from_iterator(
        TEXT, trainers.WordPieceTrainer(vocab_size=200, special_tokens=words, show_progress=False)
    )
    ends = [(token, tokenizer.token_to_id(token)) for token in special]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return tokenizer


def unigram(special: Sequence[str] = ("<s>", "</s>")) -> Tokenizer:
    """As T5 has."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.train_from_iterator(
        TEXT,
        trainers.UnigramTrainer(
            vocab_size=120, special_tokens=["<unk>", *special], unk_token="<unk>", show_progress=False
        ),
    )
    end = special[1]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {end}", special_tokens=[(end, tokenizer.token_to_id(end))]
    )
    return tokenizer


KINDS = {
    "byte_level": byte_level,
    "byte_fallback": byte_fallback,
    "metaspace": metaspace,
    "word_piece": word_piece,
    "unigram": unigram,
}


def fast(tokenizer: Tokenizer, **fields: object) -> PreTrainedTokenizerFast:
    """The tokenizer in transformers, with end of text and padding as its kind names them."""
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}
    if tokenizer.token_to_id("[SEP]") is not None:
        names = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "mask_token": "[MASK]"}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **{**names, **fields}
    )
