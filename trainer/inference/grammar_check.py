"""Checks a grammar in a child process with limits: a hostile one could compute for hours or fill the memory.

`python -m trainer.inference.grammar_check` reads a grammar from its standard input and prints what is wrong with it.
The library does the same work for the same grammar, so a grammar that passes is compiled again without limits.
No torch.
"""

import json
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from trainer.processes import child_limits
from trainer.processes.child_limits import ChildLimits, limited_command

MAX_GRAMMAR_BYTES = 64 << 10
CPU_SECONDS = 2
LIMITS = ChildLimits(memory_bytes=512 << 20, cpu_seconds=CPU_SECONDS, file_bytes=0, niceness=0, dies_with_parent=False)
WAIT_SECONDS = 60.0  # on a busy machine
MAX_WHY = 200  # characters of the library's message
ROOT = Path(child_limits.__file__).parents[2]
# What the library may use for a grammar and for each token, by default a few milliseconds.
PARSER_LIMITS = LLParserLimits(verbose_errors=False)
# A text of one line: a model that may write white space can write it without end.
JSON_OPTIONS: Any = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    "lenient": False,
    "coerce_one_of": True,
}


class GrammarRefused(ValueError):
    """A grammar cannot be used: the message says why."""


def json_grammar(schema: dict[str, Any]) -> str:
    """The grammar of the JSON texts that are valid for a schema. Raises GrammarRefused."""
    text = json.dumps(schema, ensure_ascii=False)
    if len(text.encode(errors="replace")) > MAX_GRAMMAR_BYTES:
        raise GrammarRefused(f"it has more than {MAX_GRAMMAR_BYTES} bytes")
    try:
        return str(LLMatcher.grammar_from_json_schema(text, overrides=JSON_OPTIONS))
    except ValueError as error:  # nested too deeply
        raise GrammarRefused(str(error)[:MAX_WHY]) from None


@lru_cache(maxsize=256)
def check(grammar: str) -> None:
    """Raises GrammarRefused for a grammar that is wrong, or takes too much time or memory."""
    command = limited_command(LIMITS, [sys.executable, "-m", "trainer.inference.grammar_check"])
    try:
        done = subprocess.run(command, input=grammar.encode(), capture_output=True, cwd=ROOT, timeout=WAIT_SECONDS)
    except subprocess.TimeoutExpired:
        raise GrammarRefused("the machine is too busy to check it") from None
    if done.returncode:
        raise GrammarRefused(f"it takes more than {CPU_SECONDS} s of computing, or too much memory")
    if done.stdout:
        raise GrammarRefused(done.stdout.decode(errors="replace"))


class ByteTokens:
    """A vocabulary as llguidance reads it. Token 0 to n-1 are those of a model, n is the end of a text."""

    bos_token_id = None

    def __init__(self, tokens: list[bytes]) -> None:
        self.tokens = [*tokens, b"<end>"]
        self.eos_token_id = len(tokens)
        self.special_token_ids = [self.eos_token_id]
        self.is_tokenizer_wrapper = True
        self._ids = {token: number for number, token in enumerate(tokens) if token}
        self._longest = max(map(len, self._ids), default=1)

    def __call__(self, text: str | bytes) -> list[int]:
        """The longest tokens, one after the other, up to where there is none."""
        data = text.encode() if isinstance(text, str) else text
        ids: list[int] = []
        while data:
            sizes = range(min(self._longest, len(data)), 0, -1)
            size = next((size for size in sizes if data[:size] in self._ids), None)
            if size is None:
                break
            ids.append(self._ids[data[:size]])
            data = data[size:]
        return ids


def compiled(grammar: str, tokenizer: LLTokenizer) -> LLMatcher:
    """What decides about the tokens of a text. Its errors are in `get_error`."""
    return LLMatcher(tokenizer, grammar, log_level=0, limits=PARSER_LIMITS)


def reason(error: str) -> str:
    """The first line of a message of the library."""
    return " ".join(error.partition("<non-verbose/>")[0].split())[:MAX_WHY]


def main() -> None:
    """Check the grammar of the standard input with the vocabulary of all bytes, up to the first token."""
    tokenizer = LLTokenizer(ByteTokens([bytes([byte]) for byte in range(256)]), slices=[])  # type: ignore[arg-type]
    matcher = compiled(sys.stdin.read(), tokenizer)
    if not matcher.is_error():
        matcher.compute_bitmask()
    sys.stdout.write(reason(matcher.get_error()) if matcher.is_error() else "")


if __name__ == "__main__":
    main()
