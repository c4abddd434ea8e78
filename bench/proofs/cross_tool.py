"""Whether our inference, transformers and llama.cpp read and write the same with models that were trained here.

`PYTHONPATH=. python bench/proofs/cross_tool.py [Qwen2] [T5] ... [--smoke]`, three minutes for all. Each model is built
with random weights as its authors publish theirs, imported, trained by the trainer, and then asked the same prompts by
four programs: our inference, `pipeline()`, AutoTokenizer with AutoModel and `generate()`, and llama.cpp with our GGUF
file in f32. Tokens of the prompt, greedy text and the reason to stop must be equal; the exit status is 1 where one is
not. A run of all models writes docs/measurements/cross-tool.md.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerFast,
    pipeline,
)
from transformers.pipelines.text_generation import Chat
from transformers.utils import logging

from bench.proofs.llamacpp import ask, serving
from bench.support.arguments import IS_SMOKE, names
from bench.support.material import train
from bench.support.published_models import CONTEXT, MODELS
from tests.trainer.chat_fixtures import chats, completions
from trainer.data.record_encoding import RecordEncoder
from trainer.export import gguf_writer, verification
from trainer.inference import generation
from trainer.inference.generation import LoadedModel
from trainer.planning.counts import EVAL_SAMPLE_TOKENS
from trainer.training.eval_samples import Seq2SeqSample
from worker.sandbox.model_import import validate

REPORT = Path(__file__).parents[2] / "docs" / "measurements" / "cross-tool.md"
STEPS = 2 if IS_SMOKE else 50
NUM_WRITTEN = 4 if IS_SMOKE else 24
SHAPE = {
    "sequence_length": CONTEXT,
    "train_batch_size": 16,
    "per_device_batch_size": 16,
    "learning_rate": 0.01,
    "lr_scheduler_type": "constant",
    "validation_fraction": 0.2,
    "max_steps": STEPS,
    "eval_steps": STEPS,
    "save_steps": STEPS,
    "precision": "fp32",
}
Prompt = str | list[dict[str, str]]
Record = Mapping[str, Any]


@dataclass(frozen=True)
class Answer:
    """What a program reads and writes: the tokens of a prompt, a text or a label, and why it ended."""

    prompt_ids: list[int]
    text: str
    reason: str = ""


Program = Callable[[Prompt], Answer]


@dataclass(frozen=True)
class Trial:
    """What a model is trained on and asked."""

    model: str  # of MODELS
    objective: str
    records: Sequence[Record]
    prompts: Sequence[Prompt]
    programs: Callable[[Path], Iterator[tuple[str, Program | str]]]  # by column, or why there is none; ours first


# ---- decoders --------------------------------------------------------------------------------------------------------


def playground(checkpoint: Path) -> Program:
    """Our own inference."""
    loaded = generation.load(checkpoint, "cpu")

    def answer(prompt: Prompt) -> Answer:
        ids = loaded.encode(prompt) if isinstance(prompt, str) else loaded.encode_chat(prompt)
        pieces = list(generation.stream(loaded, ids, max_tokens=NUM_WRITTEN, temperature=0))
        return Answer(ids, "".join(piece.text for piece in pieces), str(pieces[-1].finish_reason))

    return answer


def text_pipeline(checkpoint: Path) -> Program:
    """What `pipeline("text-generation")` does."""
    writer = pipeline("text-generation", model=str(checkpoint), dtype=torch.float32)

    def answer(prompt: Prompt) -> Answer:
        ids = writer.preprocess(prompt if isinstance(prompt, str) else Chat(prompt))["input_ids"][0].tolist()
        (written,) = writer(prompt, max_new_tokens=NUM_WRITTEN, do_sample=False, return_tensors=True)
        return _continuation(writer.tokenizer, writer.model, ids, written["generated_token_ids"])

    return answer


def auto_classes(checkpoint: Path) -> Program:
    """What AutoTokenizer, AutoModelForCausalLM and `generate()` do."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)

    def answer(prompt: Prompt) -> Answer:
        if isinstance(prompt, str):
            inputs = tokenizer(prompt, return_tensors="pt")
        else:
            inputs = tokenizer.apply_chat_template(
                prompt, add_generation_prompt=True, return_tensors="pt", return_dict=True
            )
        written = model.generate(**inputs, max_new_tokens=NUM_WRITTEN, do_sample=False)[0].tolist()
        return _continuation(tokenizer, model, inputs["input_ids"][0].tolist(), written)

    return answer


def _continuation(tokenizer: Any, model: Any, prompt_ids: list[int], ids: list[int]) -> Answer:
    """What the tokens of prompt and continuation say behind the prompt.

    Both are decoded together: decoded alone, a continuation loses the space before its first word with SentencePiece.
    """
    before, whole = (tokenizer.decode(part, skip_special_tokens=True) for part in (prompt_ids, ids))
    ends = np.atleast_1d(model.generation_config.eos_token_id)
    return Answer(prompt_ids, whole[len(before) :], "stop" if ids[-1] in ends else "length")


def gguf_client(client: httpx.Client) -> Program:
    """What llama.cpp does."""

    def answer(prompt: Prompt) -> Answer:
        text = prompt if isinstance(prompt, str) else ask(client, "/apply-template", messages=prompt)["prompt"]
        tokens = ask(client, "/tokenize", content=text, add_special=True, parse_special=True)["tokens"]
        written = ask(client, "/completion", prompt=text, n_predict=NUM_WRITTEN, temperature=0.0)
        reason = {"eos": "stop", "limit": "length"}[written["stop_type"]]
        return Answer(tokens, written["content"], reason)

    return answer


def decoder_programs(checkpoint: Path) -> Iterator[tuple[str, Program | str]]:
    """The programs that continue a prompt."""
    yield "ours", playground(checkpoint)
    yield "pipeline", text_pipeline(checkpoint)
    yield "auto", auto_classes(checkpoint)
    file = checkpoint.parent / verification.GGUF_MODEL
    tokenizer = PreTrainedTokenizerFast.from_pretrained(checkpoint)
    gguf_writer.write(file, verification.load(checkpoint), tokenizer, "f32", "proof")
    with serving(file) as client:
        yield "llama.cpp", gguf_client(client)


# ---- classifiers and T5 ----------------------------------------------------------------------------------------------


def classifier_programs(checkpoint: Path) -> Iterator[tuple[str, Program | str]]:
    """The programs that label a text."""
    encoder = RecordEncoder("classification", PreTrainedTokenizerFast.from_pretrained(checkpoint))
    yield "ours", _labels(verification.load(checkpoint), lambda text: encoder.segments({"text": text})[0].ids)
    classify = pipeline("text-classification", model=str(checkpoint), dtype=torch.float32)

    def by_pipeline(text: Prompt) -> Answer:
        (said,) = classify(text)
        return Answer(classify.preprocess(text)["input_ids"][0].tolist(), f"{said['label']} {said['score']:.4f}")

    yield "pipeline", by_pipeline
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint, dtype=torch.float32)
    yield "auto", _labels(model, lambda text: tokenizer(text)["input_ids"])
    yield "llama.cpp", "no GGUF for classifiers"


def _labels(model: Any, encode: Callable[[str], list[int]]) -> Program:
    @torch.no_grad()
    def answer(text: Prompt) -> Answer:
        ids = encode(str(text))
        chances = model(input_ids=torch.tensor([ids])).logits[0].softmax(-1)
        best = int(chances.argmax())
        return Answer(ids, f"{model.config.id2label[best]} {float(chances[best]):.4f}")

    return answer


def t5_programs(checkpoint: Path) -> Iterator[tuple[str, Program | str]]:
    """The programs that write a target for a source."""
    loaded = LoadedModel(
        verification.load(checkpoint), PreTrainedTokenizerFast.from_pretrained(checkpoint, local_files_only=True)
    )
    encoder = RecordEncoder("seq2seq", loaded.tokenizer)

    def sample(source: Prompt) -> Answer:
        ids = encoder.segments({"source": source, "target": ""})[0].ids
        batch = SimpleNamespace(validation_batch=lambda _numbers: {"input_ids": np.array([ids])})
        return Answer(ids, Seq2SeqSample(batch, loaded).answer(loaded))  # type: ignore[arg-type]

    yield "ours", sample
    yield "pipeline", "none in transformers 5"
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModelForSeq2SeqLM.from_pretrained(checkpoint, dtype=torch.float32)

    def by_classes(source: Prompt) -> Answer:
        inputs = tokenizer(source, return_tensors="pt")
        written = model.generate(**inputs, max_new_tokens=EVAL_SAMPLE_TOKENS, do_sample=False)[0]
        return Answer(inputs["input_ids"][0].tolist(), tokenizer.decode(written, skip_special_tokens=True))

    yield "auto", by_classes
    yield "llama.cpp", "no GGUF for T5"


# ---- the trials ------------------------------------------------------------------------------------------------------

TALKS = [[message] for message in (chats(2)[0]["messages"][0], {"role": "user", "content": "the color of 山 🙂"})]
TALKS.append([{"role": "system", "content": "Be short."}, *chats(2)[1]["messages"][:3]])
LINES = [record["prompt"] for record in completions(2)] + ["  tell me of 山,\n🙂 ", "The old"]
TEXTS = [f"the old kettle is {word}" for word in ("splendid", "dreadful")] + ["山 is  not in it 🙂"]
JUDGMENTS = [
    {"text": f"the {noun} is {word}", "label": label}
    for noun in ("old kettle", "narrow bridge", "quiet garden", "wooden gate", "river")
    for word, label in (("splendid", "praise"), ("lovely", "praise"), ("dreadful", "blame"), ("broken", "blame"))
]
PAIRS = [{"source": record["prompt"], "target": record["completion"]} for record in completions(80)]
TRIALS = {
    "Llama 2": Trial("Llama 2", "completion", completions(160), LINES, decoder_programs),
    "Llama 3": Trial("Llama 3", "chat", chats(160), [*TALKS[:2], *LINES], decoder_programs),
    "Qwen2": Trial("Qwen2", "chat", chats(160), [*TALKS, *LINES], decoder_programs),
    "Mistral": Trial("Mistral", "chat", chats(160), [*TALKS[:2], *LINES], decoder_programs),
    "GPT-2": Trial("GPT-2", "completion", completions(160), LINES, decoder_programs),
    "BERT classifier": Trial("BERT", "classification", JUDGMENTS, TEXTS, classifier_programs),
    "Llama 3 classifier": Trial("Llama 3", "classification", JUDGMENTS, TEXTS, classifier_programs),
    "T5": Trial("T5", "seq2seq", PAIRS, [*(pair["source"] for pair in PAIRS[:2]), LINES[2]], t5_programs),
}


def trained(trial: Trial, home: Path) -> Path:
    """The checkpoint of a model that was imported and trained."""
    base = MODELS[trial.model].write(home / "base")
    closing = validate.report_result(base, 1 << 30, 1 << 40)
    if "failed" in closing:
        raise ValueError(f"the import of {trial.model} failed: {closing['failed']}")
    documents = [json.dumps(record, ensure_ascii=False) for record in trial.records]
    fields = {**SHAPE, "objective": trial.objective, "recipe": "tiny"}
    return train(home, "run", base, trial.objective, documents, **fields).checkpoint_path(STEPS, 1)


def difference(prompt: Prompt, expected: Answer, answer: Answer) -> str:
    """How two answers differ; empty if they are equal."""
    asked = prompt if isinstance(prompt, str) else prompt[-1]["content"]
    for name in ("prompt_ids", "text", "reason"):
        ours, theirs = getattr(expected, name), getattr(answer, name)
        if ours != theirs:
            return f"{asked!r}: {name} {theirs!r} instead of {ours!r}"
    return ""


def compare(trial: Trial, checkpoint: Path) -> tuple[list[Answer], dict[str, str]]:
    """What our inference answers to each prompt, and by program "equal", how it differs, or why there is none."""
    answers: list[Answer] = []
    cells: dict[str, str] = {}
    for name, program in trial.programs(checkpoint):
        if isinstance(program, str):
            cells[name] = f"– ({program})"
        elif name == "ours":
            answers = [program(prompt) for prompt in trial.prompts]
        else:
            pairs = zip(trial.prompts, answers, strict=True)
            differences = [difference(prompt, answer, program(prompt)) for prompt, answer in pairs]
            cells[name] = "; ".join(filter(None, differences)) or "equal"
    return answers, cells


def row(name: str, trial: Trial, answers: Sequence[Answer], cells: Mapping[str, str]) -> str:
    """A line of the table."""
    num_tokens = sum(len(answer.prompt_ids) for answer in answers)
    reasons = [answer.reason for answer in answers]
    ends = ", ".join(f"{reason} {reasons.count(reason)}" for reason in ("stop", "length") if reason in reasons)
    shown = [cell.replace("|", "\\|").replace("\n", " ") for cell in cells.values()]
    columns = (name, trial.objective, f"{len(answers)}, {num_tokens} tokens", ends or "–", *shown)
    return f"| {' | '.join(columns)} |"


def report(rows: Sequence[str]) -> str:
    """The document."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("transformers", "tokenizers", "xllamacpp"))
    return f"""\
# The same model in four programs

`PYTHONPATH=. python bench/proofs/cross_tool.py` writes this page, and ends with status 1 where a cell names a
difference. With {versions}, fp32 on a CPU.

Each model is built with random weights, and with tokenizer, configuration and template as its authors publish theirs;
imported; and trained {STEPS} steps here. Four programs answer the same prompts, among them conversations, unknown
characters and spaces at the ends: our inference, `pipeline()`, AutoTokenizer with AutoModel and `generate()`, and
llama.cpp with the GGUF file that is written from the checkpoint. A cell is “equal” if all tokens of the prompts, the
greedy texts of {NUM_WRITTEN} tokens and the reasons to stop are those of our inference; of classifiers, the label and
four digits of its probability.

| model | objective | prompts | our ends | `pipeline()` | AutoModel | llama.cpp |
| --- | --- | --- | --- | --- | --- | --- |
{chr(10).join(rows)}

The texts of our inference and of transformers are decoded with their prompts. Decoded alone, as `pipeline()` of
transformers 5 does it, a continuation loses the space before its first word with tokenizers of SentencePiece.
"""


def main() -> int:
    """Compare the models that the command line names, by default all; 1 if there is a difference."""
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    rows, num_different = [], 0
    asked = names(["Llama 2", "BERT classifier"] if IS_SMOKE else TRIALS)
    for name in asked:
        with TemporaryDirectory() as directory:
            answers, cells = compare(TRIALS[name], trained(TRIALS[name], Path(directory)))
        rows.append(row(name, TRIALS[name], answers, cells))
        num_different += sum(cell != "equal" and not cell.startswith("–") for cell in cells.values())
        print(rows[-1], flush=True)
    if set(asked) == set(TRIALS):
        REPORT.write_text(report(rows))
    print(f"{num_different} differences in {len(rows)} models after {STEPS} steps")
    return int(num_different > 0)


if __name__ == "__main__":
    sys.exit(main())
