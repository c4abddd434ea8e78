"""Writes the model card of an export, README.md in the format of the Hugging Face Hub, with its loss curves as SVG."""

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import transformers
import yaml
from transformers.configuration_utils import PretrainedConfig

from trainer.families import uses
from trainer.modeling.architectures import class_name, saved_class

CURVES = "curves.svg"
WIDTH, HEIGHT, MARGIN = 720, 280, 44
COLORS = {"loss": "#b45309", "eval_loss": "#0f766e"}
IDS = (
    "corpora",
    "validation_corpora",
    "evaluation_corpora",
    "tokenizer",
    "base_model",
)  # fields of a spec that name things of one panel
PIPELINES = {"bert": "fill-mask", "roberta": "fill-mask", "t5": "text2text-generation"}
USAGE = {
    "safetensors": """from transformers import {model_class}, PreTrainedTokenizerFast

tokenizer = PreTrainedTokenizerFast.from_pretrained("PATH")
model = {model_class}.from_pretrained("PATH")""",
    "adapter": """from peft import PeftModel
from transformers import AutoConfig, {model_class}, PreTrainedTokenizerFast

tokenizer = PreTrainedTokenizerFast.from_pretrained("PATH")
base = {model_class}.from_pretrained("BASE MODEL", config=AutoConfig.from_pretrained("PATH"))
model = PeftModel.from_pretrained(base, "PATH")""",
    "gguf": 'llama-cli -m model.gguf -p "Once upon a time"',
}


def write(
    out: Path,
    form: str,
    quantization: str,
    config: PretrainedConfig,
    num_parameters: int,
    facts: Mapping[str, Any],
    largest: float,
    tolerance: float,
    pre_tokenizer: str = "",
    tokens_equal: float = 1.0,
) -> None:
    """Write README.md, and curves.svg if there are curves.

    `largest` is the largest difference of logits, `tokens_equal` the fraction of tokens the GGUF pre-tokenizer keeps.
    """
    curves = {name: points for name, points in facts.get("curves", {}).items() if len(points) > 1}
    if curves:
        (out / CURVES).write_text(loss_curves_svg(curves), encoding="utf-8")
    front = yaml.safe_dump(_front_matter(config, facts), sort_keys=False, allow_unicode=True)
    gguf_note = (
        f"Number format: {quantization}. Pre-tokenizer of llama.cpp: `{pre_tokenizer}`, which keeps {tokens_equal:.2%} "
        "of the tokens of probe texts."
    )
    body = _body(form, gguf_note, config, num_parameters, facts, bool(curves), largest, tolerance)
    (out / "README.md").write_text(f"---\n{front}---\n\n{body}", encoding="utf-8")


def _front_matter(config: PretrainedConfig, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata at the top of the card, as the Hugging Face Hub reads it."""
    spec = facts.get("spec", {})
    pipeline = PIPELINES.get(config.model_type, "text-generation")
    if spec.get("objective") == "classification":
        pipeline = "text-classification"
    metrics = [
        name for name in ("eval_loss", "eval_bits_per_byte", "eval_accuracy") if name in facts.get("metrics", {})
    ]
    front = {
        "language": facts.get("language"),
        "license": facts.get("license") or None,
        "library_name": "transformers",
        "pipeline_tag": pipeline,
        "base_model": facts.get("base_model"),
        "datasets": [corpus["name"] for corpus in facts.get("corpora", [])],
        "metrics": metrics,
    }
    return {name: value for name, value in front.items() if value}


def _usage_class(config: PretrainedConfig) -> str:
    return class_name(config) or str(saved_class(config).__name__)


def _body(
    form: str,
    gguf_note: str,
    config: PretrainedConfig,
    num_parameters: int,
    facts: Mapping[str, Any],
    has_curves: bool,
    largest: float,
    tolerance: float,
) -> str:
    spec = facts.get("spec", {})
    parts = [
        f"# {facts.get('name', 'Model')}",
        f"A {config.model_type} of {num_parameters:,} parameters"
        + (f", trained with Athanor to step {facts['step']:,}." if "step" in facts else "."),
        "## Usage",
        "```\n" + USAGE[form].format(model_class=_usage_class(config)) + "\n```",
    ]
    if form == "gguf":
        parts.append(gguf_note)
    if facts.get("corpora"):
        parts += ["## Data", _table(("corpus", "kind", "documents", "bytes of text", "SHA-256"), _corpora(facts))]
    if facts.get("metrics"):
        metrics = [(name, f"{value:.4f}") for name, value in facts["metrics"].items() if isinstance(value, int | float)]
        parts += ["## Metrics", _table(("metric", "value"), metrics)]
    if has_curves:
        parts.append(f"![Loss by step]({CURVES})")
    if spec:
        rows = [
            (name, json.dumps(value, ensure_ascii=False))
            for name, value in spec.items()
            if name not in IDS and value not in (None, "", []) and uses(spec, name)
        ]
        parts += ["## Spec", _table(("field", "value"), rows)]
    parts += [
        "## Verification",
        "Loaded in a fresh process, this model has the checkpoint's logits on fixed probe tokens "
        f"(`golden.safetensors`): they differ by {largest:.2g} of the largest logit; {tolerance:g} is allowed. "
        f"Written with transformers {transformers.__version__}.",
    ]
    return "\n\n".join(parts) + "\n"


def _corpora(facts: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [
        (
            str(corpus["name"]),
            str(corpus.get("kind", "text")),
            f"{corpus.get('num_documents') or 0:,}",
            f"{corpus.get('num_text_bytes') or 0:,}",
            str(corpus.get("text_sha256") or "")[:16],
        )
        for corpus in facts["corpora"]
    ]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; pipes are escaped and line breaks replaced by spaces."""
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    lines = [head, ["---"] * len(head), *cells]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def loss_curves_svg(curves: Mapping[str, Sequence[Sequence[float]]]) -> str:
    """Loss curves as SVG: for each name its points (step, loss)."""
    points = [point for curve in curves.values() for point in curve]
    last, low, high = (
        max(step for step, _ in points),
        min(value for _, value in points),
        max(value for _, value in points),
    )

    def place(step: float, value: float) -> str:
        x = MARGIN + (WIDTH - 2 * MARGIN) * step / max(last, 1)
        y = MARGIN + (HEIGHT - 2 * MARGIN) * (high - value) / max(high - low, 1e-9)
        return f"{x:.1f},{y:.1f}"

    lines = [
        f'<polyline fill="none" stroke="{COLORS.get(name, "#555")}" stroke-width="1.5" '
        f'points="{" ".join(place(step, value) for step, value in curve)}"/>'
        for name, curve in curves.items()
    ]
    legend = [
        f'<text x="{MARGIN + 130 * number}" y="20" fill="{COLORS.get(name, "#555")}">{html.escape(name)}</text>'
        for number, name in enumerate(curves)
    ]
    bottom, right = HEIGHT - MARGIN, WIDTH - MARGIN
    axes = [
        f'<path d="M{MARGIN} {MARGIN}V{bottom}H{right}" fill="none" stroke="#999"/>',
        f'<text x="{MARGIN - 6}" y="{MARGIN + 4}" text-anchor="end">{high:.2f}</text>',
        f'<text x="{MARGIN - 6}" y="{bottom}" text-anchor="end">{low:.2f}</text>',
        f'<text x="{right}" y="{bottom + 18}" text-anchor="end">step {last:g}</text>',
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="12">{"".join([*axes, *lines, *legend])}</svg>\n'
    )
