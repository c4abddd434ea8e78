"""From the bytes of an upload to text: strict decoding that can say where it failed, and trials of other encodings.

Standard library only: the limited child of parse.py imports this.
"""

import codecs
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

BOM = "\ufeff"
CHUNK_BYTES = 1 << 20
TRIAL_BYTES = 64 << 20  # how much of a file is read to try an encoding
PREVIEW_CHARACTERS = 120
CONTEXT_BYTES = 40  # shown on either side of bytes that cannot be decoded
MAX_BAD_PLACES = 10_000  # counted
CANDIDATES = ("utf-16-le", "utf-16-be", "gb18030", "big5", "cp932", "windows-1251", "windows-1252")
REPLACEMENTS = {"omit": "", "replace": "\ufffd"}  # for bytes that cannot be decoded, and for NUL characters

_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
# The commonest characters of Chinese text, ancient and modern, simplified and traditional: a wrong guess hits few.
_COMMON = frozenset(
    "的一是不了人在有我他这中大来上国个到说们为子和你地出道也时年得就那要下以生会自着去之过家学对可里后小么心多天"
    "而能好都然没日于起还发成事只作当想看文无开手十用主行方又如前所本见经头面公同三已老从动两长山水风花月春秋夜云何此其"
    "這來國個說們為時會著過學對裡後麼沒於還發當無開見經頭動兩長東風雲，。、"
)
_WESTERN = frozenset("àáâãäåæçèéêëìíîïñòóôõöøùúûüýÿœšžßÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜÝŒŠŽ‘’“”„–—…€£§°«»¿¡·©®\u00a0")


class Undecodable(Exception):
    """A file that is not text in this encoding: a code and the place of the first fault, with what surrounds it."""

    def __init__(self, code: str, encoding: str, line: int, byte: int, context: str) -> None:
        super().__init__(code)
        self.code, self.encoding, self.line, self.byte, self.context = code, encoding, line, byte, context

    def problem(self) -> dict[str, Any]:
        """As it is reported."""
        names = ("code", "encoding", "line", "byte", "context")
        return {name: getattr(self, name) for name in names}


class BadPlaces:
    """Puts a replacement where bytes cannot be decoded or a character is NUL, and counts these places."""

    def __init__(self, replacement: str) -> None:
        self._replacement = replacement
        self.count = 0
        self.handler = f"athanor-{id(self)}"
        codecs.register_error(self.handler, self._replace_bytes)

    def _replace_bytes(self, error: UnicodeError) -> tuple[str, int]:
        assert isinstance(error, UnicodeDecodeError)
        self.count += 1
        return self._replacement, error.end

    def without_nul(self, text: str) -> str:
        """The text with each NUL replaced."""
        self.count += text.count("\0")
        return text.replace("\0", self._replacement)


def sniff(path: Path, requested: str | None) -> tuple[str, int]:
    """The encoding, and the length of the byte-order mark in bytes. A mark takes precedence over `requested`."""
    with path.open("rb") as file:
        start = file.read(4)
    for mark, encoding in _BOMS:
        if start.startswith(mark):
            return encoding, len(mark)
    return requested or "utf-8", 0


def chunks(
    path: Path, encoding: str, skip: int, progress: Callable[[int], None], bad_places: BadPlaces | None = None
) -> Iterator[str]:
    """The text of a file in pieces. Raises Undecodable at the first fault, unless there are replacements for them."""
    decoder = codecs.getincrementaldecoder(encoding)(bad_places.handler if bad_places else "strict")
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
                byte, length = begin + error.start, error.end - error.start
                context = _context(path, encoding, skip, byte, length)
                raise Undecodable("undecodable", encoding, lines + good.count("\n"), byte, context) from None
            if "\0" in text:
                if bad_places is None:
                    raise _nul(path, text, encoding, skip, lines, begin)
                text = bad_places.without_nul(text)
            offset += len(data)
            yield text
            if not data:
                return
            lines += text.count("\n")
            progress(offset)


def _nul(path: Path, text: str, encoding: str, skip: int, lines: int, begin: int) -> Undecodable:
    good = text[: text.index("\0")]
    byte = begin + len(good.encode(encoding))
    context = _context(path, encoding, skip, byte, len("\0".encode(encoding)))
    return Undecodable("nul", encoding, lines + good.count("\n"), byte, context)


def _context(path: Path, encoding: str, skip: int, byte: int, length: int) -> str:
    r"""The text around some bytes, which are written as \xe9."""
    start = max(skip, byte - CONTEXT_BYTES)
    with path.open("rb") as file:
        file.seek(start)
        before, bad, after = file.read(byte - start), file.read(length), file.read(CONTEXT_BYTES)
    escaped = "".join(f"\\x{number:02x}" for number in bad)
    after_text = codecs.getincrementaldecoder(encoding)("backslashreplace").decode(after)  # may end in a character
    return f"{before.decode(encoding, 'ignore')}{escaped}{after_text}".replace("\0", "\\x00")


def count_bad_places(path: Path, encoding: str, skip: int, progress: Callable[[int], None]) -> int:
    """How many places of a file cannot be decoded or are NUL; reading ends when there are more than MAX_BAD_PLACES."""
    bad_places = BadPlaces("")
    for _text in chunks(path, encoding, skip, lambda _done: progress(0), bad_places):
        if bad_places.count > MAX_BAD_PLACES:
            break
    return min(bad_places.count, MAX_BAD_PLACES)


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
    # Strictly over all that is read; the first piece is judged in which one encoding can differ from another.
    sample = ""
    read = 0
    try:
        for text in chunks(path, encoding, 0, lambda _done: progress(0)):
            if not sample or (sample.isascii() and not text.isascii()):
                sample = text
            read += CHUNK_BYTES
            if read >= TRIAL_BYTES:
                break
    except Undecodable:
        return ""
    return sample


def plausibility(sample: str) -> float:
    """How likely a decoded sample is what its author wrote: 0 means not at all."""
    at = _first_foreign(sample)
    sample = sample[max(0, at - 1_000) : at + 20_000]
    foreign = [c for c in sample if c > "\x7f"]
    controls = sum(1 for c in sample if c < " " and c not in "\t\n\r\f") + sample.count("\x7f")
    kinds = Counter(unicodedata.category(c) for c in foreign)
    if not sample.strip() or controls or kinds["Co"] + kinds["Cn"] + kinds["Cc"] > len(foreign) // 200:
        return 0.0
    if not foreign:
        return 0.55
    return max(_chinese(foreign), _japanese(foreign), _russian(sample, foreign), _western(sample, foreign))


def _chinese(foreign: list[str]) -> float:
    share = sum(1 for c in foreign if "\u4e00" <= c <= "\u9fff") / len(foreign)
    common = sum(1 for c in foreign if c in _COMMON) / len(foreign)
    return common if share > 0.5 and common > 0.08 else 0.0


def _japanese(foreign: list[str]) -> float:
    hiragana = sum(1 for c in foreign if "\u3041" <= c <= "\u3096") / len(foreign)
    narrow = sum(1 for c in foreign if "\uff61" <= c <= "\uff9f") / len(foreign)  # what other encodings look like
    return hiragana if hiragana > 0.2 and narrow < 0.05 else 0.0


def _russian(sample: str, foreign: list[str]) -> float:
    letters = [c for c in foreign if "\u0400" <= c <= "\u045f"]
    lower = sum(1 for c in letters if c.islower())
    common = sum(1 for c in letters if c in "оеаинтсрвлОЕАИНТСРВЛ")
    is_text = len(letters) > 0.8 * len(foreign) and lower > 0.5 * len(letters) and common > 0.4 * len(letters)
    return 0.4 if is_text and _joined(sample) > 0.8 else 0.0


def _western(sample: str, foreign: list[str]) -> float:
    western = sum(1 for c in foreign if c in _WESTERN)
    is_text = western >= len(foreign) * 0.95 and len(foreign) <= len(sample) * 0.3
    return 0.05 if is_text and _joined(sample) < 0.5 else 0.0


def _joined(sample: str) -> float:
    """The share of the letters beyond ASCII that stand next to another one: few in French, nearly all in Russian."""
    is_letter = [c > "\x7f" and c.isalpha() for c in sample]
    neighbors = zip([False, *is_letter[:-1]], is_letter, [*is_letter[1:], False], strict=True)
    joined = sum(1 for before, letter, after in neighbors if letter and (before or after))
    return joined / max(1, sum(is_letter))


def _first_foreign(sample: str) -> int:
    return next((i for i, c in enumerate(sample) if c > "\x7f"), 0)


def _preview(sample: str) -> str:
    # Around the first character that is not ASCII: that is where a wrong encoding shows.
    at = _first_foreign(sample)
    return sample[max(0, at - 20) : at + PREVIEW_CHARACTERS].strip()
