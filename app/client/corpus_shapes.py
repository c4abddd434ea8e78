"""What the server answers about the contents of corpora: statistics, what a search finds, and what cleaning did."""

from datetime import datetime

from .shapes import JsonObject, Progress, Shape


class CountedDocumentInfo(Shape):
    """A document with its beginning; `count` is how often a repeated text occurs."""

    index: int
    num_bytes: int
    text: str
    num_tokens: int | None = None
    count: int | None = None


class LengthCutInfo(Shape):
    """What a sequence length would cut: documents that are longer, and their tokens beyond it."""

    length: int
    num_longer: int
    num_cut_tokens: int


class FrequentTokenInfo(Shape):
    """A token and how often it occurs."""

    id: int
    text: str
    count: int


class TokenStatisticsInfo(Shape):
    """What a tokenizer makes of the text, or of every `stride`-th document of a large corpus."""

    stride: int
    num_documents: int
    num_stored_bytes: int
    num_bytes: int
    num_tokens: int
    is_complete: bool
    vocab_size: int
    num_used_tokens: int
    median_length: int
    max_length: int
    cuts: list[LengthCutInfo]
    frequent: list[FrequentTokenInfo]
    longest: list[CountedDocumentInfo]


class LanguageCountInfo(Shape):
    """Documents in a language (ISO 639); None for texts that are too short."""

    language: str | None
    num_documents: int


class SplitPreviewInfo(Shape):
    """What a job with this split and fraction would hold out; `num_repeated` of these are also trained on."""

    split: str
    fraction: float | None
    num_held_out: int
    num_held_out_bytes: int
    num_repeated: int


class CorpusStatisticsInfo(Shape):
    """What was counted of a corpus. `tokens` is None without a tokenizer."""

    num_documents: int
    num_text_bytes: int
    num_duplicates: int
    num_near_duplicates: int | None = None
    num_compared: int | None = None
    languages: list[LanguageCountInfo] = []
    num_identified: int | None = None
    num_repeated: int
    repeated: list[CountedDocumentInfo]
    longest: list[CountedDocumentInfo]
    splits: list[SplitPreviewInfo] = []
    tokens: TokenStatisticsInfo | None


class StatisticsInfo(Shape):
    """The statistics of a corpus with one tokenizer. `result` is None until `state` is succeeded."""

    tokenizer: str | None
    task_id: str
    state: str
    progress: Progress | None
    result: CorpusStatisticsInfo | None
    created_at: datetime


class MatchInfo(Shape):
    """A place where a text was found: the number of the document from 0, and the text with its surroundings."""

    index: int
    before: str
    text: str
    after: str


class CorpusFileInfo(Shape):
    """A file of a version of a corpus."""

    position: int
    filename: str
    num_bytes: int
    sha256: str
    encoding: str | None
    url: str | None
    num_documents: int | None
    num_text_bytes: int | None
    num_problems: int


class ChangesInfo(Shape):
    """What differs between two versions of a corpus: names of files. `before` is the id of the other version."""

    before: str
    added: list[str]
    replaced: list[str]
    removed: list[str]
    num_same: int


class CleaningExampleInfo(Shape):
    """A document that a step of a recipe changed, or removed (`after` is None). `message` says why."""

    document: int
    before: str
    after: str | None
    reason: str
    message: str


class ScoresInfo(Shape):
    """The scores that a step filtered by: a histogram whose bar n counts the documents from edge n to edge n + 1, and
    the limits beyond which they were removed. `unit` is perplexity or bits_per_byte.
    """

    unit: str
    num_unscored: int
    low: float | None
    high: float | None
    edges: list[float]
    counts: list[int]


class CleaningStepInfo(Shape):
    """What a step of a recipe did, with a sample of at most 20 documents."""

    name: str
    settings: JsonObject
    num_seen: int
    num_removed: int
    num_changed: int
    num_places: int
    removed_characters: int
    scores: ScoresInfo | None
    examples: list[CleaningExampleInfo]


class CleaningPreviewInfo(Shape):
    """What a recipe would do with the first documents of a corpus."""

    num_documents: int
    num_left: int
    steps: list[CleaningStepInfo]


class ScoringModelInfo(Shape):
    """A checkpoint or base model that scored documents; `sha256` is that of the names and hashes of its files."""

    name: str
    sha256: str


class CleaningInfo(Shape):
    """How a version of a corpus was made from another one."""

    parent_id: str
    parent_version: int
    parent_sha256: str
    sha256: str | None
    corpora: dict[str, str]
    models: dict[str, ScoringModelInfo]
    num_documents: int
    num_left: int | None
    recipe: list[JsonObject]
    steps: list[CleaningStepInfo]
