"""Looks whether a run can work: `python -m thinking_rl.doctor [recipe.yaml] [--deep] [--json]`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from thinking_rl.checkup.check import FaultError, Verdict, run_check
from thinking_rl.checkup.deep import deep_checks
from thinking_rl.checkup.machine import machine_checks
from thinking_rl.checkup.recipe import recipe_checks
from thinking_rl.recipe.load import load_recipe
from thinking_rl.recipe.schema import Recipe
from thinking_rl.train import check_one_folder


def main(argv: Sequence[str] | None = None) -> int:
    """Prints a line for each check; returns 0 where none failed, else 1."""
    parser = argparse.ArgumentParser(
        prog="python -m thinking_rl.doctor",
        description="Checks the machine; with a recipe, all that it names; with --deep, the real "
        "parts, by a shortened run that is killed and resumed.",
    )
    parser.add_argument("recipe", nargs="?", help="the recipe, a YAML file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as for a run")
    parser.add_argument("--deep", action="store_true", help="minutes: the real parts")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    arguments = parser.parse_intermixed_args(argv)
    if arguments.deep and not arguments.recipe:
        parser.error("--deep needs a recipe")
    failed = 0
    for verdict in examine(arguments.recipe, arguments.overrides, arguments.deep):
        failed += verdict.verdict == "failed"
        print(json.dumps(asdict(verdict)) if arguments.json else as_text(verdict), flush=True)
    return 1 if failed else 0


def examine(path: str | None, overrides: Sequence[str], deep: bool) -> Iterator[Verdict]:
    """The verdicts, from the shallow checks to the deep ones; what is deeper is left out where the
    recipe cannot run."""
    recipe: Recipe | None = None

    def read() -> str:
        nonlocal recipe
        try:
            recipe = load_recipe(str(path), overrides)
        except (ValueError, OSError) as error:
            raise FaultError(str(error), "the message names the key") from None
        return f"{path}: every key is known"

    yield run_check("one installation", lambda: check_one_folder() or "all packages of one folder")
    recipe_read = run_check("recipe file", read) if path else None
    folder = Path(recipe.run_dir if recipe else "runs").expanduser().absolute()
    for name, check in machine_checks(folder, recipe.ray_address if recipe else None).items():
        yield run_check(name, check)
    if recipe_read:
        yield recipe_read
    failed = False
    for verdict in recipe_checks(recipe) if recipe else ():
        failed = failed or verdict.verdict == "failed"
        yield verdict
    if recipe and deep and not failed:
        yield from deep_checks(recipe)


def as_text(verdict: Verdict) -> str:
    """A line for people, and the remedy below."""
    line = f"{verdict.verdict:<8}{verdict.name:<24}{verdict.seconds:7.2f} s  {verdict.measured}"
    return line + (f"\n{'':8}-> {verdict.remedy}" if verdict.remedy else "")


if __name__ == "__main__":
    sys.exit(main())
