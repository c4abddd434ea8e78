"""From the bytes of an upload to text: strict decoding that can say where it failed, and trials of other encodings.

Standard library only: the limited child of parse.py imports this.
"""

import codecs
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

CHUNK_BYTES = 1 << 20
TRIAL_BYTES = 64 << 20  # how much of a file is read to try an encoding
PREVIEW_CHARACTERS = 120
CANDIDATES = ("utf-16-le", "utf-16-be", "gb18030", "big5", "windows-1252")

_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
# The commonest characters of Chinese text, ancient and modern, simplified and traditional: a wrong guess hits few.
_COMMON = frozenset(
    "的一是不了人在有我他这中大来上国个到说们为子和你地出道也时年得就那要下以生会自着去之过家学对可里后小么心多天"
    "而能好都然没日于起还发成事只作当想看文无开手十用主行方又如前所本见经头面公同三已老从动两长山水风花月春秋夜云何此其"
    "這來國個說們為時會著過學對裡後麼沒於還發當無開見經頭動兩長東風雲，。、"
)
_WESTERN = frozenset("àáâãäåæçèéêëìíîïñòóôõöøùúûüýÿœšžßÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜÝŒŠŽ‘’“”„–—…€£§°«»¿¡·©®\u00a0")


class Undecodable(Exception):
    """A file that is not text in this encoding: a code and the place of the first fault."""

    def __init__(self, code: str, encoding: str, line: int, byte: int) -> None:
        super().__init__(code)
        self.code, self.encoding, self.line, self.byte = code, encoding, line, byte

    def problem(self) -> dict[str, Any]:
        """As it is reported."""
        return {"code": self.code, "encoding": self.encoding, "line": self.line, "byte": self.byte}


def sniff(path: Path, requested: str | None) -> tuple[str, int]:
    """The encoding to read in, and how many bytes of byte-order mark precede the text: a mark beats what is asked."""
    with path.open("rb") as file:
        start = file.read(4)
    for mark, encoding in _BOMS:
        if start.startswith(mark):
            return encoding, len(mark)
    return requested or "utf-8", 0


def chunks(path: Path, encoding: str, skip: int, progress: Callable[[int], None]) -> Iterator[str]:
    """The text of a file in pieces, strictly decoded. Raises Undecodable at the first fault."""
    decoder = codecs.getincrementaldecoder(encoding)("strict")
    lines = 1
    offset = skip
    with path.open("rb") as file:
        file.seek(skip)
        while True:
            data = file.read(CHUNK_BYTES)
            begin = offset - len(decoder.getstate()[0])  # the first bytes of a character may be kept from before
            try:
                text = decoder.decode(data, final=not data)
            except UnicodeDecodeError as error:
                good = error.object[: error.start].decode(encoding, "replace")
                line = lines + good.count("\n")
                raise Undecodable("undecodable", encoding, line, begin + error.start) from None
            if "\0" in text:
                raise _nul(text, encoding, lines, begin)
            offset += len(data)
            yield text
            if not data:
                return
            lines += text.count("\n")
            progress(offset)


def _nul(text: str, encoding: str, lines: int, begin: int) -> Undecodable:
    good = text[: text.index("\0")]
    return Undecodable("nul", encoding, lines + good.count("\n"), begin + len(good.encode(encoding)))


def candidates(path: Path, failed: str, progress: Callable[[int], None]) -> list[dict[str, str]]:
    """The encodings in which the start of a file is plausible text, the likeliest first, each with a preview."""
    scored: list[tuple[float, dict[str, str]]] = []
    for encoding in CANDIDATES:
        if encoding != failed:
            sample = _trial(path, encoding, progress)
            score = plausibility(sample)
            if score > 0:
                scored.append((score, {"encoding": encoding, "preview": _preview(sample)}))
    scored.sort(key=lambda entry: -entry[0])
    return [entry for _score, entry in scored]


def _trial(path: Path, encoding: str, progress: Callable[[int], None]) -> str:
    # Strictly over all that is read; only the beginning is judged.
    sample = ""
    read = 0
    try:
        for text in chunks(path, encoding, 0, lambda _done: None):
            sample = sample or text
            read += CHUNK_BYTES
            progress(0)
            if read >= TRIAL_BYTES:
                break
    except Undecodable:
        return ""
    return sample


def plausibility(sample: str) -> float:
    """How likely a decoded sample is what its author wrote: 0 means not at all."""
    sample = sample[:20_000]
    foreign = [c for c in sample if c > "\x7f"]
    controls = sum(1 for c in sample if c < " " and c not in "\t\n\r\f") + sample.count("\x7f")
    kinds = Counter(unicodedata.category(c) for c in foreign)
    if not sample.strip() or controls or kinds["Co"] + kinds["Cn"] + kinds["Cc"] > len(foreign) // 200:
        return 0.0
    chinese = sum(1 for c in foreign if "\u4e00" <= c <= "\u9fff")
    if chinese > len(foreign) / 2:
        common = sum(1 for c in foreign if c in _COMMON) / len(foreign)
        return common if common > 0.08 else 0.0
    western = sum(1 for c in foreign if c in _WESTERN)
    if western < len(foreign) * 0.95 or len(foreign) > len(sample) * 0.3:
        return 0.0
    return 0.05 + (0.5 if not foreign else 0.0)


def _preview(sample: str) -> str:
    # Around the first character that is not ASCII: that is where a wrong encoding shows.
    at = next((i for i, c in enumerate(sample) if c > "\x7f"), 0)
    return sample[max(0, at - 20) : at + PREVIEW_CHARACTERS].strip()
