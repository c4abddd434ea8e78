"""Cleaning of corpora: starts a recipe, which makes a new version, and undoes it."""

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.base_models import limits
from app.checkpoints import usable_models
from app.core import db, queue, storage
from app.core.errors import PanelError, bad_field
from app.core.i18n import _
from app.core.json_shapes import Cleaning, CleaningModel, ParseReport
from app.core.model_base import new_id
from app.core.models import Corpus, CorpusFile
from app.core.principal import Principal
from app.corpora import service, versions
from app.corpora.cleaning.recipe import (
    EXAMPLES_FILE,
    LANGUAGES,
    Language,
    Length,
    Perplexity,
    StepSettings,
    corpora_of,
    models_of,
)
from trainer.formats import corpus_formats


@dataclass(frozen=True)
class Example:
    """A document that a step removed (`after` is None) or changed; `document` is its number in the parent, from 0."""

    document: int
    before: str
    after: str | None
    reason: str
    values: dict[str, Any]


def start(principal: Principal, corpus_id: str, steps: list[StepSettings]) -> Corpus:
    """Enqueue the cleaning of a version of a corpus, which makes the next version. Raises PanelError."""
    with db.transaction() as session:
        parent = service.own_corpus(session, principal, corpus_id)
        others = check(session, principal, parent, steps)
        models = scoring_models(session, principal, steps)
        cleaning = Cleaning(
            parent_id=parent.id,
            parent_version=parent.version,
            parent_sha256=str(parent.text_sha256),
            num_documents=parent.num_documents or 0,
            recipe=[step.model_dump() for step in steps],
            corpora={other.id: str(other.text_sha256) for other in others},
            models=models,
        )
        stem = corpus_formats.stem_of(parent.filename) if parent.num_uploads == 1 else parent.name
        filename = f"{stem[:200]}.jsonl"
        corpus = Corpus(
            **_next_version(session, parent),
            filename=filename,
            format="jsonl",
            kind=parent.kind,
            num_bytes=parent.num_text_bytes or 0,  # until it is made, as its hash
            sha256="",
            progress=ParseReport(kind=parent.kind),
            cleaning=cleaning,
        )
        file = CorpusFile(position=0, filename=filename, format="jsonl", num_bytes=0, sha256="", encoding="utf-8")
        service.add_corpus(session, corpus, [file])
    queue.flush_outbox()
    return corpus


def _next_version(session: Session, base: Corpus) -> dict[str, Any]:
    newest = session.scalar(select(func.max(Corpus.version)).where(Corpus.lineage_id == base.lineage_id)) or 0
    same = ("lineage_id", "owner_id", "name")
    return {**{name: getattr(base, name) for name in same}, "id": new_id(), "version": newest + 1}


def check(session: Session, principal: Principal, parent: Corpus, steps: list[StepSettings]) -> list[Corpus]:
    """The corpora that the steps compare with. Raises PanelError for a parent or steps that cannot be used."""
    if parent.state == "parsing":
        raise PanelError(409, "corpus_parsing", _("This corpus is being read already."))
    if parent.state == "failed":
        message = _("The corpus “{name}” could not be read. Its page says why.", name=parent.name)
        raise PanelError(409, "corpus_failed", message)
    for step in steps:
        if isinstance(step, Length):
            limits = ((step.min_characters, step.max_characters), (step.min_words, step.max_words))
            if any(high is not None and low > high for low, high in limits):
                raise bad_field("steps", "limits_crossed", _("The least length is larger than the greatest."))
        if isinstance(step, Perplexity) and step.min_percentile >= step.max_percentile:
            raise bad_field("steps", "limits_crossed", _("The least percentile is not below the greatest."))
        if isinstance(step, Perplexity):
            _check_scorer(step)
        if isinstance(step, Language) and (unknown := [code for code in step.languages if code not in LANGUAGES]):
            message = _(
                "There is no language “{code}”. Choose of: {expected}.", code=unknown[0], expected=", ".join(LANGUAGES)
            )
            raise bad_field("steps", "language_unknown", message)
        if parent.id in getattr(step, "corpora", []):
            raise bad_field("steps", "corpus_same", _("A corpus cannot be compared with itself. Choose others."))
    return service.require_ready_corpora(session, principal=principal, ids=corpora_of(steps), field="steps")


def _check_scorer(step: Perplexity) -> None:
    if bool(step.corpora) == bool(step.model):
        message = _("The step “Perplexity” needs either reference corpora or a model. Choose one of both.")
        raise bad_field("steps", "scorer_unclear", message)
    if step.max_bits_per_byte is not None and not step.model:
        message = _("A limit of bits per byte needs a model. Choose one, or a percentile in place of the limit.")
        raise bad_field("steps", "scorer_unclear", message)


def scoring_models(session: Session, principal: Principal, steps: list[StepSettings]) -> dict[str, CleaningModel]:
    """The models that score documents, by ID. Raises PanelError for one that cannot."""
    models: dict[str, CleaningModel] = {}
    for model_id in models_of(steps):
        of = usable_models.subject(session, principal=principal, subject_id=model_id, field="steps")
        limits.require(of.traits, "perplexity", "steps")
        name = usable_models.named_model(session, of.row).name
        models[model_id] = CleaningModel(name=name, sha256=of.sha256, num_bytes=of.num_bytes)
    return models


def model_places(session: Session, models: dict[str, CleaningModel]) -> dict[str, dict[str, str]] | None:
    """Path and SHA-256 of each model that scores documents, as the child is told; None if the files of one are gone."""
    paths = {model_id: usable_models.directory(session, model_id) for model_id in models}
    if None in paths.values():
        return None
    return {model_id: {"path": str(paths[model_id]), "sha256": model.sha256} for model_id, model in models.items()}


def child_recipe(session: Session, cleaning: Cleaning) -> dict[str, Any] | None:
    """What the process that cleans is told.

    None if the parent or a corpus to compare with was deleted, or is or was read again.
    """
    wanted = {cleaning.parent_id: cleaning.parent_sha256, **cleaning.corpora}
    rows = {corpus.id: corpus for corpus in service.existing(session, list(wanted))}
    if {corpus.id: corpus.text_sha256 for corpus in rows.values() if corpus.state == "ready"} != wanted:
        return None
    return recipe_of(rows[cleaning.parent_id], cleaning.recipe, [rows[corpus_id] for corpus_id in cleaning.corpora])


def recipe_of(parent: Corpus, steps: list[dict[str, Any]], others: list[Corpus]) -> dict[str, Any]:
    """A recipe as worker/sandbox/cleaning/clean.py reads it."""
    corpora = [{"id": corpus.id, "name": corpus.name, **_place(corpus)} for corpus in others]
    groups = {"group_column": parent.progress.group_column, "groups": list(parent.progress.groups)}
    return {**_place(parent), **groups, "steps": steps, "corpora": corpora}


def _place(corpus: Corpus) -> dict[str, str]:
    return {"path": str(storage.corpus(corpus.id)), "kind": corpus.kind}


def examples(corpus: Corpus) -> list[list[Example]]:
    """Samples of what each step removed or changed; empty if there is no cleaning, or its file is gone."""
    try:
        stored = json.loads((storage.corpus(corpus.id) / EXAMPLES_FILE).read_text())
    except (FileNotFoundError, ValueError):
        return []
    return [[Example(**example) for example in step] for step in stored] if corpus.cleaning is not None else []


def restore(principal: Principal, corpus_id: str) -> Corpus:
    """Make an older version the newest one again: a new version with its files, which are hard links.

    So a cleaning is undone. Raises PanelError: 409 for the newest version, and if a file is gone.
    """
    new = ""
    try:
        with db.transaction() as session:
            base = service.own_corpus(session, principal, corpus_id)
            files = service.list_files(session, corpus_id)
            values = _next_version(session, base)
            if base.version + 1 == values["version"]:
                raise PanelError(409, "version_newest", _("This version is the newest one already."))
            if base.state == "parsing":
                raise PanelError(409, "corpus_parsing", _("This corpus is being read already."))
            new = values["id"]
            versions.link(new, [storage.corpus_file(corpus_id, file.position) for file in files])
            same = ("filename", "format", "kind", "encoding", "num_uploads", "num_bytes", "sha256")
            kept = {name: getattr(base, name) for name in same}
            corpus = Corpus(**values, **kept, progress=versions.parse_options(base))
            copies = [
                CorpusFile(position=file.position, **{name: getattr(file, name) for name in versions.CONTENT})
                for file in files
            ]
            service.add_corpus(session, corpus, copies)
    except BaseException:
        if new:
            service.remove_files(new)
        raise
    queue.flush_outbox()
    return corpus
