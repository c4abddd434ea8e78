"""What a look inside a model shows is what transformers computes: plain forward passes and its pipelines."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, AutoModelForSeq2SeqLM, AutoTokenizer, pipeline

from tests.trainer.bases import random_checkpoint
from trainer.data.token_bytes import TokenBytes
from trainer.data.token_views import TokenViews
from trainer.inference import inspection
from trainer.modeling.architectures import saved_class

TEXT = "The cat sat on the mat"
OBJECTIVES = {
    **dict.fromkeys(("llama", "qwen2", "gpt2"), "causal"),
    **dict.fromkeys(("bert", "roberta"), "masked"),
    "t5": "span_corruption",
}
FAMILIES = list(OBJECTIVES)


class Opened:
    """A checkpoint of random weights, with its tokenizer as other programs open it."""

    def __init__(self, home: Path, model_type: str, objective: str | None = None) -> None:
        self.path, loaded = random_checkpoint(home, model_type, objective or OBJECTIVES[model_type])
        self.model = saved_class(loaded.model.config).from_pretrained(self.path, dtype=torch.float32).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(self.path)
        self.views = TokenViews(loaded.tokenizer, TokenBytes(loaded.tokenizer.backend_tokenizer))
        self.ids: list[int] = self.tokenizer(TEXT)["input_ids"]

    @property
    def batch(self) -> torch.Tensor:
        return torch.tensor([self.ids])


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Any:
    models: dict[str, Opened] = {}

    def get(model_type: str) -> Opened:
        if model_type not in models:
            models[model_type] = Opened(tmp_path_factory.mktemp(model_type), model_type)
        return models[model_type]

    return get


@pytest.mark.parametrize("model_type", FAMILIES)
def test_the_tokens_of_a_text_are_those_of_auto_tokenizer(opened: Any, model_type: str) -> None:
    model = opened(model_type)
    tokens = model.views.encode(TEXT)

    assert [token["id"] for token in tokens] == model.ids
    assert "".join(token["text"] for token in tokens if not token["is_special"]) == TEXT
    assert sum(token["num_bytes"] for token in tokens) == len(TEXT)


def test_bytes_that_form_no_character_are_spelled(opened: Any) -> None:
    tokens = opened("llama").views.encode("天")  # three tokens: the tokenizer was trained on English

    assert "".join(token["text"] for token in tokens) == "\\xe5\\xa4\\xa9"
    assert sum(token["num_bytes"] for token in tokens) == 3


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "gpt2"])
def test_log_probabilities_ranks_and_alternatives_are_those_of_a_forward_pass(opened: Any, model_type: str) -> None:
    model = opened(model_type)
    ids = (model.ids * 3)[:32]
    with torch.no_grad():
        log_probs = model.model(torch.tensor([ids])).logits[0].log_softmax(-1)
    scored = inspection.score(model.model, ids, top_k=3)

    assert len(scored) == len(ids) - 1
    for place, token in enumerate(scored):
        row, target = log_probs[place], ids[place + 1]
        assert token.log_prob == pytest.approx(float(row[target]), abs=1e-4)
        assert token.rank == sorted(row.tolist(), reverse=True).index(float(row[target])) + 1
        assert [choice.id for choice in token.top] == row.topk(3).indices.tolist()
        assert token.top[0].probability == pytest.approx(math.exp(float(row.max())), abs=1e-5)


def test_a_long_text_is_scored_in_chunks_like_at_once(opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = opened("gpt2")
    at_once = inspection.score(model.model, model.ids)
    monkeypatch.setattr(inspection, "LOGITS_ROWS", 2)
    chunked = inspection.score(model.model, model.ids)

    assert [token.rank for token in chunked] == [token.rank for token in at_once]
    assert [token.log_prob for token in chunked] == pytest.approx([token.log_prob for token in at_once], abs=1e-6)


@pytest.mark.parametrize("model_type", ["bert", "roberta"])
def test_the_pseudo_score_of_a_token_is_its_log_probability_behind_a_mask(
    opened: Any, model_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = opened(model_type)
    mask, places = model.tokenizer.mask_token_id, range(1, len(model.ids) - 1)
    monkeypatch.setattr(inspection, "MASKED_LOGITS", 2 * len(model.ids) * model.model.config.vocab_size)
    scored = list(inspection.pseudo_score(model.model, model.ids, places, mask, top_k=3))

    assert len(scored) == len(places) > 2
    for place, token in zip(places, scored, strict=True):
        masked = [mask if other == place else number for other, number in enumerate(model.ids)]
        with torch.no_grad():
            row = model.model(torch.tensor([masked])).logits[0, place].log_softmax(-1)
        assert token.log_prob == pytest.approx(float(row[model.ids[place]]), abs=1e-4)
        assert [choice.id for choice in token.top] == row.topk(3).indices.tolist()


def test_a_text_of_one_token_has_nothing_to_score(opened: Any) -> None:
    assert inspection.score(opened("llama").model, [5]) == []


@pytest.mark.parametrize("model_type", FAMILIES)
def test_attention_is_that_of_an_eager_model(opened: Any, model_type: str) -> None:
    model = opened(model_type)
    eager = AutoModel.from_pretrained(model.path, attn_implementation="eager", dtype=torch.float32).eval()
    reader = eager.encoder if model_type == "t5" else eager
    with torch.no_grad():
        expected = reader(input_ids=model.batch, output_attentions=True).attentions
    for layer in range(2):
        weights = inspection.attention(model.model, model.ids, layer)
        assert torch.allclose(weights, expected[layer][0], atol=1e-5)
        assert torch.allclose(weights.sum(-1), torch.ones(weights.shape[:2]), atol=1e-5)
        is_causal = bool((weights.triu(1) == 0).all())
        assert is_causal == (OBJECTIVES[model_type] == "causal")


def test_reading_attention_changes_nothing_of_the_model_and_copies_no_weights(opened: Any) -> None:
    model = opened("llama").model
    implementation = model.config._attn_implementation
    eager = inspection._with_attention(model, "eager")

    assert model.config._attn_implementation == implementation != eager.config._attn_implementation
    assert {p.data_ptr() for p in eager.parameters()} == {p.data_ptr() for p in model.parameters()}


@pytest.mark.parametrize("model_type", FAMILIES)
def test_neighbors_are_the_largest_cosine_similarities(opened: Any, model_type: str) -> None:
    model = opened(model_type)
    table = model.model.get_input_embeddings().weight.detach()
    token = model.ids[0]
    similarity = torch.cosine_similarity(table[: model.views.size], table[token], dim=-1)
    similarity[token] = -2
    nearest = inspection.neighbors(model.model, token, 4, model.views.size)

    assert [number for number, _cosine in nearest] == similarity.topk(4).indices.tolist()
    assert [cosine for _number, cosine in nearest] == pytest.approx(similarity.topk(4).values.tolist(), abs=1e-5)


@pytest.mark.parametrize("model_type", [name for name in FAMILIES if name != "t5"])
def test_an_embedding_is_the_normalized_mean_of_the_feature_extraction_pipeline(opened: Any, model_type: str) -> None:
    model = opened(model_type)
    extract = pipeline("feature-extraction", model=str(model.path))
    mean = torch.tensor(extract(TEXT)[0]).mean(0)

    assert torch.allclose(inspection.embed(model.model, model.ids), mean / mean.norm(), atol=1e-5)


def test_an_encoder_decoder_embeds_with_its_encoder(opened: Any) -> None:
    model = opened("t5")
    whole = AutoModelForSeq2SeqLM.from_pretrained(model.path).eval()
    with torch.no_grad():
        mean = whole.encoder(input_ids=model.batch).last_hidden_state[0].mean(0)

    assert torch.allclose(inspection.embed(model.model, model.ids), mean / mean.norm(), atol=1e-5)


@pytest.mark.parametrize("mask", ["[MASK]", "<|mask|>"])
@pytest.mark.parametrize("model_type", ["bert", "roberta"])
def test_masks_are_filled_like_by_the_pipeline(opened: Any, model_type: str, mask: str) -> None:
    model = opened(model_type)
    fill = pipeline("fill-mask", model=str(model.path), top_k=3)
    expected = fill("The <|mask|> sat on <|mask|> mat")
    encoded = model.views.masked(f"The {mask} sat on {mask} mat")
    ids = [token["id"] for token in encoded["tokens"]]
    filled = inspection.fill_mask(model.model, ids, encoded["mask_id"], 3)

    assert [[choice.id for choice in choices] for choices in filled] == [
        [choice["token"] for choice in choices] for choices in expected
    ]
    assert [choice.probability for choice in filled[1]] == pytest.approx([c["score"] for c in expected[1]], abs=1e-6)


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "gpt2", "bert", "roberta"])
def test_a_text_is_classified_like_by_the_pipeline(tmp_path: Path, model_type: str) -> None:
    model = Opened(tmp_path, model_type, "classification")
    expected = pipeline("text-classification", model=str(model.path), top_k=None)([TEXT])[0]
    labels = inspection.classify(model.model, model.ids)

    assert [name for name, _p in labels] == [entry["label"] for entry in expected]
    assert [p for _name, p in labels] == pytest.approx([entry["score"] for entry in expected], abs=1e-5)
    assert sum(p for _name, p in labels) == pytest.approx(1)


def test_independent_labels_have_probabilities_of_their_own(tmp_path: Path) -> None:
    model = Opened(tmp_path, "bert", "classification")
    model.model.config.problem_type = "multi_label_classification"
    with torch.no_grad():
        logits = model.model(model.batch).logits[0]

    assert dict(inspection.classify(model.model, model.ids)) == pytest.approx(
        dict(zip(("no", "yes", "maybe"), logits.sigmoid().tolist(), strict=True)), abs=1e-6
    )
