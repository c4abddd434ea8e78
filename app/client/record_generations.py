"""Records that models write from documents, until people have reviewed them."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypedDict, Unpack

from .shapes import CorpusInfo
from .synthetic_shapes import DraftCountsInfo, DraftInfo, RecordGenerationInfo, SynthesisInfo
from .transport import Transport, address
from .waiting import ignore, wait_until_ended


class GenerationFields(TypedDict, total=False):
    """How records are generated: `model` or `endpoint`, and what is not the default."""

    model: str
    endpoint: str | None
    kind: str
    template: str
    num_documents: int
    max_characters: int
    seed: int
    records_per_document: int
    num_turns: int
    temperature: float
    max_tokens: int
    max_total_tokens: int | None
    max_cost: float | None


class RecordGenerations:
    """Your generations of records."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(self, corpus_id: str, **fields: Unpack[GenerationFields]) -> RecordGenerationInfo:
        """Have a model write records from documents of a corpus, in the background: `wait` for it."""
        return self._transport.post(RecordGenerationInfo, "/record-generations", {"corpus": corpus_id, **fields})

    def wait(
        self, generation_id: str, on_change: Callable[[RecordGenerationInfo], None] = ignore
    ) -> RecordGenerationInfo:
        """Wait until it has ended, whatever the end: `message` says why it failed. What was written stays."""
        return wait_until_ended(lambda: self.get(generation_id), {"queued", "running"}, on_change)

    def list(self, limit: int = 50) -> Iterator[RecordGenerationInfo]:
        """Your generations, newest first, read in pages of `limit`."""
        return self._transport.pages(RecordGenerationInfo, "/record-generations", limit=limit)

    def get(self, generation_id: str) -> RecordGenerationInfo:
        """A generation with its counts."""
        return self._transport.get(RecordGenerationInfo, address("record-generations", generation_id))

    def resume(
        self, generation_id: str, *, max_total_tokens: int | None = None, max_cost: float | None = None
    ) -> RecordGenerationInfo:
        """Ask about the documents that are left, with other limits if there are some."""
        body = {"max_total_tokens": max_total_tokens, "max_cost": max_cost}
        return self._transport.post(RecordGenerationInfo, address("record-generations", generation_id, "resume"), body)

    def delete(self, generation_id: str) -> None:
        """Delete a generation with its records. Corpora made of them stay."""
        self._transport.delete(address("record-generations", generation_id))

    def records(
        self, generation_id: str, *, state: str | None = None, duplicates: bool = False, limit: int = 50
    ) -> Iterator[DraftInfo]:
        """The records in the order of their writing, in pages of `limit`: all, or those in a state, or only those that
        are almost an earlier one.
        """
        path = address("record-generations", generation_id, "records")
        only = "true" if duplicates else "false"
        return self._transport.pages(DraftInfo, path, state=state, duplicates=only, limit=limit)

    def change(
        self, generation_id: str, record_id: str, *, state: str | None = None, cells: Sequence[str] | None = None
    ) -> DraftInfo:
        """Accept, reject or edit a record."""
        body: dict[str, Any] = {"state": state, "cells": None if cells is None else [*cells]}
        return self._transport.put(DraftInfo, address("record-generations", generation_id, "records", record_id), body)

    def review(
        self, generation_id: str, state: str, *, ids: Sequence[str] | None = None, duplicates: bool = False
    ) -> DraftCountsInfo:
        """Give records a state: those with these IDs, or all undecided ones, near duplicates only if asked for."""
        body = {"state": state, "ids": None if ids is None else [*ids], "duplicates": duplicates}
        return self._transport.post(DraftCountsInfo, address("record-generations", generation_id, "review"), body)

    def make_corpus(self, generation_id: str, *, name: str = "", corpus_id: str | None = None) -> CorpusInfo:
        """Make a corpus of the accepted records, or a new version of a corpus with them: `corpora.wait` for it."""
        body = {"name": name, "corpus": corpus_id}
        return self._transport.post(CorpusInfo, address("record-generations", generation_id, "corpus"), body)

    def synthesis(self, corpus_id: str) -> SynthesisInfo:
        """How a version of a corpus was made of records that a model wrote."""
        return self._transport.get(SynthesisInfo, address("corpora", corpus_id, "synthesis"))
