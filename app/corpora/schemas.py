"""Request and response bodies of corpora and tokenizers."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from app.core.encoding_shapes import UndecodableFiles
from app.core.json_shapes import Problem
from app.core.models import BackgroundTask, Corpus, CorpusFile
from app.core.openai_models import Upload
from app.corpora import problems, record_kinds
from app.corpora.previews import DocumentPreview
from trainer.formats import corpus_formats

MAX_UPLOADS = 4_000  # in one request; a corpus may have more files, in more versions


class CorpusProblem(BaseModel):
    """Why an upload, or one line of it, cannot be read."""

    code: str
    message: str
    file: str | None = Field(None, description="Name of the file, where there are several or an archive.")
    line: int | None = Field(None, description="Number of the line or row, from 1.")
    byte: int | None = Field(None, description="Position in the file, from 0.")
    context: str | None = Field(
        None, description="The text around bytes that cannot be decoded, which are written as \\xe9."
    )


class EncodingOffer(BaseModel):
    """An encoding in which the file is plausible text, with the beginning of that text beyond ASCII."""

    encoding: str
    preview: str
    num_bad_places: int = Field(description="Number of places of the whole file that cannot be decoded in it.")
    language: str = Field(description="Language whose letters are as frequent, in English; empty if none is known.")
    reason: str = Field(description="Why it is offered, as a sentence.")
    files: list[str] = Field(
        description="If the corpus has several files: the first 500 of those for which it is offered. The rest is "
        "about the first."
    )
    num_files: int = Field(description="Number of files for which it is offered.")


class CorpusProgress(BaseModel):
    """Progress of parsing, in bytes of the upload."""

    done: int
    total: int


class ColumnAnswer(BaseModel):
    """A key of records, or a column, as the first thousand records have it."""

    name: str
    types: list[str] = Field(description="Types of its values: string, number, boolean, list, object or null.")
    num_records: int = Field(description="Number of the first thousand records that have it.")
    sample: str = Field(description="Beginning of its first value.")
    used: bool = Field(description="Whether it is read.")
    use: str = Field(description="What it is used as, in words; empty if it is not read.")
    inside: str = Field("", description="Of a column inside of an object, such as `answers.text[0]`: the name of that.")


class MappingAnswer(BaseModel):
    """Which column each field of a kind of records was read from, by hand."""

    name: str = Field(description="Under which it is offered for other files; may be empty.")
    kind: str
    columns: dict[str, str] = Field(description="Column by field.")


class SkippedFileAnswer(BaseModel):
    """A file of a data set that is not downloaded."""

    name: str
    reason: Literal["hidden", "about", "unreadable", "beside_records", "empty", "name"]


class DatasetAnswer(BaseModel):
    """The data set of a hub that a corpus is downloaded from."""

    endpoint: str = Field(description="Address of the hub.")
    name: str = Field(description="Owner and name.")
    revision: str
    folder: str = Field(description="The folder that is downloaded; empty: all.")
    commit: str = Field(description="The commit whose files are downloaded; empty until they are listed.")
    num_bytes: int = Field(description="Size of the files that are downloaded, as the hub says it.")
    skipped: list[SkippedFileAnswer] = Field(description="Files that are not downloaded: the first 100.")
    num_skipped: int


class CorpusAnswer(BaseModel):
    """A corpus: uploaded text, parsed into documents."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "06bv8h2m4c7k9qz1",
                    "name": "KJV",
                    "tags": ["verse"],
                    "notes": "",
                    "shared_by": None,
                    "version": 1,
                    "lineage_id": "06bv8h2m4c7k9qz1",
                    "num_uploads": 1,
                    "dataset": None,
                    "filename": "kjv.txt",
                    "format": "txt",
                    "kind": "text",
                    "state": "ready",
                    "encoding": "utf-8",
                    "num_bytes": 4153207,
                    "sha256": "3b0c…",
                    "num_documents": 1189,
                    "num_characters": 4152018,
                    "num_text_bytes": 4152018,
                    "num_turns": None,
                    "num_labels": None,
                    "columns": [],
                    "languages": [],
                    "mapping": None,
                    "group_column": None,
                    "groups": {},
                    "num_groups": None,
                    "num_ungrouped": 0,
                    "labels": {},
                    "unused_keys": {},
                    "num_bad_lines": 0,
                    "bad_lines": {},
                    "num_bad_places": 0,
                    "bad_bytes": None,
                    "num_skipped_documents": 0,
                    "encoding_reason": "valid",
                    "num_files": None,
                    "skipped_files": {},
                    "remarks": [],
                    "num_remarks": 0,
                    "problems": [],
                    "encodings": [],
                    "task_id": None,
                    "progress": None,
                    "shipped": False,
                    "created_at": "2026-01-01T12:00:00Z",
                    "parsed_at": "2026-01-01T12:00:01Z",
                }
            ]
        }
    )

    id: str
    name: str
    tags: list[str] = Field(description="Words of its owner to find it by.")
    notes: str = Field(description="What its owner wrote about it.")
    shared_by: str | None = Field(description="Name of the user who shares it; null for your own.")
    version: int = Field(description="Number of the version, from 1. The files of a version never change.")
    lineage_id: str = Field(description="What all versions of a corpus have in common: the ID of the first.")
    num_uploads: int = Field(description="Number of files that were uploaded, or downloaded.")
    dataset: DatasetAnswer | None = Field(description="The data set of a hub that it was downloaded from.")
    filename: str = Field(description="Name of the first file.")
    format: str = Field(
        description=f"One of {', '.join(corpus_formats.ENDINGS)}, zip and tar, or one with its compression: csv.gz."
    )
    kind: str = Field(
        description="Kind of its documents: text, or one kind of records. Until it is ready, the kind that was chosen."
    )
    state: Literal["parsing", "ready", "failed"]
    encoding: str | None
    num_bytes: int = Field(description="Size of all files.")
    sha256: str = Field(description="SHA-256 of the file; of several files, of the list of their hashes and names.")
    num_documents: int | None
    num_characters: int | None
    num_text_bytes: int | None = Field(description="Size of the parsed text as UTF-8.")
    num_turns: int | None = Field(description="Number of messages in all conversations.")
    num_labels: int | None = Field(description="Number of distinct labels.")
    columns: list[ColumnAnswer] = Field(description="Keys of its records, or columns: the first hundred.")
    languages: list[str] = Field(description="Of a translation between two languages: from which to which.")
    mapping: MappingAnswer | None = Field(description="The mapping of columns by hand that it was read with.")
    group_column: str | None = Field(description="The column whose value is the group of a record, for splits.")
    groups: dict[str, int] = Field(description="The 100 largest groups, each with its number of records.")
    num_groups: int | None = Field(description="Number of distinct groups.")
    num_ungrouped: int = Field(description="Number of records whose column of groups is empty.")
    labels: dict[str, int] = Field(description="The 100 most frequent labels, each with its number of records.")
    unused_keys: dict[str, int] = Field(
        description="Keys of records, or columns, that were not kept, each with its number of occurrences; "
        "`messages[].id` is the key `id` of messages. The 100 most frequent keys."
    )
    num_bad_lines: int = Field(
        description="Number of lines that are not valid documents; `problems` lists the first 100, "
        "and the first of each code."
    )
    bad_lines: dict[str, int] = Field(
        description="Number of lines that are not valid documents, by the code of their problem."
    )
    num_bad_places: int = Field(
        description="Number of places whose bytes cannot be decoded, counted up to 10,000 if the file was refused "
        "for them, and all of them if they were left out or replaced."
    )
    problems: list[CorpusProblem]
    bad_bytes: Literal["omit", "replace", "skip_document"] | None = Field(
        description="What was decided about bytes that cannot be decoded."
    )
    num_skipped_documents: int = Field(description="Number of documents that were left out because of such bytes.")
    encoding_reason: Literal["mark", "chosen", "declared", "valid"] | None = Field(
        description="Why it was read in its encoding: a byte-order mark, the choice of the user, what an HTML file "
        "declares, or the default, UTF-8, in which every byte is valid."
    )
    num_files: int | None = Field(description="Number of files of an archive that are read.")
    skipped_files: dict[str, int] = Field(
        description="Number of files of an archive that no format reads, by the ending of their names."
    )
    remarks: list[CorpusProblem] = Field(
        description="What to know of files that were read nevertheless, such as pages without text. The first 100."
    )
    num_remarks: int
    encodings: list[EncodingOffer] = Field(
        description="Other encodings to try if decoding failed, the likeliest first."
    )
    task_id: str | None = Field(description="The background task that parses it, while it waits or runs.")
    progress: CorpusProgress | None = Field(description="Progress while it is being parsed.")
    shipped: bool = Field(description="Whether it ships with Athanor and cannot be changed.")
    created_at: datetime
    parsed_at: datetime | None


class MappingRequest(BaseModel):
    """Which column each field is read from. The fields say the kind, such as prompt and completion."""

    model_config = ConfigDict(extra="forbid")

    columns: dict[str, str] = Field({}, max_length=20, description="Column by field; none: those of `name`.")
    name: str = Field("", description="Name under which it is saved for other files, in place of an earlier one.")


class ParseRequest(BaseModel):
    """How to parse an upload again."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"encoding": "gb18030"},
                {"skip_bad": True},
                {"bad_bytes": "omit"},
                {"mapping": {"columns": {"text": "body"}}},
                {"mapping": {"name": "Quiz"}},
            ]
        },
    )

    encoding: str = Field("", description=f"One of {', '.join(problems.ENCODINGS)}; empty: UTF-8.")
    skip_bad: bool = Field(False, description="Skip bad lines.")
    bad_bytes: Literal["omit", "replace", "skip_document"] | None = Field(
        None,
        description="What happens to bytes that cannot be decoded and to NUL characters: omit them, replace each "
        "with U+FFFD, or skip the document or record that they are in. Without it, a file with such bytes is refused.",
    )
    kind: str = Field("", description="Kind of the records; empty: the kind of the first one.")
    mapping: MappingRequest | None = Field(None, description="Columns by hand, instead of a kind.")
    group_column: str | None = Field(
        None,
        max_length=200,
        description="Column whose value is the group of a record, such as its author, or names its side: train or "
        "validation. Jobs can split by it.",
    )
    filenames: list[str] = Field(
        [],
        max_length=MAX_UPLOADS,
        description="Only these files are in `encoding`, and only for them holds `bad_bytes`; the others keep theirs.",
    )
    filename: str | None = Field(
        None,
        description="The name of `filenames` in earlier versions, for one file.",
        json_schema_extra={"deprecated": True},
    )


class UploadAnswer(BaseModel):
    """A file that is being uploaded by the tus protocol."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "06bv8h2m4c7k9qz1",
                    "filename": "kjv.txt",
                    "num_bytes": 4153207,
                    "num_received": 4153207,
                    "sha256": "3b0c…",
                    "corpus_id": None,
                    "created_at": "2026-01-01T12:00:00Z",
                    "expires_at": "2026-01-02T12:00:00Z",
                }
            ]
        }
    )

    id: str
    filename: str
    num_bytes: int = Field(description="Size of the file.")
    num_received: int = Field(description="Bytes that had arrived when the last request ended.")
    sha256: str | None = Field(description="SHA-256 of the file, once all of it has arrived.")
    corpus_id: str | None = Field(description="The corpus that was made of it.")
    created_at: datetime
    expires_at: datetime = Field(description="When it is deleted, unless something is added or a corpus made of it.")


class FromUploads(BaseModel):
    """A corpus of files that were uploaded by the tus protocol."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"uploads": ["06bv8h2m4c7k9qz1"]}]})

    uploads: list[str] = Field(
        min_length=1,
        max_length=MAX_UPLOADS,
        description="IDs of uploads all of whose bytes have arrived, in the order in which their files are read.",
    )
    name: str = Field("", max_length=120, description="Name in lists. Defaults to the name of the first file.")
    encoding: str = Field("", description="Encoding of the files if it is not UTF-8.")
    kind: str = Field("", description="Kind of the records. Defaults to the kind of the first one.")


class FromUrl(BaseModel):
    """A corpus of a file, or of a data set of the hub, that the server downloads."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"url": "https://data.example.org/texts/part-1.jsonl.zst"}]}
    )

    url: str = Field(
        min_length=1,
        max_length=2000,
        description="Address of the file, at a host that is allowed; or that of the page of a data set on the hub of "
        "HF_ENDPOINT, or of a folder of it: https://huggingface.co/datasets/OWNER/NAME/tree/REVISION/FOLDER.",
    )
    filename: str = Field(
        "",
        max_length=255,
        description="Name of the file with its ending. Defaults to the end of the address. Not for a data set.",
    )
    name: str = Field("", max_length=120, description="Name in lists. Defaults to that of the file or data set.")
    encoding: str = Field("", description="Encoding of the file, or of all files, if it is not UTF-8.")
    kind: str = Field("", description="Kind of the records. Defaults to the kind of the first one.")


class VersionRequest(BaseModel):
    """What is different in a new version of a corpus."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"uploads": ["06bv8h2m4c7k9qz1"], "remove": ["old.txt"]}]}
    )

    uploads: list[str] = Field(
        [],
        max_length=MAX_UPLOADS,
        description="IDs of uploads: one with the name of a file replaces it, the others are added.",
    )
    remove: list[str] = Field([], max_length=MAX_UPLOADS, description="Names of files.")


class CorpusFileAnswer(BaseModel):
    """A file of a version of a corpus."""

    position: int
    filename: str
    num_bytes: int
    sha256: str
    encoding: str | None
    url: str | None = Field(description="Where it was downloaded from.")
    num_documents: int | None
    num_text_bytes: int | None
    num_problems: int = Field(description="Number of its bad lines, or 1 if the whole file is refused.")


class ChangesAnswer(BaseModel):
    """What differs between two versions of a corpus."""

    before: str = Field(description="ID of the version that it is compared with.")
    added: list[str]
    replaced: list[str]
    removed: list[str]
    num_same: int = Field(description="Number of files that are the same.")


class DocumentAnswer(BaseModel):
    """The beginning of a document."""

    index: int
    num_bytes: int
    text: str = Field(description="The first 500 characters.")
    cut: bool = Field(description="Whether the document is longer than that.")


def corpus_answer(corpus: Corpus, task: BackgroundTask | None = None) -> CorpusAnswer:
    """The response for a row. `task` is the one that parses it."""
    progress = corpus.progress
    total = task.progress.total if task is not None else None
    return CorpusAnswer(
        **{name: getattr(corpus, name) for name in _SAME},
        kind=record_kinds.kind_of(corpus),
        shared_by=corpus.shared_by,
        num_turns=progress.num_turns,
        num_labels=progress.num_labels,
        columns=[ColumnAnswer(**c.model_dump(), use=use) for c, use in record_kinds.column_uses(corpus)],
        languages=progress.languages,
        mapping=MappingAnswer(**progress.mapping.model_dump()) if progress.mapping else None,
        group_column=progress.group_column,
        groups=progress.groups,
        num_groups=progress.num_groups,
        num_ungrouped=progress.num_ungrouped,
        labels=progress.labels,
        unused_keys=progress.unused_keys,
        num_bad_lines=progress.num_bad_lines,
        bad_lines=progress.bad_lines,
        num_bad_places=progress.num_bad_places,
        bad_bytes=progress.bad_bytes,
        num_skipped_documents=progress.num_skipped_documents,
        encoding_reason=progress.encoding_reason,
        num_files=progress.num_files,
        skipped_files=progress.skipped_files,
        remarks=[problem_answer(remark) for remark in progress.remarks],
        num_remarks=progress.num_remarks,
        problems=[problem_answer(problem) for problem in corpus.problems],
        encodings=[offer for broken in progress.broken_files for offer in encoding_offers(broken)],
        dataset=DatasetAnswer(**corpus.dataset.model_dump()) if corpus.dataset is not None else None,
        task_id=task.id if task is not None else None,
        progress=CorpusProgress(done=task.progress.done, total=total) if task is not None and total else None,
        shipped=corpus.owner_id is None,
    )


def encoding_offers(broken: UndecodableFiles) -> list[EncodingOffer]:
    """The encodings that are offered for some files, with the reasons."""
    files = {"files": broken.files, "num_files": broken.num_files}
    return [
        EncodingOffer(**candidate.model_dump(), reason=problems.encoding_reason(candidate), **files)
        for candidate in broken.candidates
    ]


_SAME = (
    *("id", "version", "lineage_id", "num_uploads", "name", "tags", "notes", "filename", "format", "state", "encoding"),
    *("num_bytes", "sha256", "num_documents", "num_characters", "num_text_bytes", "created_at", "parsed_at"),
)


def problem_answer(problem: Problem) -> CorpusProblem:
    """A stored problem with its sentence."""
    message = problems.sentence(problem)
    context = problem.values.get("context")
    return CorpusProblem(
        code=problem.code,
        message=message,
        file=problem.file,
        line=problem.line,
        byte=problem.byte,
        context=None if context is None else str(context),
    )


def upload_answer(upload: Upload) -> UploadAnswer:
    """The response for a row."""
    names = ("id", "filename", "num_bytes", "num_received", "sha256", "corpus_id", "created_at", "expires_at")
    return UploadAnswer(**{name: getattr(upload, name) for name in names})


def file_answer(file: CorpusFile) -> CorpusFileAnswer:
    """The response for a row."""
    return CorpusFileAnswer(**{name: getattr(file, name) for name in CorpusFileAnswer.model_fields})


def document_answer(document: DocumentPreview) -> DocumentAnswer:
    """The response for a document."""
    return DocumentAnswer(index=document.index, num_bytes=document.num_bytes, text=document.text, cut=document.cut)
