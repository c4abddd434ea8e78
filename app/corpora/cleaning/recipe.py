"""Recipes of cleaning: the settings of each step. Pydantic only, as the sandboxed child reads them too.

What a step does with them is in worker/sandbox/cleaning.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

# The labels of py3langid 0.4.
_LANGUAGES = """
af am ar as az be bg bn br bs ca cs cy da de el en eo es et eu fa fi fr fy ga gd gl gu ha he hi hr ht hu hy id ig is it
ja jv ka kk km kn ko ku ky la lg ln lo lt lv mg mk ml mn mr ms my ne nl no om or pa pl ps pt qu ro ru sa si sk sl so sq
sr sv sw ta te th tl tr ug uk ur uz vi xh yo zh zu zxx ace bcl dz ext gcf gom grc gug hbo kik nso pcm rw se sn st an ary
crh fo fuv gcr guw kab lb lij ltg uzs wa sdh arz ba mt nn oc tg tk tt vec vo wuu yue
"""
LANGUAGES = tuple(_LANGUAGES.split())
MAX_STEPS = 20
# Files in the directory of a version: what its child is asked for, and samples of what each step removed or changed.
RECIPE_FILE = "recipe.json"
EXAMPLES_FILE = "examples.json"
SCRATCH_BYTES = 128 << 20  # of a temporary file: the model of py3langid is unpacked to 68 MB
MAX_CORPORA = 16

CorpusIds = Annotated[list[str], Field(max_length=MAX_CORPORA)]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FixUnicode(_Settings):
    """Repair text that was decoded or encoded wrongly (ftfy), and normalize it to NFC. Changes texts."""

    name: Literal["fix_unicode"] = "fix_unicode"


class Boilerplate(_Settings):
    """Remove lines that stand in many documents, such as headers, footers and cookie notices. Changes texts, and
    removes a document of which nothing is left.
    """

    name: Literal["boilerplate"] = "boilerplate"
    min_share: float = Field(0.02, gt=0, le=1, description="Share of the documents that have the line.")
    min_documents: int = Field(5, ge=2, le=10**9, description="And at least so many documents.")


class Length(_Settings):
    """Remove documents that are too short or too long."""

    name: Literal["length"] = "length"
    min_characters: int = Field(50, ge=0, le=10**9)
    max_characters: int | None = Field(None, ge=1, le=10**9)
    min_words: int = Field(0, ge=0, le=10**9, description="Words; in scripts without spaces, characters.")
    max_words: int | None = Field(None, ge=1, le=10**9)


class Repetition(_Settings):
    """Remove documents that repeat themselves: the rules of Gopher (Rae et al. 2021, table A1)."""

    name: Literal["repetition"] = "repetition"
    max_lines: float = Field(0.3, ge=0, le=1, description="Largest share of lines that stand earlier in the document.")
    max_paragraphs: float = Field(0.3, ge=0, le=1, description="The same of paragraphs.")
    ngrams: bool = Field(True, description="Also check how many characters lie in frequent and repeated word n-grams.")


class Language(_Settings):
    """Remove documents in other languages (py3langid). Texts of fewer than 20 letters stay."""

    name: Literal["language"] = "language"
    languages: list[str] = Field(["en"], min_length=1, max_length=len(LANGUAGES), description="ISO 639 codes.")
    min_confidence: float = Field(0.5, ge=0, le=1, description="Probability that the text is in one of them.")


class ExactDuplicates(_Settings):
    """Remove documents with the text of an earlier one, or of one in other corpora. White space does not count."""

    name: Literal["exact_duplicates"] = "exact_duplicates"
    corpora: CorpusIds = Field([], description="IDs of other corpora.")


class NearDuplicates(_Settings):
    """Remove documents that are almost an earlier one, or one in other corpora: MinHash of word 5-grams (rensa)."""

    name: Literal["near_duplicates"] = "near_duplicates"
    threshold: float = Field(0.8, ge=0.5, le=1, description="Jaccard similarity of the sets of word 5-grams.")
    corpora: CorpusIds = Field([], description="IDs of other corpora.")


class Contamination(_Settings):
    """Remove documents that share a word n-gram with evaluation or validation corpora (Brown et al. 2020, appendix C).
    Texts of those corpora that are shorter than an n-gram match nothing.
    """

    name: Literal["contamination"] = "contamination"
    corpora: CorpusIds = Field(min_length=1, description="IDs of corpora that models are evaluated or validated on.")
    ngram: int = Field(13, ge=5, le=50, description="Words of an n-gram.")


class Perplexity(_Settings):
    """Remove documents that surprise a model too little or too much: an n-gram model of the text of reference `corpora`
    (perplexity by interpolated Kneser-Ney; documents of fewer than 10 words stay), or a checkpoint or base model, the
    `model` (bits per byte; documents of fewer than two tokens stay). One of both is needed.
    """

    name: Literal["perplexity"] = "perplexity"
    corpora: CorpusIds = Field([], description="IDs of corpora with text as it should be.")
    model: str | None = Field(None, max_length=64, description="ID of a checkpoint or base model that continues texts.")
    min_percentile: float = Field(0, ge=0, le=100, description="Documents below it are removed.")
    max_percentile: float = Field(90, ge=0, le=100, description="Documents above it are removed.")
    max_bits_per_byte: float | None = Field(
        None, gt=0, le=1000, description="Documents above it are removed, too. Only with a model."
    )
    order: int = Field(3, ge=1, le=5, description="Words of an n-gram.")


PersonalDataKind = Literal["email", "phone", "iban", "credit_card", "ip_address"]
PERSONAL_DATA: tuple[PersonalDataKind, ...] = ("email", "phone", "iban", "credit_card", "ip_address")


class MaskPersonalData(_Settings):
    """Replace e-mail addresses, phone numbers, IBANs, credit card numbers and IP addresses by names such as <EMAIL>."""

    name: Literal["mask_personal_data"] = "mask_personal_data"
    kinds: list[PersonalDataKind] = Field([*PERSONAL_DATA], min_length=1, max_length=len(PERSONAL_DATA))


class MaskSecrets(_Settings):
    """Replace private keys, passwords in addresses and access tokens of services by <SECRET> (detect-secrets)."""

    name: Literal["mask_secrets"] = "mask_secrets"


STEPS = (
    FixUnicode,
    Boilerplate,
    Length,
    Repetition,
    Language,
    ExactDuplicates,
    NearDuplicates,
    Contamination,
    Perplexity,
    MaskPersonalData,
    MaskSecrets,
)  # in the order in which the page offers them

StepSettings = Annotated[
    FixUnicode
    | Boilerplate
    | Length
    | Repetition
    | Language
    | ExactDuplicates
    | NearDuplicates
    | Contamination
    | Perplexity
    | MaskPersonalData
    | MaskSecrets,
    Field(discriminator="name"),
]
Steps = Annotated[list[StepSettings], Field(min_length=1, max_length=MAX_STEPS)]
STEPS_ADAPTER: TypeAdapter[list[StepSettings]] = TypeAdapter(Steps)


def models_of(steps: list[StepSettings]) -> list[str]:
    """The IDs of all models that score documents, each once."""
    ids = [step.model for step in steps if isinstance(step, Perplexity) and step.model is not None]
    return list(dict.fromkeys(ids))


def corpora_of(steps: list[StepSettings]) -> list[str]:
    """The IDs of all corpora that steps compare with, each once."""
    ids = [corpus_id for step in steps for corpus_id in getattr(step, "corpora", [])]
    return list(dict.fromkeys(ids))
