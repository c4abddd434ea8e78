"""What the report of a corpus stores of files that cannot be decoded."""

from pydantic import BaseModel, ConfigDict


class _Stored(BaseModel):
    model_config = ConfigDict(frozen=True)


class EncodingCandidate(_Stored):
    """An encoding in which an upload would be plausible text, and how it would begin beyond ASCII.

    `num_bad_places` of the whole file cannot be decoded in it; its letters are as frequent as in `language`.
    """

    encoding: str
    preview: str
    num_bad_places: int = 0
    language: str = ""


class UndecodableFiles(_Stored):
    """Files whose encoding cannot decode all of them, and which are read again together.

    `files` names the first of them, or none where the corpus has one file; `candidates` describe the first. Their
    encoding is rather right where few places are broken; it decodes `num_foreign` characters beyond ASCII.
    """

    files: list[str] = []
    num_files: int = 1
    num_bytes: int
    encoding: str
    is_encoding_right: bool
    num_bad_places: int
    is_counted_in_part: bool = False  # whether a file has more broken places than were counted
    num_foreign: int
    candidates: list[EncodingCandidate] = []  # the likeliest first
