"""The entry: `python -m thinking_rl.train recipe.yaml [key=value ...] [--dry-run]`."""

from __future__ import annotations

import argparse
import importlib.util
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from thinking_rl.recipe import Recipe

PACKAGES = ("thinking_rl", "rewards", "rollouts", "eval")
EXIT_ERROR, EXIT_USER_ERROR, EXIT_STOPPED = 1, 2, 130
RUN_FILES = ("summary.json", "metrics.jsonl", "recipe.yaml", "error.log", "not_graded.jsonl")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a recipe; returns the exit code.

    0: done. 1: the run failed. 2: the recipe, or something it names, is wrong. 130: stopped by
    Ctrl-C or SIGTERM. The last line on stderr says what went wrong.
    """
    arguments = _parser().parse_intermixed_args(argv)
    signal.signal(signal.SIGTERM, _stop)
    run_dir: Path | None = None
    try:
        check_one_folder()
        from thinking_rl.recipe_file import load_recipe

        recipe = load_recipe(arguments.recipe, arguments.overrides)
        check_run_dir(recipe)
        if arguments.dry_run:
            _dry_run(recipe)
        else:
            run_dir = Path(recipe.run_dir)
            _run(recipe)
    except KeyboardInterrupt:
        return _fail("stopped", EXIT_STOPPED)
    except SystemExit as stop:  # ray.init puts a SIGTERM handler of its own in place of ours
        if stop.code != signal.SIGTERM:
            raise
        return _fail("stopped", EXIT_STOPPED)
    except Exception as error:
        return _report(error, run_dir)
    return 0


def check_one_folder() -> None:
    """Raises ValueError if another package shadows one of ours: their names are generic."""
    folders = {}
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        origin = spec and spec.origin
        folders[name] = Path(origin).parent.parent if origin else None
    ours = folders["thinking_rl"]
    for name, folder in folders.items():
        if folder != ours:
            raise ValueError(
                f"package {name!r} comes from {folder or 'nowhere'}, thinking_rl from {ours}: "
                f"start in another folder or remove the other {name!r} from PYTHONPATH"
            )


def check_run_dir(recipe: Recipe) -> None:
    """Raises ValueError if the run's folder holds a finished run that may not be overwritten."""
    run_dir = Path(recipe.run_dir)
    if run_dir.exists() and not run_dir.is_dir():
        raise ValueError(f"run_dir: {run_dir} is a file, expected a folder")
    if (run_dir / "summary.json").exists() and not recipe.overwrite:
        raise ValueError(
            f"run_dir: {run_dir} holds a finished run; give run_dir=FOLDER for a new one, "
            "or overwrite=true to start afresh in it"
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m thinking_rl.train",
        description="Turn a Kimi-VL checkpoint into a thinking one: long-CoT SFT, then RL.",
        epilog="Example: python -m thinking_rl.train recipes/quickstart.yaml rl.iterations=3",
    )
    parser.add_argument("recipe", help="the recipe, a YAML file")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="settings in place of the recipe's"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="check everything and print the plan, run nothing"
    )
    return parser


def _dry_run(recipe: Recipe) -> None:
    from rich.console import Console

    from thinking_rl.plan import make_plan, print_plan

    plan = make_plan(recipe)
    print_plan(plan, Console())
    plan.raise_problems()


def _run(recipe: Recipe) -> None:
    from thinking_rl.plan import check_inputs

    check_inputs(recipe).raise_problems()
    _prepare(recipe)

    from thinking_rl.report.progress import Reporter

    reporter = Reporter(recipe.run_dir, recipe)
    reporter.log(f"run_dir: {recipe.run_dir}")
    try:
        from thinking_rl import stages  # torch, ray and vllm: many seconds

        stages.run(recipe, reporter)
    finally:
        reporter.close()


def _prepare(recipe: Recipe) -> None:
    """Makes the run's folder, clears an overwritten run's files, and writes the full recipe."""
    import shutil

    from thinking_rl.recipe_file import save_resolved

    run_dir = Path(recipe.run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    if recipe.overwrite:
        for name in RUN_FILES:
            (run_dir / name).unlink(missing_ok=True)
        shutil.rmtree(run_dir / "tensorboard", ignore_errors=True)
    # The copy does not ask to overwrite: run again, it must not clear what it describes.
    save_resolved(recipe.model_copy(update={"overwrite": False}), run_dir / "recipe.yaml")


def _report(error: BaseException, run_dir: Path | None) -> int:
    """Writes the traceback to the run's error.log, the cause to stderr; returns the exit code."""
    if run_dir and run_dir.is_dir():
        log, text = run_dir / "error.log", "".join(traceback.format_exception(error))
        try:
            log.write_text(text, encoding="utf-8")
            print(f"the traceback is in {log}", file=sys.stderr)
        except OSError:  # such as a full disk, which may be the very error
            print(text, file=sys.stderr)
    while isinstance(cause := getattr(error, "cause", None), BaseException):
        error = cause  # a Ray task's error holds the one that its worker raised
    if isinstance(error, ValueError | FileNotFoundError):
        return _fail(f"error: {error}", EXIT_USER_ERROR)
    return _fail(f"error: {type(error).__name__}: {error}", EXIT_ERROR)


def _fail(message: str, code: int) -> int:
    print(" ".join(message.split()), file=sys.stderr)
    return code


def _stop(signum: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
