"""Evaluate a checkpoint on benchmarks: `python -m eval.run CHECKPOINT --benchmarks mathvision`.

Responses are kept as they come: run the same command again after an interruption, and it goes on
where it stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.command import count, exit_code, progress
from thinking_rl.files.checkpoint import checkpoint_folder
from thinking_rl.files.json_files import write_json

if TYPE_CHECKING:
    from eval.ask import Asking, Model
    from eval.benchmarks.benchmark import Benchmark
    from eval.measure import Measures
    from rollouts.engine import EngineSettings
    from rollouts.pool import RolloutPool
    from thinking_rl.model.image_store import ImageStore
    from thinking_rl.model.processing import KimiVLProcessor
    from thinking_rl.types import Problem

LONGEST_CONTEXT = 32768
START_TIMEOUT_S = 1800.0
SILENCE_S = 60.0
MAX_IMAGES = 8


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m eval.run", description="Evaluate a checkpoint on benchmarks."
    )
    add = parser.add_argument
    add("checkpoint", help="a folder or a hub id")
    add("--benchmarks", required=True, type=_names, metavar="A,B", help="such as mathvision,mmmu")
    pair: dict[str, Any] = {"action": "append", "default": [], "type": _pair}
    add("--data", **pair, metavar="NAME=PLACE", help="a benchmark's file, folder or hub id")
    add("--split", **pair, metavar="NAME=SPLIT", help="by default the one scores are reported on")
    add("--limit", type=count, help="only the first problems of each benchmark")
    add("--samples", type=count, default=1, help="responses to each problem")
    add("--temperature", type=float, default=0.8, help="0: greedy (default: 0.8)")
    add("--top-p", type=float, default=1.0)
    add(
        "--max-response-tokens",
        type=count,
        default=16384,
        help="longest response (default: 16384)",
    )
    add("--max-model-tokens", type=count, help="prompt and response (default: up to 32768)")
    add(
        "--thinking-budgets",
        type=_counts,
        default=[],
        metavar="N,N",
        help="close the thinking after so many tokens; each budget is an evaluation of its own",
    )
    add("--answer-tokens", type=count, default=512, help="beyond a budget (default: 512)")
    add("--style", choices=("official", "kimi"), default="official", help="of the prompts")
    add("--out", type=Path, help="folder (default: runs/eval-CHECKPOINT)")
    add("--engines", type=count, default=1)
    add("--tensor-parallel", type=count, default=1, help="GPUs of an engine")
    add("--max-sequences", type=count, default=64, help="that an engine decodes at once")
    add("--chunk", type=count, default=256, help="requests between two writes (default: 256)")
    add("--image-token-limit", type=count, help="most patches of an image")
    add("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    add("--seed", type=int, default=0)
    add("--timeout-s", type=float, default=14400.0, help="longest wait for a chunk")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate, print the table; returns what `exit_code` says."""
    options = parse_arguments(arguments)
    return exit_code(lambda: run(options))


def run(options: argparse.Namespace) -> None:
    """Answer what is not answered yet, score everything, write and print the results."""
    if options.samples > 1 and options.temperature == 0:
        raise ValueError("--samples above 1 need a --temperature above 0: greedy answers are alike")
    problems = load(options)
    checkpoint = checkpoint_folder(options.checkpoint)
    out = options.out or Path("runs") / f"eval-{checkpoint.name}"
    max_model_tokens = context_length(checkpoint, options)

    from eval.answers import AnswerFile, keep_settings
    from eval.ask import ask, check_prompts  # torch and ray: seconds
    from eval.measure import measure
    from eval.tables import plot_budgets, table_text
    from thinking_rl.files.lock import sole_writer

    with ExitStack() as resources:
        resources.enter_context(sole_writer(out))
        keep_settings(out, settings(options, checkpoint, max_model_tokens))
        model = lazy_model(options, checkpoint, max_model_tokens, resources)
        jobs = []
        for benchmark, listed in problems:
            for asking in askings(options):
                suffix = f".budget{asking.thinking_budget}" if asking.thinking_budget else ""
                file = AnswerFile(out / "responses" / f"{benchmark.name}{suffix}.jsonl")
                jobs.append((benchmark, listed, asking, file))
            new = [one for one in listed if (one.id, options.samples - 1) not in file.answers]
            check_prompts(benchmark, new, model, asking)  # the last asking is the longest
        results: list[Measures] = []
        for benchmark, listed, asking, file in jobs:
            said = progress(file.path.stem)
            answers = ask(benchmark, listed, model, asking, file, options.chunk, said)
            results.append(measure(benchmark, listed, answers, asking))
    rows = [one.as_dict() for one in results]
    write_json(out / "results.json", rows, indent=2)
    text = table_text(results)
    (out / "table.txt").write_text(text, "utf-8")
    if options.thinking_budgets:
        plot_budgets(results, out / "thinking_budget.png")
    print(text, end="")
    print(f"everything is in {out}")


def load(options: argparse.Namespace) -> list[tuple[Benchmark, list[Problem]]]:
    """The benchmarks asked for with their problems."""
    from eval.benchmarks.registry import get_benchmark

    benchmarks = [get_benchmark(name) for name in options.benchmarks]
    places, splits = dict(options.data), dict(options.split)
    for name in (*places, *splits):
        if name not in options.benchmarks:
            raise ValueError(f"{name!r} of --data or --split is not among --benchmarks")
    return [
        (one, one.load(places.get(one.name), splits.get(one.name), options.limit))
        for one in benchmarks
    ]


def askings(options: argparse.Namespace) -> list[Asking]:
    """One way of asking, or one for each thinking budget, in rising order."""
    from eval.ask import Asking

    return [
        Asking(
            style=options.style,
            samples=options.samples,
            temperature=options.temperature,
            top_p=options.top_p,
            max_response_tokens=options.max_response_tokens,
            seed=options.seed,
            thinking_budget=budget,
            answer_tokens=options.answer_tokens,
        )
        for budget in options.thinking_budgets or [None]
    ]


def settings(
    options: argparse.Namespace, checkpoint: Path, max_model_tokens: int
) -> dict[str, Any]:
    """What an answer depends on. More samples, problems, budgets and benchmarks only add to it."""
    names = ("style", "temperature", "top_p", "max_response_tokens", "answer_tokens")
    names += ("image_token_limit", "dtype", "seed")
    weights = [file.stat().st_mtime_ns for file in checkpoint.glob("*.safetensors")]
    places, splits = dict(options.data), dict(options.split)
    return {
        "checkpoint": str(checkpoint),
        "weights_written_ns": max(weights, default=0),
        **{name: getattr(options, name) for name in names},
        "max_model_tokens": max_model_tokens,
        "data": {
            name: {
                "place": str(Path(places[name]).resolve()) if name in places else None,
                "split": splits.get(name),
            }
            for name in options.benchmarks
        },
    }


def context_length(checkpoint: Path, options: argparse.Namespace) -> int:
    """Tokens of prompt and response together: as asked, else the model's own up to 32768."""
    try:
        config = json.loads((checkpoint / "config.json").read_text("utf-8"))
        own = int(config["text_config"]["max_position_embeddings"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{checkpoint / 'config.json'}: no Kimi-VL configuration") from error
    length = options.max_model_tokens or min(own, LONGEST_CONTEXT)
    if length > own:
        raise ValueError(f"--max-model-tokens {length}: the checkpoint's longest is {own}")
    for budget in options.thinking_budgets:
        if budget + options.answer_tokens >= length:
            raise ValueError(
                f"--thinking-budgets {budget}: with --answer-tokens {options.answer_tokens} it "
                f"leaves no room for a prompt within {length} tokens; raise --max-model-tokens"
            )
    return length


def lazy_model(
    options: argparse.Namespace, checkpoint: Path, max_model_tokens: int, resources: ExitStack
) -> Model:
    """The model; its engines start with the first request, so that a finished evaluation is
    printed again without them."""
    import ray

    from eval.ask import Model, when_first_asked
    from thinking_rl.model.image_store import ImageStore
    from thinking_rl.model.processing import load_processor

    processor = load_processor(checkpoint, options.image_token_limit)
    images = ImageStore(processor.image_processor, share=ray.put)

    def start() -> RolloutPool:
        engine = engine_settings(options, checkpoint, processor, max_model_tokens)
        return start_engines(options, engine, images, resources)

    return Model(processor, images, when_first_asked(start), max_model_tokens)


def engine_settings(
    options: argparse.Namespace,
    checkpoint: Path,
    processor: KimiVLProcessor,
    max_model_tokens: int,
) -> EngineSettings:
    """The command line as an engine takes it; where it runs is known later."""
    from rollouts.engine import EngineSettings

    ids = processor.tokenizer.special_token_ids
    return EngineSettings(
        checkpoint=str(checkpoint),
        dtype=options.dtype,
        max_model_tokens=max_model_tokens,
        max_sequences=options.max_sequences,
        max_images=MAX_IMAGES,
        seed=options.seed,
        media_token_id=processor.media_token_id,
        stop_token_ids=(ids["<|im_end|>"], ids["[EOS]"]),
        image_token_limit=options.image_token_limit,
        tensor_parallel=options.tensor_parallel,
    )


def start_engines(
    options: argparse.Namespace, engine: EngineSettings, images: ImageStore, resources: ExitStack
) -> RolloutPool:
    """Ray and the engines; `resources` ends them."""
    from rollouts.pool import Patience, RolloutPool
    from thinking_rl.cluster.devices import cluster
    from thinking_rl.cluster.placement import Placement

    placement = Placement(engines=options.engines, tensor_parallel=options.tensor_parallel)
    devices = resources.enter_context(cluster(placement))
    engine = replace(engine, threads=devices.threads, on_cpu=devices.on_cpu)
    print(f"starting {options.engines} engine(s)", file=sys.stderr)
    pool = RolloutPool(
        engine,
        devices.engines,
        images,
        patience=Patience(START_TIMEOUT_S, SILENCE_S, options.timeout_s),
    )
    resources.callback(pool.close)
    return pool


def _names(text: str) -> list[str]:
    return list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise argparse.ArgumentTypeError(f"{text!r}: expected NAME=VALUE")
    return name, value


def _counts(text: str) -> list[int]:
    return sorted({count(part.strip()) for part in text.split(",")})


if __name__ == "__main__":
    raise SystemExit(main())
