"""How soon and how fast text comes from a node's inference process, beside transformers in the same run.

Run: PYTHONPATH=. python bench/generate.py [--smoke]. Two shapes with random weights, on the CPU; each figure is the
median of a few repeats.
"""

import json
import os
import signal
import statistics
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import TextIteratorStreamer
from transformers.utils import logging as transformers_logging

from bench.support.forked import IS_SMOKE, start_module
from trainer.data import tokenizer
from trainer.inference import generation
from trainer.modeling import build
from trainer.run_dir import CorpusInput
from trainer.spec import resolve
from worker.environment import fork_server_socket
from worker.inference.client import Inference

ROOT = Path(__file__).parents[1]
SHAPES = {
    "1 M (recipe tiny)": {},
    "30 M": {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 8, "num_attention_heads": 8},
}
TOKENS = 200
REPEATS = 5
PROMPT = "In the beginning God created the heaven and the earth."


def checkpoint(directory: Path, shape: dict[str, Any]) -> Path:
    """A model of this shape in Hugging Face layout, as a job would leave it."""
    text = (ROOT / "app/corpora/samples/king-james-bible.txt").read_bytes()
    directory.mkdir()
    (directory / "text.bin").write_bytes(text)
    (directory / "index.bin").write_bytes(array("Q", [len(text)]).tobytes())
    source = CorpusInput(id="text", path=str(directory), sha256="0" * 64)
    trained = tokenizer.train([source], 2000, lambda done, total: None)
    spec = resolve({"corpora": ["text"], "sequence_length": 1024, "num_key_value_heads": 4, **shape})
    built = build.init_model(spec, trained.get_vocab_size(), 0, 1, torch.device("cpu"))
    built.generation_config.eos_token_id = None  # random weights: only the length may end a text
    transformers_logging.disable_progress_bar()
    built.save_pretrained(directory / "model")
    tokenizer.save(trained, directory / "model")
    return directory / "model"


def order(path: Path) -> dict[str, Any]:
    """What the relay of a generation asks the inference process for."""
    settings = {"temperature": 0.8, "top_p": 1.0, "top_k": 50, "seed": 1, "stop": [], "max_tokens": TOKENS}
    return {"id": "bench", "path": str(path), "prompt": PROMPT, **settings}


def ours(inference: Inference, path: Path) -> tuple[float, float]:
    """Seconds to the first piece of text, and tokens a second after it."""
    begin = time.perf_counter()
    with inference.writing(order(path)) as conn, conn.makefile("rb") as lines:
        first = json.loads(lines.readline())
        assert first["event"] == "piece", first
        heard = time.perf_counter()
        done = json.loads(list(lines)[-1])
    assert done["event"] == "done", done
    return heard - begin, (done["num_tokens"] - 1) / (time.perf_counter() - heard)


def theirs(loaded: Any) -> Callable[[], tuple[float, float]]:
    """The same by `generate` with a streamer in a thread, as transformers' documentation shows it."""

    def measure() -> tuple[float, float]:
        streamer = TextIteratorStreamer(loaded.tokenizer, skip_prompt=True)
        inputs = loaded.tokenizer(PROMPT, return_tensors="pt", return_token_type_ids=False)
        options = {"do_sample": True, "temperature": 0.8, "top_k": 50, "max_new_tokens": TOKENS, "eos_token_id": None}
        begin = time.perf_counter()
        thread = threading.Thread(
            target=loaded.model.generate, kwargs={**inputs, **options, "pad_token_id": 1, "streamer": streamer}
        )
        thread.start()
        next(piece for piece in streamer if piece)
        heard = time.perf_counter()
        thread.join()
        return heard - begin, (TOKENS - 1) / (time.perf_counter() - heard)

    return measure


def medians(measure: Callable[[], tuple[float, float]]) -> tuple[float, float]:
    """Medians of a few repeats after one for warm-up."""
    measure()
    results = [measure() for _repeat in range(REPEATS)]
    return statistics.median(wait for wait, _rate in results), statistics.median(rate for _wait, rate in results)


def medians_of_pairs(measure: Callable[[], tuple[float, float]]) -> tuple[float, float]:
    """Two at once: the later first token, and the tokens a second of both."""

    def pair() -> tuple[float, float]:
        with ThreadPoolExecutor(2) as pool:
            (wait, rate), (other_wait, other_rate) = pool.map(lambda _number: measure(), range(2))
        return max(wait, other_wait), rate + other_rate

    return medians(pair)


def show(name: str, result: tuple[float, float], yardstick: tuple[float, float] | None = None) -> None:
    """One line: seconds to the first token, tokens a second, and how they compare."""
    beside = ""
    if yardstick is not None:
        beside = f"   x{yardstick[0] / result[0]:.2f} sooner, x{result[1] / yardstick[1]:.2f} faster than transformers"
    print(f"  {name:44} first token {result[0] * 1000:8.1f} ms   {result[1]:8.1f} tokens/s{beside}")


def measure_shape(path: Path) -> None:
    """A node that has generated nothing yet, without and with a fork server; then streams of its warm process."""
    inference = Inference()
    if not IS_SMOKE:
        show("first request, process started cold", ours(inference, path))
        show("second request", ours(inference, path))
        inference.close()
    with fork_server():
        show("first request, forked from the fork server", ours(inference, path))
        show("second request", ours(inference, path))
        compare(inference, path)
        inference.close()


@contextmanager
def fork_server() -> Iterator[None]:
    """A fork server at its usual place, ready."""
    process = start_module("worker.fork_server", str(fork_server_socket()), str(os.getpid()))
    while not fork_server_socket().exists():
        assert process.poll() is None, f"the fork server ended with {process.poll()}"
        time.sleep(0.05)
    yield
    os.kill(process.pid, signal.SIGTERM)
    process.wait()
    fork_server_socket().unlink()


def compare(inference: Inference, path: Path) -> None:
    """Streams of a warm process beside transformers', alone and two at once."""
    loaded = generation.load(path, "cpu")
    torch.set_num_threads(1)  # what each stream gets of this machine's cores, ours and theirs
    alone, both = medians(theirs(loaded)), medians_of_pairs(theirs(loaded))
    show("transformers, one stream", alone)
    show("Athanor, one stream", medians(lambda: ours(inference, path)), alone)
    show("transformers, two at once", both)
    show("Athanor, two at once", medians_of_pairs(lambda: ours(inference, path)), both)


def main() -> None:
    """Every shape in turn."""
    with TemporaryDirectory() as scratch:
        os.environ["ATHANOR_DATA"] = scratch  # so that no running node's fork server is met
        for name, shape in SHAPES.items():
            path = checkpoint(Path(scratch) / str(len(shape)), shape)
            print(f"{name}, {TOKENS} tokens, {os.cpu_count()} cores")
            measure_shape(path)
        fork_server_socket().parent.rmdir()


if __name__ == "__main__":
    if IS_SMOKE:
        TOKENS, REPEATS = 8, 1
        SHAPES = {"smoke": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}}
    main()
