"""Looks inside a model over REST: the figures are those of transformers on the same files, and limits are named."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from starlette.testclient import TestClient
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedModel,
    pipeline,
)

from app.core import storage
from tests.app.playground.inspection.conftest import Families, Family
from tests.app.playground.test_api import imported
from tests.users import Person

TEXT = "In the beginning the furnace was cold"
MASKED = "The [MASK] sat on the [MASK]"


def ask(api: TestClient, task: str, **body: Any) -> Any:
    answer = api.post(f"/api/v1/inspect/{task}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def refusal(api: TestClient, task: str, **body: Any) -> tuple[int, str, str]:
    answer = api.post(f"/api/v1/inspect/{task}", json=body)
    problem = answer.json()
    return answer.status_code, problem["code"], problem["title"]


def forward(path: Path, text: str, **options: Any) -> tuple[list[int], Any]:
    """Tokens of a text, and what a decoder of transformers makes of them."""
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, **options).eval()
    ids = AutoTokenizer.from_pretrained(path)(text)["input_ids"]
    with torch.no_grad():
        return ids, model(torch.tensor([ids]), output_attentions="attn_implementation" in options)


# ---- decoders -------------------------------------------------------------------------------------------------------


def test_tokens_are_those_of_auto_tokenizer(api: TestClient, decoder: Family) -> None:
    answer = ask(api, "tokenize", checkpoint=decoder.id, text="furnace 炉火 😀")
    tokenizer = AutoTokenizer.from_pretrained(decoder.files)

    assert [token["id"] for token in answer["tokens"]] == tokenizer("furnace 炉火 😀")["input_ids"]
    assert sum(token["num_bytes"] for token in answer["tokens"]) == len("furnace 炉火 😀".encode())
    assert answer["vocab_size"] == len(tokenizer)


def test_a_score_is_that_of_a_forward_pass(api: TestClient, decoder: Family) -> None:
    answer = ask(api, "score", checkpoint=decoder.id, text=TEXT, top_k=3)
    ids, output = forward(decoder.files, TEXT)
    log_probs = output.logits[0].log_softmax(-1)
    expected = [float(log_probs[place, number]) for place, number in enumerate(ids[1:])]

    assert [token["id"] for token in answer["tokens"]] == ids
    assert answer["tokens"][0]["log_prob"] is None
    assert [token["log_prob"] for token in answer["tokens"][1:]] == pytest.approx(expected, abs=1e-4)
    for place, token in enumerate(answer["tokens"][1:]):
        assert token["rank"] == 1 + int((log_probs[place] > log_probs[place, token["id"]]).sum())
        assert [choice["id"] for choice in token["top"]] == log_probs[place].topk(3).indices.tolist()
    loss = -sum(expected) / len(expected)
    assert answer["loss"] == pytest.approx(loss, abs=1e-5)
    assert answer["perplexity"] == pytest.approx(math.exp(loss), rel=1e-4)
    num_bytes = len(TEXT.encode()) - answer["tokens"][0]["num_bytes"]
    assert answer["bits_per_byte"] == pytest.approx(-sum(expected) / math.log(2) / num_bytes, rel=1e-4)


def test_attention_is_that_of_a_forward_pass(api: TestClient, decoder: Family) -> None:
    answer = ask(api, "attention", checkpoint=decoder.id, text=TEXT, layer=1)
    ids, output = forward(decoder.files, TEXT, attn_implementation="eager")
    weights = torch.tensor(answer["weights"])

    assert (answer["num_layers"], answer["num_heads"]) == (2, len(weights))
    assert [token["id"] for token in answer["tokens"]] == ids
    assert torch.allclose(weights, output.attentions[1][0], atol=1e-5)
    assert torch.allclose(weights.sum(-1), torch.ones(weights.shape[:2]), atol=1e-5)
    assert bool((weights.triu(1) == 0).all())  # the causal mask


def test_looking_inside_and_generating_do_not_disturb_each_other(api: TestClient, decoder: Family) -> None:
    asked = {"checkpoint": decoder.id, "prompt": TEXT, "max_tokens": 12, "temperature": 0}
    before = ask(api, "score", checkpoint=decoder.id, text=TEXT)
    text = api.post("/api/v1/generate", json=asked).json()["text"]
    ask(api, "attention", checkpoint=decoder.id, text=TEXT)

    assert ask(api, "score", checkpoint=decoder.id, text=TEXT) == before
    assert api.post("/api/v1/generate", json=asked).json()["text"] == text


def test_neighbors_of_a_token_are_nearest_by_cosine(api: TestClient, decoder: Family) -> None:
    answer = ask(api, "neighbors", checkpoint=decoder.id, text=TEXT, top_k=4)
    model = AutoModelForCausalLM.from_pretrained(decoder.files, dtype=torch.float32)
    table = model.get_input_embeddings().weight.detach()
    token = answer["tokens"][-1]["id"]
    similarity = torch.cosine_similarity(table, table[token], dim=-1)
    similarity[token] = -2

    assert answer["position"] == len(answer["tokens"]) - 1
    assert [row["id"] for row in answer["neighbors"]] == similarity.topk(4).indices.tolist()
    values = [row["similarity"] for row in answer["neighbors"]]
    assert values == pytest.approx(similarity.topk(4).values.tolist(), abs=1e-5)
    assert (answer["vocab_size"], answer["hidden_size"]) == tuple(table.shape)


# ---- other families -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model_type", ["bert", "roberta"])
def test_masks_are_filled_like_by_the_pipeline(api: TestClient, families: Families, model_type: str) -> None:
    family = families(model_type, "masked")
    answer = ask(api, "fill-mask", checkpoint=family.id, text=MASKED, top_k=3)
    expected = pipeline("fill-mask", model=str(family.files), top_k=3)(MASKED.replace("[MASK]", "<|mask|>"))

    for mask, choices in zip(answer["masks"], expected, strict=True):
        assert [choice["id"] for choice in mask["top"]] == [choice["token"] for choice in choices]
        assert [p["probability"] for p in mask["top"]] == pytest.approx([c["score"] for c in choices], abs=1e-5)


def test_an_encoder_scores_each_token_with_a_mask_in_its_place(api: TestClient, families: Families) -> None:
    family = families("bert", "masked")
    answer = ask(api, "score", checkpoint=family.id, text=TEXT, top_k=2)
    tokens = answer["tokens"]
    figures = [token["log_prob"] for token in tokens if not token["is_special"]]

    assert answer["is_pseudo"]
    assert [token["log_prob"] is None for token in tokens] == [token["is_special"] for token in tokens]
    assert all(len(token["top"]) == 2 for token in tokens if not token["is_special"])
    assert answer["perplexity"] == pytest.approx(math.exp(-sum(figures) / len(figures)), rel=1e-4)
    assert answer["bits_per_byte"] == pytest.approx(-sum(figures) / math.log(2) / len(TEXT.encode()), rel=1e-4)


@pytest.mark.parametrize("model_type", ["bert", "llama"])
def test_a_text_is_classified_like_by_the_pipeline(api: TestClient, families: Families, model_type: str) -> None:
    family = families(model_type, "classification")
    answer = ask(api, "classify", checkpoint=family.id, text=TEXT)
    expected = pipeline("text-classification", model=str(family.files), top_k=None)([TEXT])[0]

    assert [row["label"] for row in answer["labels"]] == [row["label"] for row in expected]
    scores = [row["probability"] for row in answer["labels"]]
    assert scores == pytest.approx([row["score"] for row in expected], abs=1e-5)


def test_embeddings_are_the_means_of_hidden_states(api: TestClient, families: Families) -> None:
    family = families("bert", "masked")
    texts = [TEXT, "The cat sat on the mat"]
    answer = ask(api, "embed", checkpoint=family.id, texts=texts)
    extract = pipeline("feature-extraction", model=str(family.files))
    means = torch.stack([torch.tensor(extract(text)[0]).mean(0) for text in texts])
    expected = means / means.norm(dim=1, keepdim=True)

    assert torch.allclose(torch.tensor(answer["embeddings"]), expected, atol=1e-5)
    assert torch.allclose(torch.tensor(answer["similarity"]), expected @ expected.T, atol=1e-5)


def test_an_encoder_reads_in_both_directions(api: TestClient, families: Families) -> None:
    family = families("bert", "masked")
    answer = ask(api, "attention", checkpoint=family.id, text="In the beginning", layer=0)
    model = AutoModelForMaskedLM.from_pretrained(family.files, attn_implementation="eager").eval()
    with torch.no_grad():
        output = model(torch.tensor([[token["id"] for token in answer["tokens"]]]), output_attentions=True)
    weights = torch.tensor(answer["weights"])

    assert torch.allclose(weights, output.attentions[0][0], atol=1e-5)
    assert bool((weights.triu(1) > 0).any())


def test_an_encoder_decoder_shows_its_encoder(api: TestClient, families: Families) -> None:
    family = families("t5", "span_corruption")
    answer = ask(api, "attention", checkpoint=family.id, text="In the beginning", layer=1)
    model = AutoModelForSeq2SeqLM.from_pretrained(family.files, attn_implementation="eager").eval()
    ids = torch.tensor([[token["id"] for token in answer["tokens"]]])
    with torch.no_grad():
        expected = model.encoder(input_ids=ids, output_attentions=True).attentions[1][0]

    assert torch.allclose(torch.tensor(answer["weights"]), expected, atol=1e-5)
    assert len(ask(api, "embed", checkpoint=family.id, texts=[TEXT])["embeddings"]) == 1


def test_an_encoder_decoder_scores_a_text_as_the_answer_to_its_source(api: TestClient, families: Families) -> None:
    family = families("t5", "span_corruption")
    answer = ask(api, "score", checkpoint=family.id, source=TEXT, text="It was hot.", top_k=3)
    model = AutoModelForSeq2SeqLM.from_pretrained(family.files).eval()
    tokenizer = AutoTokenizer.from_pretrained(family.files)
    labels = tokenizer("It was hot.", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        output = model(**tokenizer(TEXT, return_tensors="pt"), labels=labels)
    top = output.logits[0].softmax(-1).topk(3)

    assert [token["id"] for token in answer["tokens"]] == labels[0].tolist()
    assert (answer["num_scored"], answer["tokens"][-1]["is_special"]) == (len(labels[0]), True)
    assert answer["loss"] == pytest.approx(float(output.loss), abs=1e-5)
    assert [[one["id"] for one in token["top"]] for token in answer["tokens"]] == top.indices.tolist()
    assert ask(api, "score", checkpoint=family.id, text="It was hot.")["loss"] != answer["loss"]


# ---- refusals -------------------------------------------------------------------------------------------------------


def test_what_a_family_cannot_do_is_said(api: TestClient, families: Families, decoder: Family) -> None:
    bert, t5 = families("bert", "masked"), families("t5", "span_corruption")
    classifier = families("bert", "classification")
    assert refusal(api, "score", checkpoint=classifier.id, text=TEXT)[:2] == (422, "score_unfit")
    assert refusal(api, "score", checkpoint=bert.id, text=TEXT, source=TEXT)[:2] == (422, "source_unfit")
    assert "the limit here is 512" in refusal(api, "score", checkpoint=t5.id, text="xyz " * 400)[2]
    assert refusal(api, "score", checkpoint=t5.id, text=TEXT, source="xyz " * 1_500)[:2] == (422, "source_too_long")
    assert "the limit here is 128" in refusal(api, "score", checkpoint=bert.id, text="xyz " * 200)[2]
    assert refusal(api, "fill-mask", checkpoint=decoder.id, text=MASKED)[:2] == (422, "fill_mask_unfit")
    status, code, title = refusal(api, "classify", checkpoint=decoder.id, text=TEXT)
    assert (status, code) == (422, "classify_unfit")
    assert title == "A llama has no labels to choose from. Choose a model that was trained to classify."


def test_limits_of_length_are_named(api: TestClient, decoder: Family) -> None:
    status, code, title = refusal(api, "attention", checkpoint=decoder.id, text="xyz " * 100)
    assert (status, code) == (422, "text_too_long")
    assert title.startswith("The text has ")
    assert "the limit here is 64." in title
    assert "the limit here is 128" in refusal(api, "score", checkpoint=decoder.id, text="xyz " * 400)[2]
    answer = api.post("/api/v1/inspect/score", json={"checkpoint": decoder.id, "text": "x" * 20_001})
    assert answer.status_code == 422
    assert answer.json()["errors"] == [{"field": "text", "message": "text must be at most 20000 characters long"}]


def test_what_a_text_or_model_does_not_have_is_said(api: TestClient, families: Families, decoder: Family) -> None:
    assert refusal(api, "fill-mask", checkpoint=families("bert", "masked").id, text=TEXT) == (
        422,
        "mask_missing",
        "The text has no mask. Write [MASK] where a word is missing.",
    )
    status, code, title = refusal(api, "attention", checkpoint=decoder.id, text=TEXT, layer=2)
    assert (status, code, title) == (422, "layer_unknown", "The model has no layer 2: it has 2 layers, counted from 0.")
    assert refusal(api, "neighbors", checkpoint=decoder.id, text="a", position=9)[:2] == (422, "position_unknown")


def test_a_text_of_one_token_has_no_perplexity(api: TestClient, decoder: Family) -> None:
    answer = ask(api, "score", checkpoint=decoder.id, text="I")

    assert (answer["num_scored"], answer["perplexity"], answer["bits_per_byte"]) == (0, None, None)


def test_a_tokenizer_that_fails_is_not_a_server_error(
    api: TestClient, decoder: Family, alice_user: Person, tmp_path: Path
) -> None:
    broken = shutil.copytree(decoder.files, tmp_path / "broken")
    state = json.loads((broken / "tokenizer.json").read_text())
    state["model"]["vocab"] = {"<|endoftext|>": 0, "<|padding|>": 1}
    state["model"]["merges"] = []
    (broken / "tokenizer.json").write_text(json.dumps(state))
    status, code, _title = refusal(api, "score", checkpoint=imported(alice_user, broken), text=TEXT)

    assert (status, code) == (422, "text_refused")


def test_a_missing_directory_gives_409(api: TestClient, decoder: Family, alice_user: Person) -> None:
    model_id = imported(alice_user, decoder.files)
    shutil.rmtree(storage.base_model(model_id))
    assert refusal(api, "tokenize", checkpoint=model_id, text=TEXT)[:2] == (409, "checkpoint_gone")


def test_a_model_of_another_user_is_not_found(bob_api: TestClient, decoder: Family) -> None:
    assert refusal(bob_api, "tokenize", checkpoint=decoder.id, text=TEXT)[:2] == (404, "not_found")
