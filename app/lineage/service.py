"""What a corpus, model or other thing comes from, and what came of it: a bounded part of the graph of everything."""

from collections.abc import Callable, Iterable, Sequence

from sqlalchemy.orm import Session

from app.core.formatting import number
from app.core.i18n import _, ngettext
from app.core.models import BackgroundTask, Checkpoint, Corpus, ImportedModel, Job, Tokenizer
from app.core.principal import Principal, in_trash, is_in_trash, not_found
from app.lineage import rows as tables
from app.lineage.rows import Row
from app.lineage.schemas import LineageAnswer, LineageItem, LineageLink

MAX_ITEMS = 80
MAX_PRODUCTS = 8  # of one item, the newest
MAX_GENERATIONS = 20  # in each direction


def lineage(session: Session, *, principal: Principal, item_id: str) -> LineageAnswer:
    """What one of the user's corpora, tokenizers, models, jobs, checkpoints, evaluations, exports or deployments comes
    from, and what came of it. Raises 404.
    """
    subject = next(iter(tables.find(session, principal, [item_id])), None)
    if subject is None:
        is_deleted = any(is_in_trash(session, table, item_id, principal=principal) for table in tables.TABLES)
        raise in_trash() if is_deleted else not_found()
    graph = _Graph(session, principal, subject)
    graph.add_ancestors()
    graph.add_descendants()
    return graph.answer()


class _Graph:
    """The rows that were reached from a subject."""

    def __init__(self, session: Session, principal: Principal, subject: Row) -> None:
        self._session = session
        self._principal = principal
        self._subject = subject
        self._rows: dict[str, Row] = {subject.id: subject}
        self._left_out: set[str] = set()

    def add_ancestors(self) -> None:
        """Add what the subject comes from, and what that comes from, and so on."""

        def before(rows: Sequence[Row]) -> list[Row]:
            ids = {source for ids in tables.sources(self._session, rows).values() for source in ids}
            return tables.find(self._session, self._principal, ids - self._rows.keys())

        self._walk(before)

    def add_descendants(self) -> None:
        """Add what came of the subject, and what came of that, and so on."""
        self._walk(self._products)

    def _walk(self, next_rows: Callable[[Sequence[Row]], Iterable[Row]]) -> None:
        generation: Sequence[Row] = [self._subject]
        for _generation in range(MAX_GENERATIONS):
            new = [row for row in next_rows(generation) if row.id not in self._rows]
            room = max(0, MAX_ITEMS - len(self._rows))
            self._left_out |= {row.id for row in new[room:]}
            generation = new[:room]
            self._rows |= {row.id: row for row in generation}
            if not generation:
                return

    def _products(self, rows: Sequence[Row]) -> list[Row]:
        """What came of rows directly, at most MAX_PRODUCTS of each kind of each row."""
        candidates = tables.products(self._session, self._principal, rows)
        sources = tables.sources(self._session, candidates)
        counts: dict[tuple[str, str], int] = {}
        chosen = []
        for candidate in candidates:
            parents = [row.id for row in rows if row.id in sources[candidate.id]]
            for parent in parents:
                counts[parent, _kind(candidate)] = counts.get((parent, _kind(candidate)), 0) + 1
            if any(counts[parent, _kind(candidate)] <= MAX_PRODUCTS for parent in parents):
                chosen.append(candidate)
            elif parents and candidate.id not in self._rows:
                self._left_out.add(candidate.id)
        return chosen

    def answer(self) -> LineageAnswer:
        """The graph, with the links between all its rows."""
        rows = list(self._rows.values())
        sources = tables.sources(self._session, rows)
        links = [(source, row.id) for row in rows for source in sources[row.id] if source in self._rows]
        names = tables.job_names(self._session, rows)
        order = _in_order([row.id for row in rows], links)
        return LineageAnswer(
            subject=self._subject.id,
            items=[_item(self._rows[row_id], names) for row_id in order],
            links=[LineageLink(source=source, target=target) for source, target in links],
            num_left_out=len(self._left_out - self._rows.keys()),
        )


def generations(ids: Iterable[str], links: Iterable[tuple[str, str]]) -> dict[str, int]:
    """How many links lead to each item at most, along the longest way from one that comes of nothing."""
    ranks = dict.fromkeys(ids, 0)
    pairs = list(links)
    for _round in range(len(ranks)):  # a cycle would go on for ever
        changes = {target: ranks[source] + 1 for source, target in pairs if ranks[target] <= ranks[source]}
        if not changes:
            break
        ranks |= changes
    return ranks


def _in_order(ids: Sequence[str], links: Sequence[tuple[str, str]]) -> list[str]:
    """Sources before what came of them, otherwise the older ones first."""
    ranks = generations(ids, links)
    return sorted(ids, key=lambda row_id: (ranks[row_id], row_id))


def _kind(row: Row) -> str:
    return row.kind if isinstance(row, BackgroundTask) else type(row).__name__


def _item(row: Row, job_names: dict[str, str]) -> LineageItem:
    match row:
        case Corpus():
            detail = _("version {n}", n=row.version)
            return LineageItem(id=row.id, kind="corpus", name=row.name, detail=detail, href=f"/corpora/{row.id}")
        case Tokenizer():
            detail = ngettext("{n} token", "{n} tokens", row.vocab_size) if row.vocab_size else ""
            return LineageItem(id=row.id, kind="tokenizer", name=row.name, detail=detail, href=f"/tokenizers/{row.id}")
        case ImportedModel():
            detail = row.reference or _("imported")
            return LineageItem(id=row.id, kind="model", name=row.name, detail=detail, href=f"/models/{row.id}")
        case Job():
            detail = ngettext("{n} step", "{n} steps", row.max_steps) if row.max_steps else row.recipe
            return LineageItem(id=row.id, kind="job", name=row.name, detail=detail, href=f"/jobs/{row.id}")
        case Checkpoint():
            detail = _("step {n}", n=number(row.step))
            name = row.name or job_names.get(row.job_id, row.id)
            return LineageItem(id=row.id, kind="checkpoint", name=name, detail=detail, href=f"/checkpoints/{row.id}")
        case BackgroundTask():
            return _task_item(row)
        case _:
            return LineageItem(id=row.id, kind="deployment", name=row.name, detail="", href=f"/deployments/{row.id}")


def _task_item(task: BackgroundTask) -> LineageItem:
    href = f"/tasks/{task.id}"
    if task.kind == "export":
        detail = task.options.quantization or ""
        return LineageItem(id=task.id, kind="export", name=task.options.format or task.id, detail=detail, href=href)
    detail = f"{task.created_at:%Y-%m-%d}"
    return LineageItem(id=task.id, kind="evaluation", name=_("Evaluation"), detail=detail, href=href)
