"""HTML routes of the place for evaluations: the form, and scores side by side."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import ValidationError

from app.background_tasks.pages import METRICS
from app.background_tasks.schemas import EvaluationSettings
from app.checkpoints.usable_models import offered_models
from app.core import db
from app.core.errors import PanelError, bad_field
from app.core.i18n import _, translate
from app.core.principal import Principal
from app.corpora import service as corpora_service
from app.corpora.record_kinds import KIND_WORDS
from app.evaluations import score_plot, service
from app.web.auth import Reader, Submitter
from app.web.errors import form_error
from app.web.forms import FormBody, errors_by_control
from app.web.list_view import ListView
from app.web.pages import page
from app.web.paging import After
from app.web.parameters import Part, ShortText
from trainer.formats.corpus_kinds import EVALUATION_KINDS

router = APIRouter()
DEFAULTS = {"limit": "200", "num_fewshot": "0", "max_tokens": "128", "judge": ""}
Ids = Annotated[list[ShortText] | None, Query(max_length=service.MAX_MODELS, description="Models that are chosen.")]


@router.get("/evaluations")
def show_evaluations(
    request: Request, principal: Reader, model: Ids = None, after: After = None, part: Part = ""
) -> Response:
    """The form with some models chosen, and the scores. `part=results` answers only what runs and the scores."""
    return _draw(request, principal, {**DEFAULTS, "models": model or [], "corpora": []}, after=after, part=part)


@router.post("/evaluations")
def start_evaluations(request: Request, principal: Submitter, form: FormBody) -> Response:
    """Evaluate each chosen model on the chosen corpora, and return to the scores."""
    chosen = {name: [str(value) for value in form.getlist(name)] for name in ("models", "corpora")}
    values: dict[str, Any] = {**{name: str(form.get(name, "")) for name in DEFAULTS}, **chosen}
    try:
        if not chosen["corpora"]:
            raise bad_field("corpora", "request_invalid", _("Choose at least one corpus."))
        numbers = {name: values[name] for name in DEFAULTS if values[name].strip()}
        settings = EvaluationSettings.model_validate({"limit": None, **numbers, "corpora": chosen["corpora"]})
        service.start(principal, chosen["models"], settings)
    except ValidationError as error:
        return _draw(request, principal, values, form_error(error))
    except PanelError as error:
        return _draw(request, principal, values, error)
    return RedirectResponse("/evaluations#results", status_code=303)


def _draw(
    request: Request,
    principal: Principal,
    values: dict[str, Any],
    error: PanelError | None = None,
    after: str | None = None,
    part: str = "",
) -> Response:
    view = ListView.of("/evaluations", request.query_params, ("newest",))
    with db.transaction() as session:
        comparisons, cursor = service.comparisons(session, principal=principal, search=view["q"], after=after)
        open_tasks = service.open_evaluations(session, principal=principal)
        offer: dict[str, Any] = {}
        if part != "results":
            models = offered_models(session, principal=principal, wanted=values["models"])
            corpora, _next = corpora_service.list_corpora(session, principal=principal, limit=200)
            offer = {
                "models": models,
                "corpora": [row for row in corpora if row.state == "ready" and row.kind in EVALUATION_KINDS],
                "judges": [("", _("None")), *((model.id, model.name) for model in models)],
                "trained_on": {corpus for model in models if model.id in values["models"] for corpus in model.corpora},
            }
    return page(
        request,
        "evaluations/_results.html" if part == "results" else "evaluations/index.html",
        error.status if error else 200,
        principal=principal,
        comparisons=[(comparison, score_plot.axis(comparison)) for comparison in comparisons if comparison.scores],
        ends=score_plot.ends,
        shares=score_plot.SHARES,
        view=view,
        next=cursor,
        after=after,
        open_tasks=open_tasks,
        metric_words={name: translate(text) for name, text in METRICS.items()},
        kind_words={name: translate(text) for name, text in KIND_WORDS.items()},
        values=values,
        error=error.message if error and not error.fields else "",
        fields=errors_by_control(error),
        **offer,
    )
