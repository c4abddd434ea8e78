"""From the bytes of a file to text: strict decoding that can say where it failed, and trials of other encodings."""

import codecs
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

BOM = "\ufeff"
CHUNK_BYTES = 1 << 20
PREVIEW_CHARACTERS = 120
CONTEXT_BYTES = 40  # shown on either side of bytes that cannot be decoded
MAX_BAD_PLACES = 10_000  # counted
KEPT_BAD_PLACES = 10  # reported with what surrounds them
SAMPLE_BYTES = 4096  # of lines beyond ASCII, by whose letters chardet recognizes encodings
MAX_BAD_SHARE = 0.01  # of the bytes beyond ASCII that an encoding may fail to decode, to be offered
WIDE = ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")
MULTI_BYTE = ("gb18030", "big5", "cp932", "euc-jp", "cp949")
CANDIDATES = (*WIDE, *MULTI_BYTE, *(f"windows-{number}" for number in range(1250, 1259)), "koi8-r", "koi8-u")
SKIPPED = "\udcff"  # in place of bytes whose document is left out: strict decoding never yields a lone surrogate
# For bytes that cannot be decoded, and for NUL characters.
REPLACEMENTS = {"omit": "", "replace": "\ufffd", "skip_document": SKIPPED}

EncodingReason = Literal["mark", "chosen", "declared", "valid"]

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, with whose mark this one begins
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# What chardet calls the encodings above, or subsets of them.
_CHARDET_NAMES = {
    **{encoding: encoding for encoding in CANDIDATES},
    **dict.fromkeys(("iso-8859-1", "iso-8859-15"), "windows-1252"),
    "shift_jis": "cp932",
    "euc-kr": "cp949",
    "gb2312": "gb18030",
    "iso-8859-2": "windows-1250",
    "iso-8859-7": "windows-1253",
    "iso-8859-8": "windows-1255",
    "iso-8859-9": "windows-1254",
    "iso-8859-13": "windows-1257",
}
_DECLARATION = re.compile(rb"""<meta[^>]{1,200}?charset\s*=\s*["']?([\w.:-]{2,40})""", re.IGNORECASE)
_FAVORED = {"windows-1252": 0.03}  # where short texts fit several encodings of Europe equally well
# The commonest characters of Chinese text, ancient and modern, simplified and traditional: a wrong guess hits few.
_COMMON = frozenset(
    "的一是不了人在有我他这中大来上国个到说们为子和你地出道也时年得就那要下以生会自着去之过家学对可里后小么心多天"
    "而能好都然没日于起还发成事只作当想看文无开手十用主行方又如前所本见经头面公同三已老从动两长山水风花月春秋夜云何此其"
    "這來國個說們為時會著過學對裡後麼沒於還發當無開見經頭動兩長東風雲，。、"
)

# In multi-byte encodings, the first bytes of the characters that are frequent: punctuation, kana, and the rows that the
# standards give to the commonest Chinese characters and syllables of Korean.
_FREQUENT_LEADS = {
    "gb18030": (0xA1, 0xA3, *range(0xB0, 0xD8)),
    "big5": (0xA1, *range(0xA4, 0xC7)),
    "cp932": (*range(0x81, 0x84), *range(0x88, 0x98)),
    "euc-jp": (0xA1, 0xA4, 0xA5, *range(0xB0, 0xD0)),
    "cp949": (0xA1, 0xA3, *range(0xB0, 0xC9)),
}
_FREQUENT_SHARE = 0.9  # of the characters beyond ASCII that must be frequent ones, to offer an encoding for them
_FREQUENT_CONFIDENCE = 0.6


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
    """Puts a replacement where bytes cannot be decoded or a character is NUL, and counts these places.

    `first` has the line, the byte and the number of bytes of the first places that cannot be decoded.
    """

    def __init__(self, replacement: str) -> None:
        self._replacement = replacement
        self.count = 0
        self.first: list[tuple[int, int, int]] = []
        self.begin, self.line, self.encoding = 0, 1, ""  # of the bytes that are being decoded
        self.handler = f"athanor-{id(self)}"
        codecs.register_error(self.handler, self._replace_bytes)

    def _replace_bytes(self, error: UnicodeError) -> tuple[str, int]:
        assert isinstance(error, UnicodeDecodeError)
        self.count += 1
        if len(self.first) < KEPT_BAD_PLACES:
            good = error.object[: error.start].decode(self.encoding, "replace")
            place = (self.line + good.count("\n"), self.begin + error.start, error.end - error.start)
            self.first.append(place)
        return self._replacement, error.end

    def without_nul(self, text: str) -> str:
        """The text with each NUL replaced."""
        self.count += text.count("\0")
        return text.replace("\0", self._replacement)


def sniff(path: Path, requested: str | None, is_html: bool = False) -> tuple[str, int, EncodingReason]:
    """The encoding, the length of the byte-order mark in bytes, and why. A mark takes precedence over `requested`, and
    that over what an HTML file declares.
    """
    with path.open("rb") as file:
        start = file.read(1024)
    for mark, encoding in _BOMS:
        if start.startswith(mark):
            return encoding, len(mark), "mark"
    declared = None if requested or not is_html else _declared(start)
    if declared:
        return declared, 0, "declared"
    return requested or "utf-8", 0, "valid" if requested in (None, "utf-8") else "chosen"


def _declared(start: bytes) -> str | None:
    """The encoding that the beginning of an HTML file names, if it is a known one."""
    match = _DECLARATION.search(start)
    name = match[1].decode().lower() if match else ""
    return {"gbk": "gb18030", "x-sjis": "cp932"}.get(name) or _CHARDET_NAMES.get(name)


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
            if bad_places is not None:
                bad_places.begin, bad_places.line, bad_places.encoding = begin, lines, encoding
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


def list_bad_places(
    path: Path, first: Undecodable, skip: int, progress: Callable[[int], None]
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """The first places of a file that cannot be decoded or are NUL, as problems, then how many there are and how many
    characters beyond ASCII its encoding decodes; reading ends when there are more than MAX_BAD_PLACES.
    """
    bad_places = BadPlaces("")
    num_foreign = 0
    for text in chunks(path, first.encoding, skip, lambda _done: progress(0), bad_places):
        num_foreign += 0 if text.isascii() else len(text) - len(text.encode("ascii", "ignore"))
        if bad_places.count > MAX_BAD_PLACES:
            break
    problems = [first.problem()]
    for line, byte, length in bad_places.first:
        if byte > first.byte and len(problems) < KEPT_BAD_PLACES:
            context = _context(path, first.encoding, skip, byte, length)
            problems.append(Undecodable("undecodable", first.encoding, line, byte, context).problem())
    return problems, {"num_bad_places": min(bad_places.count, MAX_BAD_PLACES), "num_foreign": num_foreign}


def is_encoding_right(num_bad_places: int, num_foreign: int, num_bytes: int) -> bool:
    """Whether the encoding of a file is rather right, and only a few places are broken: at most ten, one in a thousand
    bytes, or one for each ten characters beyond ASCII that it decodes. Where counting stopped, nobody knows how many
    there are in all bytes.
    """
    is_rare = num_bad_places < MAX_BAD_PLACES and num_bad_places * 1000 < num_bytes
    return num_bad_places <= 10 or is_rare or num_bad_places * 10 <= num_foreign


# ---- other encodings ------------------------------------------------------------------------------------------------


def candidates(path: Path, failed: str, progress: Callable[[int], None]) -> list[dict[str, Any]]:
    """The encodings in which a file may be text, the likeliest first.

    An encoding is as likely as the frequencies of letters say (chardet's confidence, with its `language`), less where
    the whole file does not decode in it; the number of such places is counted. With each comes the beginning of the
    text beyond ASCII, as a preview.
    """
    likely = {**_wide_candidates(path, progress), **_narrow_candidates(path, progress)}
    scored: list[tuple[float, dict[str, Any]]] = []
    num_foreign = _num_foreign_bytes(path, progress)
    for encoding, (confidence, language, preview) in likely.items():
        if encoding == failed:
            continue
        most = 0 if encoding in WIDE else int(MAX_BAD_SHARE * num_foreign)
        num_bad = count_bad_places(path, encoding, most, progress)
        if num_bad > most:
            continue
        score = confidence * (1 - num_bad / (MAX_BAD_SHARE * num_foreign)) if num_bad else confidence
        offer = {"encoding": encoding, "preview": preview, "num_bad_places": num_bad, "language": language}
        scored.append((score, offer))
    scored.sort(key=lambda entry: -entry[0])
    return [offer for _score, offer in scored]


def count_bad_places(path: Path, encoding: str, most: int, progress: Callable[[int], None]) -> int:
    """How many places of a whole file an encoding cannot decode, or are NUL; ends when there are more than `most`."""
    bad_places = BadPlaces("")
    bad_places.first = [(0, 0, 0)] * KEPT_BAD_PLACES  # of no interest
    decoder = codecs.getincrementaldecoder(encoding)(bad_places.handler)
    with path.open("rb") as file:
        while bad_places.count <= most:
            data = file.read(CHUNK_BYTES)
            progress(0)
            # What is ASCII reads the same in all others, and costs nothing.
            if not data.isascii() or encoding in WIDE or decoder.getstate()[0] or not data or b"\0" in data:
                bad_places.without_nul(decoder.decode(data, final=not data))
            if not data:
                break
    return bad_places.count


def _num_foreign_bytes(path: Path, progress: Callable[[int], None]) -> int:
    number = 0
    with path.open("rb") as file:
        while data := file.read(CHUNK_BYTES):
            progress(0)
            number += 0 if data.isascii() else len(data.translate(None, bytes(range(128))))
    return number


def _wide_candidates(path: Path, progress: Callable[[int], None]) -> dict[str, tuple[float, str, str]]:
    """UTF-16 and UTF-32 without a mark, which chardet recognizes in Western text only."""
    likely: dict[str, tuple[float, str, str]] = {}
    with path.open("rb") as file:
        start = file.read(CHUNK_BYTES // 4 * 4)
    for encoding in WIDE:
        progress(0)
        try:
            sample = codecs.getincrementaldecoder(encoding)().decode(start)
        except UnicodeDecodeError:
            continue
        if is_wide_text(sample):
            likely[encoding] = (0.9, "", _preview(sample))
    return likely


def is_wide_text(sample: str) -> bool:
    """Whether a sample decoded as UTF-16 or UTF-32 is text: with the other order of bytes it has neither ASCII white
    space nor many of the commonest Chinese characters.
    """
    sample = sample[:20_000]
    kinds = Counter(unicodedata.category(c) for c in sample if c > "\x7f")
    controls = sum(1 for c in sample if c < " " and c not in "\t\n\r\f")
    if not sample.strip() or controls or kinds["Co"] + kinds["Cn"] + kinds["Cc"] > kinds.total() // 200:
        return False
    common = sum(1 for c in sample if c in _COMMON or c in " \n")
    return common > 0.08 * len(sample)


def _narrow_candidates(path: Path, progress: Callable[[int], None]) -> dict[str, tuple[float, str, str]]:
    """Encodings that are supersets of ASCII, by the letters of the first lines beyond it."""
    import chardet  # its models take a tenth of a second to load, and only files that do not decode need them

    sample = _foreign_lines(path, progress)
    likely: dict[str, tuple[float, str, str]] = {}
    samples = [sample]
    for encoding in MULTI_BYTE:  # chardet gives up an encoding at the first broken character
        cleaned = sample.decode(encoding, "ignore").encode(encoding)
        if 0 < len(sample) - len(cleaned) <= MAX_BAD_SHARE * len(sample) + 4:
            samples.append(cleaned)
    for variant in samples:
        for guess in chardet.detect_all(variant):
            progress(0)
            encoding = _CHARDET_NAMES.get(str(guess["encoding"]).lower(), "")
            confidence = guess["confidence"] + _FAVORED.get(encoding, 0)
            if encoding and encoding not in WIDE and confidence > likely.get(encoding, (0.0,))[0]:
                preview = _preview(sample.decode(encoding, "replace"))
                likely[encoding] = (confidence, str(guess["language"] or ""), preview)
    for encoding in MULTI_BYTE:
        confidence = _frequent_confidence(sample, encoding)
        if confidence > likely.get(encoding, (0.0,))[0]:
            likely[encoding] = (confidence, "", _preview(sample.decode(encoding, "replace")))
    return likely


def _frequent_confidence(sample: bytes, encoding: str) -> float:
    """How sure it is that a sample is in a multi-byte encoding because nearly all of its characters beyond ASCII are
    frequent ones: chardet knows too little of a few characters. 0 where they are not, or the sample does not decode.
    """
    leads = _FREQUENT_LEADS[encoding]
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(sample)  # it may end in a character
    except UnicodeDecodeError:
        return 0.0
    foreign = [character.encode(encoding) for character in text if character > "\x7f"]
    frequent = sum(
        1 for raw in foreign if len(raw) == 2 and raw[0] in leads and (encoding != "gb18030" or raw[1] > 0xA0)
    )
    if not foreign or frequent < _FREQUENT_SHARE * len(foreign):
        return 0.0
    # Where several fit, the commonest characters decide, and then the encoding with the fewest frequent ones.
    common = sum(1 for character in text if character in _COMMON)
    return _FREQUENT_CONFIDENCE * frequent / len(foreign) + (common / len(foreign) - len(leads) / 1_000) / 10


def _foreign_lines(path: Path, progress: Callable[[int], None]) -> bytes:
    """The first lines beyond ASCII, from whole characters on; of a long line its beginning beyond ASCII."""
    sample = bytearray()
    with path.open("rb") as file:
        while len(sample) < SAMPLE_BYTES and (data := file.readline(CHUNK_BYTES)):
            progress(0)
            if not data.isascii():
                at = next(number for number, byte in enumerate(data) if byte > 127)
                sample += data[max(0, at - 200) : at + SAMPLE_BYTES]
    return bytes(sample[:SAMPLE_BYTES])


def _first_foreign(sample: str) -> int:
    return next((i for i, c in enumerate(sample) if c > "\x7f"), 0)


def _preview(sample: str) -> str:
    # Around the first character that is not ASCII: that is where a wrong encoding shows.
    at = _first_foreign(sample)
    return sample[max(0, at - 20) : at + PREVIEW_CHARACTERS].strip()
