"""How much memory a task that tokenizes takes with a large vocabulary: its child, and each process that encodes.

`PYTHONPATH=. python bench/encoder_memory.py [TOKENS | --smoke]`. The vocabulary has as many tokens as those of Qwen
(151,936), each one joined from two others as in any BPE; the text is the source code of the installed packages, once as
text, which gigatoken or the tokenizers library encodes, and once as conversations, through a chat template. Processes
are watched ten times a second; what counts is the peak that the kernel noted of each (VmHWM), with the pages of
libraries that they share. The goal: none above what tasks reserve for it (app/jobs/tokenization.py).
"""

import json
import random
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

from app.jobs import tokenization
from bench.support.arguments import IS_SMOKE, size
from bench.support.source_code import documents
from tests.trainer.runs import make_run
from trainer.data import process_pool, tokenizer
from trainer.processes.child_environment import child_environment

NUM_TOKENS, MEGABYTES = 151_936, 16
WATCH_SECONDS = 0.1
LONGEST = 16  # characters of a token
TURN_CHARACTERS = 2_000
CHILD, SERVERS = "child", ("text_server", "tokenizer_server")


def large_tokenizer(num_tokens: int) -> Tokenizer:
    """A byte-level BPE with so many tokens, without training: joins of random tokens, which random text has made."""
    chance = random.Random(0)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    letters = [character for character in alphabet if character.isascii() and character.isalpha()]
    vocab = {character: number for number, character in enumerate(alphabet)}
    merges: list[tuple[str, str]] = []
    tokens = [*letters]
    while len(vocab) < num_tokens - 2:
        pair = chance.choice(tokens), chance.choice(letters if chance.random() < 0.7 else tokens)
        joined = "".join(pair)
        if joined not in vocab and len(joined) <= LONGEST:
            vocab[joined] = len(vocab)
            merges.append(pair)
            tokens.append(joined)
    large = Tokenizer(BPE(vocab, merges))
    large.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.ByteLevel(add_prefix_space=False)])
    large.decoder = decoders.ByteLevel()
    large.add_special_tokens([tokenizer.END_OF_TEXT, tokenizer.PADDING])
    return large


def conversations(texts: list[str]) -> list[str]:
    """The texts as records of conversations with short turns."""
    parts = [text[at : at + TURN_CHARACTERS] for text in texts for at in range(0, len(text), TURN_CHARACTERS)]
    turns = [{"role": ("user", "assistant")[n % 2], "content": part} for n, part in enumerate(parts)]
    return [json.dumps({"messages": turns[n : n + 2]}) for n in range(0, len(turns) - 1, 2)]


def peaks(run_directory: Path) -> dict[str, int]:
    """The peak memory, in bytes, of the child of a task (CHILD) and of what it starts to encode, by module."""
    command = [sys.executable, "-m", "worker.sandbox.tokenize_corpora", str(run_directory), "1"]
    environment = child_environment("tokenizer", **{process_pool.VARIABLE: str(tokenization.NUM_ENCODERS)})
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1]) as child:
        found: dict[str, int] = {}
        while child.poll() is None:
            for name, peak in _peaks_of(child.pid).items():
                found[name] = max(found.get(name, 0), peak)
            time.sleep(WATCH_SECONDS)
        assert child.stdout is not None
        last = json.loads(child.stdout.read().splitlines()[-1])
    assert "result" in last, last
    return found


def _peaks_of(child: int) -> dict[str, int]:
    found: dict[str, int] = {}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            if child not in (int(process.name), parent):
                continue
            arguments, status = ((process / name).read_text() for name in ("cmdline", "status"))
            name = next((server for server in SERVERS if server in arguments), CHILD)
            peak = status.partition("VmHWM:")[2].split()[:1]  # in KiB; a process that has just ended has none
            found[name] = max([found.get(name, 0), *(1024 * int(number) for number in peak)])
    return found


def main() -> None:
    """Measure and print."""
    num_tokens = size(NUM_TOKENS, smoke=2_000)
    texts = documents(0.5 if IS_SMOKE else MEGABYTES)
    is_fine = True
    with TemporaryDirectory() as temporary:
        home = Path(temporary)
        tokenizer.save(large_tokenizer(num_tokens), home / "tokenizer")
        chat = {"kind": "chat", "recipe": "chat", "objective": "chat", "sequence_length": 2048}
        for name, contents, fields in (("text", texts, {}), ("chat", conversations(texts), chat)):
            given = {"tokenizer": "large", "vocab_size": None, "tokenizer_path": str(home / "tokenizer"), **fields}
            run_dir = make_run(home, name, contents, **given)
            for process, peak in sorted(peaks(run_dir.path).items()):
                reserved = tokenization.STARTER_BYTES if process == CHILD else tokenization.ENCODER_BYTES
                verdict = "ok" if peak <= reserved else "MISSED"
                is_fine &= verdict == "ok"
                print(f"{num_tokens:,} tokens, {name}, {process}: {peak / 2**20:.0f} MiB {verdict}", flush=True)
    sys.exit(not is_fine)


if __name__ == "__main__":
    main()
