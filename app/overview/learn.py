"""The pages that teach how a language model works: each with a model and a text of the reader's."""

from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response

from app.core import db
from app.core.i18n import gettext_noop
from app.jobs.views.chart_words import chart_words, series_words
from app.playground.inspection import service as inspection
from app.web.auth import Reader
from app.web.pages import page
from app.web.parameters import ShortText

router = APIRouter()


@dataclass(frozen=True)
class Lesson:
    """A page: its name in the address, its title, and what it says in a sentence."""

    name: str
    title: str
    summary: str


LESSONS = (
    Lesson("tokenize", gettext_noop("Tokenize"), gettext_noop("A model reads numbers: text is cut into tokens.")),
    Lesson("embed", gettext_noop("Embed"), gettext_noop("Each token becomes a point in space.")),
    Lesson("attend", gettext_noop("Attend"), gettext_noop("Tokens collect what they need from one another.")),
    Lesson("predict", gettext_noop("Predict"), gettext_noop("What comes out is a probability for every token.")),
    Lesson("train", gettext_noop("Train"), gettext_noop("Training makes the tokens that really came more likely.")),
)
Text = Annotated[str, Query(max_length=2_000)]


@router.get("/learn")
def show_lessons(request: Request, principal: Reader) -> Response:
    """The list of pages."""
    return page(request, "learn/index.html", principal=principal, lessons=LESSONS)


@router.get("/learn/{name}")
def show_lesson(
    request: Request,
    principal: Reader,
    name: Literal["tokenize", "embed", "attend", "predict", "train"],
    checkpoint: ShortText | None = None,
    text: Text = "",
) -> Response:
    """A page, about the model in the query, else the newest."""
    with db.transaction() as session:
        groups, selected = inspection.list_models(session, principal=principal, wanted=checkpoint)
    return page(
        request,
        f"learn/{name}.html",
        principal=principal,
        lessons=LESSONS,
        current=next(lesson for lesson in LESSONS if lesson.name == name),
        groups=groups,
        selected=selected,
        text=text,
        words=chart_words(),
        series=series_words(),
    )
