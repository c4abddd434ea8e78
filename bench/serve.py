"""Text through HTTP, from client to client: an installation beside `generate` and llama.cpp with the same weights.

Run: PYTHONPATH=. python bench/serve.py [--smoke]. A 28 M Llama with random weights, fp32 everywhere. CPU seconds are
those of all processes of a server: of ours web, worker, inference, tokenizer, database and broker.
"""

import json
import os
import statistics
import subprocess
import sys
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import psutil
import torch
from transformers.utils import logging as transformers_logging

from bench.proofs.llamacpp import serving
from bench.support import installation
from bench.support.arguments import IS_SMOKE
from bench.support.installation import cpu_seconds, processes_of
from tests.waiting import until
from trainer.data import tokenizer
from trainer.export import gguf_writer
from trainer.inference import generation
from trainer.modeling import build
from trainer.run_dir import CorpusInput
from trainer.spec import resolve

ROOT = Path(__file__).parents[1]
BIBLE = ROOT / "app/corpora/samples/king-james-bible.txt"
SHAPE: dict[str, Any] = {
    "hidden_size": 512,
    "intermediate_size": 1408,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
}
TOKENS = 128
USERS = 8
ARRIVAL_SECONDS = 0.1
REPEATS = 5  # of a single user

Ask = Callable[[str, int], Iterator[str]]  # a prompt and a seed; the pieces of text as they come


@dataclass
class Load:
    """What some users saw, and what it cost."""

    first: list[float]  # seconds to the first piece, of each user
    rate: float  # tokens a second, of all users together
    per_cpu_second: float


def checkpoint(directory: Path) -> Path:
    """A model in Hugging Face layout, as a job would leave it."""
    text = BIBLE.read_bytes()
    (directory / "corpus").mkdir()
    (directory / "corpus/text.bin").write_bytes(text)
    (directory / "corpus/index.bin").write_bytes(array("Q", [len(text)]).tobytes())
    source = CorpusInput(id="text", path=str(directory / "corpus"), sha256="0" * 64)
    trained = tokenizer.train([source], 4000, lambda done, total: None)
    spec = resolve({"corpora": ["text"], "sequence_length": 1024, **SHAPE})
    network = build.init_model(spec, trained.get_vocab_size(), 0, 1, torch.device("cpu"))
    network.generation_config.eos_token_id = network.config.eos_token_id = None  # only the length ends a text
    transformers_logging.disable_progress_bar()
    network.save_pretrained(directory / "model")
    tokenizer.save(trained, directory / "model")
    return directory / "model"


def prompts() -> list[str]:
    """Texts of 20 to 400 characters, one per user."""
    text = BIBLE.read_text()
    return [text[1000 * number : 1000 * number + 20 + 54 * number] for number in range(USERS)]


def measure(ask: Ask, users: int, processes: Callable[[], list[psutil.Process]]) -> Load:
    """Users who come one after the other and read to the end."""
    first, ended = [0.0] * users, [0.0] * users

    def use(number: int) -> None:
        time.sleep(ARRIVAL_SECONDS * number)
        begin = time.perf_counter()
        for piece in ask(prompts()[number], number):
            if piece and not first[number]:
                first[number] = time.perf_counter() - begin
        ended[number] = time.perf_counter()

    before, begin = cpu_seconds(processes()), time.perf_counter()
    threads = [threading.Thread(target=use, args=(number,)) for number in range(users)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = max(ended) - begin
    return Load(first, users * TOKENS / seconds, users * TOKENS / (cpu_seconds(processes()) - before))


def single(ask: Ask, processes: Callable[[], list[psutil.Process]]) -> Load:
    """One user, the median of some repeats after one for warm-up."""
    loads = [measure(ask, 1, processes) for _repeat in range(REPEATS + 1)][1:]
    return Load(
        [statistics.median(load.first[0] for load in loads)],
        statistics.median(load.rate for load in loads),
        statistics.median(load.per_cpu_second for load in loads),
    )


# ---- servers --------------------------------------------------------------------------------------------------------


@contextmanager
def ours(path: Path) -> Iterator[tuple[Ask, Callable[[], list[psutil.Process]]]]:
    """An installation into which the model is imported."""
    with installation.running() as (client, data):
        installation.wait_until_ready(client, data)
        model = client.post("/api/v1/models", json={"name": f"bench {time.time()}"}).raise_for_status().json()["id"]
        for file in sorted(path.iterdir()):
            client.put(f"/api/v1/models/{model}/files/{file.name}", content=file.read_bytes()).raise_for_status()
        client.post(f"/api/v1/models/{model}/import").raise_for_status()
        until(lambda: client.get(f"/api/v1/models/{model}").json()["state"] in ("ready", "failed"), 120, "the import")
        settings = {"temperature": 0.8, "top_p": 1, "top_k": 50, "max_tokens": TOKENS, "stream": True}

        def ask(prompt: str, seed: int) -> Iterator[str]:
            body = {"checkpoint": model, "prompt": prompt, "seed": seed, **settings}
            with client.stream("POST", "/api/v1/generate", json=body) as answer:
                for line in answer.iter_lines():
                    if line.startswith("data: "):
                        event = json.loads(line[6:])
                        assert "code" not in event, event
                        yield event.get("text", "")

        yield ask, lambda: processes_of(data)
        client.delete(f"/api/v1/models/{model}")


@contextmanager
def by_generate(path: Path) -> Iterator[tuple[Ask, Callable[[], list[psutil.Process]]]]:
    """transformers' `generate` behind HTTP."""
    command = [sys.executable, "-m", "bench.support.generate_server", str(path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        address = f"http://127.0.0.1:{int(server.stdout.readline())}/"

        def ask(prompt: str, seed: int) -> Iterator[str]:
            body = {"prompt": prompt, "seed": seed, "max_tokens": TOKENS}
            with httpx.stream("POST", address, json=body, timeout=600) as answer:
                yield from answer.iter_text()

        yield ask, lambda: [psutil.Process(server.pid)]
        server.kill()


@contextmanager
def by_llamacpp(path: Path) -> Iterator[tuple[Ask, Callable[[], list[psutil.Process]]]]:
    """llama.cpp's own server, in this process."""
    file = path.parent / "model.gguf"
    loaded = generation.load(path, "cpu")
    gguf_writer.write(file, loaded.model, loaded.tokenizer, "f32", "bench")
    with serving(file, num_parallel=USERS, context=1024) as client:
        settings = {"n_predict": TOKENS, "temperature": 0.8, "top_k": 50, "stream": True, "ignore_eos": True}

        def ask(prompt: str, seed: int) -> Iterator[str]:
            body = {"prompt": prompt, "seed": seed, **settings}
            with httpx.stream("POST", f"{client.base_url}/completion", json=body, timeout=600) as answer:
                for line in answer.iter_lines():
                    if line.startswith("data: "):
                        yield json.loads(line[6:])["content"]

        yield ask, lambda: [psutil.Process()]


# ---- the race -------------------------------------------------------------------------------------------------------


def show(name: str, load: Load, yardstick: Load | None) -> None:
    """One line, with ratios to the yardstick."""
    first = max(load.first)
    line = f"  {name:14} first {first * 1000:7.0f} ms  {load.rate:7.1f} tokens/s  {load.per_cpu_second:6.1f} per CPU s"
    if yardstick is not None:
        ratios = load.rate / yardstick.rate, load.per_cpu_second / yardstick.per_cpu_second
        line += f"   x{first / max(yardstick.first):.2f} first, x{ratios[0]:.2f} tokens/s, x{ratios[1]:.2f} per CPU s"
    print(line, flush=True)


def main() -> None:
    """All servers in turn."""
    servers = {"generate": by_generate, "Athanor": ours, "llama.cpp": by_llamacpp}
    results: dict[str, tuple[Load, Load]] = {}
    with TemporaryDirectory() as scratch:
        path = checkpoint(Path(scratch))
        for name, server in servers.items():
            with server(path) as (ask, processes):
                begin, pieces = time.perf_counter(), ask("In", 0)
                next(piece for piece in pieces if piece)
                print(f"{name}: {time.perf_counter() - begin:.2f} s to the first text of a new process", flush=True)
                list(pieces)
                results[name] = single(ask, processes), measure(ask, USERS, processes)
                print(results[name], file=sys.stderr)
    for number, title in enumerate(("one user", f"{USERS} users")):
        print(f"{title}, {TOKENS} tokens each, {os.cpu_count()} cores, beside generate")
        for name, loads in results.items():
            show(name, loads[number], results["generate"][number] if name != "generate" else None)


if __name__ == "__main__":
    if IS_SMOKE:
        TOKENS, REPEATS, USERS = 8, 1, 2
        SHAPE = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    main()
