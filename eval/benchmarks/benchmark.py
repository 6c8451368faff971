"""What a benchmark is: where its problems are, how they are asked, and how responses are judged."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol

from rewards.reading.extraction import after_thinking, boxes
from thinking_rl.data import load_problems
from thinking_rl.recipe.schema import Source
from thinking_rl.types import Problem

Style = Literal["official", "kimi"]
STYLES: tuple[Style, ...] = ("official", "kimi")
MAX_LEFT_OUT = 0.01
"""Share of a benchmark's rows that may be unusable; they are left out and named."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Verdict:
    """What a benchmark's own rules say of one response."""

    correct: bool
    """Whether the response counts as right."""
    extracted: str | None
    """The answer as the rules read it; None where they found none."""
    parse_failed: bool = False
    """The rules found no answer. Counted as wrong, unless a guess was asked for and hit."""


class OfficialRules(Protocol):
    """A benchmark's own evaluation, quirks included.

    Where it guesses at random for want of an answer, the verdict is a parse failure, and it
    guesses only if given a generator.
    """

    def __call__(
        self, response: str, problem: Problem, guess: random.Random | None = None
    ) -> Verdict: ...


@dataclass(frozen=True)
class Benchmark:
    """One benchmark. `prompt`, `load`, `read` and `official` are all that a runner needs."""

    name: str
    """As the recipe and the command line call it."""
    hub_id: str
    """Of the official data set."""
    splits: tuple[str, ...]
    """The first is the one that scores are reported on."""
    format: str
    """How `thinking_rl.data` reads its rows."""
    prompts: Mapping[Style, Callable[[Problem], str]]
    """Style -> the text of the user turn. `official` is the benchmark's own, `kimi` what Kimi-VL is
    asked."""
    extract: Callable[[str, Problem], str | None]
    """The answer as the official rules read it, None where they find none."""
    official: OfficialRules
    """The benchmark's own evaluation, of the part of a response that `read` takes."""
    strict_grader: Callable[[Problem], str]
    """The grader in `rewards/` for a problem."""
    subsets: tuple[str, ...] = ()
    """Configurations of the hub data set; all are read, one after the other."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Problem field -> column, where it differs from the format's."""
    refine: Callable[[Problem], Problem] = lambda problem: problem
    """Last touch on each problem read."""
    unbox: bool = False
    """In the kimi style the answer is in a box, and the official rules are given what is in it."""

    def load(
        self,
        path_or_hub: str | Path | None = None,
        split: str | None = None,
        limit: int | None = None,
        pictures: bool = True,
    ) -> list[Problem]:
        """Problems of a split, from a file, a folder or the hub (by default the official data set).

        `limit` counts over all subsets. Without `pictures` the problems come with text alone,
        which is enough to score responses. Rows that do not fit are left out, and a warning names
        them.

        Raises:
            ValueError: a source cannot be used, or more than `MAX_LEFT_OUT` of its rows.
        """
        split = split or self.splits[0]
        place = str(path_or_hub or self.hub_id)
        subsets = self.subsets if self.subsets and not Path(place).exists() else (None,)
        problems: list[Problem] = []
        left_out: list[str] = []
        for subset in subsets:
            if limit is not None and len(problems) >= limit:
                break
            source = Source(
                format=self.format,
                path=place,
                subset=subset,
                split=split,
                columns=dict(self.columns),
                limit=None if limit is None else limit - len(problems),
            )
            read = load_problems(source, pictures=pictures, left_out=left_out)
            problems += [self.refine(problem) for problem in read]
        _name_left_out(place, left_out, len(problems))
        return problems

    def prompt(self, problem: Problem, style: Style = "official") -> Problem:
        """The problem with its question worded as the benchmark, or Kimi-VL's protocol, asks it."""
        return replace(problem, question=self.prompts[style](problem))

    def read(self, response: str, style: Style = "official") -> str:
        """The part of a response that is judged: what follows the thinking.

        Empty where the thinking was never closed, as Kimi-VL's protocol has it.
        """
        summary = after_thinking(response)
        if summary is None:
            return ""
        summary = summary.strip()
        if style == "kimi" and self.unbox and (boxed := boxes(summary)):
            return boxed[-1]
        return summary


def _name_left_out(place: str, left_out: list[str], usable: int) -> None:
    if not left_out:
        return
    total = usable + len(left_out)
    named = f"{place}: {len(left_out)} of {total} rows do not fit: " + "; ".join(left_out[:5])
    if len(left_out) > MAX_LEFT_OUT * total:
        raise ValueError(f"{named}; more than {MAX_LEFT_OUT:.0%} is too many to leave out")
    _log.warning("%s; they are left out", named)


def letters(problem: Problem) -> list[str]:
    """A, B, C..., one for each choice."""
    return [chr(ord("A") + index) for index in range(len(problem.choices))]


def lettered_choices(problem: Problem, form: str = "({}) {}") -> str:
    """One line a choice; `form` takes the letter and the text."""
    pairs = zip(letters(problem), problem.choices, strict=True)
    return "\n".join(form.format(letter, text) for letter, text in pairs)
