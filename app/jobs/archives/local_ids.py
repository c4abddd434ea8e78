"""Which rows of this installation the IDs in an archive of a run stand for.

A corpus is the same if its parsed text is, a base model if its files are; only those that the importer may see count.
An ID that stands for nothing here stays as it is, unless it happens to be that of a row: then it becomes a new one, so
that no archive leads to what its importer may not see.
"""

import re
from collections.abc import Iterable
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.core.archive_shapes import ArchivedBase, ArchivedCorpus
from app.core.model_base import new_id
from app.core.models import Checkpoint, Corpus, ImportedModel, Job, Tokenizer
from app.core.principal import Principal, visible_to
from app.jobs.archives.description import RunDescription
from trainer.spec import TrainSpec

_ID = re.compile(r"[0-9a-z]{16}")
_TABLES: tuple[type[Any], ...] = (Corpus, Tokenizer, ImportedModel, Checkpoint, Job)


class LocalIds:
    """The IDs of this installation by those of an archive."""

    def __init__(self, session: Session, principal: Principal, run: RunDescription, spec: TrainSpec) -> None:
        self._session = session
        self._principal = principal
        self._ids: dict[str, str] = {}
        for corpus in (*run.corpora, *run.validation_corpora):
            self._add(corpus.id, self._corpus(corpus))
        if run.base_model is not None:
            self._add(run.base_model.id, self._base(run.base_model))
        origin = spec.resume_from_checkpoint
        if origin is not None:
            self._add(origin, origin if self._sees(Checkpoint, origin) else None)
        others = (
            *(*spec.corpora, *spec.validation_corpora, *spec.evaluation_corpora),
            *(spec.base_model, spec.tokenizer),
        )
        for row_id in others:
            if row_id is not None and row_id not in self._ids:
                self._add(row_id, None)

    def name_tokenizer(self, archived: str, local: str) -> None:
        """The archived tokenizer is this one."""
        self._ids[archived] = local

    def replaced(self, value: Any) -> Any:
        """A JSON value with the IDs of this installation, also in keys."""
        if isinstance(value, str):
            return self._ids.get(value, value)
        if isinstance(value, list):
            return [self.replaced(item) for item in value]
        if isinstance(value, dict):
            return {self.replaced(key): self.replaced(item) for key, item in value.items()}
        return value

    def series(self, name: str) -> str:
        """The name of a series; that of a validation corpus ends with its ID."""
        start, slash, corpus_id = name.partition("/")
        return f"{start}{slash}{self.replaced(corpus_id)}"

    def _add(self, archived: str, local: str | None) -> None:
        if local is None or local in self._ids.values():
            local = archived if _ID.fullmatch(archived) and not self._is_taken(archived) else new_id()
        self._ids.setdefault(archived, local)

    def _is_taken(self, row_id: str) -> bool:
        return any(self._session.get(table, row_id) is not None for table in _TABLES)

    def _corpus(self, corpus: ArchivedCorpus) -> str | None:
        rows = same_corpora(self._session, self._principal, [corpus])
        return next((row.id for row in rows), None)

    def _base(self, base: ArchivedBase) -> str | None:
        if base.sha256 is None:
            return base.id if self._sees(Checkpoint, base.id) else None
        same = (ImportedModel.sha256 == base.sha256, ImportedModel.state == "ready")
        query = select(ImportedModel.id).where(*same, visible_to(ImportedModel.owner_id, self._principal))
        ids = list(self._session.scalars(query.order_by(ImportedModel.id)))
        return base.id if base.id in ids else next(iter(ids), None)

    def _sees(self, table: type[Any], row_id: str) -> bool:
        visible = select(table.id).where(table.id == row_id, visible_to(table.owner_id, self._principal))
        return self._session.scalar(visible) is not None


def same_corpora(session: Session, principal: Principal, archived: Iterable[ArchivedCorpus]) -> list[Corpus]:
    """The corpora that the user may see whose parsed text is that of an archived one: those of the same ID first, then
    the oldest.
    """
    wanted: dict[tuple[str | None, str | None], str] = {
        (corpus.kind, corpus.text_sha256): corpus.id for corpus in archived if corpus.text_sha256 is not None
    }
    hashes = [sha256 for _kind, sha256 in wanted]
    ready = (Corpus.text_sha256.in_(hashes), Corpus.state == "ready", visible_to(Corpus.owner_id, principal))
    rows = [row for row in session.scalars(select(Corpus).where(*ready)) if (row.kind, row.text_sha256) in wanted]
    return sorted(rows, key=lambda row: (wanted[row.kind, row.text_sha256] != row.id, row.id))
