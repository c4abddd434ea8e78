"""Which corpora ship with Athanor, so that the first job needs no upload. samples/README.md tells their sources."""

from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "samples"


@dataclass(frozen=True)
class Shipped:
    """A corpus in the folder. Its identifier is fixed, so that examples can name it; it sorts behind every upload."""

    corpus_id: str
    name: str
    filename: str


SHIPPED = (
    Shipped("00kingjamesbible", "King James Bible: Genesis and Exodus", "king-james-bible.txt"),
    Shipped("00songlyrics", "宋词选 (Song dynasty lyrics)", "song-lyrics.jsonl"),
    Shipped("00smalltalk", "Small talk: questions and answers", "small-talk.jsonl"),
    Shipped("00xiaoduihua", "小对话：一问一答 (small talk)", "small-talk-chinese.jsonl"),
)
