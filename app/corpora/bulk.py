"""Corpora that are deleted together: what depends on each."""

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from app.core import storage
from app.core.i18n import _, gettext_noop, ngettext
from app.core.labels import LabelChanges
from app.core.models import Corpus, Job, Tokenizer
from app.core.principal import Principal
from app.corpora import service
from app.web.bulk import MAX_NAMES, BulkRows, listed
from app.web.labels import LabelForm


def _uses(session: Session, principal: Principal, corpus: Corpus) -> list[str]:
    """Jobs and tokenizers that were trained on a corpus, and its other versions, which stay."""
    in_spec = or_(*(Job.spec[name].contains([corpus.id]) for name in ("corpora", "validation_corpora")))
    own_jobs = (Job.owner_id == principal.user_id, Job.deleted_at.is_(None))
    jobs = select(Job.name).where(*own_jobs, in_spec).order_by(Job.id.desc())
    tokenizers = (
        select(Tokenizer.name)
        .where(
            Tokenizer.owner_id == principal.user_id,
            Tokenizer.deleted_at.is_(None),
            Tokenizer.corpora.contains([corpus.id]),
        )
        .order_by(Tokenizer.id.desc())
    )
    job_names = session.scalars(jobs.limit(MAX_NAMES + 1)).all()
    tokenizer_names = session.scalars(tokenizers.limit(MAX_NAMES + 1)).all()
    of_corpus = (Corpus.lineage_id == corpus.lineage_id, Corpus.id != corpus.id, Corpus.deleted_at.is_(None))
    others = select(func.count()).where(*of_corpus)
    num_versions = session.scalar(others) or 0
    return [
        sentence
        for sentence in (
            _("Jobs: {names}", names=listed(job_names)) if job_names else "",
            _("Tokenizers: {names}", names=listed(tokenizer_names)) if tokenizer_names else "",
            ngettext("{n} other version stays", "{n} other versions stay", num_versions) if num_versions else "",
        )
        if sentence
    ]


def change_labels(session: Session, principal: Principal, row_id: str, changes: LabelChanges) -> Corpus:
    """Rename, tag or describe the row of an ID."""
    return service.change_labels(session, principal=principal, corpus_id=row_id, changes=changes)


ROWS = BulkRows(
    table=Corpus,
    box="corpus",
    directory=lambda corpus: storage.corpus(corpus.id),
    delete=lambda session, principal, corpus_id: service.delete_corpus(
        session, principal=principal, corpus_id=corpus_id
    ),
    uses=_uses,
    change_labels=change_labels,
)
LABELS = LabelForm(
    "/corpora",
    gettext_noop("Corpus"),
    change_labels,
    help=gettext_noop("All versions have the same name, tags and notes."),
)
