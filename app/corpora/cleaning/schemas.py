"""Request and response JSON of cleaning."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from app.core.json_shapes import Cleaning, CleaningModel, CleaningStep
from app.corpora.cleaning import reasons
from app.corpora.cleaning.preview import DEFAULT_DOCUMENTS, MAX_DOCUMENTS
from app.corpora.cleaning.recipe import Steps
from app.corpora.cleaning.service import Example

_EXAMPLE: dict[str, Any] = {
    "steps": [{"name": "fix_unicode"}, {"name": "length", "min_characters": 200}, {"name": "exact_duplicates"}]
}


class CleaningRequest(BaseModel):
    """A recipe: steps in the order in which every document passes them."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [_EXAMPLE]})

    steps: Steps


class CleaningPreviewRequest(CleaningRequest):
    """A recipe to try on the first documents."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{**_EXAMPLE, "num_documents": 200}]})

    num_documents: int = Field(DEFAULT_DOCUMENTS, ge=1, le=MAX_DOCUMENTS, description="Documents that are read.")


class CleaningExampleAnswer(BaseModel):
    """A document that a step removed or changed."""

    document: int = Field(description="Its number in the parent, from 0.")
    before: str = Field(description="A part of its text as it reached the step, around the first change.")
    after: str | None = Field(description="The same part after it; null if the document was removed.")
    reason: str
    message: str = Field(description="The reason in words.")


class ScoresAnswer(BaseModel):
    """The distribution of the scores of documents, and the limits beyond which these were removed."""

    unit: str = Field(description="`perplexity` by word, or `bits_per_byte`, which compares across tokenizers.")
    num_unscored: int = Field(description="Documents that are too short for a score; they stay.")
    low: float | None = Field(description="Documents with a lower score were removed.")
    high: float | None = Field(description="Documents with a higher score were removed.")
    edges: list[float] = Field(description="Where the bars of a histogram begin, and where the last one ends.")
    counts: list[int] = Field(description="Documents in each bar.")


class CleaningStepAnswer(BaseModel):
    """What a step did."""

    name: str
    settings: dict[str, Any]
    num_seen: int = Field(description="Documents that reached it.")
    num_removed: int
    num_changed: int
    num_places: int = Field(description="Places that it changed in those documents, such as lines or masked numbers.")
    removed_characters: int = Field(description="Characters fewer; negative if texts became longer.")
    scores: ScoresAnswer | None = Field(description="The scores that it filtered by, if it does so.")
    examples: list[CleaningExampleAnswer] = Field(description="A sample of at most 20.")


class CleaningPreviewAnswer(BaseModel):
    """What a recipe does with the first documents."""

    num_documents: int = Field(
        description="Documents that were read. With a model that scores, the preview ends after some time."
    )
    num_left: int
    steps: list[CleaningStepAnswer]


class ScoringModelAnswer(BaseModel):
    """A checkpoint or base model that scored documents. It may have been deleted."""

    name: str
    sha256: str = Field(description="SHA-256 of the names and hashes of its files.")


class CleaningAnswer(BaseModel):
    """How a version of a corpus was made from another one."""

    parent_id: str = Field(description="ID of the version that was cleaned. It may have been deleted.")
    parent_version: int
    parent_sha256: str = Field(description="SHA-256 of the parsed text of that version.")
    sha256: str | None = Field(description="SHA-256 of the text of this version, once it is made.")
    corpora: dict[str, str] = Field(
        description="SHA-256 of the parsed text of each corpus that it was compared with, by ID."
    )
    models: dict[str, ScoringModelAnswer] = Field(description="The models that scored documents, by ID.")
    num_documents: int = Field(description="Documents of the parent.")
    num_left: int | None
    recipe: list[dict[str, Any]] = Field(description="The settings of each step.")
    steps: list[CleaningStepAnswer] = Field(description="What each step did, once it is made.")


def step_answer(settings: dict[str, Any], counts: CleaningStep, examples: list[Example]) -> CleaningStepAnswer:
    """What a step did, with its reasons in words."""
    answers = [
        CleaningExampleAnswer(
            **{name: getattr(example, name) for name in ("document", "before", "after", "reason")},
            message=reasons.sentence(example.reason, example.values),
        )
        for example in examples
    ]
    rest = {key: value for key, value in settings.items() if key != "name"}
    return CleaningStepAnswer(name=settings["name"], settings=rest, **counts.model_dump(), examples=answers)


def model_answers(models: dict[str, CleaningModel]) -> dict[str, ScoringModelAnswer]:
    """The models that scored documents, by ID."""
    return {name: ScoringModelAnswer(name=model.name, sha256=model.sha256) for name, model in models.items()}


def preview_answer(steps: list[dict[str, Any]], result: dict[str, Any]) -> CleaningPreviewAnswer:
    """The answer to a preview of a recipe."""
    answers = [
        step_answer(settings, CleaningStep(**facts), [Example(**example) for example in facts["examples"]])
        for settings, facts in zip(steps, result["steps"], strict=True)
    ]
    return CleaningPreviewAnswer(num_documents=result["num_documents"], num_left=result["num_left"], steps=answers)


def step_answers(cleaning: Cleaning, examples: list[list[Example]]) -> list[CleaningStepAnswer]:
    """What the steps did, with examples if there are any."""
    padded = [*examples, *[[] for _step in cleaning.steps]]
    return [
        step_answer(settings, counts, padded[number])
        for number, (settings, counts) in enumerate(zip(cleaning.recipe, cleaning.steps, strict=False))
    ]
