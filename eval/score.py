"""Score recorded responses: `python -m eval.score BENCHMARK RESPONSES.jsonl --data FILE`.

Two verdicts for each response: `official`, by the benchmark's own rules, and `strict`, by the
grader that rewards training.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from eval.benchmarks.benchmark import STYLES, Benchmark, Style
from eval.benchmarks.registry import BENCHMARKS, get_benchmark
from eval.statistics import wilson_interval
from rewards.processes.pool import GradingPool
from thinking_rl.data.files import read_rows
from thinking_rl.data.formats import FORMATS
from thinking_rl.recipe.schema import Source
from thinking_rl.types import Outcome, Problem

EXAMPLES = 5


@dataclass(frozen=True)
class ScoredRow:
    """Both verdicts on one response."""

    id: str
    """Of the problem."""
    official: bool
    """Whether it is right by the benchmark's own rules."""
    strict: bool | None
    """Whether it is right by the strict grader; None where that failed, which is no verdict."""
    extracted: str | None
    """As the official rules read it."""
    parse_failed: bool
    """Of the official rules."""


def score(
    benchmark: Benchmark,
    problems: Sequence[Problem],
    responses: Mapping[str, str],
    style: Style = "official",
    guess_seed: int | None = None,
    timeout_s: float = 5.0,
    workers: int = 2,
) -> list[ScoredRow]:
    """Both verdicts on the responses (problem id -> text), in the order of the problems.

    `guess_seed` lets official rules that guess do so, from one generator over all problems.
    """
    answered = [problem for problem in problems if problem.id in responses]
    read = {problem.id: benchmark.read(responses[problem.id], style) for problem in answered}
    guess = None if guess_seed is None else random.Random(guess_seed)
    items = [(problem, responses[problem.id]) for problem in answered]
    strict = strict_verdicts(benchmark, items, timeout_s, workers)
    rows = []
    for problem in answered:
        verdict = benchmark.official(read[problem.id], problem, guess)
        rows.append(
            ScoredRow(
                id=problem.id,
                official=verdict.correct,
                strict=strict[problem.id],
                extracted=verdict.extracted,
                parse_failed=verdict.parse_failed,
            )
        )
    return rows


def strict_verdicts(
    benchmark: Benchmark,
    items: Iterable[tuple[Problem, str]],
    timeout_s: float = 5.0,
    workers: int = 2,
) -> dict[str, bool | None]:
    """Problem id -> the verdict of the benchmark's strict grader; None where it failed."""
    by_grader: dict[str, list[tuple[Problem, str]]] = defaultdict(list)
    for problem, response in items:
        by_grader[benchmark.strict_grader(problem)].append((problem, response))
    verdicts: dict[str, bool | None] = {}
    for grader, group in by_grader.items():
        with GradingPool([(grader, 1.0)], timeout_s=timeout_s, workers=workers) as pool:
            scores = pool.grade(group)
        for (problem, _), one in zip(group, scores, strict=True):
            graded = one.outcome is not Outcome.NOT_GRADED
            verdicts[problem.id] = one.outcome is Outcome.RIGHT if graded else None
    return verdicts


def check_whose(benchmark: Benchmark, place: str, split: str | None) -> None:
    """See that a file or folder of problems is not another benchmark's.

    Raises:
        ValueError: the columns of its first row tell of another one.
    """
    if not Path(place).exists():
        return
    source = Source(
        format=benchmark.format, path=place, split=split or benchmark.splits[0], limit=1
    )
    columns = {name for row in read_rows(source, 1) for name in row.values}
    told = {one.format: len(columns & _columns(one)) for one in BENCHMARKS.values()}
    likely = max(told, key=lambda name: told[name])
    if told[likely] > told[benchmark.format]:
        raise ValueError(
            f"{place}: its columns ({', '.join(sorted(columns))}) are those of {likely}, not of "
            f"{benchmark.name}; give the benchmark's own problems"
        )


def _columns(benchmark: Benchmark) -> set[str]:
    """Those that the benchmark's rows may have."""
    form = FORMATS[benchmark.format]
    known = {name for names in form.columns.values() for name in names} | set(form.metadata)
    return known | set(benchmark.columns.values())


def read_responses(
    path: Path, problems: Sequence[Problem], partial: bool = False
) -> dict[str, str]:
    """Responses by problem id, from jsonl rows `{id, response}`.

    Without `partial` every problem needs a response.

    Raises:
        ValueError: a row is no JSON object, lacks a key, or has an id that is not among the
            problems or came before (names the row); or responses are missing.
    """
    known = {problem.id for problem in problems}
    responses: dict[str, str] = {}
    first_seen: dict[str, int] = {}
    try:
        lines = path.read_text("utf-8").split("\n") if path.is_file() else None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text ({error}); convert it") from error
    if lines is None:
        raise ValueError(f"{path}: no such file; expected jsonl rows {{id, response}}")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}, row {number}"
        identifier, response = _response_row(line, where)
        if identifier not in known:
            raise ValueError(
                f"{where}: id {identifier!r} is none of the {len(known)} problems; use the data "
                "that the responses were made from, and its ids"
            )
        if identifier in responses:
            raise ValueError(
                f"{where}: id {identifier!r} stands in row {first_seen[identifier]} already; keep "
                "one response for each problem"
            )
        responses[identifier], first_seen[identifier] = response, number
    missing = [problem.id for problem in problems if problem.id not in responses]
    if missing and not partial:
        raise ValueError(
            f"{path}: {len(missing)} of {len(problems)} problems have no response, first ids: "
            f"{', '.join(missing[:5])}; add them, or score only what is there with --partial"
        )
    if not responses:
        raise ValueError(f"{path}: no responses")
    return responses


def _response_row(line: str, where: str) -> tuple[str, str]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: not valid JSON ({error})") from error
    if not isinstance(row, dict):
        raise ValueError(f"{where}: expected an object {{id, response}}")
    for key, kinds in (("id", str | int), ("response", str)):
        if not isinstance(row.get(key), kinds):
            raise ValueError(f"{where}: {key!r} is missing or no text; expected {{id, response}}")
    return str(row["id"]), row["response"]


def report(
    benchmark: Benchmark,
    problems: Sequence[Problem],
    responses: Mapping[str, str],
    rows: Sequence[ScoredRow],
) -> str:
    """What there is to say about scored rows, as text for a terminal."""
    by_id = {problem.id: problem for problem in problems}
    not_graded = sum(row.strict is None for row in rows)
    failed = sum(row.parse_failed for row in rows)
    lines = [
        f"{benchmark.name}: {len(rows)} responses",
        f"official  {_accuracy([row.official for row in rows])}; no answer found in {failed}",
        f"strict    {_accuracy([row.strict for row in rows])}; not graded {not_graded}",
    ]
    for title, key in (
        ("subject", lambda row: by_id[row.id].subject),
        ("level", lambda row: by_id[row.id].level),
    ):
        lines += _breakdown(title, rows, key)
    disagreements = [row for row in rows if row.strict is not None and row.strict != row.official]
    lines += ["", f"the verdicts disagree on {len(disagreements)}"]
    for row in disagreements[:EXAMPLES]:
        problem = by_id[row.id]
        names = ("right" if row.official else "wrong", "right" if row.strict else "wrong")
        lines.append(
            f"- {row.id}: official {names[0]}, strict {names[1]}; expected {_expected(problem)}, "
            f"extracted {row.extracted!r}, response ends {responses[row.id][-100:]!r}"
        )
    return "\n".join(lines)


def _accuracy(verdicts: Sequence[bool | None]) -> str:
    """Share of those right among those that have a verdict."""
    known = [verdict for verdict in verdicts if verdict is not None]
    low, high = wilson_interval(sum(known), len(known))
    share = 100 * sum(known) / max(1, len(known))
    interval = f"95% interval {100 * low:.2f} to {100 * high:.2f}"
    return f"{share:6.2f}% ({sum(known)} of {len(known)}; {interval})"


def _breakdown(
    title: str, rows: Sequence[ScoredRow], key: Callable[[ScoredRow], object]
) -> list[str]:
    groups: dict[str, list[ScoredRow]] = defaultdict(list)
    for row in rows:
        groups[str(key(row) or "")].append(row)
    if set(groups) == {""}:
        return []
    lines = ["", f"by {title}"]
    for name, group in sorted(groups.items()):
        official = _accuracy([row.official for row in group])
        strict = _accuracy([row.strict for row in group])
        lines.append(f"  {name or '(none)':32} official {official}  strict {strict}")
    return lines


def _expected(problem: Problem) -> str:
    if problem.choices and len(problem.answer) == 1:
        index = ord(problem.answer) - ord("A")
        if index in range(len(problem.choices)):
            return f"{problem.answer!r} ({problem.choices[index]!r})"
    return repr(problem.answer)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m eval.score", description=__doc__)
    parser.add_argument("benchmark", help=", ".join(BENCHMARKS))
    parser.add_argument("responses", type=Path, help="jsonl rows {id, response}")
    parser.add_argument("--data", help="file or folder of problems; by default the hub's")
    parser.add_argument("--split", help="of a folder or the hub; by default the reported one")
    parser.add_argument("--out", type=Path, help="write the verdicts here, one JSON row each")
    parser.add_argument("--style", choices=STYLES, default="official", help="how it was asked")
    parser.add_argument("--partial", action="store_true", help="problems may lack a response")
    parser.add_argument(
        "--guess-seed", type=int, help="let official rules guess where they find no answer"
    )
    parser.add_argument("--timeout-s", type=_positive, default=5.0, help="of one strict grading")
    parser.add_argument("--workers", type=_count, default=2, help="strict grading processes")
    return parser.parse_args(arguments)


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text}: expected a number above 0")
    return value


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number above 0")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Score and print; 2 after a mistake of the user's, which is said in one line."""
    options = parse_arguments(arguments)
    try:
        benchmark = get_benchmark(options.benchmark)
        if options.data:
            check_whose(benchmark, options.data, options.split)
        problems = benchmark.load(options.data, options.split, pictures=False)
        responses = read_responses(options.responses, problems, options.partial)
        if options.out:
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.touch()
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    rows = score(
        benchmark,
        problems,
        responses,
        options.style,
        options.guess_seed,
        options.timeout_s,
        options.workers,
    )
    if options.out:
        text = "".join(json.dumps(asdict(row)) + "\n" for row in rows)
        try:
            options.out.write_text(text, "utf-8")
        except OSError as error:  # such as a full disk
            print(
                f"error: {options.out}: the verdicts could not be written ({error})",
                file=sys.stderr,
            )
            return 2
    print(report(benchmark, problems, responses, rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
