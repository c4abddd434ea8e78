"""Names of the steps of recipes, and sentences of why a step removed or changed a document."""

from typing import Any

from babel import Locale

from app.core import i18n
from app.core.formatting import number
from app.core.i18n import Plural, gettext_noop, translate

STEP_NAMES = {
    "fix_unicode": gettext_noop("Repair Unicode"),
    "boilerplate": gettext_noop("Boilerplate lines"),
    "length": gettext_noop("Length"),
    "repetition": gettext_noop("Repetition"),
    "language": gettext_noop("Language"),
    "exact_duplicates": gettext_noop("Exact duplicates"),
    "near_duplicates": gettext_noop("Near duplicates"),
    "contamination": gettext_noop("Contamination"),
    "perplexity": gettext_noop("Perplexity"),
    "mask_personal_data": gettext_noop("Mask personal data"),
    "mask_secrets": gettext_noop("Mask secrets"),
}
# What a step does, in a sentence.
STEP_HELP = {
    "fix_unicode": gettext_noop(
        "Repairs text that was decoded wrongly (mojibake), HTML entities and control characters."
    ),
    "boilerplate": gettext_noop(
        "Removes lines that stand in many documents, such as headers, footers and cookie notices."
    ),
    "length": gettext_noop("Removes documents that are too short or too long."),
    "repetition": gettext_noop("Removes documents that repeat lines, paragraphs or phrases, by the rules of Gopher."),
    "language": gettext_noop("Removes documents in other languages. Very short texts stay."),
    "exact_duplicates": gettext_noop(
        "Removes documents that have the text of an earlier one, whatever their white space."
    ),
    "near_duplicates": gettext_noop("Removes documents that are almost the same as an earlier one (MinHash)."),
    "contamination": gettext_noop(
        "Removes documents that share a phrase with the corpora that models are evaluated on."
    ),
    "perplexity": gettext_noop(
        "Removes documents that surprise a model most, or least: any model that continues texts, or an n-gram model of "
        "corpora that you choose."
    ),
    "mask_personal_data": gettext_noop(
        "Puts <EMAIL>, <PHONE>, <IBAN>, <CREDIT_CARD> and <IP_ADDRESS> in place of such data."
    ),
    "mask_secrets": gettext_noop("Puts <SECRET> in place of private keys, access tokens, and passwords in addresses."),
}
PERSONAL_DATA_NAMES = {
    "email": gettext_noop("E-mail addresses"),
    "phone": gettext_noop("Phone numbers"),
    "iban": gettext_noop("IBANs"),
    "credit_card": gettext_noop("Credit card numbers"),
    "ip_address": gettext_noop("IP addresses"),
}
SENTENCES: dict[str, str | Plural] = {
    "unicode_fixed": Plural("Repaired in {n} line", "Repaired in {n} lines"),
    "lines_removed": Plural("{n} line removed", "{n} lines removed"),
    "personal_data_masked": Plural("{n} place masked", "{n} places masked"),
    "secrets_masked": Plural("{n} secret masked", "{n} secrets masked"),
    "emptied": gettext_noop("Nothing was left of a text"),
    "characters_few": Plural("{n} character, at least {limit}", "{n} characters, at least {limit}"),
    "characters_many": gettext_noop("{n} characters, at most {limit}"),
    "words_few": Plural("{n} word, at least {limit}", "{n} words, at least {limit}"),
    "words_many": gettext_noop("{n} words, at most {limit}"),
    "lines_repeated": gettext_noop("{share} of it are repeated lines"),
    "paragraphs_repeated": gettext_noop("{share} of it are repeated paragraphs"),
    "ngram_frequent": gettext_noop("{share} of it is “{ngram}”, again and again"),
    "ngrams_repeated": gettext_noop("{share} of it are repeated phrases of {n} words"),
    "language_other": gettext_noop("{language}, {share}"),
    "same": gettext_noop("The same text as document {document}"),
    "same_elsewhere": gettext_noop("The same text is in “{corpus}”"),
    "near": gettext_noop("Almost document {document}"),
    "near_elsewhere": gettext_noop("Almost a document of “{corpus}”"),
    "perplexity_low": gettext_noop("Perplexity {perplexity}, at least {limit}"),
    "perplexity_high": gettext_noop("Perplexity {perplexity}, at most {limit}"),
    "bits_per_byte_low": gettext_noop("{bits_per_byte} bits per byte, at least {limit}"),
    "bits_per_byte_high": gettext_noop("{bits_per_byte} bits per byte, at most {limit}"),
    "overlap": gettext_noop("Shared with “{corpus}”: {ngram}"),
}


# Scores of the step “Perplexity”, by their unit.
SCORE_NAMES = {"perplexity": gettext_noop("Perplexity"), "bits_per_byte": gettext_noop("Bits per byte")}


def sentence(reason: str, values: dict[str, Any]) -> str:
    """Why a document was removed, or how it was changed, in the reader's language."""
    filled = {name: number(value) if isinstance(value, int) else value for name, value in values.items()}
    if "share" in filled:
        filled["share"] = f"{100 * values['share']:.0f} %"
    if "language" in filled:
        filled["language"] = language_of(values["language"])
    return translate(SENTENCES[reason], values).format(**filled)


def language_of(code: str) -> str:
    """The name of a language in the reader's language; its code if it has none."""
    return str(Locale.parse(i18n.locale(), sep="-").languages.get(code, code))
