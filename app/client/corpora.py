"""Corpora."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .corpus_shapes import ChangesInfo, CleaningInfo, CleaningPreviewInfo, CorpusFileInfo, MatchInfo, StatisticsInfo
from .errors import TaskEnded
from .files import OnProgress, body_of, nothing
from .labels import LabeledRowList
from .shapes import CorpusInfo, DocumentInfo, NamedMappingInfo
from .transport import address
from .waiting import ignore, wait_until_ended


class Corpora(LabeledRowList[CorpusInfo]):
    """Uploaded text and records."""

    _path = "corpora"
    _shape = CorpusInfo

    def upload(
        self,
        path: Path | str,
        *,
        name: str = "",
        encoding: str = "",
        kind: str = "",
        on_progress: OnProgress = nothing,
    ) -> CorpusInfo:
        """Upload a file. It is parsed in the background: `wait` for it before you train on it.

        `name` is how it is listed, `encoding` is needed where it is not UTF-8, `kind` where the first record does not
        tell the kind of all.
        """
        file = Path(path)
        return self._transport.upload(
            CorpusInfo,
            "POST",
            "/corpora",
            body_of(file, on_progress),
            file.stat().st_size,
            filename=file.name,
            name=name,
            encoding=encoding,
            kind=kind,
        )

    def create_from_url(
        self, url: str, *, filename: str = "", name: str = "", encoding: str = "", kind: str = ""
    ) -> CorpusInfo:
        """Make a corpus of a file that the server downloads, from a host that its operator allows.

        With the address of the page of a data set on the hub, or of one of its folders, of all its files that are read.
        """
        body = {"url": url, "filename": filename, "name": name, "encoding": encoding, "kind": kind}
        return self._transport.post(CorpusInfo, "/corpora/from-url", body)

    def wait(self, corpus_id: str, on_change: Callable[[CorpusInfo], None] = ignore) -> CorpusInfo:
        """Wait until a corpus is parsed. Raises TaskEnded with the first problem if that fails."""
        corpus = wait_until_ended(lambda: self.get(corpus_id), {"parsing"}, on_change)
        if corpus.state == "failed":
            raise TaskEnded(corpus.problems[0].message if corpus.problems else corpus.state)
        return corpus

    def list(
        self,
        limit: int = 50,
        *,
        search: str | None = None,
        tag: str | None = None,
        kind: str | None = None,
        state: str | None = None,
        owner: str | None = None,
        order: str | None = None,
    ) -> Iterator[CorpusInfo]:
        """Your corpora and those that ship with Athanor, newest first, read in pages of `limit`: all, or those with a
        text in their name, tags or notes, with a tag, of a kind, in a state, or of an owner (own, shared or shipped).
        `order` is newest, name or size.
        """
        query = {"q": search, "tag": tag, "kind": kind, "state": state, "owner": owner, "order": order}
        return self._transport.pages(CorpusInfo, "/corpora", limit=limit, **query)

    def get(self, corpus_id: str) -> CorpusInfo:
        """A corpus with its problems."""
        return self._transport.get(CorpusInfo, address("corpora", corpus_id))

    def create_from_uploads(
        self, uploads: Sequence[str], *, name: str = "", encoding: str = "", kind: str = ""
    ) -> CorpusInfo:
        """Make one corpus of files that were uploaded by the tus protocol, in the order of their ids."""
        body = {"uploads": [*uploads], "name": name, "encoding": encoding, "kind": kind}
        return self._transport.post(CorpusInfo, "/corpora/from-uploads", body)

    def files(self, corpus_id: str, limit: int = 50) -> Iterator[CorpusFileInfo]:
        """The files of a version of a corpus, in the order in which they are read, in pages of `limit`."""
        return self._transport.pages(CorpusFileInfo, address("corpora", corpus_id, "files"), limit=limit)

    def versions(self, corpus_id: str) -> Iterator[CorpusInfo]:
        """The versions of a corpus that are left, the newest first."""
        return self._transport.pages(CorpusInfo, address("corpora", corpus_id, "versions"))

    def change(self, corpus_id: str, *, uploads: Sequence[str] = (), remove: Sequence[str] = ()) -> CorpusInfo:
        """Make a new version with files added or replaced by uploads, or removed by name. The old one stays."""
        body = {"uploads": [*uploads], "remove": [*remove]}
        return self._transport.post(CorpusInfo, address("corpora", corpus_id, "versions"), body)

    def changes(self, corpus_id: str, since: str = "") -> ChangesInfo:
        """What differs in a version from another one, by default from the one before."""
        return self._transport.get(ChangesInfo, address("corpora", corpus_id, "changes"), since=since)

    def documents(self, corpus_id: str, limit: int = 20) -> Iterator[DocumentInfo]:
        """The documents of a corpus in order, each with its beginning, read in pages of `limit`."""
        return self._transport.pages(DocumentInfo, address("corpora", corpus_id, "documents"), limit=limit)

    def count(self, corpus_id: str, tokenizer: str | None = None) -> StatisticsInfo:
        """Count duplicates, lengths and, with the ID of a tokenizer, tokens in the background.

        What was counted already is returned at once; else `wait_for_statistics`.
        """
        return self._transport.post(
            StatisticsInfo, address("corpora", corpus_id, "statistics"), {"tokenizer": tokenizer}
        )

    def statistics(self, corpus_id: str) -> Iterator[StatisticsInfo]:
        """What was counted of a corpus or is being counted: the newest of each tokenizer."""
        return self._transport.pages(StatisticsInfo, address("corpora", corpus_id, "statistics"))

    def wait_for_statistics(
        self, corpus_id: str, tokenizer: str | None = None, on_change: Callable[[StatisticsInfo], None] = ignore
    ) -> StatisticsInfo:
        """Count unless that was done, and wait for the result. Raises TaskEnded if that fails."""
        self.count(corpus_id, tokenizer)

        def newest() -> StatisticsInfo:
            return next(info for info in self.statistics(corpus_id) if info.tokenizer == tokenizer)

        info = wait_until_ended(newest, {"queued", "running"}, on_change)
        if info.state != "succeeded":
            raise TaskEnded(info.state)
        return info

    def search(self, corpus_id: str, text: str, *, limit: int = 20) -> Iterator[MatchInfo]:
        """Places where a text occurs, in upper or lower case, in their order: read in pages of `limit`, each of which
        takes a second at most, so that it is slow only where there is little.
        """
        return self._transport.pages(MatchInfo, address("corpora", corpus_id, "search"), q=text, limit=limit)

    def parse(
        self,
        corpus_id: str,
        *,
        encoding: str = "",
        skip_bad: bool = False,
        bad_bytes: str | None = None,
        kind: str = "",
        columns: dict[str, str] | None = None,
        filenames: Sequence[str] = (),
        filename: str | None = None,
        group_column: str | None = None,
        mapping_name: str = "",
    ) -> CorpusInfo:
        """Parse an upload again: in another encoding, without bad lines or bytes, as records of another kind, or with
        `columns` by hand, the column of each field such as prompt and completion, which are saved under `mapping_name`;
        without columns those saved under that name are taken. With `filenames`, `encoding` and
        `bad_bytes` are for these files only; `filename` is that of one, as earlier versions took it. The value of
        `group_column` is the group of a record, by which jobs can split.
        """
        mapping = {"columns": columns or {}, "name": mapping_name} if columns or mapping_name else None
        body = {
            "encoding": encoding,
            "skip_bad": skip_bad,
            "bad_bytes": bad_bytes,
            "kind": kind,
            "mapping": mapping,
            "group_column": group_column,
        }
        if filenames or filename:  # earlier servers do not know the field
            body["filenames"] = [*filenames, *([filename] if filename else [])]
        return self._transport.post(CorpusInfo, address("corpora", corpus_id, "parse"), body)

    def mappings(self, *, limit: int = 50) -> Iterator[NamedMappingInfo]:
        """Your saved mappings of columns, newest first, read in pages of `limit`."""
        return self._transport.pages(NamedMappingInfo, "/column-mappings", limit=limit)

    def delete_mapping(self, mapping_id: str) -> None:
        """Delete a saved mapping of columns. Corpora that were read with it stay as they are."""
        self._transport.delete(address("column-mappings", mapping_id))

    def clean(self, corpus_id: str, steps: Sequence[Mapping[str, Any]]) -> CorpusInfo:
        """Clean a version by a recipe, in the background: `wait` for the new version that this answers.

        A step is `{"name": "length", "min_characters": 200}`; the API reference lists all names and settings.
        """
        return self._transport.post(CorpusInfo, address("corpora", corpus_id, "clean"), {"steps": [*steps]})

    def preview_cleaning(
        self, corpus_id: str, steps: Sequence[Mapping[str, Any]], num_documents: int = 200
    ) -> CleaningPreviewInfo:
        """Try a recipe on the first documents: counts and examples of each step. Nothing is written."""
        body = {"steps": [*steps], "num_documents": num_documents}
        return self._transport.post(CleaningPreviewInfo, address("corpora", corpus_id, "preview-cleaning"), body)

    def cleaning(self, corpus_id: str) -> CleaningInfo:
        """The recipe that made a version, and what each of its steps removed and changed, with examples."""
        return self._transport.get(CleaningInfo, address("corpora", corpus_id, "cleaning"))

    def restore(self, corpus_id: str) -> CorpusInfo:
        """Make an older version the newest again, which undoes a cleaning: a new version with the same files."""
        return self._transport.post(CorpusInfo, address("corpora", corpus_id, "restore"))

    def rename(self, corpus_id: str, name: str) -> CorpusInfo:
        """Rename a corpus, with all its versions."""
        return self._transport.patch(CorpusInfo, address("corpora", corpus_id), {"name": name})

    def delete(self, corpus_id: str) -> None:
        """Delete a corpus and its file."""
        self._transport.delete(address("corpora", corpus_id))
