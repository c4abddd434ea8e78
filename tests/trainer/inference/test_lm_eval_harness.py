"""A checkpoint measured by lm-evaluation-harness: the figures are those of the model's own likelihoods."""

import contextlib
import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.modeling_outputs import CausalLMOutput

from tests.trainer.runs import checkpoint_of, write_corpus
from trainer.__main__ import main
from trainer.formats.corpus_kinds import EVALUATION_KINDS
from trainer.inference import evaluation, generation, lm_eval_harness
from trainer.inference.generation import LoadedModel
from trainer.run_dir import CorpusInput, RunDir

CASES = Path(__file__).parents[2] / "fixtures/cases/data"
VERSES = ["In the beginning God created the heaven and the earth.", "And God said, Let there be light."]
RECORDS: dict[str, list[dict[str, Any]]] = {
    "multiple_choice": [
        {"question": "In the beginning God", "choices": ["xqz jjj", "created"], "answer": 1},
        {"question": "And God said,", "choices": ["Let there be light", "%%%% ####"], "answer": 0},
        {"question": "And the evening and", "choices": ["the morning", "7777 8888"], "answer": 1},
    ],
    "classification": [
        {"text": "And God said", "label": "holy"},
        {"text": "1234 5678", "label": "numbers"},
        {"text": "the LORD", "label": "holy"},
    ],
    "completion": [{"prompt": "the", "completion": " earth"}, {"prompt": "And God", "completion": " said"}],
}


def write(home: Path, kind: str, documents: list[str]) -> CorpusInput:
    return write_corpus(home / kind, documents).model_copy(update={"id": kind, "kind": kind})


@pytest.fixture(scope="module")
def loaded(trained: RunDir) -> LoadedModel:
    return generation.load(checkpoint_of(trained, 150), "cpu")


@pytest.fixture(scope="module")
def found(trained: RunDir, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the command line prints for all kinds of corpora."""
    home = tmp_path_factory.mktemp("harness")
    corpora = [write(home, "text", VERSES)]
    corpora += [write(home, kind, [json.dumps(record) for record in records]) for kind, records in RECORDS.items()]
    (home / "corpora.json").write_text(json.dumps([corpus.model_dump() for corpus in corpora]))
    lines = run_main(["evaluate", str(checkpoint_of(trained, 150)), str(home / "corpora.json")])

    assert [line["total"] for line in lines[:-1]] == [2 + 6 + 6 + 2] * (len(lines) - 1)
    assert lines[-2]["done"] == 16
    return {corpus["corpus"]: corpus for corpus in lines[-1]["result"]["corpora"]}


def run_main(arguments: list[str]) -> list[dict[str, Any]]:
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as printed:
        patch.setattr("sys.argv", ["trainer", *arguments])
        assert main() == 0
    return [json.loads(line) for line in printed.getvalue().splitlines() if line.startswith("{")]


def nats(loaded: LoadedModel, context: str, text: str) -> float:
    """-log p(text | context) by transformers itself."""
    before = [int(loaded.tokenizer.bos_token_id)] if not context else loaded.tokenizer(context)["input_ids"]
    ids = torch.tensor([[*before, *loaded.tokenizer(text)["input_ids"]]])
    with torch.no_grad():
        scores = loaded.model(input_ids=ids).logits[0].log_softmax(-1)
    return -sum(float(scores[at - 1, ids[0, at]]) for at in range(len(before), ids.shape[1]))


def test_bits_per_byte_are_those_of_the_model(found: dict[str, Any], loaded: LoadedModel) -> None:
    expected = sum(nats(loaded, "", verse) for verse in VERSES) / math.log(2) / sum(map(len, VERSES))

    assert found["text"]["num_documents"] == 2
    assert found["text"]["metrics"]["bits_per_byte"] == pytest.approx(expected, rel=1e-5)


def test_the_prediction_is_the_likeliest_choice(found: dict[str, Any], loaded: LoadedModel) -> None:
    right = []
    for record, example in zip(RECORDS["multiple_choice"], found["multiple_choice"]["examples"], strict=True):
        scores = [nats(loaded, record["question"], " " + choice) for choice in record["choices"]]
        assert example["answer"] == scores.index(min(scores))
        right.append(example["answer"] == record["answer"])

    assert found["multiple_choice"]["metrics"]["acc"] == pytest.approx(sum(right) / 3)
    assert right[:2] == [True, True]  # the second and the third question have a sensible and a senseless choice,
    assert right[2] is False  # of which the third calls the senseless one right
    assert found["multiple_choice"]["errors"]["acc"] > 0


def test_labels_are_choices(found: dict[str, Any]) -> None:
    assert [example["choices"] for example in found["classification"]["examples"]] == [["holy", "numbers"]] * 3
    assert [example["expected"] for example in found["classification"]["examples"]] == [0, 1, 0]


def test_completions_are_generated_and_compared_exactly(found: dict[str, Any]) -> None:
    examples = found["completion"]["examples"]

    assert [example["expected"] for example in examples] == [" earth", " said"]
    matches = [example["is_right"] for example in examples]
    assert found["completion"]["metrics"]["exact_match"] == pytest.approx(sum(matches) / 2)


class Memorized(LlamaForCausalLM):
    """A model that continues the prompts of its records with their completions, and ends everything else at once."""

    def __init__(self, config: LlamaConfig, tokenizer: PreTrainedTokenizerFast, records: list[dict[str, str]]) -> None:
        super().__init__(config)
        encoded = [[tokenizer(record[name])["input_ids"] for name in ("prompt", "completion")] for record in records]
        self.texts = [[*prompt, *completion, tokenizer.eos_token_id] for prompt, completion in encoded]
        self.pad = tokenizer.pad_token_id
        self.end = tokenizer.eos_token_id

    def prepare_inputs_for_generation(
        self, input_ids: torch.Tensor, attention_mask: Any = None, **_named: Any
    ) -> dict[str, torch.Tensor]:
        return {"input_ids": input_ids}

    def forward(self, input_ids: torch.Tensor, attention_mask: Any = None, **_named: Any) -> CausalLMOutput:
        logits = torch.zeros(*input_ids.shape, self.config.vocab_size)
        for row, ids in enumerate(input_ids.tolist()):
            start = next(i for i, number in enumerate(ids) if number != self.pad)
            for end in range(start + 1, len(ids) + 1):
                logits[row, end - 1, self.following(ids[start:end])] = 1.0
        return CausalLMOutput(logits=logits)

    def following(self, ids: list[int]) -> int:
        return next(
            (text[len(ids)] for text in self.texts if text[: len(ids)] == ids and len(text) > len(ids)), self.end
        )


@pytest.mark.parametrize("case", ["D29-long-answers", "D29-two-paragraphs"])
def test_exact_answers_match_despite_length_or_blank_lines(loaded: LoadedModel, tmp_path: Path, case: str) -> None:
    lines = (CASES / f"{case}.jsonl").read_text().splitlines()
    lines = lines[:3]
    records = [json.loads(line) for line in lines]

    def evaluated(context: int) -> evaluation.CorpusResult:
        config = LlamaConfig(
            vocab_size=len(loaded.tokenizer),
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=1,
            intermediate_size=8,
            max_position_embeddings=context,
        )
        model = LoadedModel(Memorized(config, loaded.tokenizer, records), loaded.tokenizer)
        corpus = write(tmp_path / str(context), "completion", lines)
        result = evaluation.evaluate(
            model, [corpus], limit=None, num_fewshot=0, batch_size=3, progress=lambda _done, _total: None
        )
        return result.corpora[0]

    lengths = [len(loaded.tokenizer(record["prompt"] + record["completion"])["input_ids"]) for record in records]
    separate = [sum(len(loaded.tokenizer(text)["input_ids"]) for text in record.values()) for record in records]
    assert max(lengths) > 20

    roomy, exact, short = (evaluated(max(separate) + extra) for extra in (100, 0, -1))

    assert (roomy.metrics["exact_match"], roomy.num_cut) == (1.0, 0)
    assert (exact.metrics["exact_match"], exact.num_cut) == (1.0, 0)
    num_longest = separate.count(max(separate))
    assert short.metrics["exact_match"] == pytest.approx(1 - num_longest / len(records))
    assert short.num_cut == num_longest


def test_a_kind_without_a_task_is_rejected(
    trained: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = write(tmp_path, "preference", ["{}"])
    (tmp_path / "corpora.json").write_text(json.dumps([corpus.model_dump()]))
    checkpoint = str(checkpoint_of(trained, 150))
    monkeypatch.setattr("sys.argv", ["trainer", "evaluate", checkpoint, str(tmp_path / "corpora.json")])

    assert main() == 64
    written = capsys.readouterr()
    assert "corpora of the kind preference cannot be evaluated on; choose one of text" in written.err
    failed = json.loads(written.out)["failed"]
    assert failed == {
        "code": "kind_unevaluated",
        "values": {"kind": "preference", "kinds": ", ".join(EVALUATION_KINDS)},
    }


def test_every_evaluable_kind_of_corpus_has_a_task() -> None:
    assert {*lm_eval_harness.TASKS, "questions"} == set(EVALUATION_KINDS)
