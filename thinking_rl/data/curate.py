"""Problems worth training on: `python -m thinking_rl.data.curate RECIPE [key=value ...] --out DIR`.

Measures the problems of `data.train` with the recipe's model, drops what is guessable, repeated,
hackable or trivial, and writes the rest. Goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from thinking_rl.cluster.stopping import stop_signals
from thinking_rl.files.json_files import write_json
from thinking_rl.files.lock import sole_writer

EXIT_ERROR, EXIT_USER_ERROR, EXIT_STOPPED = 1, 2, 130
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
SETTINGS = ("problems", "samples", "temperature", "attempts", "answer_tokens", "answer_start")
SETTINGS += ("drop_types", "chunk")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m thinking_rl.data.curate", description=__doc__)
    add = made.add_argument
    add("recipe", help="its data.train is curated, by its model, sampled as its rollout says")
    add("overrides", nargs="*", metavar="key=value", help="as for a run")
    add("--out", type=Path, required=True, help="folder to write")
    add("--problems", type=int, help="draw so many; needed where a source has no end")
    add("--samples", type=int, default=10, help="responses to each problem (default: 10)")
    add("--temperature", type=float, default=1.0, help="of all samples (default: 1.0)")
    add("--attempts", type=int, default=8, help="guesses with empty thinking; 0: no filter")
    add("--answer-tokens", type=int, default=64, help="longest guess (default: 64)")
    add("--answer-start", default="", help="what a guess begins with, such as '\\boxed{'")
    add("--hack-alpha", type=float, default=0.05, help="1: any hit drops, as in Kimi k1.5")
    add("--drop-types", default="choice,true_false,proof", help="question types; '' drops none")
    add("--lowest", type=float, default=0.0, help="pass rate that stays (default: 0)")
    add("--highest", type=float, default=0.99, help="pass rate that stays (default: 0.99)")
    add("--largest-domain", type=float, default=1.0, help="most of one domain, as a share")
    add("--chunk", type=int, default=256, help="responses between two writes (default: 256)")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Curate. 2: a mistake of the user's, said in one line. 1: it failed. 130: stopped."""
    options = parser().parse_intermixed_args(argv)
    with stop_signals():
        try:
            curate(options)
        except (ValueError, OSError) as error:
            return _fail(f"error: {error}", EXIT_USER_ERROR)
        except RuntimeError as error:
            return _fail(f"error: {type(error).__name__}: {error}", EXIT_ERROR)
        except KeyboardInterrupt:
            return _fail("stopped; the same command goes on from here", EXIT_STOPPED)
    return 0


def curate(options: argparse.Namespace) -> None:
    """Measure, drop, balance, write."""
    from eval.answers import keep_settings
    from rewards.reading.extraction import THINK_CLOSE, THINK_OPEN, final_answer
    from rollouts.prompts import Sampling
    from thinking_rl.curation import command
    from thinking_rl.curation.asking import Item, ask, engine_model, on_engines
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
    from thinking_rl.plan.preflight import check_problems
    from thinking_rl.run.export import starting_checkpoint
    from thinking_rl.run.grading import Grader

    drop_types = {one for one in options.drop_types.split(",") if one}
    if unknown := drop_types - set(QUESTION_TYPES):
        raise ValueError(f"--drop-types: no type {unknown.pop()!r}; known: {QUESTION_TYPES}")
    for name in ("samples", "chunk", "answer_tokens"):
        if getattr(options, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')}: expected a whole number above 0")
    recipe = command.read_recipe(options)
    with ExitStack() as resources:
        resources.enter_context(sole_writer(options.out))
        keep_settings(options.out, command.settings_of(recipe, options, SETTINGS))
        problems = command.problems_of(recipe, options.problems, "rl")
        dropped: dict[str, dict[str, Any]] = {}
        for one in problems:
            if (kind := question_type(one)) in drop_types:
                dropped[one.id] = {"reason": f"type {kind}"}
        left = [one for one in problems if one.id not in dropped]
        repeated = command.duplicates_of(left, evaluation := command.evaluation_problems(recipe))
        asked_elsewhere = {one.id for one in evaluation}
        for key, found in repeated.items():
            where = "evaluation" if found.of in asked_elsewhere else "earlier"
            why = {"of": found.of, "kind": found.kind, "answers_agree": found.answers_agree}
            dropped[key] = {"reason": f"repeats an {where} problem", **why}
        left = [one for one in left if one.id not in dropped]

        model = engine_model(recipe, starting_checkpoint(recipe), resources)
        instruction, rollout = recipe.data.instruction, recipe.rollout
        check_problems(left, model.processor, model.images, instruction, rollout)
        grader = Grader(recipe.rewards, options.out / "not_graded.jsonl", command.say)
        resources.callback(grader.close)

        def asked(name: str, listed, number: int, tokens: int, opening=()):
            sampling = Sampling(1, tokens, options.temperature, rollout.top_p, recipe.seed, name)
            items = [Item(p, i, instruction) for p in listed for i in range(number)]
            answer = on_engines(model, sampling, opening)
            file = options.out / "responses" / f"{name}.jsonl"
            rows = ask(items, answer, grader, file, options.chunk, command.progress(name))
            return {p.id: rows[at * number : (at + 1) * number] for at, p in enumerate(listed)}

        closed = (THINK_OPEN, THINK_CLOSE + options.answer_start)
        guessed = asked("guesses", left, options.attempts, options.answer_tokens, closed)
        results = hacked(
            [
                [Guess(final_answer(row.response) or "", row.right) for row in guessed[one.id]]
                for one in left
            ],
            [answer_of(one) for one in left],
            [options_of(one) for one in left],
            [domain(one) for one in left],
        )
        measures: dict[str, dict[str, Any]] = {one.id: {} for one in problems}
        for one in problems:
            measures[one.id] |= {"domain": domain(one), "type": question_type(one)}
        for one, result in zip(left, results, strict=True):
            measures[one.id] |= {
                "hack_hits": result.hits,
                "hack_guesses": result.guesses,
                "hack_chance": result.chance,
                "hack_tail": result.tail,
            }
            if result.is_easy(options.hack_alpha):
                dropped[one.id] = {"reason": "easy to hack"}
        left = [one for one in left if one.id not in dropped]
        sampled = asked("samples", left, options.samples, rollout.max_response_tokens)

    for one in left:
        rows = sampled[one.id]
        rate = pass_rate([row.right for row in rows])
        measures[one.id] |= {
            "pass_rate": rate,
            "graded": sum(row.right is not None for row in rows),
            "mean_tokens": sum(row.tokens for row in rows) / len(rows),
            "cut_off": sum(row.finish != "stop" for row in rows),
        }
        if rate is None or not options.lowest <= rate <= options.highest:
            dropped[one.id] = {"reason": "not graded" if rate is None else "pass rate"}
    measured = [one for one in left if measures[one.id]["pass_rate"] is not None]
    left = [one for one in left if one.id not in dropped]
    stays = balanced(
        [domain(one) for one in left],
        options.largest_domain,
        [one.id for one in left],
        recipe.seed,
    )
    for place in set(range(len(left))) - set(stays):
        dropped[left[place].id] = {"reason": "balance of domains"}
    kept = [left[place] for place in stays]

    write_parquet(
        [problem_row(one) | measures[one.id] for one in kept],
        MEASURED,
        options.out / "problems.parquet",
    )
    lines = [{"id": key, **why, **measures[key]} for key, why in dropped.items()]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (options.out / "dropped.jsonl").write_text(text, encoding="utf-8")
    ids = {one.id for one in kept}
    rates = {one.id: measures[one.id]["pass_rate"] for one in measured}
    summary = {
        "problems": len(problems),
        "kept": len(kept),
        "dropped": command.column_totals([one["reason"] for one in dropped.values()]),
        "domains": command.column_totals([domain(one) for one in problems]),
        "domains_kept": command.column_totals([domain(one) for one in kept]),
        "types": command.column_totals([question_type(one) for one in problems]),
        "pass_rates_measured": command.column_totals(list(rates.values())),
        "hits": sum(one.hits for one in results),
        "hits_by_chance": sum(one.chance * one.guesses for one in results),
        "guesses": sum(one.guesses for one in results),
        "evaluation_problems": len(evaluation),
        "seed": recipe.seed,
    }
    write_json(options.out / "summary.json", summary, indent=2)
    draw_histogram(
        [rate for key, rate in rates.items() if key in ids],
        [rate for key, rate in rates.items() if key not in ids],
        options.out / "difficulty.png",
    )
    print(json.dumps(summary, indent=2))


def _fail(message: str, code: int) -> int:
    print(" ".join(message.split()), file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
