"""Commands of synthetic data: records that models write from documents."""

from typing import Annotated

import typer

from ..language import _
from ..record_generations import GenerationFields
from ..synthetic_shapes import RecordGenerationInfo
from .resources import Limit, Wait, show, show_list
from .terminal import AsJson, Id, command, connect, print_json, say

records = typer.Typer(help="Records that models write from documents, for review.", no_args_is_help=True)

GENERATION = (
    *("id", "corpus_name", "model_name", "kind", "state", "num_done", "num_documents", "num_prompt_tokens"),
    *("num_tokens", "cost", "message"),
)
LISTED = ("id", "corpus_name", "model_name", "kind", "state", "num_done", "num_documents")


@command(records, "generate")
def generate_records(
    corpus: Annotated[str, typer.Argument(help="ID of the corpus whose documents are used.")],
    model: Annotated[str, typer.Option(help="A deployment, checkpoint or base model here.")] = "",
    endpoint: Annotated[str, typer.Option(help="ID of a model endpoint, in place of a model.")] = "",
    kind: Annotated[str, typer.Option(help="question_answer, chat or text.")] = "question_answer",
    documents: Annotated[int, typer.Option(min=1, help="Number of documents.")] = 20,
    per_document: Annotated[int, typer.Option(min=1, help="Records for each; 1 of the kind text.")] = 3,
    turns: Annotated[int, typer.Option(min=1, help="Questions of a conversation.")] = 2,
    template: Annotated[str, typer.Option(help="What is asked, with {document}; a default if left out.")] = "",
    temperature: Annotated[float, typer.Option(min=0, max=2)] = 0.7,
    max_tokens: Annotated[int, typer.Option(min=1, help="Limit of one answer.")] = 2000,
    max_total_tokens: Annotated[int | None, typer.Option(min=1, help="Limit of all tokens.")] = None,
    max_cost: Annotated[float | None, typer.Option(help="Limit of the cost.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Chooses the documents.")] = 0,
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Have a model write question-answer pairs, conversations or better texts, which people then review."""
    fields: GenerationFields = {
        "model": model,
        "endpoint": endpoint or None,
        "kind": kind,
        "num_documents": documents,
        "records_per_document": 1 if kind == "text" else per_document,
        "num_turns": turns,
        "template": template,
        "temperature": temperature,
        "max_tokens": max_tokens,
        "max_total_tokens": max_total_tokens,
        "max_cost": max_cost,
        "seed": seed,
    }
    with connect() as client:
        generation = client.record_generations.create(corpus, **fields)
        _print(client.record_generations.wait(generation.id) if wait else generation, as_json=as_json)


def _print(generation: RecordGenerationInfo, *, as_json: bool) -> None:
    show(generation, GENERATION, as_json=as_json)
    if as_json:
        return
    say(f"{'records':<16} {generation.records.model_dump_json()}")
    for example in generation.examples[:3]:
        say(f"{example.document}: {example.message}")


@command(records, "list")
def list_record_generations(limit: Limit = 50, as_json: AsJson = False) -> None:
    """List generations of records, newest first."""
    with connect() as client:
        show_list(client.record_generations.list(), LISTED, limit, as_json=as_json)


@command(records, "show")
def show_record_generation(id: Id, as_json: AsJson = False) -> None:
    """Show a generation with its counts and the first answers that could not be used."""
    with connect() as client:
        _print(client.record_generations.get(id), as_json=as_json)


@command(records, "resume")
def resume_record_generation(id: Id, wait: Wait = False, as_json: AsJson = False) -> None:
    """Ask about the documents that are left."""
    with connect() as client:
        generation = client.record_generations.resume(id)
        _print(client.record_generations.wait(id) if wait else generation, as_json=as_json)


@command(records, "accept")
def accept_records(
    id: Id,
    duplicates: Annotated[bool, typer.Option("--duplicates", help="Also what is almost an earlier record.")] = False,
    as_json: AsJson = False,
) -> None:
    """Accept all records that nobody has decided about."""
    with connect() as client:
        show(
            client.record_generations.review(id, "accepted", duplicates=duplicates),
            ("draft", "accepted", "rejected", "duplicates"),
            as_json=as_json,
        )


@command(records, "corpus")
def make_corpus(
    id: Id,
    name: Annotated[str, typer.Option(help="Name of the corpus; the source's if left out.")] = "",
    into: Annotated[str, typer.Option(help="ID of a corpus, of which a new version gets the records.")] = "",
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Make a corpus of the accepted records."""
    with connect() as client:
        corpus = client.record_generations.make_corpus(id, name=name, corpus_id=into or None)
        if wait:
            corpus = client.corpora.wait(corpus.id)
        show(corpus, ("id", "name", "version", "state", "kind", "num_documents"), as_json=as_json)


@command(records, "endpoints")
def list_endpoints(limit: Limit = 50, as_json: AsJson = False) -> None:
    """List model endpoints, without their keys."""
    columns = ("id", "name", "base_url", "model", "input_price", "output_price")
    with connect() as client:
        show_list(client.model_endpoints.list(), columns, limit, as_json=as_json)


@command(records, "delete")
def delete_record_generation(id: Id, as_json: AsJson = False) -> None:
    """Delete a generation with its records. Corpora made of them stay."""
    with connect() as client:
        client.record_generations.delete(id)
    if as_json:
        print_json({"deleted": id})
    else:
        say(_("Deleted: {id}", id=id))
