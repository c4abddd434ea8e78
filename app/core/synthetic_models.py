"""The tables of synthetic data, without logic: endpoints of models, and the records that models write."""

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from app.core.account_models import User
from app.core.json_columns import JsonColumn
from app.core.model_base import Base, new_id, one_of
from app.core.models import BackgroundTask, Corpus
from app.core.synthetic_shapes import AnswerProblem, RecordSettings

DRAFT_STATES = ("draft", "accepted", "rejected")


class ModelEndpoint(Base):
    """A model behind an API like OpenAI's. Prices are per million tokens; None: no cost is counted."""

    __tablename__ = "model_endpoint"

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    owner_id: Mapped[str] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"), index=True)
    name: Mapped[str]
    base_url: Mapped[str]  # to which /chat/completions is added
    model: Mapped[str]
    api_key: Mapped[str] = mapped_column(server_default="")  # as its owner has it: requests carry it
    input_price: Mapped[float | None]
    output_price: Mapped[float | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class RecordGeneration(Base):
    """Records that a model writes from documents of a corpus, until people have reviewed them.

    What is copied from the corpus and the endpoint outlives both. `task_id` is its last background task.
    """

    __tablename__ = "record_generation"

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    owner_id: Mapped[str] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"), index=True)
    corpus_id: Mapped[str | None] = mapped_column(ForeignKey(Corpus.id, ondelete="SET NULL"), index=True)
    corpus_name: Mapped[str]
    corpus_version: Mapped[int]
    corpus_sha256: Mapped[str]  # of the parsed text
    corpus_documents: Mapped[int] = mapped_column(BigInteger)
    endpoint_id: Mapped[str | None] = mapped_column(ForeignKey(ModelEndpoint.id, ondelete="SET NULL"), index=True)
    endpoint_url: Mapped[str | None]  # None: a model of this installation
    model: Mapped[str]  # as the endpoint calls it, or the ID of a deployment, a checkpoint or a base model
    model_name: Mapped[str]
    model_id: Mapped[str | None]  # of this installation: the checkpoint or base model, also that of a deployment
    input_price: Mapped[float | None]
    output_price: Mapped[float | None]
    settings: Mapped[RecordSettings] = mapped_column(JsonColumn(RecordSettings))
    task_id: Mapped[str | None] = mapped_column(ForeignKey(BackgroundTask.id, ondelete="SET NULL"))
    num_prompt_tokens: Mapped[int] = mapped_column(BigInteger, server_default="0")
    num_tokens: Mapped[int] = mapped_column(BigInteger, server_default="0")
    malformed: Mapped[dict[str, int]] = mapped_column(server_default="{}")  # answers that could not be used, by code
    examples: Mapped[list[AnswerProblem]] = mapped_column(JsonColumn(list[AnswerProblem]), server_default="[]")
    stopped_by: Mapped[str | None]  # the limit that ended it: tokens or cost
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class PromptedDocument(Base):
    """A document about which a model was asked, with its beginning. It is not asked about again."""

    __tablename__ = "prompted_document"

    generation_id: Mapped[str] = mapped_column(ForeignKey(RecordGeneration.id, ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(BigInteger, primary_key=True)  # in the corpus, from 0
    excerpt: Mapped[str]


class DraftRecord(Base):
    """A record that a model wrote. `cells` are a question and its answer, the messages of a conversation, or a text."""

    __tablename__ = "draft_record"

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    generation_id: Mapped[str] = mapped_column(ForeignKey(RecordGeneration.id, ondelete="CASCADE"))
    document: Mapped[int] = mapped_column(BigInteger)
    cells: Mapped[list[str]]
    state: Mapped[str] = mapped_column(server_default="draft")
    is_edited: Mapped[bool] = mapped_column(server_default=text("false"))
    duplicate_of: Mapped[str | None]  # an earlier draft that is almost the same

    __table_args__ = (
        CheckConstraint(one_of("state", DRAFT_STATES), name="state"),
        Index("ix_draft_record_generation_id_id", "generation_id", "id"),
    )
