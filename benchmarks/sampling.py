"""How problems are drawn: `python -m benchmarks.sampling [--picture FILE]`.

Draws of one at a time against 1 - s (chi-square), shares of draws of 128 of 400 beside the theory
of drawing without replacement, and the mean difficulty of what an iteration draws over time, with a
learner made up for it, that gets a level right at a rate which rises with how much it had of it.
"""

from __future__ import annotations

import argparse
import math
import random
from collections import Counter
from pathlib import Path
from statistics import mean

from benchmarks.figures import figure
from thinking_rl.algorithm.sampler import PoolSampler
from thinking_rl.types import FinishReason, Group, Problem, Score, Segment, Trajectory

LEVELS, OF_EACH, DRAWN, ITERATIONS = 5, 48, 24, 60
SAMPLERS = {
    "uniform": {"decay": None},
    "curriculum": {"decay": None, "curriculum_draws": 30 * DRAWN},
    "prioritised": {"decay": 0.9},
    "prioritised, with a curriculum": {"decay": 0.9, "curriculum_draws": 30 * DRAWN},
}


def answered(problem: Problem, right: int, of: int) -> Group:
    """A problem with so many of its answers right."""
    one = Trajectory(problem.id, (1,), (), (Segment((2,), (-1.0,), 0),), "", FinishReason.STOP)
    scores = tuple(Score(float(i < right), correct=i < right) for i in range(of))
    return Group(problem, (one,) * of, scores)


def pool(size: int) -> list[Problem]:
    return [Problem(str(i), "q", "1", level=1 + i % LEVELS) for i in range(size)]


def single_draws(draws: int = 100_000) -> None:
    problems = pool(12)
    sampler = PoolSampler(problems, 0, floor=0.0)
    sampler.record(answered(problem, i % 11, 10) for i, problem in enumerate(problems))
    weights = [1 - i % 11 / 10 for i in range(12)]
    counts = Counter(sampler.draw(1)[0].id for _ in range(draws))
    expected = {str(i): draws * w / sum(weights) for i, w in enumerate(weights) if w}
    assert not counts.keys() - expected.keys()
    chi_square = sum((counts[name] - e) ** 2 / e for name, e in expected.items())
    figure("sampling.chi_square", chi_square, "", len(expected) - 1.0, draws, baseline_is="freedom")


def inclusion(draws: int = 2000, size: int = 128, of: int = 400) -> None:
    problems = pool(of)
    sampler = PoolSampler(problems, 0)
    sampler.record(answered(problem, i % 11, 10) for i, problem in enumerate(problems))
    weights = [max(0.05, 1 - i % 11 / 10) for i in range(of)]
    counts = Counter(problem.id for _ in range(draws) for problem in sampler.draw(size))
    theory = without_replacement(weights, size)
    for rate in range(11):
        share = mean(counts[str(i)] / draws for i in range(of) if i % 11 == rate)
        naive = size * weights[rate] / sum(weights)
        name = f"sampling.share_at_{rate / 10:g}"
        figure(name, share, "", theory[rate], draws, with_replacement=round(naive, 3))


def without_replacement(weights: list[float], n: int) -> list[float]:
    """Share of draws of n that each item is in: 1 - exp(-weight * t), with t such that they sum to
    n (for many items)."""
    low, high = 0.0, 1e6
    for _ in range(200):
        t = (low + high) / 2
        low, high = (t, high) if sum(1 - math.exp(-w * t) for w in weights) < n else (low, t)
    return [1 - math.exp(-weight * low) for weight in weights]


def difficulty_over_time(**options: float | None) -> list[float]:
    """Mean level of each iteration's problems."""
    sampler = PoolSampler(pool(LEVELS * OF_EACH), 0, **options)  # pyright: ignore[reportArgumentType]
    generator, given, levels = random.Random(0), Counter[int](), []
    for _ in range(ITERATIONS):
        drawn = sampler.draw(DRAWN)
        levels.append(mean(problem.level or 0 for problem in drawn))
        groups = []
        for problem in drawn:
            level = problem.level or 0
            given[level] += 1
            rate = 1 - math.exp(-given[level] / (60 * level))
            groups.append(answered(problem, sum(generator.random() < rate for _ in range(8)), 8))
        sampler.record(groups)
    return levels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--picture", type=Path, help="draw the difficulty over time into this file")
    picture = parser.parse_args().picture
    single_draws()
    inclusion()
    courses = {name: difficulty_over_time(**options) for name, options in SAMPLERS.items()}
    for name, levels in courses.items():
        for first in range(0, ITERATIONS, 20):
            value = mean(levels[first : first + 20])
            figure("sampling.level", value, "", 3.0, 20 * DRAWN, sampler=name, since=first)
    if picture:
        draw(courses, picture)


def draw(courses: dict[str, list[float]], file: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    plot, axes = pyplot.subplots(figsize=(7, 3.5))
    for name, levels in courses.items():
        smooth = [mean(levels[max(0, i - 2) : i + 3]) for i in range(len(levels))]
        axes.plot(smooth, label=name)
    axes.set(xlabel="iteration", ylabel="mean level of its problems")
    axes.legend(frameon=False)
    plot.tight_layout()
    plot.savefig(file, dpi=120)


if __name__ == "__main__":
    main()
