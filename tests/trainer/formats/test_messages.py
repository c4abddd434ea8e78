"""Messages: a template and its values, kept apart for translation."""

import pytest

from trainer.formats.messages import Message, message

TEMPLATES = {"fits": "needs {needed_bytes} of {available_bytes}"}


def test_a_message_is_its_template_filled_with_its_values() -> None:
    fits = message(TEMPLATES, "fits", needed_bytes=3, available_bytes=5)

    assert str(fits) == "needs 3 of 5"
    assert (fits.code, fits.template) == ("fits", TEMPLATES["fits"])
    assert Message.model_validate_json(fits.model_dump_json()) == fits


def test_an_unknown_code_is_an_error() -> None:
    with pytest.raises(KeyError):
        message(TEMPLATES, "other")
