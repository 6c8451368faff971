"""Problems that are measured and chosen, step by step: what `thinking_rl.data.curate` does."""

from __future__ import annotations

import argparse
import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.answers import keep_settings
from eval.command import progress
from rewards.reading.extraction import THINK_CLOSE, THINK_OPEN, final_answer
from rollouts.prompts import Sampling
from thinking_rl.curation import command
from thinking_rl.curation.asking import Answered, Item, ask, engine_model, on_engines
from thinking_rl.curation.difficulty import Guess, hacked, pass_rate
from thinking_rl.curation.duplicates import answer_of
from thinking_rl.curation.selection import (
    QUESTION_TYPES,
    balanced,
    domain,
    options_of,
    question_type,
)
from thinking_rl.curation.written import draw_histogram, problem_row, write_parquet
from thinking_rl.files.json_files import write_json
from thinking_rl.files.lock import sole_writer
from thinking_rl.plan.preflight import check_problems
from thinking_rl.recipe.schema import Recipe
from thinking_rl.run.export import starting_checkpoint
from thinking_rl.run.grading import Grader
from thinking_rl.types import Problem

MEASURED = {
    "domain": "string",
    "type": "string",
    "pass_rate": "float64",
    "graded": "int64",
    "mean_tokens": "float64",
    "cut_off": "int64",
    "hack_hits": "int64",
    "hack_guesses": "int64",
    "hack_chance": "float64",
    "hack_tail": "float64",
}
"""Columns of `problems.parquet` beside those of a problem, and their types."""
SETTINGS = ("problems", "samples", "temperature", "attempts", "answer_tokens", "answer_start")
SETTINGS += ("drop_types", "chunk")
"""Options that the responses depend on."""


def curate(options: argparse.Namespace) -> None:
    """Measure the problems, drop some, write the rest; the cheap steps come first.

    Raises:
        ValueError: an option or the recipe cannot be used.
    """
    types = {one for one in options.drop_types.split(",") if one}
    if unknown := types - set(QUESTION_TYPES):
        raise ValueError(f"--drop-types: no type {unknown.pop()!r}; known: {QUESTION_TYPES}")
    recipe = command.read_recipe(options)
    with ExitStack() as resources:
        resources.enter_context(sole_writer(options.out))
        keep_settings(options.out, command.settings_of(recipe, options, SETTINGS))
        found = Curated.begin(command.problems_of(recipe, options.problems, "rl"))
        evaluation = command.evaluation_problems(recipe)
        found.drop_types(types)
        found.drop_repeats(evaluation)
        asking = Asking(recipe, options, found.left, resources)
        found.drop_hackable(asking.guesses(found.left), options.hack_alpha)
        found.drop_by_pass_rate(asking.samples(found.left), options.lowest, options.highest)
        found.balance(options.largest_domain, recipe.seed)
        more = {"evaluation_problems": len(evaluation), "seed": recipe.seed}
        print(json.dumps(found.write(options.out, more), indent=2))


class Asking:
    """The model's responses to the problems, graded."""

    def __init__(
        self,
        recipe: Recipe,
        options: argparse.Namespace,
        problems: Sequence[Problem],
        resources: ExitStack,
    ) -> None:
        """problems: all that may be asked; `resources` ends engines and graders.

        Raises:
            ValueError: a problem does not fit the engines.
        """
        self._recipe, self._options = recipe, options
        self._model = engine_model(recipe, starting_checkpoint(recipe), resources)
        processor, images = self._model.processor, self._model.images
        check_problems(problems, processor, images, recipe.data.instruction, recipe.rollout)
        self._grader = Grader(recipe.rewards, options.out / "not_graded.jsonl", command.say)
        resources.callback(self._grader.close)

    def guesses(self, problems: Sequence[Problem]) -> dict[str, list[Answered]]:
        """By problem: answers with the thinking part closed empty."""
        options = self._options
        opening = (THINK_OPEN, THINK_CLOSE + options.answer_start)
        return self._ask("guesses", problems, options.attempts, options.answer_tokens, opening)

    def samples(self, problems: Sequence[Problem]) -> dict[str, list[Answered]]:
        """By problem: whole responses."""
        longest = self._recipe.rollout.max_response_tokens
        return self._ask("samples", problems, self._options.samples, longest)

    def _ask(
        self,
        name: str,
        problems: Sequence[Problem],
        number: int,
        tokens: int,
        opening: tuple[str, ...] = (),
    ) -> dict[str, list[Answered]]:
        recipe, options = self._recipe, self._options
        top_p, instruction = recipe.rollout.top_p, recipe.data.instruction
        sampling = Sampling(1, tokens, options.temperature, top_p, recipe.seed, name)
        items = [Item(one, i, instruction) for one in problems for i in range(number)]
        answer = on_engines(self._model, sampling, opening)
        file = options.out / "responses" / f"{name}.jsonl"
        rows = ask(items, answer, self._grader, file, options.chunk, progress(name))
        return {
            one.id: rows[place * number : (place + 1) * number]
            for place, one in enumerate(problems)
        }


@dataclass
class Curated:
    """Problems on their way through the steps."""

    problems: list[Problem]
    """All of them."""
    measures: dict[str, dict[str, Any]]
    """Of each problem, by id: columns of `MEASURED`."""
    dropped: dict[str, dict[str, Any]]
    """By id, in the order of the steps: the reason, and what goes with it."""

    @staticmethod
    def begin(problems: list[Problem]) -> Curated:
        """Nothing is dropped yet."""
        tags = {one.id: {"domain": domain(one), "type": question_type(one)} for one in problems}
        return Curated(problems, tags, {})

    @property
    def left(self) -> list[Problem]:
        """What is not dropped."""
        return [one for one in self.problems if one.id not in self.dropped]

    def drop_types(self, types: Collection[str]) -> None:
        """Questions of kinds that are guessed, or cannot be verified."""
        for one in self.left:
            if (kind := question_type(one)) in types:
                self.dropped[one.id] = {"reason": f"type {kind}"}

    def drop_repeats(self, evaluation: Sequence[Problem]) -> None:
        """What repeats an evaluation problem, or an earlier one."""
        asked_elsewhere = {one.id for one in evaluation}
        for key, found in command.duplicates_of(self.left, evaluation).items():
            where = "evaluation" if found.of in asked_elsewhere else "earlier"
            why = {"of": found.of, "kind": found.kind, "answers_agree": found.answers_agree}
            self.dropped[key] = {"reason": f"repeats an {where} problem", **why}

    def drop_hackable(self, guesses: Mapping[str, Sequence[Answered]], alpha: float) -> None:
        """What is answered without a thought more often than by chance."""
        left = self.left
        results = hacked(
            [
                [Guess(final_answer(row.response) or "", row.right) for row in guesses[one.id]]
                for one in left
            ],
            [answer_of(one) for one in left],
            [options_of(one) for one in left],
            [domain(one) for one in left],
        )
        for one, result in zip(left, results, strict=True):
            self.measures[one.id] |= {
                "hack_hits": result.hits,
                "hack_guesses": result.guesses,
                "hack_chance": result.chance,
                "hack_tail": result.tail,
            }
            if result.is_easy(alpha):
                self.dropped[one.id] = {"reason": "easy to hack"}

    def drop_by_pass_rate(
        self, samples: Mapping[str, Sequence[Answered]], lowest: float, highest: float
    ) -> None:
        """What is too hard, too easy, or was never graded."""
        for one in self.left:
            rows = samples[one.id]
            rate = pass_rate([row.right for row in rows])
            self.measures[one.id] |= {
                "pass_rate": rate,
                "graded": sum(row.right is not None for row in rows),
                "mean_tokens": sum(row.tokens for row in rows) / len(rows),
                "cut_off": sum(row.finish != "stop" for row in rows),
            }
            if rate is None or not lowest <= rate <= highest:
                self.dropped[one.id] = {"reason": "not graded" if rate is None else "pass rate"}

    def balance(self, largest_share: float, seed: int) -> None:
        """What a domain has beyond its share."""
        left = self.left
        stays = balanced(
            [domain(one) for one in left], largest_share, [one.id for one in left], seed
        )
        for place in sorted(set(range(len(left))) - set(stays)):
            self.dropped[left[place].id] = {"reason": "balance of domains"}

    def write(self, out: Path, more: dict[str, Any]) -> dict[str, Any]:
        """Write what stays, what goes, the counts and the picture; returns the counts."""
        kept = self.left
        rows = [problem_row(one) | self.measures[one.id] for one in kept]
        write_parquet(rows, MEASURED, out / "problems.parquet")
        lines = [{"id": key, **why, **self.measures[key]} for key, why in self.dropped.items()]
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (out / "dropped.jsonl").write_text(text, encoding="utf-8")
        rates = {
            one.id: rate
            for one in self.problems
            if (rate := self.measures[one.id].get("pass_rate")) is not None
        }
        summary = self._counts(kept, list(rates.values())) | more
        write_json(out / "summary.json", summary, indent=2)
        draw_histogram(
            [rate for key, rate in rates.items() if key not in self.dropped],
            [rate for key, rate in rates.items() if key in self.dropped],
            out / "difficulty.png",
        )
        return summary

    def _counts(self, kept: Sequence[Problem], rates: Sequence[float]) -> dict[str, Any]:
        guessed = [one for one in self.measures.values() if "hack_guesses" in one]
        totals = command.column_totals
        return {
            "problems": len(self.problems),
            "kept": len(kept),
            "dropped": totals([one["reason"] for one in self.dropped.values()]),
            "domains": totals([domain(one) for one in self.problems]),
            "domains_kept": totals([domain(one) for one in kept]),
            "types": totals([question_type(one) for one in self.problems]),
            "pass_rates_measured": totals(rates),
            "hits": sum(one["hack_hits"] for one in guessed),
            "hits_by_chance": sum(one["hack_chance"] * one["hack_guesses"] for one in guessed),
            "guesses": sum(one["hack_guesses"] for one in guessed),
        }
