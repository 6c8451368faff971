"""Long chains of thought: `python -m thinking_rl.data.warmup RECIPE [key=value ...] --out DIR`.

A teacher, the recipe's model or an endpoint, answers the problems of `data.train`; what is verified
is kept, as a set that `sft.data` takes. Goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from thinking_rl.cluster.stopping import stop_signals
from thinking_rl.files.json_files import write_json
from thinking_rl.files.lock import sole_writer

EXIT_ERROR, EXIT_USER_ERROR, EXIT_STOPPED = 1, 2, 130
SAME_CHAIN = 0.8
"""Jaccard similarity of their words from which on two chains to one problem are one."""
SETTINGS = ("problems", "attempts", "temperature", "endpoint", "teacher", "prompts", "chunk")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m thinking_rl.data.warmup", description=__doc__)
    add = made.add_argument
    add("recipe", help="its data.train is answered, graded by its rewards")
    add("overrides", nargs="*", metavar="key=value", help="as for a run")
    add("--out", type=Path, required=True, help="folder to write")
    add("--endpoint", default="", help="ask there, such as http://localhost:8000/v1")
    add("--teacher", default="", help="the endpoint's name of its model")
    add("--key-variable", default="", help="environment variable that holds the endpoint's key")
    add("--parallel", type=int, default=8, help="requests to the endpoint at once (default: 8)")
    add("--problems", type=int, help="draw so many; needed where a source has no end")
    add("--attempts", type=int, default=4, help="responses to each problem (default: 4)")
    add("--per-problem", type=int, default=1, help="most chains kept of a problem (default: 1)")
    add("--temperature", type=float, default=1.0)
    add("--prompts", choices=("behaviours", "none"), default="behaviours", help="none: no request")
    add("--chunk", type=int, default=256, help="responses between two writes (default: 256)")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Make the set. 2: a mistake of the user's, said in one line. 1: it failed. 130: stopped."""
    options = parser().parse_intermixed_args(argv)
    with stop_signals():
        try:
            warm_up_set(options)
        except (ValueError, OSError) as error:
            return _fail(f"error: {error}", EXIT_USER_ERROR)
        except RuntimeError as error:
            return _fail(f"error: {type(error).__name__}: {error}", EXIT_ERROR)
        except KeyboardInterrupt:
            return _fail("stopped; the same command goes on from here", EXIT_STOPPED)
    return 0


def warm_up_set(options: argparse.Namespace) -> None:
    """Ask, verify, deduplicate, write."""
    from eval.answers import keep_settings
    from rollouts.prompts import Sampling
    from thinking_rl.curation import behaviours, command
    from thinking_rl.curation.asking import Item, ask, engine_model, on_engines
    from thinking_rl.curation.chains import best_chains
    from thinking_rl.curation.endpoint import Endpoint
    from thinking_rl.curation.written import problem_row, write_parquet
    from thinking_rl.plan.preflight import check_problems
    from thinking_rl.run.export import starting_checkpoint
    from thinking_rl.run.grading import Grader

    if bool(options.endpoint) != bool(options.teacher):
        raise ValueError("--endpoint and --teacher go together: where to ask, and whom")
    for name in ("attempts", "per_problem", "parallel", "chunk"):
        if getattr(options, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')}: expected a whole number above 0")
    recipe = command.read_recipe(options)
    with ExitStack() as resources:
        resources.enter_context(sole_writer(options.out))
        keep_settings(options.out, command.settings_of(recipe, options, SETTINGS))
        # Pictures of the warm-up's side: RL asks nothing that it showed.
        problems = command.problems_of(recipe, options.problems, "warm-up")
        repeated = command.duplicates_of(problems, command.evaluation_problems(recipe))
        left = [one for one in problems if one.id not in repeated]
        rollout = recipe.rollout
        if options.endpoint:
            answer = Endpoint(
                url=options.endpoint,
                model=options.teacher,
                temperature=options.temperature,
                top_p=rollout.top_p,
                max_tokens=rollout.max_response_tokens,
                seed=recipe.seed,
                parallel=options.parallel,
                timeout_s=rollout.timeout_s,
                key=os.environ.get(options.key_variable, "") if options.key_variable else "",
            )
        else:
            model = engine_model(recipe, starting_checkpoint(recipe), resources)
            longest = behaviours.instruction(0) if options.prompts == "behaviours" else ""
            check_problems(left, model.processor, model.images, longest, rollout)
            tokens, top_p = rollout.max_response_tokens, rollout.top_p
            sampling = Sampling(1, tokens, options.temperature, top_p, recipe.seed, "warm-up")
            answer = on_engines(model, sampling)
        required = recipe.rewards.model_copy(update={"thinking": "required", "truncated": "wrong"})
        grader = Grader(required, options.out / "not_graded.jsonl", command.say)
        resources.callback(grader.close)

        def asked(attempt: int) -> str:
            wanted = behaviours.instruction(attempt) if options.prompts == "behaviours" else ""
            return "\n".join(filter(None, (recipe.data.instruction, wanted)))

        items = [Item(one, i, asked(i)) for one in left for i in range(options.attempts)]
        file = options.out / "responses" / "chains.jsonl"
        rows = ask(items, answer, grader, file, options.chunk, command.progress("chains"))

    written, shown, verified = [], [], 0
    for place, one in enumerate(left):
        listed = rows[place * options.attempts : (place + 1) * options.attempts]
        right = [row for row in listed if row.right]
        verified += len(right)
        for number, chain in enumerate(best_chains(right, options.per_problem, SAME_CHAIN)):
            suffix = f"#{number + 1}" if number else ""
            shown.append(chain.behaviours)
            columns = {name: name in chain.behaviours for name in behaviours.BEHAVIOURS}
            source = {"response": chain.response, "tokens": chain.tokens, "attempt": chain.attempt}
            row = problem_row(one)
            written.append(row | source | columns | {"id": f"{one.id}{suffix}"})
    kinds = {"response": "string", "tokens": "int64", "attempt": "int64"}
    kinds |= dict.fromkeys(behaviours.BEHAVIOURS, "bool")
    write_parquet(written, kinds, options.out / "warmup.parquet")
    summary = {
        "problems": len(problems),
        "repeated": len(repeated),
        "responses": len(rows),
        "verified": verified,
        "kept": len(written),
        "shares": behaviours.shares(shown),
        "teacher": options.teacher or recipe.model.path,
        "seed": recipe.seed,
    }
    write_json(options.out / "summary.json", summary, indent=2)
    print(json.dumps(summary, indent=2))


def _fail(message: str, code: int) -> int:
    print(" ".join(message.split()), file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
