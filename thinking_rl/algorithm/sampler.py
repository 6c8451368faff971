"""Which problems an iteration works on.

Two samplers with one interface (`draw`, `record`, `state_dict`, `load_state_dict`): problems as a
stream delivers them, or a fixed list with a curriculum and a preference for what the policy still
fails at (Kimi k1.5, arXiv 2501.12599, section 2.3.4).
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from thinking_rl.algorithm.advantage import graded
from thinking_rl.types import Group, Problem


class ProblemStream(Protocol):
    """An endless source of problems which can be stopped and resumed."""

    def draw(self, n: int) -> list[Problem]: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Sampler(Protocol):
    """Decides which problems an iteration works on."""

    def draw(self, n: int) -> list[Problem]:
        """n problems."""
        ...

    def record(self, groups: Iterable[Group]) -> None:
        """Learn from what became of them."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        ...


def make_sampler(stream: ProblemStream) -> Sampler:
    """The sampler of a run."""
    return UniformSampler(stream)


class UniformSampler:
    """Takes the problems as the stream delivers them, whatever became of earlier ones."""

    def __init__(self, stream: ProblemStream):
        self._stream = stream

    def draw(self, n: int) -> list[Problem]:
        """The next n problems."""
        return self._stream.draw(n)

    def record(self, groups: Iterable[Group]) -> None:
        """Part of the samplers' interface; nothing to learn here."""

    def state_dict(self) -> dict[str, Any]:
        """Where the stream stands."""
        return {"stream": self._stream.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        self._stream.load_state_dict(state["stream"])


class PrioritizedSampler:
    """Draws from a fixed list: easy problems first, and in proportion to the failure rate.

    Problem i is drawn in proportion to 1 - s_i, s_i its share of right answers among all those
    recorded (0 before the first). One that was always right comes only when no other is left.

    Curriculum: the L levels that occur open one after the other, the easiest at once, the l-th
    (from 0) after `curriculum_draws` * l / L problems were drawn; earlier where the open levels
    cannot fill a draw. Problems without a level are open from the start.

    Args:
        problems: the list; ids must be unique.
        seed: of the draws.
        curriculum_draws: length of the curriculum, in problems drawn; 0: all levels at once.

    Raises:
        ValueError: two problems share an id, or there is a curriculum and no problem has a level.
    """

    def __init__(self, problems: Sequence[Problem], seed: int, curriculum_draws: int = 0):
        self._problems = list(problems)
        self._ids = {problem.id for problem in problems}
        if len(self._ids) < len(self._problems):
            problem_id, times = Counter(p.id for p in problems).most_common(1)[0]
            raise ValueError(f"problem id {problem_id!r} occurs {times} times; ids must be unique")
        self._levels = sorted({p.level for p in problems if p.level is not None})
        if curriculum_draws and not self._levels:
            raise ValueError("a curriculum needs problems with a `level`, and none has one")
        self._curriculum_draws = curriculum_draws
        self._random = random.Random(seed)
        self._drawn = 0
        self._right: Counter[str] = Counter()
        self._answers: Counter[str] = Counter()

    def draw(self, n: int) -> list[Problem]:
        """n different problems.

        Raises:
            ValueError: the list is shorter than n.
        """
        if n > len(self._problems):
            raise ValueError(
                f"cannot draw {n} different problems from a list of {len(self._problems)}; "
                "lower problems_per_iteration or add problems"
            )
        drawn = sorted(self._open_problems(n), key=self._arrival)[:n]
        self._drawn += n
        return drawn

    def record(self, groups: Iterable[Group]) -> None:
        """Count the right answers; responses without a verdict count neither way."""
        for group in groups:
            assert group.problem.id in self._ids, f"problem {group.problem.id!r} is not in the list"
            verdicts = [group.scores[i].correct for i in graded(group)]
            self._right[group.problem.id] += verdicts.count(True)
            self._answers[group.problem.id] += verdicts.count(True) + verdicts.count(False)

    def state_dict(self) -> dict[str, Any]:
        """Random state, position in the curriculum and success counts; survives JSON."""
        return {
            "random": self._random.getstate(),
            "drawn": self._drawn,
            "right": dict(self._right),
            "answers": dict(self._answers),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where `state_dict` was taken.

        Raises:
            ValueError: the state knows a problem that the list lacks.
        """
        unknown = state["answers"].keys() - self._ids
        if unknown:
            raise ValueError(
                f"the saved sampler counted {len(unknown)} problems that are not in the list "
                f"({min(unknown)!r}, ...); resume with the problems that the run began with"
            )
        version, internal, gauss = state["random"]
        self._random.setstate((version, tuple(internal), gauss))
        self._drawn = state["drawn"]
        self._right = Counter(state["right"])
        self._answers = Counter(state["answers"])

    def _open_problems(self, n: int) -> list[Problem]:
        """The problems of all open levels, n at least."""
        if self._drawn >= self._curriculum_draws:
            return self._problems
        first_closed = 1 + self._drawn * len(self._levels) // self._curriculum_draws
        for ceiling in self._levels[first_closed - 1 :]:
            pool = [p for p in self._problems if p.level is None or p.level <= ceiling]
            if len(pool) >= n:
                return pool
        return self._problems

    def _arrival(self, problem: Problem) -> tuple[float, float]:
        """When a random clock that ticks at rate 1 - s_i rings.

        The first of several such clocks is i with probability (1 - s_i) / sum (1 - s_j), so the
        first n are a draw without replacement. The second value orders those that never ring.
        """
        answers = self._answers[problem.id]
        failure_rate = 1 - self._right[problem.id] / answers if answers else 1.0
        ring = self._random.expovariate(failure_rate) if failure_rate else math.inf
        return ring, self._random.random()
