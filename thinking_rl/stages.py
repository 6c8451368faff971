"""A recipe's stages in order: checkpoint in, warm-up, RL, thinking checkpoint out."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass

from thinking_rl.recipe.schema import RL_STAGE, SFT_STAGE, Recipe
from thinking_rl.report.card import model_card
from thinking_rl.report.progress import Reporter
from thinking_rl.report.view.bundle import write_report
from thinking_rl.rl import run_rl
from thinking_rl.run.evaluate import evaluate_once
from thinking_rl.run.export import export_checkpoint, starting_checkpoint
from thinking_rl.run.session import Session
from thinking_rl.run.state import RunState
from thinking_rl.sft import run_sft


@dataclass(frozen=True)
class Stage:
    """One stage of a run."""

    name: str
    """As in `recipe.stages`; also the name of its section."""
    run: Callable[[Session, str], str]
    """From a checkpoint folder to the folder of the trained weights, which the engines have then.
    Does only what is left, where the run goes on."""


STAGES = (Stage(SFT_STAGE, run_sft), Stage(RL_STAGE, run_rl))
"""In their order."""


def run(recipe: Recipe, reporter: Reporter, state: RunState) -> None:
    """Run a recipe to its end, or go on from where `state` says. Everything is written under
    `recipe.run_dir`."""
    start = starting_checkpoint(recipe)
    with Session(recipe, reporter, state, start) as session:
        checkpoint = start
        evaluate_once(session, "start")
        for stage in STAGES:
            if stage.name in recipe.stages:
                checkpoint = stage.run(session, checkpoint)
                evaluate_once(session, f"after_{stage.name}")
        export_checkpoint(session.folder.export, start, checkpoint)
        reporter.count("images_decoded", session.images.decoded)
        reporter.count("images_distinct", session.images.distinct)
        reporter.count("responses_left_out", session.responses.left_out)
        card = session.folder.export / "README.md"
    summary = reporter.finish()
    card.write_text(model_card(recipe, summary), encoding="utf-8")
    show_the_way(reporter)


def show_the_way(reporter: Reporter) -> None:
    """Write the run's `report.html`, and say how to look at the rest. A run is finished without it
    too: trouble is told, not raised."""
    try:
        report = write_report(reporter.folder)
    except (OSError, ValueError, KeyError, sqlite3.Error) as error:
        reporter.log(f"report.html could not be written: {error}")
    else:
        reporter.log(f"report: {report}")
    reporter.log(f"look at it: python -m thinking_rl.view {reporter.folder.path}")
