"""The recipe: all that `--dry-run` looks at, and its graders on answers that are known."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rewards.attack import attack, read_problems
from rewards.processes.pool import GradingPool
from rewards.registry import BUILT_IN
from thinking_rl.checkup.check import FaultError, Verdict, run_check
from thinking_rl.plan.findings import Plan
from thinking_rl.plan.plan import make_plan
from thinking_rl.recipe.schema import Recipe
from thinking_rl.types import Outcome, Problem

KNOWN = (
    ("12", "The answer is \\boxed{12}.", True),
    ("12", "The answer is \\boxed{13}.", False),
    ("0.5", "\\boxed{\\frac{1}{2}}", True),
    ("\\sqrt{8}", "\\boxed{2\\sqrt{2}}", True),
    ("1000", "\\boxed{1,000}", True),
    ("12", "It is 12 or 13.", False),
    ("12", "\\boxed{}", False),
    ("12", "\\boxed{" * 2000, False),
    ("12", "\\boxed{9**9**9**9}", False),
    ("12", "", False),
)
"""Expected answer, response, verdict: what `math_answer` must say, and any grader survive."""
JUDGES = ("math_answer",)
"""Graders that must give these verdicts."""
FOR_FORM = ("format", "repetition")
"""Graders that pay for the form of a response, not for its answer."""
ATTACKED = 8
"""Problems on which every template of `rewards.attack` is tried."""


def recipe_checks(recipe: Recipe) -> Iterator[Verdict]:
    """The verdict of each check."""
    plan = Plan()

    def look() -> str:
        nonlocal plan
        plan = make_plan(recipe)
        return f"{len(plan.rows)} findings, {len(plan.problems)} of them stop the run"

    yield run_check("recipe", look)
    for problem in plan.problems:
        key, _, text = problem.partition(": ")
        yield Verdict(f"recipe: {key}", "failed", 0.0, text, f"set {key} in the recipe")
    for warning in plan.warnings:
        key, _, text = warning.partition(": ")
        yield Verdict(f"recipe: {key}", "warning", 0.0, text, f"look at {key} in the recipe")
    if not plan.problems:
        for part in recipe.rewards.parts:
            name = f"grader {part.grader}"
            yield run_check(name, lambda part=part: check_grader(recipe, part))
            if part.grader in BUILT_IN and part.grader not in FOR_FORM:
                yield run_check(f"{name} attacked", lambda part=part: check_attack(part.grader))
        folder = Path(recipe.model.path).expanduser()
        if folder.is_dir():
            yield run_check("picture rule", lambda: check_picture_rule(folder))


def check_grader(recipe: Recipe, part: object) -> str:
    """A grader answers in time to answers that are hard, and judges those that are known."""
    grader = getattr(part, "grader", "")
    section = recipe.rewards
    items = [(Problem("known", "?", answer), response) for answer, response, _ in KNOWN]
    with GradingPool(
        [(grader, 1.0)], section.timeout_s, section.memory_gib, section.workers
    ) as pool:
        scores = pool.grade(items)
    lost = [
        f"{response[:40]!r}: {score.error}"
        for (_, response), score in zip(items, scores, strict=True)
        if score.outcome is Outcome.NOT_GRADED
    ]
    if lost:
        raise FaultError(
            f"{len(lost)} of {len(items)} not graded, such as {lost[0]}",
            f"look at {grader} in rewards.parts; try it: python -m rewards.grade --grader {grader}",
        )
    if grader in JUDGES:
        wrong = [
            response[:40]
            for (_, response, verdict), score in zip(KNOWN, scores, strict=True)
            if score.correct is not verdict
        ]
        if wrong:
            text = f"misjudges {wrong[0]!r}" + (f" and {len(wrong) - 1} more" * (len(wrong) > 1))
            raise FaultError(text, "install the pinned sympy and math-verify")
    return f"{len(items)} known answers graded"


def check_attack(grader: str) -> str:
    """Responses that know no answer earn nothing."""
    results = list(attack(grader, read_problems("procedural", None, ATTACKED)))
    holes = [result for result in results if result.impossible]
    if holes:
        raise FaultError(
            f"{len(holes)} of {len(results)} templates are paid that know no answer, such as "
            f"{holes[0].template}: {holes[0].example}",
            f"RL would find it: python -m rewards.attack --grader {grader} says more",
        )
    return f"{len(results)} templates that know no answer earn nothing on {ATTACKED} problems"


def check_picture_rule(folder: Path) -> str:
    """A checkpoint's processor cuts pictures as the model was trained."""
    from thinking_rl.files.json_files import read_json

    found = read_json(folder / "preprocessor_config.json")
    rule = {"patch_size": 14, "merge_kernel_size": [2, 2]}
    odd = [
        f"{name} {found[name]}" for name, value in rule.items() if found.get(name, value) != value
    ]
    if odd:
        raise FaultError(
            f"preprocessor_config.json has {', '.join(odd)}; expected {rule}",
            "fetch the checkpoint's preprocessor_config.json again",
        )
    return f"patches of {rule['patch_size']} pixels, merged 2 x 2"
