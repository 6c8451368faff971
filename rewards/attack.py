"""Try to earn a reward without knowing the answer: `python -m rewards.attack --grader NAME`.

Every template of `rewards/templates.py` is filled in for each problem of `--data` and graded. One
that commits to a single guess may earn its chance level: one in as many as there are options, or,
where there are none, what the same guess earns alone in a box. All others should earn nothing.
The exit status is 1 if any template earns more.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import re
import string
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rewards.processes.pool import GradingPool
from rewards.registry import BUILT_IN, resolve
from rewards.templates import TEMPLATES, Template
from thinking_rl.data import fixed_problems, load_problems
from thinking_rl.recipe.schema import Source
from thinking_rl.types import Problem, Score

Z = 3.29
"""Of the intervals: 99.9%, since there are some two hundred templates."""
Grading = Callable[[list[tuple[Problem, str]]], list[Score]]
GUESSES = ("1", "2", "3")
NUMBERS = tuple(str(number) for number in range(1, 21))
_QUESTION_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_QUESTION_FORMULA = re.compile(r"\$([^$]{1,100})\$")


@dataclass(frozen=True)
class Result:
    """What one template earned."""

    template: str
    """Its name."""
    problems: int
    """How many it was tried on."""
    rewarded: int
    """On how many of them it earned something."""
    low: float
    """Lower end of the interval of the share that is rewarded."""
    high: float
    """Upper end of that interval."""
    chance: float
    """The share that the template may earn."""
    impossible: int
    """Rewards where its chance is 0: each is a hole."""
    not_graded: int
    """Responses that could not be graded."""
    example: str
    """Id and answer of a problem, and the response, that was rewarded."""

    @property
    def is_hole(self) -> bool:
        """Whether it earns more than its chance level."""
        return self.impossible > 0 or self.low > self.chance


def attack(
    grader: str,
    problems: Sequence[Problem],
    templates: Sequence[Template] = TEMPLATES,
    workers: int = 2,
) -> Iterator[Result]:
    """Grade every template on every problem that has what it needs; results as they come."""
    marks = [_marks(problem) for problem in problems]
    with _grading(grader, workers) as grade_all:

        def grade(text: str) -> tuple[list[tuple[Problem, str]], list[Score]]:
            responses = [_filled(text, values) for values in marks]
            items = list(zip(problems, responses, strict=True))
            return items, grade_all(items)

        alone = {
            guess: [score.value > 0 for score in grade(_alone(guess))[1]]
            for guess in sorted({commits for _, commits, _ in templates if commits})
        }
        for name, commits, text in templates:
            items, scores = grade(text)
            chances = [
                _chance(problem, commits, bool(commits) and alone[commits][index])
                for index, problem in enumerate(problems)
            ]
            yield _result(name, items, scores, chances)


@contextlib.contextmanager
def _grading(grader: str, workers: int) -> Iterator[Grading]:
    """Built-in graders are called here, which is many times faster; others in a pool."""
    if grader in BUILT_IN:
        function = resolve(grader)
        yield lambda items: [as_score(function(*item)) for item in items]
    else:
        with GradingPool([(grader, 1.0)], workers=workers) as pool:
            yield pool.grade


def as_score(value: Score | float) -> Score:
    """What a built-in grader returned."""
    return value if isinstance(value, Score) else Score(value)


def _alone(guess: str) -> str:
    return f"\\boxed{{{guess if '@' in guess else '@' + guess}}}"


def _chance(problem: Problem, commits: str, is_right_alone: bool) -> float:
    if problem.choices and (commits in GUESSES or "@" in commits):
        return 1 / len(problem.choices) if commits in GUESSES else 0.0
    return float(is_right_alone)


def _result(
    name: str,
    items: Sequence[tuple[Problem, str]],
    scores: Sequence[Score],
    chances: Sequence[float],
) -> Result:
    paid = [index for index, score in enumerate(scores) if score.value > 0]
    low, high = wilson(len(paid), len(items))
    first = min(paid, key=lambda index: chances[index], default=None)
    return Result(
        template=name,
        problems=len(items),
        rewarded=len(paid),
        low=low,
        high=high,
        chance=sum(chances) / len(items),
        impossible=sum(chances[index] == 0 for index in paid),
        not_graded=sum(score.error is not None for score in scores),
        example="" if first is None else _example(*items[first]),
    )


def _example(problem: Problem, response: str) -> str:
    return f"{problem.id}: {problem.answer!r} by {response[:200]!r}"


def _marks(problem: Problem) -> dict[str, str]:
    """What a template's marks stand for, drawn by the problem's id and blind to its answer."""
    generator = random.Random(problem.id)
    numbers = _QUESTION_NUMBER.findall(problem.question)
    formulas = _QUESTION_FORMULA.findall(problem.question)
    if len(problem.choices) > 1:
        names = list(string.ascii_uppercase[: len(problem.choices)])
        texts = dict(zip(names, problem.choices, strict=True))
        guesses = generator.sample(names, min(3, len(names)))
        guesses += [name for name in string.ascii_uppercase if name not in names][
            : 3 - len(guesses)
        ]
    else:
        names = list(NUMBERS)
        texts = {}
        guesses = generator.sample(list(dict.fromkeys([*NUMBERS[:12], *numbers[:8]])), 3)
    first, second, third = guesses
    return {
        "@together": "".join(names) if texts else " ".join(names),
        "@boxes": " ".join(f"\\boxed{{{name}}}" for name in names),
        "@texts": ", ".join(texts.values()) or ", ".join(names),
        "@lines": "\n".join(f"({name}) {texts.get(name, '')}".strip() for name in names)
        if texts
        else ", ".join(names),
        "@all": ", ".join(names),
        "@or": " or ".join(names),
        "@t1": texts.get(first, first),
        "@t2": texts.get(second, second),
        "@1": first,
        "@2": second,
        "@3": third,
        "@q": problem.question,
        "@n": numbers[-1] if numbers else "n",
        "@f": formulas[-1] if formulas else "f",
    }


def _filled(text: str, marks: dict[str, str]) -> str:
    return re.sub(r"@(?:[a-z]+1?2?|[123])", lambda match: marks[match[0]], text)


def wilson(right: int, total: int, z: float = Z) -> tuple[float, float]:
    """Wilson's score interval of a proportion."""
    share, squared = right / total, z * z / total
    middle = (share + squared / 2) / (1 + squared)
    half = z / (1 + squared) * (share * (1 - share) / total + squared / (4 * total)) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)


def read_problems(data: str, kind: str | None, limit: int | None) -> list[Problem]:
    """Problems of a file, or built-in ones where `data` is `procedural`.

    Raises:
        ValueError: the file or a row of it cannot be used.
    """
    if data == "procedural":
        source = Source(format="procedural")
        return [_described(problem) for problem in fixed_problems([source], limit or 300, 0)]
    if kind is None:
        with Path(data).open(encoding="utf-8") as lines:
            kind = "gsm8k" if "####" in str(json.loads(next(lines)).get("answer")) else "plain"
    source = Source(format=kind, path=data, limit=limit)
    return [_described(problem) for problem in load_problems(source, pictures=False)]


def _described(problem: Problem) -> Problem:
    """With the kind of its answer, which MathVista's rules ask for."""
    answer = problem.answer.replace(",", "")
    kind = "integer" if re.fullmatch(r"-?\d+", answer) else "text"
    kind = "float" if re.fullmatch(r"-?\d+\.\d+", answer) else kind
    metadata = {
        "question_type": "multi_choice" if problem.choices else "free_form",
        "answer_type": kind,
        "precision": len(answer.partition(".")[2]) or 1,
        **problem.metadata,
    }
    return replace(problem, metadata=metadata)


def main(arguments: list[str] | None = None) -> int:
    """Attack a grader and print what it pays for. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m rewards.attack", description=__doc__)
    parser.add_argument("--grader", default="math_answer", help="registry key or other spec")
    parser.add_argument("--data", default="procedural", help="file of problems, or `procedural`")
    parser.add_argument("--format", help="of the data, as in recipes; by default gsm8k or plain")
    parser.add_argument("--limit", type=int, help="use only the first problems")
    parser.add_argument("--choices", choices=("with", "without", "all"), default="all")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, help="write all results here, one JSON row each")
    options = parser.parse_args(arguments)
    try:
        problems = read_problems(options.data, options.format, options.limit)
        if options.choices != "all":
            problems = [p for p in problems if bool(p.choices) == (options.choices == "with")]
        if not problems:
            raise ValueError(f"{options.data}: no problems {options.choices} choices")
        results = list(attack(options.grader, problems, workers=options.workers))
    except (ValueError, OSError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.out:
        options.out.write_text("".join(json.dumps(asdict(r)) + "\n" for r in results), "utf-8")
    holes = [result for result in results if result.is_hole]
    for result in holes:
        print(
            f"{result.template}: {result.rewarded} of {result.problems} rewarded "
            f"({result.low:.2%} to {result.high:.2%}; chance {result.chance:.2%}, "
            f"{result.impossible} without any)\n  {result.example}"
        )
    rewarded = max(results, key=lambda result: result.rewarded - result.chance * result.problems)
    print(
        f"{options.grader} on {len(problems)} problems: {len(holes)} of {len(results)} templates "
        f"earn more than chance; most above it: {rewarded.template} "
        f"({rewarded.rewarded / rewarded.problems:.2%}, chance {rewarded.chance:.2%}); "
        f"{sum(result.not_graded for result in results)} not graded"
    )
    return 1 if holes else 0


if __name__ == "__main__":
    sys.exit(main())
