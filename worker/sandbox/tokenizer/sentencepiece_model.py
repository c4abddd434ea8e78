"""Converts a SentencePiece model to a tokenizer of the tokenizers library that gives the same tokens.

The file is a ModelProto of sentencepiece_model.proto in github.com/google/sentencepiece, which also says what each
field means.
"""

from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE, Unigram
from transformers import PreTrainedTokenizerFast
from transformers.tokenization_utils_base import generate_merges

from worker.sandbox.model_import.safetensors_scan import InvalidModel

SPACE = "\u2581"
UNIGRAM, BPE_MODEL = 1, 2  # of TrainerSpec.ModelType
KINDS = {3: "word", 4: "char"}
NORMAL, CONTROL, USER_DEFINED = 1, 3, 4  # of SentencePiece.Type


def convert(path: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a SentencePiece model. Raises InvalidModel for one that cannot be converted.

    Of models with user-defined symbols that begin each text with a space, a text that itself begins with a space or
    with such a symbol may get one token more or less.
    """
    proto: Any = sentencepiece_model_pb2.ModelProto()
    try:
        proto.ParseFromString(path.read_bytes())
    except DecodeError:
        raise InvalidModel("sentencepiece_broken", file=path.name) from None
    if not proto.pieces:
        raise InvalidModel("sentencepiece_broken", file=path.name)
    training = proto.trainer_spec
    if training.model_type in KINDS:
        raise InvalidModel("sentencepiece_kind", kind=KINDS[training.model_type])
    if training.treat_whitespace_as_suffix or not proto.normalizer_spec.escape_whitespaces:
        raise InvalidModel("sentencepiece_spaces")
    if proto.denormalizer_spec.precompiled_charsmap:
        raise InvalidModel("sentencepiece_denormalizer")
    tokenizer = Tokenizer(_unigram(proto) if training.model_type == UNIGRAM else _bpe(proto))
    _add_rules(tokenizer, proto)
    for kind, is_special in ((CONTROL, True), (USER_DEFINED, False)):
        pieces = [piece.piece for piece in proto.pieces if piece.type == kind]
        added = [AddedToken(piece, normalized=not is_special, special=is_special) for piece in pieces]
        (tokenizer.add_special_tokens if is_special else tokenizer.add_tokens)(added)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **_special_tokens(proto)
    )


def _unigram(proto: Any) -> Unigram:
    scores = [(piece.piece, piece.score) for piece in proto.pieces]
    return Unigram(scores, proto.trainer_spec.unk_id, proto.trainer_spec.byte_fallback)


def _bpe(proto: Any) -> BPE:
    """BPE in which the pair with the highest score is merged first, as by SentencePiece."""
    vocab = {piece.piece: number for number, piece in enumerate(proto.pieces)}
    scores = {piece.piece: piece.score for piece in proto.pieces if piece.type not in (CONTROL, USER_DEFINED)}
    return BPE(
        vocab,
        generate_merges(vocab, scores),
        unk_token=proto.trainer_spec.unk_piece,
        fuse_unk=True,
        byte_fallback=proto.trainer_spec.byte_fallback,
    )


def _add_rules(tokenizer: Tokenizer, proto: Any) -> None:
    """Set what happens to a text before it is encoded, and to tokens when they are decoded."""
    rules = proto.normalizer_spec
    steps: list[Any] = [normalizers.Precompiled(rules.precompiled_charsmap)] if rules.precompiled_charsmap else []
    if rules.remove_extra_whitespaces:
        steps += [normalizers.Replace(Regex(r"\A +| +\z"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    # A normalizer would put the space before a text also before each symbol, and before the text after it.
    has_symbols = any(piece.type == USER_DEFINED for piece in proto.pieces)
    if rules.add_dummy_prefix and not has_symbols:
        steps.append(normalizers.Replace(Regex(r"\A(?=[\s\S])"), " "))
    tokenizer.normalizer = normalizers.Sequence(steps)
    scheme = "first" if rules.add_dummy_prefix and has_symbols else "never"
    # Where no token crosses words, each word is encoded alone: that is quicker.
    has_inner_spaces = any(SPACE in piece.piece[1:] for piece in proto.pieces if piece.type == NORMAL)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, scheme, split=not has_inner_spaces)
    parts: list[Any] = [decoders.Replace(SPACE, " ")]
    parts += [decoders.ByteFallback()] if proto.trainer_spec.byte_fallback else []
    parts += [decoders.Fuse()]
    parts += [decoders.Strip(" ", 1, 0)] if rules.add_dummy_prefix else []
    tokenizer.decoder = decoders.Sequence(parts)


def _special_tokens(proto: Any) -> dict[str, str]:
    """The special tokens by their names in transformers: those whose ids the model defines."""
    training = proto.trainer_spec
    ids = {
        "bos_token": training.bos_id,
        "eos_token": training.eos_id,
        "unk_token": training.unk_id,
        "pad_token": training.pad_id,
    }
    return {name: proto.pieces[number].piece for name, number in ids.items() if 0 <= number < len(proto.pieces)}
