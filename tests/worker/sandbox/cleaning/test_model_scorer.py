"""The step that filters by the bits per byte of a decoder: limits, histogram, file of scores, and what is refused."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from app.corpora.cleaning.recipe import Perplexity
from tests.trainer.bases import random_checkpoint
from tests.trainer.runs import english
from trainer.inference import generation
from trainer.inference.generation import LoadedModel
from trainer.inference.text_scores import TextScorer
from worker.sandbox.cleaning import clean, model_scorer, perplexity
from worker.sandbox.cleaning.documents import CorpusDocument
from worker.sandbox.cleaning.model_scorer import ModelScorer
from worker.sandbox.cleaning.perplexity import PerplexityStep
from worker.sandbox.cleaning.score_cache import ScoreCache
from worker.sandbox.cleaning.steps import CleaningRefused, Context, ScoringModel
from worker.sandbox.corpus import parse
from worker.sandbox.disk_space import DiskSpace

TEXTS = [
    "",
    "x",
    "The river is near the house.",
    "天地玄黄，宇宙洪荒。日月盈昃",
    english(3_000),
    "zq xv wk jj",
    "a a a a a a a a",
]
SCORED = range(2, len(TEXTS))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a Llama with random weights."""
    return random_checkpoint(tmp_path_factory.mktemp("llama"), "llama", "causal")[0]


@pytest.fixture(scope="module")
def bits(model: Path) -> list[float]:
    """The bits per byte of the texts; NaN for those without a score."""
    scores = TextScorer(generation.load(model, "cpu")).score(TEXTS)
    return [np.nan if score is None else score.bits_per_byte for score in scores]


Run = Callable[..., tuple[PerplexityStep, list[int]]]


@pytest.fixture
def run(tmp_path: Path, model: Path) -> Run:
    """Make the step with some settings and run it on the texts; answers it, and the numbers of what is left."""

    def progress(_num_bytes: int) -> None:
        pytest.fail("the second pass counts as progress")

    def work(path: Path = model, texts: list[str] = TEXTS, **settings: float) -> tuple[PerplexityStep, list[int]]:
        models = {"m": ScoringModel(path, "ab" * 32, tmp_path)}
        context = Context({}, lambda: tmp_path / "spool", progress, DiskSpace(tmp_path), models)
        step = PerplexityStep(Perplexity(model="m", **{"max_percentile": 100, **settings}), context, 0)
        documents = (CorpusDocument(number, text) for number, text in enumerate(texts))
        return step, [document.number for document in step.run(documents)]

    return work


def test_documents_above_a_limit_or_percentile_are_removed_and_short_ones_stay(run: Run, bits: list[float]) -> None:
    limit = sorted(bits[number] for number in SCORED)[2] + 1e-9
    for settings in ({"max_bits_per_byte": limit}, {"max_percentile": 50}):
        step, left = run(**settings)
        assert left == [number for number, score in enumerate(bits) if not score > limit]
        examples = step.counts.facts()["examples"]
        assert {example["reason"] for example in examples} == {"bits_per_byte_high"}
        assert [example["values"]["bits_per_byte"] for example in examples] == pytest.approx(
            [score for score in bits if score > limit], abs=0.001
        )
    assert run(max_percentile=99, max_bits_per_byte=limit)[1] == left  # the lower one of both counts
    lowest = min(SCORED, key=lambda number: bits[number])
    assert run(min_percentile=1)[1] == [number for number in range(len(TEXTS)) if number != lowest]


def test_the_histogram_counts_all_scores(run: Run, bits: list[float]) -> None:
    scores = run(max_bits_per_byte=7.5)[0].counts.facts()["scores"]
    assert (scores["unit"], scores["num_unscored"], scores["low"], scores["high"]) == ("bits_per_byte", 2, None, 7.5)
    assert sum(scores["counts"]) == len(SCORED)
    assert len(scores["edges"]) == len(scores["counts"]) + 1 == perplexity.NUM_BINS + 1
    assert (scores["edges"][0], scores["edges"][-1]) == pytest.approx((np.nanmin(bits), np.nanmax(bits)), abs=1e-3)
    assert scores["counts"][0] == sum(score < scores["edges"][1] for score in bits)


def test_no_text_is_scored_twice(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = TEXTS[:4]
    asked: list[str] = []
    score = TextScorer.score
    monkeypatch.setattr(TextScorer, "score", lambda scorer, texts: asked.extend(texts) or score(scorer, texts))
    first = run(texts=[*texts, texts[2]], max_bits_per_byte=7.5)
    assert asked == texts
    second = run(texts=[*texts, texts[2], "One more text."], max_bits_per_byte=7.5)
    assert asked == [*texts, "One more text."]
    assert second[1][: len(first[1])] == first[1]


def test_scores_of_another_device_or_data_type_are_not_used(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stored(device: str) -> str:
        monkeypatch.setattr(model_scorer, "pick_device", lambda: device)
        ModelScorer(ScoringModel(model, "ab" * 32, tmp_path))._cache.add({"a": 1.0})
        (file,) = set(tmp_path.glob("scores-*")) - files
        files.add(file)
        return file.name

    files: set[Path] = set()
    assert "-cpu-float32-" in stored("cpu")
    assert "-meta-float32-" in stored("meta")
    load = generation.load
    monkeypatch.setattr(generation, "load", lambda *where: _with_bfloat16(load(*where)))
    assert "-cpu-bfloat16-" in stored("cpu")


def _with_bfloat16(loaded: LoadedModel) -> LoadedModel:
    loaded.model.to(torch.bfloat16)
    return loaded


def test_without_memory_for_scoring_on_a_device_the_cpu_scores(
    tmp_path: Path, model: Path, bits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    score = TextScorer.score

    def score_on_cpu(scorer: TextScorer, texts: list[str]) -> Any:
        if scorer._model.device.type != "cpu":
            raise torch.OutOfMemoryError
        return score(scorer, texts)

    monkeypatch.setattr(model_scorer, "pick_device", lambda: "meta")  # in place of a GPU
    monkeypatch.setattr(TextScorer, "score", score_on_cpu)
    scorer = ModelScorer(ScoringModel(model, "ab" * 32, tmp_path))
    assert scorer.score(TEXTS) == pytest.approx(bits, nan_ok=True)
    (file,) = tmp_path.glob("scores-*")
    assert "-cpu-float32-" in file.name

    def lack_memory(scorer: TextScorer, texts: list[str]) -> Any:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(TextScorer, "score", lack_memory)
    with pytest.raises(CleaningRefused, match="scoring_memory"):
        scorer.score(["Another text."])


def test_a_file_of_scores_that_was_cut_off_is_used_as_far_as_it_goes(tmp_path: Path) -> None:
    path = tmp_path / "scores"
    ScoreCache(path).add({"a": 1.5, "b": float("nan")})
    path.write_bytes(path.read_bytes()[:-3])
    assert (ScoreCache(path).get("a"), ScoreCache(path).get("b")) == (1.5, None)
    ScoreCache(path).add({"c": 2.5})
    assert [ScoreCache(path).get(text) for text in "abc"] == [1.5, None, 2.5]


def test_a_model_that_is_gone_or_damaged_is_refused(run: Run, tmp_path: Path, model: Path) -> None:
    with pytest.raises(CleaningRefused, match="scoring_model_gone"):
        run(path=tmp_path / "nothing")
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for file in model.iterdir():
        (damaged / file.name).write_bytes(
            file.read_bytes()[:100] if file.suffix == ".safetensors" else file.read_bytes()
        )
    with pytest.raises(CleaningRefused, match="scoring_model_unreadable"):
        run(path=damaged)


def test_only_the_pass_that_scores_counts_as_progress(tmp_path: Path) -> None:
    (tmp_path / "text.bin").write_bytes(b"x" * 1_000)
    place = {"id": "c", "path": str(tmp_path)}
    sizes = [
        clean.total_bytes({**place, "corpora": [place], "steps": [{"name": "perplexity", **fields}]})
        for fields in ({"model": "m", "corpora": []}, {"model": None, "corpora": ["c"]})
    ]
    assert sizes == [1_000, 3_000]


@pytest.mark.parametrize(("seconds", "num_read"), [(-1.0, 1), (3_600.0, 4)])
def test_a_preview_reads_no_document_after_its_time(
    tmp_path: Path,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    seconds: float,
    num_read: int,
) -> None:
    output = parse.CorpusWriter(tmp_path)
    output.documents(["The river is near the house."] * 4)
    output.finish()
    recipe: dict[str, Any] = {
        "path": str(tmp_path),
        "kind": "text",
        "steps": [{"name": "perplexity", "model": "m"}],
        "corpora": [],
        "models": {"m": {"path": str(model), "sha256": "ab" * 32}},
    }
    monkeypatch.setattr(clean, "PREVIEW_SECONDS", seconds)
    monkeypatch.setattr("sys.argv", ["clean", "--preview=10"])
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(recipe)))
    clean.main()
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["num_documents"] == num_read
