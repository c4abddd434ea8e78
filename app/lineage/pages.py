"""The page that draws a lineage."""

from fastapi import APIRouter, Request, Response

from app.core import db
from app.core.i18n import gettext_noop, translate
from app.lineage import service
from app.lineage.drawing import draw
from app.web.auth import Reader
from app.web.pages import page
from app.web.parameters import Id

router = APIRouter()
KIND_WORDS = {
    "corpus": gettext_noop("Corpus"),
    "tokenizer": gettext_noop("Tokenizer"),
    "model": gettext_noop("Base model"),
    "job": gettext_noop("Job"),
    "checkpoint": gettext_noop("Checkpoint"),
    "evaluation": gettext_noop("Evaluation"),
    "export": gettext_noop("Export"),
    "deployment": gettext_noop("Deployment"),
}


@router.get("/lineage/{item_id}")
def show_lineage(request: Request, principal: Reader, item_id: Id) -> Response:
    """What a corpus, model or other thing comes from and what came of it, as a drawing and as a list."""
    with db.transaction() as session:
        lineage = service.lineage(session, principal=principal, item_id=item_id)
    words = {kind: translate(word) for kind, word in KIND_WORDS.items()}
    items = {item.id: item for item in lineage.items}
    sources = {
        item.id: [items[link.source] for link in lineage.links if link.target == item.id] for item in items.values()
    }
    return page(
        request,
        "lineage/show.html",
        principal=principal,
        subject=items[item_id],
        lineage=lineage,
        sources=sources,
        kind_words=words,
        drawing=draw(lineage, words),
    )
