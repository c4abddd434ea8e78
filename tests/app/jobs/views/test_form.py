"""How the form of a new job is read, filled in and marked; that plan and submission agree is in test_pages.py."""

from typing import Any

import pytest
from starlette.datastructures import FormData

from app.core.errors import FieldError
from app.core.i18n import use_locale
from app.core.json_shapes import ModelFacts
from app.jobs.planning.base_model import StartingPoint
from app.jobs.views import form, form_controls
from app.jobs.views.form import Origin, SubmittedForm
from app.jobs.views.form_controls import FormContext
from trainer.spec import example_spec, fill_from_recipe, recipe

BASE_FACTS: dict[str, Any] = {
    **{name: fill_from_recipe("tiny", {})[name] for name in form_controls.NETWORK_FIELDS},
    "hidden_size": 96,
    "vocab_size": 500,
    "context": 32,
}
BASE = StartingPoint("base", ModelFacts(**BASE_FACTS))


def origin(**fields: Any) -> Origin:
    """A checkpoint of a job with the recipe `tiny`, at its last step."""
    spec = {**example_spec("tiny").model_dump(), **fields}
    return Origin("checkpoint", spec["max_steps"], "job", "Job", spec)


def control(context: FormContext, name: str) -> form_controls.Control:
    return next(c for group in form_controls.groups(context) for c in group.controls if c.name == name)


# ---- reading --------------------------------------------------------------------------------------------------------


def test_a_form_is_read_with_all_values_of_its_lists() -> None:
    data = FormData([("name", "a"), ("corpora", "1"), ("corpora", "2"), ("validation_corpora", "3")])
    read = form.read_form(data)
    assert (read.fields["name"], list(read.corpora), list(read.validation_corpora)) == ("a", ["1", "2"], ["3"])


def test_the_weights_beside_corpora_become_one_list() -> None:
    def weights(*entries: tuple[str, str]) -> Any:
        data = FormData([("corpora", "1"), ("corpora", "2"), *entries])
        return form.to_partial_spec(form.read_form(data)).get("corpus_weights")

    assert weights(("weight-1", "3"), ("weight-2", " 0.5 ")) == [3.0, 0.5]
    assert weights(("weight-1", ""), ("weight-2", "2")) == [1.0, 2.0]
    assert weights(("weight-1", "0,5"), ("weight-2", ",25")) == [0.5, 0.25]
    assert weights(("weight-1", "1,000"), ("weight-2", "2")) == [1, 0, 2]  # which the spec refuses
    assert weights(("weight-1", ""), ("weight-2", "")) is None
    assert weights(("weight-2", "much")) == [1.0, "much"]  # which the spec refuses
    assert weights(("weight-9", "2")) is None  # of a corpus that is not chosen any more
    alone = form.read_form(FormData([("corpora", "1"), ("weight-1", "3")]))
    assert "corpus_weights" not in form.to_partial_spec(alone)


def test_the_weights_of_a_copied_job_stand_beside_its_corpora() -> None:
    copy = form.prefill_copy({**example_spec("tiny").model_dump(), "corpora": ["a", "b"], "corpus_weights": [7.0, 2.0]})

    assert copy.weights == {"a": "7.0", "b": "2.0"}
    assert SubmittedForm({}, ["a", "b"]).weights == {"a": "", "b": ""}


@pytest.mark.parametrize(("name", "recipe_name"), [("chat", "chat"), ("", "tiny"), ("no such recipe", "tiny")])
def test_an_unknown_recipe_counts_as_the_smallest(name: str, recipe_name: str) -> None:
    assert SubmittedForm({"recipe": name}).recipe == recipe_name


def test_an_id_is_cut_to_what_a_query_can_hold() -> None:
    read = SubmittedForm({"base_model": " a\0b ", "resume_from_checkpoint": "x" * 100})
    assert (read.base_id, read.origin_id) == ("ab", "x" * 64)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("packing", "true", True),
        ("packing", "false", False),
        ("packing", "maybe", "maybe"),
        ("max_steps", "12", 12),
        ("max_steps", "many", "many"),
        ("max_steps", "auto", None),
        ("learning_rate", "1e-3", 1e-3),
        ("optimizer", "auto", "auto"),
        ("corpus_weights", "3, 0.5", [3, 0.5]),
        ("corpus_weights", "3，one", [3, "one"]),
        ("corpus_weights", "3 1", ["3 1"]),
        ("new_tokens", "red panda, axolotl", ["red panda", "axolotl"]),
        ("name", "auto", "auto"),
    ],
)
def test_a_control_gives_the_json_value_of_its_text(name: str, text: str, value: object) -> None:
    assert form.to_partial_spec(SubmittedForm({name: f" {text} "}))[name] == value


def test_auto_is_read_and_shown_in_the_language_of_the_reader() -> None:
    with use_locale("zh-CN"):
        read = form.to_partial_spec(
            SubmittedForm({"max_steps": "自动", "per_device_batch_size": "自动", "name": "自动"})
        )
        assert (read["max_steps"], read["per_device_batch_size"], read["name"]) == (None, "auto", "自动")
        context = FormContext(SubmittedForm({"recipe": "tiny"}), {})
        controls = [control for group in form_controls.groups(context) for control in group.controls]
        assert "自动" in [control.placeholder for control in controls]
        assert not [control for control in controls if "auto" in control.placeholder + control.help]


def test_a_job_that_continues_names_no_recipe() -> None:
    fields = {"resume_from_checkpoint": "c", "recipe": "chat", "name": ""}
    assert form.to_partial_spec(SubmittedForm(fields)) == {"resume_from_checkpoint": "c"}
    assert form.to_partial_spec(SubmittedForm({"recipe": "chat"}, ["1"])) == {"recipe": "chat", "corpora": ["1"]}


def test_fields_and_corpora_are_taken_out() -> None:
    read = SubmittedForm({"name": "a", "vocab_size": "9"}, ["1", "2"], ["2", "3"])
    assert form.without_fields(read, ["vocab_size"]).fields == {"name": "a"}
    left = form.without_corpora(read, {"2"})
    assert (list(left.corpora), list(left.validation_corpora)) == (["1"], ["3"])


# ---- filling in -----------------------------------------------------------------------------------------------------


def test_a_copy_holds_what_differs_from_the_recipe() -> None:
    spec = {**example_spec("tiny").model_dump(), "learning_rate": 0.5, "corpora": ["1"], "validation_corpora": ["2"]}
    copy = form.prefill_copy(spec)
    assert copy.fields["learning_rate"] == "0.5"
    assert not [name for name in copy.fields if name in recipe("tiny") and name != "learning_rate"]
    assert (list(copy.corpora), list(copy.validation_corpora)) == (["1"], ["2"])


@pytest.mark.parametrize(("step", "steps"), [(99, None), (100, "200")])
def test_a_finished_run_continues_for_as_long_again(step: int, steps: str | None) -> None:
    filled = form.prefill_continue(Origin("c", step, "job", "Job", {"max_steps": 100}))
    assert filled.fields.get("max_steps") == steps


# ---- errors ---------------------------------------------------------------------------------------------------------


def test_a_field_shows_its_first_error_with_titles_for_names() -> None:
    problems = [
        FieldError("max_steps", "max_steps must be at least 1, or set num_train_epochs"),
        FieldError("max_steps", "max_steps is wrong again"),
    ]
    errors = form.errors_by_field(problems, SubmittedForm())
    titles = {name: form.properties()[name]["title"] for name in ("max_steps", "num_train_epochs")}
    assert errors == {"max_steps": f"{titles['max_steps']} must be at least 1, or set {titles['num_train_epochs']}"}


def test_a_name_of_one_word_gives_way_to_its_title_only_as_the_subject() -> None:
    problem = FieldError("seed", "seed must be at least 0, as a seed is")
    title = form.properties()["seed"]["title"]
    assert form.errors_by_field([problem], SubmittedForm()) == {"seed": f"{title} must be at least 0, as a seed is"}


def test_a_missing_corpus_is_asked_for_and_a_bad_one_is_explained() -> None:
    problem = [FieldError("corpora", "There is no corpus x.")]
    assert form.errors_by_field(problem, SubmittedForm()) == {"corpora": "Choose at least one corpus."}
    assert form.errors_by_field(problem, SubmittedForm({}, ["x"])) == {"corpora": "There is no corpus x."}


# ---- controls -------------------------------------------------------------------------------------------------------


def test_defaults_come_from_the_recipe_the_base_model_or_the_checkpoint() -> None:
    plain = FormContext(SubmittedForm({"recipe": "tiny"}), {})
    assert plain.defaults["hidden_size"] == recipe("tiny")["hidden_size"]
    of_base = FormContext(SubmittedForm({"recipe": "chat"}), {}, base=BASE)
    assert (of_base.defaults["hidden_size"], of_base.defaults["sequence_length"]) == (96, 32)
    resumed = FormContext(SubmittedForm({"max_steps": "77"}), {}, origin=origin(hidden_size=128))
    assert (resumed.defaults["hidden_size"], resumed.defaults["max_steps"]) == (128, "77")


def test_what_is_decided_elsewhere_is_locked_and_empty() -> None:
    fields = {"recipe": "chat", "hidden_size": "12", "learning_rate": "0.5"}
    of_base = FormContext(SubmittedForm(fields), {}, base=BASE)
    locked = control(of_base, "hidden_size")
    assert (locked.attrs["disabled"], locked.value, locked.help) == (True, "", "Set by the base model.")
    assert control(of_base, "learning_rate").value == "0.5"
    resumed = FormContext(SubmittedForm(fields), {}, origin=origin())
    assert control(resumed, "hidden_size").help.startswith("Cannot be changed")
    assert "disabled" not in control(resumed, "learning_rate").attrs


def test_a_search_varies_only_what_the_form_leaves_open() -> None:
    submitted = SubmittedForm({"recipe": "tiny"})
    free, based = (
        {name for name, _title in form_controls.searchable_fields(FormContext(submitted, {}, base=base))}
        for base in (None, BASE)
    )
    assert {"hidden_size", "learning_rate"} <= free
    assert ("hidden_size" in based, "learning_rate" in based) == (False, True)


def test_a_group_opens_for_a_value_or_an_error_in_it() -> None:
    def is_open(fields: dict[str, str], errors: dict[str, str]) -> dict[str, bool]:
        groups = form_controls.groups(FormContext(SubmittedForm({"recipe": "tiny", **fields}), errors))
        return {group.name: group.is_open for group in groups}

    assert not any(is_open({}, {}).values())
    assert is_open({"learning_rate": "1"}, {})["training"]
    assert is_open({}, {"hidden_size": "It is odd."})["model"]
    assert control(FormContext(SubmittedForm(), {"hidden_size": "It is odd."}), "hidden_size").error == "It is odd."


def test_fields_of_other_objectives_are_hidden() -> None:
    context = FormContext(SubmittedForm({"recipe": "tiny"}), {})
    assert (control(context, "dpo_beta").is_hidden, control(context, "sample_prompt").is_hidden) == (True, False)
    assert "dpo_beta" not in context.shown_fields()


def test_new_tokens_are_offered_with_a_base_model() -> None:
    submitted = SubmittedForm({"recipe": "tiny"})
    assert control(FormContext(submitted, {}), "new_tokens").is_hidden
    assert not control(FormContext(submitted, {}, base=BASE), "new_tokens").is_hidden


def test_a_field_that_athanor_can_choose_offers_auto_first() -> None:
    choices = control(FormContext(SubmittedForm({"recipe": "tiny"}), {}), "zero_stage").choices
    assert [value for value, _label in choices[:2]] == ["", "auto"]


def test_a_field_that_is_on_or_off_says_which() -> None:
    groups = form_controls.groups(FormContext(SubmittedForm({"recipe": "tiny"}), {}))
    choices = [dict(c.choices) for group in groups for c in group.controls if "true" in dict(c.choices)]
    assert choices
    assert {(each["true"], each["false"]) for each in choices} == {("yes", "no")}


def test_only_a_long_text_has_lines() -> None:
    context = FormContext(SubmittedForm({"recipe": "tiny"}), {})
    assert control(context, "chat_template").attrs["rows"] == 3
    assert "rows" not in control(context, "max_steps").attrs


def test_fields_of_a_tuning_or_schedule_that_is_not_chosen_are_hidden() -> None:
    plain = FormContext(SubmittedForm({"recipe": "tiny"}), {})
    assert (control(plain, "lora_rank").is_hidden, control(plain, "decay_steps").is_hidden) == (True, True)
    chosen = {"recipe": "tiny", "tuning": "lora", "lr_scheduler_type": "warmup_stable_decay"}
    tuned = FormContext(SubmittedForm(chosen), {})
    assert (control(tuned, "lora_rank").is_hidden, control(tuned, "decay_steps").is_hidden) == (False, False)


def test_a_field_with_a_value_is_shown_so_that_it_can_be_emptied() -> None:
    assert not control(FormContext(SubmittedForm({"recipe": "tiny", "decay_steps": "5"}), {}), "decay_steps").is_hidden


def test_a_sentence_names_fields_as_the_form_does() -> None:
    assert form.with_titles("Lower hidden_size, or precision.") == "Lower Hidden size, or precision."
