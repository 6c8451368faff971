"""The entry: `python -m thinking_rl.train recipe.yaml [key=value ...] [--dry-run]`."""

from __future__ import annotations

import argparse
import importlib.util
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from thinking_rl.cluster.stopping import stop_signals

if TYPE_CHECKING:
    from thinking_rl.recipe.schema import Recipe
    from thinking_rl.run.state import Saved

PACKAGES = ("thinking_rl", "rewards", "rollouts", "eval")
EXIT_ERROR, EXIT_USER_ERROR, EXIT_STOPPED = 1, 2, 130
RUN_FILES = ("summary.json", "metrics.jsonl", "recipe.yaml", "error.log", "not_graded.jsonl")
RUN_FOLDERS = ("tensorboard", "checkpoints", "export", "tiny")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a recipe; returns the exit code.

    0: done. 1: the run failed. 2: the recipe, or something it names, is wrong. 130: stopped by
    Ctrl-C or SIGTERM. The last line on stderr says what went wrong.
    """
    arguments = _parser().parse_intermixed_args(argv)
    with stop_signals():
        return _main(arguments)


def _main(arguments: argparse.Namespace) -> int:
    run_dir: Path | None = None
    try:
        check_one_folder()
        from thinking_rl.recipe.load import load_recipe

        recipe = load_recipe(arguments.recipe, arguments.overrides)
        saved = check_run_dir(recipe)
        if arguments.dry_run:
            _dry_run(recipe)
        else:
            run_dir = Path(recipe.run_dir)
            _run(recipe, saved)
    except KeyboardInterrupt:
        return _stopped(run_dir)
    except SystemExit as stop:  # ray.init puts a SIGTERM handler of its own in place of ours
        if stop.code != signal.SIGTERM:
            raise
        return _stopped(run_dir)
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


def check_run_dir(recipe: Recipe) -> Saved | None:
    """Where the run goes on, if it is to resume and its folder holds a checkpoint.

    Raises:
        ValueError: the folder holds a run that may neither be overwritten nor resumed, or the one
            to resume had another recipe.
    """
    from thinking_rl.run.state import check_same_recipe, find_saved

    run_dir = Path(recipe.run_dir)
    if run_dir.exists() and not run_dir.is_dir():
        raise ValueError(f"run_dir: {run_dir} is a file, expected a folder")
    if recipe.overwrite and recipe.resume:
        raise ValueError("overwrite and resume: a run cannot start afresh and go on; give one")
    saved = find_saved(run_dir)
    finished = (run_dir / "summary.json").exists()
    if recipe.resume and saved:
        check_same_recipe(recipe)
        return saved
    if (finished or saved) and not recipe.overwrite:
        what = "a finished run" if finished else f"an unfinished run, saved {saved}"
        go_on = "" if finished else "resume=true to go on, "
        raise ValueError(
            f"run_dir: {run_dir} holds {what}; give {go_on}run_dir=FOLDER for a new one, "
            "or overwrite=true to start afresh in it"
        )
    if Path(recipe.model.path).resolve().is_relative_to(run_dir.resolve()):
        raise ValueError(
            f"model.path: {recipe.model.path} lies in {run_dir}, which is cleared for a new run; "
            "give run_dir=FOLDER for it"
        )
    return None


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

    from thinking_rl.plan.plan import make_plan, print_plan

    plan = make_plan(recipe)
    print_plan(plan, Console())
    plan.raise_problems()


def _run(recipe: Recipe, saved: Saved | None) -> None:
    from thinking_rl.plan.plan import check_inputs

    check_inputs(recipe).raise_problems()
    _prepare(recipe, saved)

    from thinking_rl.report.progress import Reporter

    reporter = Reporter(recipe.run_dir, recipe, seconds=saved.seconds if saved else None)
    reporter.log(f"run_dir: {recipe.run_dir}")
    if saved:
        reporter.log(f"going on {saved}")
    try:
        from thinking_rl import stages  # torch, ray and vllm: many seconds

        stages.run(recipe, reporter, saved)
    finally:
        reporter.close()


def _prepare(recipe: Recipe, saved: Saved | None) -> None:
    """Makes the run's folder, clears what an earlier run left (beyond the position where this one
    goes on), and writes the full recipe."""
    import os
    import shutil

    from thinking_rl.recipe.load import save_resolved

    run_dir = Path(recipe.run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    if saved:
        os.truncate(run_dir / "metrics.jsonl", saved.metrics_bytes)
        (run_dir / "summary.json").unlink(missing_ok=True)
        (run_dir / "error.log").unlink(missing_ok=True)
    elif (run_dir / "recipe.yaml").exists():  # a run's folder: nobody else's files are touched
        for name in RUN_FILES:
            (run_dir / name).unlink(missing_ok=True)
        for name in RUN_FOLDERS:
            shutil.rmtree(run_dir / name, ignore_errors=True)
    # The copy asks neither to overwrite nor to resume: that was for this once.
    once = {"overwrite": False, "resume": False}
    save_resolved(recipe.model_copy(update=once), run_dir / "recipe.yaml")


def _stopped(run_dir: Path | None) -> int:
    from thinking_rl.run.state import find_saved

    saved = find_saved(run_dir) if run_dir else None
    go_on = f"; resume=true goes on {saved}" if saved else ""
    return _fail(f"stopped{go_on}", EXIT_STOPPED)


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


if __name__ == "__main__":
    sys.exit(main())
