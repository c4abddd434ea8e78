"""Requests and answers of looks inside a model."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from app.playground.schemas import ModelID

MAX_TEXT_CHARACTERS = 20_000
MAX_ATTENTION_CHARACTERS = 2_000
MAX_ATTENTION_TOKENS = 64  # the weights of a layer grow with its square
MAX_SCORED_TOKENS = 2_048
MAX_PSEUDO_SCORED_TOKENS = 128  # each costs a forward pass
MAX_ANSWER_TOKENS = 512  # their logits exist at once
MAX_TEXTS = 16

Text = Annotated[
    str, Field(description="The text to look at.", min_length=1, max_length=MAX_TEXT_CHARACTERS, examples=["The cat"])
]
TopK = Annotated[int, Field(description="How many tokens to list.", ge=1, le=50)]


class InspectRequest(BaseModel):
    """A model and a text."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    checkpoint: ModelID
    text: Text


class TokenizeRequest(InspectRequest):
    """A text to split into tokens."""


class ScoreRequest(InspectRequest):
    """A text whose tokens a decoder predicts, each from those before it, or an encoder, each from all others; or an
    encoder-decoder, as the answer to a source text.
    """

    source: Annotated[
        str, Field(description="The source text, for an encoder-decoder only.", max_length=MAX_TEXT_CHARACTERS)
    ] = ""
    top_k: Annotated[int, Field(description="How many alternatives to list for each token.", ge=0, le=20)] = 5


class AttentionRequest(InspectRequest):
    """A short text, and a layer that reads it."""

    text: Annotated[str, Field(description="The text to read.", min_length=1, max_length=MAX_ATTENTION_CHARACTERS)]
    layer: Annotated[int, Field(description="The layer, counted from 0.", ge=0, le=1_000)] = 0


class NeighborsRequest(InspectRequest):
    """A text, and the token of it whose neighbors are wanted."""

    position: Annotated[
        int | None, Field(description="The token, counted from 0; null: the last one.", ge=0, le=MAX_TEXT_CHARACTERS)
    ] = None
    top_k: TopK = 10


class FillMaskRequest(InspectRequest):
    """A text with masks: [MASK], or the tokenizer's own mask token."""

    text: Annotated[
        str,
        Field(
            description="The text, with [MASK] where a token is missing.",
            min_length=1,
            max_length=MAX_TEXT_CHARACTERS,
            examples=["The [MASK] sat on the mat"],
        ),
    ]
    top_k: TopK = 5


class ClassifyRequest(InspectRequest):
    """A text to classify."""


class EmbedRequest(BaseModel):
    """Texts to turn into vectors."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    checkpoint: ModelID
    texts: Annotated[list[Text], Field(description="The texts to embed.", min_length=1, max_length=MAX_TEXTS)]


# ---- answers --------------------------------------------------------------------------------------------------------


class Token(BaseModel):
    """A token of a text. `text` spells bytes that form no character as \\xe5."""

    id: int
    text: str
    num_bytes: int  # of the text that it stands for: 0 for a special token
    is_special: bool


class Prediction(BaseModel):
    """A token that the model might have put in a place."""

    id: int
    text: str
    probability: float


class TokenizeAnswer(BaseModel):
    """The tokens of a text, with the special tokens that the tokenizer adds."""

    tokens: list[Token]
    vocab_size: int  # of the tokenizer


class ScoredToken(Token):
    """A token with what the model thought of it.

    Nothing precedes the first one of a decoder, which has no values; nor have the special tokens of an encoder. An
    encoder-decoder predicts all tokens of an answer, the one that ends it too.
    """

    log_prob: float | None  # natural logarithm of its probability
    rank: int | None  # 1: the model's first choice
    top: list[Prediction]


class ScoreAnswer(BaseModel):
    """How well a model predicts a text. The figures are null for a text without a token that is scored."""

    tokens: list[ScoredToken]
    is_pseudo: bool  # by an encoder: pseudo-log-likelihood, which is not comparable with that of decoders
    num_scored: int
    loss: float | None  # mean negative log-probability per scored token
    perplexity: float | None  # exp(loss)
    bits_per_byte: float | None  # of the bytes that the scored tokens stand for


class AttentionAnswer(BaseModel):
    """How much each token reads of each other, by head: weights[head][reader][read]. Each row sums to 1."""

    tokens: list[Token]
    layer: int
    num_layers: int
    num_heads: int
    weights: list[list[list[float]]]


class Neighbor(BaseModel):
    """A token of the vocabulary with the cosine similarity of its input embedding."""

    id: int
    text: str
    similarity: float


class NeighborsAnswer(BaseModel):
    """The tokens of a text, without special ones, and the nearest neighbors of one of them."""

    tokens: list[Token]
    position: int
    neighbors: list[Neighbor]
    vocab_size: int
    hidden_size: int


class FilledMask(BaseModel):
    """A mask of a text, and the likeliest tokens in its place."""

    position: int
    top: list[Prediction]


class FillMaskAnswer(BaseModel):
    """The tokens of a text with masks, and what the model puts in their places."""

    tokens: list[Token]
    masks: list[FilledMask]


class LabelProbability(BaseModel):
    """A label with its probability."""

    label: str
    probability: float


class ClassifyAnswer(BaseModel):
    """All labels of a classifier, the likeliest first."""

    labels: list[LabelProbability]
    num_tokens: int


class EmbedAnswer(BaseModel):
    """One vector of length 1 for each text: the mean of the last hidden states."""

    embeddings: list[list[float]]
    similarity: list[list[float]]  # cosine similarity of each text with each
    num_tokens: list[int]
