"""The defaults of each goal on very little data: a run gets past its preparation, with the vocabulary there is."""

import json
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from tests.trainer.runs import english, of_kind, write_corpus
from trainer.datasets.factory import open_dataset
from trainer.datasets.prepare import prepare
from trainer.events import Journal
from trainer.formats.corpus_kinds import CORPUS_KINDS_BY_OBJECTIVE
from trainer.report import Reporter
from trainer.run_dir import Inputs, RunDir
from trainer.spec import recipe_names, resolve

pytestmark = pytest.mark.usefixtures("encodes_in_process")

ANSWERS = {
    "When do you open?": "We open at seven in the morning.",
    "Is there coffee?": "Yes, small and large cups.",
    "Where are you?": "Next to the old mill.",
}
FIELDS = {
    "chat": lambda q, a: {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]},
    "completion": lambda q, a: {"prompt": q, "completion": a},
    "seq2seq": lambda q, a: {"source": q, "target": a},
    "classification": lambda q, a: {"text": q, "label": str(len(a) % 2)},
}
NEEDS_MORE = {"dpo", "gpt2-124m", "llama-7b"}  # a model that answers, or a sequence of much text: both are said before


@pytest.mark.parametrize("name", sorted({*recipe_names()} - NEEDS_MORE))
@pytest.mark.parametrize("vocab_size", ["default", 50_000])
def test_a_run_with_the_defaults_of_its_goal_is_prepared_on_little_data(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, vocab_size: int | str
) -> None:
    caplog.set_level("INFO")
    given = {} if vocab_size == "default" else {"vocab_size": vocab_size}
    spec = resolve({"recipe": name, "corpora": ["corpus"], **given})
    kind = CORPUS_KINDS_BY_OBJECTIVE[spec.objective][0]
    documents = [json.dumps(FIELDS[kind](q, a)) for q, a in ANSWERS.items()] if kind in FIELDS else [english(2_000)]
    run_dir = RunDir(tmp_path / "run")
    run_dir.path.mkdir()
    corpus = write_corpus(tmp_path / "corpus", documents, kind)
    run_dir.create(spec, Inputs(corpora=[corpus], cache=str(tmp_path / "cache")), fence=1)

    done = prepare(run_dir, 1, Reporter(Journal(run_dir.events_path(1))))

    dataset = open_dataset(Path(done.tokens), spec, PreTrainedTokenizerFast.from_pretrained(done.tokenizer))
    assert min(dataset.num_train, dataset.num_validation) > 0
    assert len(dataset.train_batch(0, spec.train_batch_size)["input_ids"]) == spec.train_batch_size
    (found,) = of_kind(run_dir, "tokenizer")
    assert found.vocab_size < 600
    if spec.vocab_size is not None:
        line = f"vocabulary: {found.vocab_size} tokens, all that the text yields of {spec.vocab_size}"
        assert line in caplog.messages
