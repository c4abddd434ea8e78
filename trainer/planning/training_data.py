"""How many training samples corpora give, estimated from their counts before anything is tokenized. Arithmetic only."""

from math import ceil, log2

from pydantic import BaseModel

from trainer.families import ENCODERS, MIN_VOCAB_SIZE, PACKED_OBJECTIVES, TEXT_OBJECTIVES
from trainer.formats.messages import message
from trainer.planning.counts import num_held_out, span_lengths
from trainer.planning.estimates import Estimate, estimate
from trainer.planning.mixture import CorpusShare, corpus_shares, draws_per_cycle
from trainer.planning.packing import pack_best_fit
from trainer.spec import TrainSpec

BYTES_PER_TOKEN = 3.3  # of English and Chinese text, with vocabularies of thousands of tokens
MAX_BYTES_PER_TOKEN = 4.3
# Samples at the ends of the interval, as factors: of an estimate of bytes per token, and of counted tokens in packing.
ESTIMATED_SPREAD, COUNTED_SPREAD = (0.55, 1.6), (0.9, 1.1)
# By the split, what its groups may add to that: documents are drawn one by one, groups as large as they come.
SPLIT_SPREAD = {"document": (0.9, 1.1), "group": (0.5, 1.25), "column": (0.9, 1.1)}
MAX_PACKED = 4_000  # records that are packed to see how many fit into a sequence
# Of a kept record and of a message in it: bytes of JSON around its strings.
RECORD_BYTES, MESSAGE_BYTES = 14, 32
# Tokens that ChatML puts around a message: special tokens of a base model, ordinary ones of a new tokenizer.
SPECIAL_MARK_TOKENS, PLAIN_MARK_TOKENS = 5, 22

MESSAGES = {
    "samples_counted": "Training samples: {num_samples}, as an earlier job with these data has counted.",
    "samples_records": (
        "Training samples: {num_samples}, one of each record that is not held out; records that cannot be used are "
        "left out later."
    ),
    "samples_estimated": (
        "An estimate of the training samples: about {num_samples}. Their number is known once the data are tokenized."
    ),
}


class TrainingData(BaseModel):
    """What is known of the training corpora: bytes (of JSON, for records), records, messages and labels.

    `lengths` are records by the number of bits of their length in characters. `num_tokens` and `num_dropped` are what
    an earlier run with the same tokenizer has counted, None before the first. `corpora` are the same of each corpus.
    """

    num_bytes: int = 0
    num_records: int = 0
    num_messages: int = 0
    lengths: dict[int, int] = {}
    labels: dict[str, int] = {}
    num_tokens: int | None = None
    num_dropped: int = 0
    validation_share: float | None = None  # of the records, where a column of the corpora says it
    corpora: list["TrainingData"] = []


def estimate_samples(spec: TrainSpec, vocab_size: int, data: TrainingData) -> Estimate | None:
    """Training samples: sequences of text, or records, one or several in a sequence. None if nothing is known."""
    is_counted = data.num_tokens is not None
    code = "samples_counted" if is_counted else "samples_estimated"
    if spec.objective in TEXT_OBJECTIVES:
        tokens = data.num_tokens or data.num_bytes / bytes_per_token(vocab_size)
        if not tokens:
            return None
        count, spread = _num_sequences(spec, tokens, data), (1.0, 1.0) if is_counted else ESTIMATED_SPREAD
    elif not data.num_records:
        return None
    elif spec.packing and spec.objective in PACKED_OBJECTIVES:
        if not data.num_tokens and not data.num_bytes:
            return None
        count, spread = _num_packed(spec, vocab_size, data), COUNTED_SPREAD if is_counted else ESTIMATED_SPREAD
    else:
        count, spread, code = _num_train_records(spec, data), (1.0, 1.0), "samples_records"
    if spec.split in SPLIT_SPREAD:
        low, high = SPLIT_SPREAD[spec.split]
        spread, code = (spread[0] * low, spread[1] * high), "samples_estimated"
    return estimate(count, spread, "samples", message(MESSAGES, code, num_samples=count))


def estimate_shares(spec: TrainSpec, vocab_size: int, data: TrainingData) -> list[CorpusShare]:
    """What a job of `max_steps` sees of each corpus; empty if that cannot be estimated.

    Samples are those of each corpus by itself. Of text, the default split holds out the last ones of all of it.
    """
    total = estimate_samples(spec, vocab_size, data)
    is_last = spec.objective in TEXT_OBJECTIVES and spec.split == "default"
    each = spec.model_copy(update={"validation_fraction": 0.0}) if is_last else spec
    estimates = [estimate_samples(each, vocab_size, _counted_part(data, corpus)) for corpus in data.corpora]
    counts = [samples.value for samples in estimates if samples is not None]
    if total is None or not counts or len(counts) < len(estimates):
        return []
    num_held_out = sum(counts) - total.value if is_last else 0
    sizes = [1.0] * len(counts)
    for corpus in reversed(range(len(counts))):
        sizes[corpus] = max(1.0, counts[corpus] - max(0, num_held_out))
        num_held_out -= counts[corpus] - sizes[corpus]
    draws = draws_per_cycle(spec, [round(size) for size in sizes]) or sizes
    rate = spec.total_steps * spec.train_batch_size / sum(draws)
    lengths = [_tokens_per_sample(spec, vocab_size, corpus) for corpus in data.corpora]
    tokens = [size * length for size, length in zip(sizes, lengths, strict=True)]
    return corpus_shares(tokens, [rate * drawn / size for drawn, size in zip(draws, sizes, strict=True)])


def _counted_part(data: TrainingData, corpus: TrainingData) -> TrainingData:
    """A corpus with its part, by bytes, of the tokens that an earlier run counted in all of them."""
    if data.num_tokens is None or not data.num_bytes:
        return corpus
    return corpus.model_copy(update={"num_tokens": round(data.num_tokens * corpus.num_bytes / data.num_bytes)})


def _tokens_per_sample(spec: TrainSpec, vocab_size: int, corpus: TrainingData) -> float:
    """Tokens of a sample: those of a sequence, or of a record where each has one of its own."""
    is_packed = spec.packing and spec.objective in PACKED_OBJECTIVES
    if spec.objective in TEXT_OBJECTIVES or is_packed or not corpus.num_records:
        return spec.sequence_length
    return min(spec.sequence_length, _num_record_tokens(spec, vocab_size, corpus) / corpus.num_records)


def _validation_fraction(spec: TrainSpec, data: TrainingData) -> float:
    """The share that is held out, as far as that is known."""
    return spec.validation_fraction if spec.split != "column" else data.validation_share or 0.0


def _num_sequences(spec: TrainSpec, num_tokens: float, data: TrainingData) -> int:
    """Training sequences of running text, as trainer/data/tokenized_text.py cuts it."""
    length, overlap = _text_length(spec)
    count = int(num_tokens - overlap) // length
    fraction = _validation_fraction(spec, data)
    return max(1, count - (max(1, int(count * fraction)) if fraction else 0))


def _text_length(spec: TrainSpec) -> tuple[int, int]:
    """Tokens of text that each sequence takes, and those after it that it predicts."""
    if spec.objective == "span_corruption":
        return span_lengths(spec.sequence_length, spec.noise_density, spec.mean_noise_span_length)[0], 0
    if spec.model_type in ENCODERS:
        return spec.sequence_length - 2, 0
    return spec.sequence_length, 1


def num_needed_tokens(spec: TrainSpec) -> int:
    """The fewest tokens of text that give a sequence to train on, and one to validate with if the spec wants one."""
    length, overlap = _text_length(spec)
    return (2 if spec.validation_fraction else 1) * length + overlap


def _num_train_records(spec: TrainSpec, data: TrainingData) -> int:
    """Records that are not held out; of records with labels, some of each label are."""
    count = data.num_records - data.num_dropped
    labels = list(data.labels.values()) if sum(data.labels.values()) == count else [count]
    fraction = _validation_fraction(spec, data)
    held_out = sum(num_held_out(number, fraction) for number in labels)
    return max(1, count - (max(held_out, min(1, count - 1)) if fraction else 0))


def _num_packed(spec: TrainSpec, vocab_size: int, data: TrainingData) -> int:
    """Sequences of packed records, by packing records of about the right lengths."""
    count = _num_train_records(spec, data)
    lengths = _token_lengths(spec, vocab_size, data)
    return ceil(len(pack_best_fit(lengths, spec.sequence_length)) * count / len(lengths))


def _token_lengths(spec: TrainSpec, vocab_size: int, data: TrainingData) -> list[int]:
    """Lengths of up to MAX_PACKED records in tokens, at most a sequence: spread evenly over each power of two."""
    number = min(data.num_records, MAX_PACKED)
    counts = data.lengths or {8: data.num_records}
    total = sum(counts.values())
    quantiles = []
    for bits, records in sorted(counts.items()):
        part = max(1, round(records * number / total))
        quantiles += [2 ** (bits - 1) * (1 + (n + 0.5) / part) for n in range(part)]
    mean = sum(quantiles) / len(quantiles)
    tokens = data.num_tokens or _num_record_tokens(spec, vocab_size, data)
    scale = tokens / (data.num_records - data.num_dropped) / mean
    return [min(spec.sequence_length, max(2, round(length * scale))) for length in quantiles]


def _num_record_tokens(spec: TrainSpec, vocab_size: int, data: TrainingData) -> float:
    """Tokens of all records, without the keys of their JSON and with what the template puts around messages."""
    messages = data.num_messages or 2 * data.num_records
    content = data.num_bytes - RECORD_BYTES * data.num_records - MESSAGE_BYTES * messages
    marks = PLAIN_MARK_TOKENS if spec.base_model is None else SPECIAL_MARK_TOKENS
    around = marks * messages if spec.objective == "chat" else data.num_records
    return max(content, 2 * data.num_records) / bytes_per_token(vocab_size) + around


def bytes_per_token(vocab_size: int) -> float:
    """Of text in a vocabulary: two at 384 tokens and three quarters more with each doubling, at most MAX_BYTES.

    Measured with new tokenizers on prose, verse, small talk, code and catalogs in English and Chinese: 1.5 to 2.3 bytes
    with 384 tokens, 2.2 to 4.4 with 1,024, 2.6 to 6.4 with 2,048.
    """
    return min(MAX_BYTES_PER_TOKEN, 2.0 + 0.75 * log2(max(vocab_size, MIN_VOCAB_SIZE) / 384))
