"""How fast text becomes a packed file of token ids: ours, beside `datasets.map` and tokenizers in the same run.

`PYTHONPATH=. python bench/tokenize_text.py [MEGABYTES | --smoke]`. The text is the source code of the installed Python
packages, a document a file; the tokenizer has 8,000 tokens and is trained on a part of it. Each way starts from the
same files in a process of its own, so that none has cached words: `datasets.map` with batches, then its ids written as
16-bit numbers; `encode_batch_fast` of tokenizers; ours from a parsed corpus to `tokens.bin`, with gigatoken, for a
tokenizer that was trained here and, in its limited process, for one of others. The first two read 8 MB at most: their
speed does not depend on the amount. The goal: at least 30 times `datasets.map`, with the same ids for all documents.
"""

import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from datasets import Dataset, disable_progress_bars

from bench.support.arguments import size
from bench.support.source_code import documents
from trainer.data import tokenized_text, tokenizer
from trainer.run_dir import CorpusInput

VOCAB_SIZE, TRAINING_MEGABYTES, PEER_MEGABYTES = 8000, 8, 8
GOAL = 30


def write_corpus(home: Path, texts: list[str]) -> CorpusInput:
    """A parsed corpus, as uploads become."""
    home.mkdir()
    parts = [text.encode() for text in texts]
    (home / "text.bin").write_bytes(b"".join(parts))
    np.cumsum([len(part) for part in parts]).astype("<u8").tofile(home / "index.bin")
    return CorpusInput(id="source", path=str(home), sha256="0" * 64)


def by_datasets(home: Path) -> Path:
    """The ids by `datasets.map`, with an end-of-text token after each document."""
    texts = documents_of(home / "part")
    encoder, out = tokenizer.load(home / "tokenizer"), home / "datasets.bin"
    end = encoder.token_to_id("<|endoftext|>")
    disable_progress_bars()

    def encode(batch: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        return {"ids": [[*one.ids, end] for one in encoder.encode_batch_fast(batch["text"], add_special_tokens=False)]}

    encoded = Dataset.from_dict({"text": texts}).map(encode, batched=True, remove_columns=["text"])
    with out.open("wb") as file:
        for ids in encoded.with_format("numpy")["ids"]:
            ids.astype("<u2").tofile(file)
    return out


def by_tokenizers(home: Path) -> Path:
    """The ids by tokenizers alone."""
    encoder, out = tokenizer.load(home / "tokenizer"), home / "tokenizers.bin"
    end = encoder.token_to_id("<|endoftext|>")
    with out.open("wb") as file:
        for one in encoder.encode_batch_fast(documents_of(home / "part"), add_special_tokens=False):
            np.asarray([*one.ids, end], dtype="<u2").tofile(file)
    return out


def by_ours(home: Path, corpus: str = "all", *, is_limited: bool = False) -> Path:
    """The ids as the preparation of a job makes them."""
    source = CorpusInput(id="source", path=str(home / corpus), sha256="0" * 64)
    directory = home / "tokenizer"
    return (
        tokenized_text.tokenize_cached(
            [source],
            tokenizer.load(directory),
            "bench",
            home / f"cache-{corpus}-{is_limited}",
            lambda _done, _total: None,
            hostile=directory if is_limited else None,
        )
        / "tokens.bin"
    )


def documents_of(corpus: Path) -> list[str]:
    """The texts of a parsed corpus."""
    ends = np.fromfile(corpus / "index.bin", dtype="<u8").tolist()
    data = (corpus / "text.bin").read_bytes()
    return [data[start:end].decode() for start, end in zip([0, *ends], ends, strict=False)]


def measure(way: Callable[[Path], Path], home: Path) -> tuple[float, Path]:
    """The seconds of one way in a process of its own, without its imports, and the file that it wrote."""
    receive, send = multiprocessing.Pipe(duplex=False)

    def run() -> None:
        begin = time.perf_counter()
        send.send((way(home), time.perf_counter() - begin))

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    out, seconds = receive.recv()
    process.join()
    return seconds, out


def main() -> None:
    """Measure and print."""
    megabytes = size(64.0, smoke=2.5)
    with TemporaryDirectory() as name:
        home = Path(name)
        texts = documents(megabytes)
        part = documents(min(megabytes, PEER_MEGABYTES))
        write_corpus(home / "all", texts)
        write_corpus(home / "part", part)
        trained = tokenizer.train_on(iter(documents(min(megabytes, TRAINING_MEGABYTES))), VOCAB_SIZE)
        tokenizer.save(trained, home / "tokenizer")
        sizes = {"all": sum(len(text.encode()) for text in texts), "part": sum(len(text.encode()) for text in part)}
        print(f"{len(texts)} documents, {sizes['all'] / 1e6:.0f} MB; the peers read {sizes['part'] / 1e6:.0f} MB")
        rates: dict[str, float] = {}
        outs: dict[str, Path] = {}
        for label, corpus, way in (
            ("datasets.map", "part", by_datasets),
            ("tokenizers", "part", by_tokenizers),
            ("ours", "all", by_ours),
            ("ours, limited process", "all", lambda home: by_ours(home, is_limited=True)),
        ):
            seconds, outs[label] = measure(way, home)
            rates[label] = sizes[corpus] / seconds / 1e6
            print(f"{label:22} {rates[label]:7.1f} MB/s  {rates[label] / rates['datasets.map']:5.1f} x datasets.map")
        _seconds, outs["ours, part"] = measure(lambda home: by_ours(home, "part"), home)
        contents = {label: out.read_bytes() for label, out in outs.items()}
        is_equal = contents["datasets.map"] == contents["tokenizers"] == contents["ours, part"]
        is_equal = is_equal and contents["ours"] == contents["ours, limited process"]
        ratio = rates["ours"] / rates["datasets.map"]
        print(
            f"equal ids (what the peers read, and all text in both of ours): {is_equal}; {ratio:.1f} x, goal {GOAL} x"
        )


if __name__ == "__main__":
    main()
