"""Which problems an iteration works on.

Two samplers with one interface (`draw`, `record`, `state_dict`, `load_state_dict`): problems as a
stream delivers them, or a finite pool with a curriculum and a preference for what the policy still
fails at (Kimi k1.5, arXiv 2501.12599, section 2.3.4).
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from thinking_rl.algorithm.advantage import graded
from thinking_rl.types import Group, Problem

if TYPE_CHECKING:
    from thinking_rl.recipe.rl import RL

FLOOR = 0.05
"""Least weight of a problem, beside 1 for one that always failed: what was once learned is seen to
stay learned."""
POOL_PATIENCE = 20
"""Draws for each problem of a pool, repeated ones included."""


class ProblemStream(Protocol):
    """An endless source of problems which can be stopped and resumed."""

    @property
    def weights(self) -> Mapping[str, float]:
        """Of each source, by its name."""
        ...

    def draw(self, n: int) -> list[Problem]: ...
    def stored(self) -> Iterable[Problem]: ...
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


def make_sampler(stream: ProblemStream, rl: RL, seed: int) -> UniformSampler | PoolSampler:
    """The sampler of a run.

    Raises:
        ValueError: the sources have too few problems, or none has a difficulty for the curriculum.
    """
    settings = rl.sampler
    if settings.kind == "uniform" and not settings.pool_problems:
        return UniformSampler(stream)
    size = settings.pool_problems
    return PoolSampler(
        draw_pool(stream, size) if size else list(stream.stored()),
        seed,
        weights=stream.weights,
        decay=settings.decay if settings.kind == "prioritised" else None,
        curriculum_draws=settings.curriculum_iterations * rl.problems_per_iteration,
    )


def draw_pool(
    stream: ProblemStream, size: int, setting: str = "rl.sampler.pool_problems"
) -> list[Problem]:
    """So many different problems of a stream, its sources mixed by weight; `setting` is what asks
    for them.

    Raises:
        ValueError: it repeats itself before.
    """
    pool: dict[str, Problem] = {}
    for _ in range(POOL_PATIENCE * size):
        [problem] = stream.draw(1)
        pool[problem.id] = problem
        if len(pool) == size:
            return list(pool.values())
    raise ValueError(
        f"{setting} is {size}, but data.train gave only {len(pool)} different problems; lower it"
    )


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


class PoolSampler:
    """Draws different problems from a pool, each source by its weight.

    Within its source, problem i is drawn in proportion to max(floor, 1 - s_i), s_i its share of
    right answers, in which a group counts `decay` times as much as the next one of this problem.
    s_i is 0 before the first. Without `decay` all weigh alike.

    Curriculum: the values of difficulty that occur open one after the other, the easiest at once,
    the l-th of L (from 0) after `curriculum_draws` * l / L problems were drawn; earlier where the
    open ones cannot fill a draw. Problems without a difficulty are open from the start.

    A source that has not enough open problems gives what it has, and the others more.

    Args:
        problems: the pool; ids must be unique.
        seed: of the draws.
        weights: of the sources, by their name; empty: as many of each as there are.
        decay: None: no preference.
        floor: smallest weight; 0: one that was always right comes only when no other is left.
        curriculum_draws: length of the curriculum, in problems drawn; 0: all are open at once.

    Raises:
        ValueError: two problems share an id, or there is a curriculum and no problem has a
            difficulty.
    """

    def __init__(
        self,
        problems: Sequence[Problem],
        seed: int,
        *,
        weights: Mapping[str, float] | None = None,
        decay: float | None = 1.0,
        floor: float = FLOOR,
        curriculum_draws: int = 0,
    ):
        self._problems = list(problems)
        self._ids = {problem.id for problem in problems}
        if len(self._ids) < len(self._problems):
            problem_id, times = Counter(p.id for p in problems).most_common(1)[0]
            raise ValueError(f"problem id {problem_id!r} occurs {times} times; ids must be unique")
        self._difficulty = difficulties(problems)
        self._steps = sorted(set(self._difficulty.values()))
        if curriculum_draws and not self._steps:
            raise ValueError(
                "a curriculum needs problems with a `level` or a `pass_rate`, and none has one"
            )
        self._weights = dict(weights or Counter(problem.source for problem in problems))
        self._decay, self._floor = decay, floor
        self._curriculum_draws = curriculum_draws
        self._random = random.Random(seed)
        self._drawn = 0
        self._right: dict[str, float] = {}
        self._answers: dict[str, float] = {}

    def draw(self, n: int) -> list[Problem]:
        """n different problems, shuffled.

        Raises:
            ValueError: the pool is smaller than n.
        """
        if n > len(self._problems):
            raise ValueError(
                f"cannot draw {n} different problems from a pool of {len(self._problems)}; "
                "lower problems_per_iteration or add problems"
            )
        waiting = sorted(self._open_problems(n), key=self._arrival)
        names = sorted({p.source for p in waiting})
        weights = [self._weights[name] for name in names]
        wanted = Counter(self._random.choices(names, weights, k=n))
        drawn, spare = list[Problem](), list[Problem]()
        for problem in waiting:
            is_wanted = wanted[problem.source] > 0
            (drawn if is_wanted else spare).append(problem)
            wanted[problem.source] -= is_wanted
        drawn += spare[: n - len(drawn)]
        self._random.shuffle(drawn)
        self._drawn += n
        return drawn

    def record(self, groups: Iterable[Group]) -> None:
        """Count the right answers; responses without a verdict count neither way."""
        decay = 1.0 if self._decay is None else self._decay
        for group in groups:
            name = group.problem.id
            assert name in self._ids, f"problem {name!r} is not in the pool"
            verdicts = [group.scores[i].correct for i in graded(group)]
            right, wrong = verdicts.count(True), verdicts.count(False)
            self._right[name] = decay * self._right.get(name, 0.0) + right
            self._answers[name] = decay * self._answers.get(name, 0.0) + right + wrong

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
            ValueError: the state knows a problem that the pool lacks.
        """
        unknown = state["answers"].keys() - self._ids
        if unknown:
            raise ValueError(
                f"the saved sampler counted {len(unknown)} problems that are not in the pool "
                f"({min(unknown)!r}, ...); resume with the problems that the run began with"
            )
        version, internal, gauss = state["random"]
        self._random.setstate((version, tuple(internal), gauss))
        self._drawn = state["drawn"]
        self._right = dict(state["right"])
        self._answers = dict(state["answers"])

    def _open_problems(self, n: int) -> list[Problem]:
        """The problems that the curriculum has opened, n at least."""
        if self._drawn >= self._curriculum_draws:
            return self._problems
        first_closed = 1 + self._drawn * len(self._steps) // self._curriculum_draws
        for ceiling in self._steps[first_closed - 1 :]:
            pool = [p for p in self._problems if self._difficulty.get(p.id, ceiling) <= ceiling]
            if len(pool) >= n:
                return pool
        return self._problems

    def _arrival(self, problem: Problem) -> tuple[float, float]:
        """When a random clock that ticks at the rate of the problem's weight rings.

        The first of several such clocks is i with probability w_i / sum w_j, so the first n are a
        draw without replacement. The second value orders those that never ring.
        """
        weight = 1.0
        if self._decay is not None and (answers := self._answers.get(problem.id)):
            weight = max(self._floor, 1 - self._right[problem.id] / answers)
        ring = self._random.expovariate(weight) if weight else math.inf
        return ring, self._random.random()


def difficulties(problems: Sequence[Problem]) -> dict[str, float]:
    """Of each problem that has one, by id: 1 less the `pass_rate` in its metadata, where all have
    one measured; else its level."""
    rates = {p.id: p.metadata.get("pass_rate") for p in problems}
    measured = {name: 1.0 - float(rate) for name, rate in rates.items() if rate is not None}
    if measured and len(measured) == len(rates):
        return measured
    return {p.id: float(p.level) for p in problems if p.level is not None}
