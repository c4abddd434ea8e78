"""The corpora that ship with Athanor, so that the first job needs no upload. samples/README.md lists their sources."""

from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "samples"


@dataclass(frozen=True)
class Shipped:
    """A sample corpus. Its ID is fixed, so that examples can use it, and sorts before the IDs of all uploads."""

    corpus_id: str
    name: str
    filename: str


SHIPPED = (
    Shipped("00kingjamesbible", "King James Bible: Genesis and Exodus", "king-james-bible.txt"),
    Shipped("00songlyrics", "宋词选 (Song dynasty lyrics)", "song-lyrics.jsonl"),
    Shipped("00smalltalk", "Small talk: questions and answers", "small-talk.jsonl"),
    Shipped("00xiaoduihua", "小对话：一问一答 (small talk)", "small-talk-chinese.jsonl"),
)
