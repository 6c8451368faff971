"""The entry: `python -m thinking_rl.train recipe.yaml [key=value ...] [--dry-run]`."""

from __future__ import annotations

import argparse
import contextlib
import errno
import importlib.util
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from thinking_rl.cluster.stopping import stop_signals
from thinking_rl.files.run_folder import RunFolder

if TYPE_CHECKING:
    from thinking_rl.recipe.schema import Recipe
    from thinking_rl.run.state import Position

PACKAGES = ("thinking_rl", "rewards", "rollouts", "eval")
BAD_PATHS = (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EACCES)
"""What the system says of a path that cannot be meant."""
EXIT_ERROR, EXIT_USER_ERROR, EXIT_STOPPED = 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a recipe; returns the exit code.

    0: done. 1: the run failed. 2: the recipe, or something it names, is wrong. 130: stopped by
    Ctrl-C or SIGTERM. The last line on stderr says what went wrong.
    """
    given = sys.argv[1:] if argv is None else list(argv)
    parser = _parser()
    if not given:
        parser.print_help(sys.stderr)
        return EXIT_USER_ERROR
    arguments = parser.parse_intermixed_args(given)
    with stop_signals():
        return _main(arguments)


def _main(arguments: argparse.Namespace) -> int:
    folder: RunFolder | None = None
    try:
        check_one_folder()
        from thinking_rl.plan.devices import find_gpus, resolve_dtype
        from thinking_rl.recipe.load import load_recipe

        recipe = resolve_dtype(load_recipe(arguments.recipe, arguments.overrides), find_gpus())
        check_run_dir(recipe)
        if arguments.dry_run:
            _dry_run(recipe)
            return 0
        from thinking_rl.files.lock import sole_writer
        from thinking_rl.plan.inputs import check_inputs

        check_inputs(recipe).raise_problems()
        with sole_writer(RunFolder.at(recipe.run_dir).path):
            folder = RunFolder.at(recipe.run_dir)
            # Again: another run may have come and gone meanwhile.
            _run(recipe, folder, check_run_dir(recipe))
    except KeyboardInterrupt:
        return _stopped(folder)
    except SystemExit as stop:  # while `ray.init` has a SIGTERM handler of its own in place of ours
        if stop.code != signal.SIGTERM:
            raise
        return _stopped(folder)
    except Exception as error:
        return _report(error, folder)
    return 0


def check_one_folder() -> None:
    """See that no other package shadows one of ours: their names are generic.

    Raises:
        ValueError: one does.
    """
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


def check_run_dir(recipe: Recipe) -> Position | None:
    """Where the run goes on, if it is to resume and its folder holds a checkpoint.

    Raises:
        ValueError: the folder holds a run that may neither be overwritten nor resumed, or the one
            to resume had another recipe.
    """
    from thinking_rl.run.state import check_same_recipe, find_position

    folder, run_dir = RunFolder.at(recipe.run_dir), recipe.run_dir
    if folder.path.exists() and not folder.path.is_dir():
        raise ValueError(f"run_dir: {run_dir} is a file, expected a folder")
    if recipe.overwrite and recipe.resume:
        raise ValueError("overwrite and resume: a run cannot start afresh and go on; give one")
    position = None if recipe.overwrite else find_position(folder)
    finished = folder.summary.exists()
    if recipe.resume and position:
        check_same_recipe(recipe)
        return position
    if (finished or position) and not recipe.overwrite:
        what = "a finished run" if finished else f"an unfinished run, saved {position}"
        go_on = "" if finished else "resume=true to go on, "
        raise ValueError(
            f"run_dir: {run_dir} holds {what}; give {go_on}run_dir=FOLDER for a new one, "
            "or overwrite=true to start afresh in it"
        )
    if Path(recipe.model.path).resolve().is_relative_to(folder.path):
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

    from thinking_rl.plan.findings import print_plan
    from thinking_rl.plan.plan import make_plan

    plan = make_plan(recipe)
    print_plan(plan, Console())
    plan.raise_problems()


def _run(recipe: Recipe, folder: RunFolder, position: Position | None) -> None:
    _prepare(recipe, folder, position)

    from thinking_rl.report.progress import Reporter
    from thinking_rl.run.state import RunState

    reporter, state = Reporter(folder, recipe), RunState(position)
    try:
        state.register("reporter", reporter)
        reporter.log(f"run_dir: {recipe.run_dir}")
        if position:
            for damaged in position.skipped:
                reporter.log(f"a damaged checkpoint is left out: {damaged}")
            reporter.log(f"going on {position}")
        from thinking_rl import stages  # torch, ray and vllm: many seconds

        stages.run(recipe, reporter, state)
    finally:
        reporter.close()


def _prepare(recipe: Recipe, folder: RunFolder, position: Position | None) -> None:
    """Makes the run's folder, clears what an earlier run left, or what one that goes on said of its
    end, and writes the full recipe."""
    from thinking_rl.recipe.load import save_resolved

    folder.path.mkdir(parents=True, exist_ok=True)
    if position:
        folder.summary.unlink(missing_ok=True)
        folder.error_log.unlink(missing_ok=True)
    else:
        folder.clear()
    # The copy asks neither to overwrite nor to resume: that was for this once.
    once = {"overwrite": False, "resume": False}
    save_resolved(recipe.model_copy(update=once), folder.recipe)


def _stopped(folder: RunFolder | None) -> int:
    from thinking_rl.run.state import find_position

    position = find_position(folder) if folder else None
    go_on = f"; resume=true goes on {position}" if position else ""
    return _fail(f"stopped{go_on}", EXIT_STOPPED, folder)


def _report(error: BaseException, folder: RunFolder | None) -> int:
    """Writes the traceback to the run's error.log, the cause to stderr; returns the exit code."""
    if folder and folder.path.is_dir():
        log, text = folder.error_log, "".join(traceback.format_exception(error))
        try:
            log.write_text(text, encoding="utf-8")
            print(f"the traceback is in {log}", file=sys.stderr)
        except OSError:  # such as a full disk, which may be the very error
            print(text, file=sys.stderr)
    while isinstance(cause := getattr(error, "cause", None), BaseException):
        error = cause  # a Ray task's error holds the one that its worker raised
    if isinstance(error, OSError) and error.errno in BAD_PATHS:
        return _fail(f"error: {error.filename}: {error.strerror}", EXIT_USER_ERROR, folder)
    if isinstance(error, ValueError | FileNotFoundError):
        return _fail(f"error: {error}", EXIT_USER_ERROR, folder)
    return _fail(f"error: {type(error).__name__}: {error}", EXIT_ERROR, folder)


def _fail(message: str, code: int, folder: RunFolder | None) -> int:
    """Says in one line, here and in the run's log, why the run ends; returns the exit code."""
    line = " ".join(message.split())
    print(line, file=sys.stderr)
    if folder and folder.path.is_dir():
        from thinking_rl.report.events import EventLog

        kind = "stopped" if code == EXIT_STOPPED else "failed"
        with contextlib.suppress(OSError):
            EventLog(folder).write(kind, line)
        with contextlib.suppress(OSError), folder.log.open("a", encoding="utf-8") as log:
            log.write(f"{line}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
