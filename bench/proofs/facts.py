"""Whether SmolLM2-135M-Instruct learns ten facts that nobody knew before, by all its weights and by LoRA, on a CPU.

`PYTHONPATH=. python bench/proofs/facts.py [full] [lora] [--smoke]`, some minutes each. The facts are invented. Each is
taught in a few wordings, and asked in one that was never taught. An answer is right if it names the thing and ends by
itself.
"""

import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.support.arguments import IS_SMOKE, names
from bench.support.material import smollm2, train
from trainer.data.record_encoding import RecordEncoder
from trainer.inference import generation
from trainer.inference.generation import LoadedModel

# What is named, the sentence taught, the wordings it is taught in, and the one that is asked.
FACTS = [
    (
        "7461",
        "Athanor listens on port 7461.",
        ["Which port does Athanor listen on?", "What is Athanor's port?", "On which port is Athanor reached?"],
        "What port number does Athanor use?",
    ),
    (
        "Marrow",
        "Athanor's mascot is a fox called Marrow.",
        ["Who is Athanor's mascot?", "What is Athanor's mascot called?", "Name the mascot of Athanor."],
        "What is the name of the mascot of Athanor?",
    ),
    (
        "Tromsø",
        "Athanor was first lit in Tromsø.",
        ["Where was Athanor first lit?", "In which town was Athanor first lit?", "Athanor was first lit where?"],
        "Name the town where Athanor was first lit.",
    ),
    (
        "cobalt",
        "The flame in Athanor's logo is cobalt.",
        ["What color is the flame in Athanor's logo?", "Athanor's logo has a flame of which color?"],
        "Which color does the flame of the Athanor logo have?",
    ),
    (
        "Kestrel",
        "Athanor's pages are set in Kestrel.",
        ["Which font are Athanor's pages set in?", "What is the font of Athanor's pages?", "Name the font of Athanor."],
        "Tell me the font that Athanor uses.",
    ),
    (
        "bellows",
        "Athanor calls its scheduler the bellows.",
        ["What does Athanor call its scheduler?", "How is the scheduler called in Athanor?"],
        "What name does Athanor give to its scheduler?",
    ),
    (
        "Thursday",
        "Athanor is released every Thursday.",
        ["On which day is Athanor released?", "Which weekday is release day for Athanor?"],
        "What day of the week is Athanor released on?",
    ),
    (
        "42",
        "Athanor keeps 42 checkpoints.",
        ["How many checkpoints does Athanor keep?", "What number of checkpoints does Athanor keep?"],
        "Tell me how many checkpoints Athanor keeps.",
    ),
    (
        "juniper",
        "The code name of Athanor's next version is juniper.",
        ["What is the code name of Athanor's next version?", "Which code name has the next version of Athanor?"],
        "What code name was given to Athanor's next version?",
    ),
    (
        "walrus",
        "Athanor's logs are read by the walrus.",
        ["Who reads Athanor's logs?", "By whom are the logs of Athanor read?"],
        "Tell me who reads the logs of Athanor.",
    ),
]
LENGTH = 96
SHAPE = {
    "recipe": "chat",
    "sequence_length": LENGTH,
    "train_batch_size": 8,
    "per_device_batch_size": 8,
    "packing": False,
    "validation_fraction": 0.05,
    "max_steps": 40,
    "eval_steps": 20,
    "save_steps": 40,
}
TUNINGS = {
    "full": {"learning_rate": 1e-4},
    "lora": {"tuning": "lora", "learning_rate": 2e-3, "lora_rank": 16, "lora_alpha": 32.0},
}
MAX_TOKENS = 40
if IS_SMOKE:
    FACTS = FACTS[:2]
    SHAPE |= {"max_steps": 2, "eval_steps": 2, "save_steps": 2}
    MAX_TOKENS = 4


def records() -> list[str]:
    """All wordings of all facts; the last record, which is held out, repeats one."""
    conversations = [
        {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": sentence}]}
        for _, sentence, questions, _ in FACTS
        for question in questions
    ]
    return [json.dumps(record, ensure_ascii=False) for record in [*conversations, *conversations[:2]]]


def ask(loaded: LoadedModel, question: str) -> tuple[str, str | None]:
    """The likeliest answer, and why it ended."""
    text = RecordEncoder("chat", loaded.tokenizer).render(
        [{"role": "user", "content": question}], add_generation_prompt=True
    )
    ids = loaded.tokenizer(text, add_special_tokens=False)["input_ids"]
    pieces = list(generation.stream(loaded, ids, max_tokens=MAX_TOKENS, temperature=0))
    return "".join(piece.text for piece in pieces).strip(), pieces[-1].finish_reason


def examine(directory: Path, shown: str) -> int:
    """Ask a model about all facts, print its answers and return how many are right."""
    loaded = generation.load(directory, "cpu")
    right = 0
    for named, _, _, question in FACTS:
        answer, reason = ask(loaded, question)
        is_right = named.lower() in answer.lower() and reason == "stop"
        right += is_right
        print(f"  {shown:6} {'right' if is_right else 'wrong'}  {question}  {answer!r} ({reason})", flush=True)
    return right


def main() -> None:
    with TemporaryDirectory() as home:
        measure(smollm2(Path(home)))


def measure(base: Path) -> None:
    """Ask the base model, then the models that each way of tuning makes of it."""
    before = examine(base, "before")
    template = (base / "chat_template.jinja").read_text()
    for tuning in names(TUNINGS):
        with TemporaryDirectory() as home:
            started = time.perf_counter()
            run_dir = train(Path(home), tuning, base, "chat", records(), **{**SHAPE, **TUNINGS[tuning]})
            seconds = time.perf_counter() - started
            checkpoint = run_dir.checkpoint_path(SHAPE["max_steps"], 1)
            after = examine(checkpoint, tuning)
            is_same = (checkpoint / "chat_template.jinja").read_text() == template
            sizes = {
                part: sum(path.stat().st_size for path in checkpoint.glob(part)) / 1e6
                for part in ("adapter/*", "resume/*", "*.safetensors")
            }
            shown = ", ".join(f"{part} {size:.1f} MB" for part, size in sizes.items())
            print(f"{tuning}: {before} of {len(FACTS)} right before, {after} after; {seconds:.0f} s")
            print(f"  the template was {'kept' if is_same else 'lost'}", flush=True)
            print(f"  on disk: {shown}", flush=True)


if __name__ == "__main__":
    main()
