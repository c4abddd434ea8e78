"""The trainer's commands:
`python -m trainer plan|propose|tokenize|train|batch|job-preview|generate|evaluate|export|preview|tokens`.
"""

import argparse
import json
import os
import socket
import sys
import traceback
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from trainer.events import EXIT_BAD_INPUT, EXIT_OK
from trainer.failure import EXIT_CODES, memory_code
from trainer.formats import jsonlines
from trainer.run_dir import CorpusInput, Inputs, RunDir
from trainer.spec import resolve
from trainer.spec_errors import SpecError


def main() -> int:
    """Run a command and return the exit code; 64 for invalid input and 71 for too little memory, with a sentence on
    standard error.
    """
    arguments = _parser().parse_args()
    try:
        return int(arguments.command(arguments))
    except (ValueError, OSError) as error:
        print(f"trainer: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except Exception as error:
        code = memory_code(error)
        if code is None:
            raise
        print(f"trainer: {error or 'there is not enough memory'}", file=sys.stderr)
        return EXIT_CODES[code]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m trainer", description="Train language models without the panel.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    plan = commands.add_parser("plan", help="estimate the cost of a spec: parameters, memory, time")
    plan.add_argument("spec", metavar="SPEC.json", type=Path, help="fields of a spec; the recipe supplies the rest")
    plan.add_argument("--vocab-size", type=int, help="vocabulary size, if the spec does not set it")
    plan.add_argument("--text-bytes", type=int, help="size of the corpora in bytes, to estimate epochs or steps")
    plan.add_argument("--records", type=int, help="number of records in the corpora, to estimate epochs or steps")
    _add_node(plan)
    plan.set_defaults(command=_plan)

    propose = commands.add_parser("propose", help="propose a model for a text, a machine and a time")
    propose.add_argument("--text-bytes", type=int, required=True, help="size of the corpora in bytes")
    propose.add_argument("--seconds", type=float, required=True, help="available training time")
    _add_node(propose)
    propose.set_defaults(command=_propose)

    for name, command, text in (
        ("tokenize", _tokenize, "train or reuse the tokenizer and tokenize the corpora of a run"),
        ("train", _train, "train a run; start several processes with torchrun -m trainer train"),
    ):
        run = commands.add_parser(name, help=text)
        run.add_argument("run_dir", metavar="RUN_DIR", type=Path, help="directory with spec.json and inputs.json")
        run.add_argument("--fence", type=int, default=1, help="number of this attempt at the run (default 1)")
        run.set_defaults(command=command)
        if name == "train":
            run.add_argument("--resume", metavar="CHECKPOINT_DIR", type=Path, help="resume from this checkpoint")
            run.add_argument("--device", choices=["cpu", "cuda"], help="default: cuda if there is a GPU")

    _add_job_preview(commands.add_parser("job-preview", help="show samples of a run that is not prepared, as JSON"))
    _add_batch(commands.add_parser("batch", help="show the samples of a training step, token by token, as JSON"))

    generate = commands.add_parser("generate", help="continue a prompt with a checkpoint")
    generate.add_argument("checkpoint_dir", metavar="CHECKPOINT_DIR", type=Path)
    generate.add_argument("--prompt", required=True)
    generate.add_argument(
        "--chat", action="store_true", help="the prompt is a message, or messages as a JSON list of role and content"
    )
    generate.add_argument("--max-tokens", type=int, default=100)
    generate.add_argument("--temperature", type=float, default=0.8, help="0 always chooses the most likely token")
    generate.add_argument("--top-p", type=float, default=1.0)
    generate.add_argument("--top-k", type=int, default=0, help="0 for no limit")
    generate.add_argument("--seed", type=int, default=0)
    generate.add_argument("--stop", action="append", default=[], help="stop before this text; may be repeated")
    generate.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    generate.set_defaults(command=_generate)

    _add_evaluate(commands.add_parser("evaluate", help="evaluate a checkpoint on corpora"))
    export = commands.add_parser("export", help="export a checkpoint for other programs")
    export.add_argument("checkpoint_dir", metavar="CHECKPOINT_DIR", type=Path)
    export.add_argument("out_dir", metavar="OUT_DIR", type=Path, help="must not exist yet")
    export.add_argument("--format", choices=["safetensors", "adapter", "gguf"], default="safetensors")
    export.add_argument("--quantization", choices=["f32", "f16", "q8_0"], default="f16", help="of GGUF files")
    export.add_argument("--max-shard-bytes", type=int, default=5 * 10**9, help="of safetensors files")
    export.add_argument("--no-manifest", action="store_true", help="do not compare the files with a manifest first")
    export.add_argument("--facts", type=Path, help="JSON file with the contents of the model card")
    verify = commands.add_parser("verify-export", help="load an export and print the largest difference of its logits")
    verify.add_argument("out_dir", metavar="OUT_DIR", type=Path)
    verify.add_argument("--format", choices=["safetensors", "adapter", "gguf"], default="safetensors")
    for parser_of, command in ((export, _export), (verify, _verify_export)):
        parser_of.add_argument("--base", type=Path, help="base model of an adapter")
        parser_of.set_defaults(command=command)

    _add_preview(commands)
    _add_tokens(commands)
    gang = commands.add_parser("gang", help="run the processes of one attempt for a supervisor")
    gang.add_argument("--fd", type=int, required=True, help="descriptor of an inherited socket to the supervisor")
    gang.set_defaults(command=_gang)
    return parser


def _add_evaluate(evaluate: argparse.ArgumentParser) -> None:
    evaluate.add_argument("checkpoint_dir", metavar="CHECKPOINT_DIR", type=Path)
    evaluate.add_argument(
        "corpora", metavar="CORPORA.json", type=Path, help="a list with id, path, sha256 and kind of each"
    )
    evaluate.add_argument("--limit", type=int, help="documents per corpus; default: all")
    evaluate.add_argument("--num-fewshot", type=int, default=0, help="example documents before each question")
    evaluate.add_argument("--max-tokens", type=int, default=128, help="of an answer to a question")
    evaluate.add_argument("--judge", metavar="CHECKPOINT_DIR", type=Path, help="model that judges answers")
    evaluate.add_argument("--batch-size", type=int, default=8)
    evaluate.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    evaluate.set_defaults(command=_evaluate)


def _add_preview(commands: Any) -> None:
    """Add the command that previews a chat template."""
    preview = commands.add_parser("preview", help="show what a chat template makes of a conversation")
    preview.add_argument("conversation", metavar="CONVERSATION.json", help="messages; - reads standard input")
    preview.add_argument("--template", help="chatml, llama-3, mistral, zephyr, plain or a Jinja template")
    preview.add_argument("--base", type=Path, help="base model whose tokenizer and template are used")
    preview.set_defaults(command=_preview)


def _add_tokens(commands: Any) -> None:
    """Add the command that compares tokenizers."""
    tokens = commands.add_parser("tokens", help="show the tokens of a text, read from standard input")
    tokens.add_argument("tokenizers", metavar="TOKENIZER_DIR", type=Path, nargs="+", help="tokenizers to compare")
    tokens.set_defaults(command=_tokens)


def _add_job_preview(preview: argparse.ArgumentParser) -> None:
    preview.add_argument("run_dir", metavar="RUN_DIR", type=Path, help="directory of a run, only for this preview")
    preview.add_argument("--step", type=int, default=1, help="the step, from 1")
    preview.add_argument("--first", type=int, default=0, help="the first sample of the batch to show, from 0")
    preview.add_argument("--count", type=int, default=8, help="how many samples to show")
    preview.add_argument("--max-bytes", type=int, default=4 << 20, help="of each corpus that are read, about")
    preview.set_defaults(command=_job_preview)


def _add_batch(batch: argparse.ArgumentParser) -> None:
    batch.add_argument("run_dir", metavar="RUN_DIR", type=Path, help="directory of a run whose data are tokenized")
    batch.add_argument("--step", type=int, required=True, help="the step, from 1")
    batch.add_argument("--first", type=int, default=0, help="the first sample of the batch to show, from 0")
    batch.add_argument("--count", type=int, help="how many samples to show (default: all)")
    batch.set_defaults(command=_batch)


def _add_node(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that describe the machine of a plan."""
    parser.add_argument("--memory-bytes", type=int, help="memory of each GPU, or of a machine without GPUs")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="kind of device to train on")
    parser.add_argument("--device-name", default="", help="name of the GPUs, such as H200")
    parser.add_argument("--num-devices", type=int, default=1, help="number of GPUs")
    parser.add_argument("--num-cpus", type=int, default=os.cpu_count() or 1, help="number of processor cores")
    parser.add_argument("--host-memory-bytes", type=int, help="host memory of a machine with GPUs")
    parser.add_argument("--watts", type=float, help="power of each GPU, or of a machine without GPUs")
    parser.add_argument("--price-per-hour", type=float, help="of the machine")
    parser.add_argument("--price-per-kwh", type=float, help="of energy")


def _node(arguments: argparse.Namespace) -> Any:
    from trainer.planning.hardware import NodeHardware

    if arguments.memory_bytes is None:
        return None
    fields = {name: value for name, value in vars(arguments).items() if name in NodeHardware.model_fields}
    return NodeHardware(kind=arguments.device, name=arguments.device_name, count=arguments.num_devices, **fields)


def _propose(arguments: argparse.Namespace) -> int:
    from trainer.planning.proposals import TextData, propose

    node = _node(arguments)
    if node is None:
        raise ValueError("give --memory-bytes and, if known, the other arguments of the machine")
    print(propose(TextData(num_bytes=arguments.text_bytes), node, arguments.seconds).model_dump_json(indent=2))
    return EXIT_OK


def _plan(arguments: argparse.Namespace) -> int:
    from trainer.planning.config_search import choose_auto_fields, split_auto_fields
    from trainer.planning.plan import plan
    from trainer.planning.training_data import TrainingData

    fields, auto = split_auto_fields({"corpora": ["corpus"], **json.loads(arguments.spec.read_text())})
    try:
        spec = resolve(fields)
    except SpecError as error:
        raise ValueError(f"{arguments.spec}: {error}") from None
    vocab_size = spec.vocab_size or arguments.vocab_size
    if vocab_size is None:
        raise ValueError("the spec does not set vocab_size; give --vocab-size")
    node = _node(arguments)
    if auto and node is None:
        raise ValueError(f"{auto[0]} is auto; give --memory-bytes and, if known, the other arguments of the machine")
    completed = choose_auto_fields(spec, vocab_size, node, auto) if auto else None
    data = TrainingData(num_bytes=arguments.text_bytes or 0, num_records=arguments.records or 0)
    cost = plan(completed or spec, vocab_size, node, data)
    chosen = {name: getattr(completed, name) for name in auto} if completed is not None else {}
    print(json.dumps({"chosen": chosen, **cost.model_dump(mode="json")}, indent=2))
    return EXIT_OK


def _tokenize(arguments: argparse.Namespace) -> int:
    from trainer.launch import process

    return process.prepare(_open(arguments), arguments.fence)


def _train(arguments: argparse.Namespace) -> int:
    run_dir = _open(arguments)
    first = os.environ.get("RANK", "0") == "0"
    if first and any(run_dir.path.glob(f"checkpoints/step-*-{arguments.fence}")):
        raise ValueError(f"attempt {arguments.fence} already has checkpoints; start a new one with --fence")
    if first and arguments.resume:
        inputs = run_dir.inputs(arguments.fence).model_copy(update={"resume": str(arguments.resume.resolve())})
        run_dir.create(run_dir.spec(), inputs, arguments.fence)
    from trainer.launch.environment import set_rank_environment
    from trainer.launch.gang import preload

    if "RANK" not in os.environ:
        set_rank_environment(0, 1)
    preload()
    from trainer.launch import rank

    kind = arguments.device or rank.best_device()
    return rank.run(run_dir, arguments.fence, kind, is_supervised=False)


def _job_preview(arguments: argparse.Namespace) -> int:
    from trainer.batch_shapes import JOB_PREVIEW
    from trainer.datasets.job_preview import preview

    run_dir = RunDir(arguments.run_dir)
    view = preview(run_dir, arguments.step, arguments.first, arguments.count, arguments.max_bytes)
    print(JOB_PREVIEW.dump_json(view, exclude_defaults=True).decode())
    return EXIT_OK


def _batch(arguments: argparse.Namespace) -> int:
    from trainer.batch_shapes import BATCH_VIEW
    from trainer.datasets.batch_view import view_batch
    from trainer.failure import Failure

    try:
        view = view_batch(RunDir(arguments.run_dir), arguments.step, arguments.first, arguments.count)
    except Failure as failure:
        raise ValueError(str(failure)) from None
    print(BATCH_VIEW.dump_json(view, exclude_defaults=True).decode())
    return EXIT_OK


def _generate(arguments: argparse.Namespace) -> int:
    from trainer.inference import generation

    loaded = generation.load(arguments.checkpoint_dir, arguments.device)
    pieces = generation.stream(
        loaded,
        _conversation(loaded, arguments.prompt) if arguments.chat else arguments.prompt,
        max_tokens=arguments.max_tokens,
        temperature=arguments.temperature,
        top_p=arguments.top_p,
        top_k=arguments.top_k,
        seed=arguments.seed,
        stop=arguments.stop,
    )
    for piece in pieces:
        print(piece.text, end="", flush=True)
    print()
    return EXIT_OK


def _conversation(loaded: Any, prompt: str) -> list[int]:
    """The tokens of a prompt in the chat template. Raises ValueError without a template, or for invalid messages."""
    messages = [{"role": "user", "content": prompt}]
    if prompt.lstrip().startswith("["):
        try:
            messages = TypeAdapter(list[dict[str, str]]).validate_json(prompt)
        except ValidationError:
            raise ValueError("--prompt is not a JSON list of messages with role and content") from None
    ids: list[int] = loaded.encode_chat(messages)
    return ids


def _preview(arguments: argparse.Namespace) -> int:
    from trainer.data.chat_preview import preview
    from trainer.failure import Failure

    text = sys.stdin.read() if arguments.conversation == "-" else Path(arguments.conversation).read_text()
    messages = TypeAdapter(list[dict[str, str]]).validate_json(text)
    try:
        print(preview(arguments.base, arguments.template, messages).model_dump_json())
    except Failure as failure:
        raise ValueError(str(failure)) from None
    return EXIT_OK


def _tokens(arguments: argparse.Namespace) -> int:
    from trainer.data.tokenizer_comparison import compare

    print(json.dumps(compare(arguments.tokenizers, sys.stdin.read())))
    return EXIT_OK


def _report(message: jsonlines.Message) -> None:
    """One line to the process that started this one."""
    jsonlines.write(sys.stdout, message)


def _evaluate(arguments: argparse.Namespace) -> int:
    # The harness must not download anything or draw progress bars.
    os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TQDM_DISABLE="1")
    from trainer.inference import bounded_model, evaluation

    judge = arguments.judge
    corpora = TypeAdapter(list[CorpusInput]).validate_json(arguments.corpora.read_bytes())
    try:
        result = evaluation.evaluate(
            bounded_model.load(arguments.checkpoint_dir, arguments.device),
            corpora,
            limit=arguments.limit,
            num_fewshot=arguments.num_fewshot,
            batch_size=arguments.batch_size,
            progress=lambda done, total: _report({"done": done, "total": total}),
            max_tokens=arguments.max_tokens,
            load_judge=None if judge is None else lambda: bounded_model.load(judge, arguments.device),
        )
    except evaluation.EvaluationRefused as refused:
        _report({"failed": {"code": refused.code, "values": refused.values}})
        raise
    except (ValueError, OSError):
        raise
    except Exception as error:  # the libraries raise what they like
        traceback.print_exc()
        raise ValueError(f"the evaluation failed: {type(error).__name__}: {error}") from error
    _report({"result": result.model_dump()})
    return EXIT_OK


def _export(arguments: argparse.Namespace) -> int:
    os.environ.update(HF_HUB_OFFLINE="1", TQDM_DISABLE="1")
    from trainer.export import export
    from trainer.export.gguf_writer import UnsupportedExport

    facts = arguments.facts
    try:
        result = export.export(
            arguments.checkpoint_dir,
            arguments.out_dir,
            arguments.format,
            quantization=arguments.quantization,
            max_shard_bytes=arguments.max_shard_bytes,
            base=arguments.base,
            has_manifest=not arguments.no_manifest,
            facts=json.loads(facts.read_text()) if facts is not None else None,
            progress=lambda done, total: _report({"done": done, "total": total}),
        )
    except export.LogitMismatch as problem:
        values = {"largest": f"{problem.largest:.3g}", "tolerance": f"{problem.tolerance:.3g}"}
        _report({"failed": {"code": "export_differs", "values": values}})
        return EXIT_BAD_INPUT
    except UnsupportedExport as problem:
        _report({"failed": problem.limit.model_dump()})
        return EXIT_BAD_INPUT
    _report({"result": result})
    return EXIT_OK


def _verify_export(arguments: argparse.Namespace) -> int:
    os.environ.update(HF_HUB_OFFLINE="1", TQDM_DISABLE="1")
    from trainer.export import verification

    _report({"largest": verification.verify(arguments.out_dir, arguments.format, arguments.base)})
    return EXIT_OK


def _gang(arguments: argparse.Namespace) -> int:
    from trainer.launch import gang

    code = gang.serve(socket.socket(fileno=arguments.fd))
    return code if code >= 0 else 128 - code


def _open(arguments: argparse.Namespace) -> RunDir:
    run_dir = RunDir(arguments.run_dir)
    inputs, template = run_dir.inputs_path(arguments.fence), run_dir.path / "inputs.json"
    for path in (run_dir.spec_path, inputs if inputs.is_file() else template):
        if not path.is_file():
            raise ValueError(f"{path} does not exist")
    if os.environ.get("RANK", "0") == "0" and not inputs.is_file():
        run_dir.create(run_dir.spec(), Inputs.model_validate_json(template.read_text()), arguments.fence)
    return run_dir


if __name__ == "__main__":
    sys.exit(main())
