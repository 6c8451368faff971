"""Endless, mixed, resumable streams of problems and of conversations.

Draw i takes its source from a generator seeded by (seed, i), and source s gives its items in an
order fixed by (seed, s) alone. So the whole state is how many items each source has given.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from thinking_rl.data import procedural
from thinking_rl.data.example import Example
from thinking_rl.data.problems import load_examples, source_name
from thinking_rl.recipe.schema import FAMILIES, Source
from thinking_rl.types import ImageSource, Problem

Supply = Callable[[int], Example]
"""Item number i of a source, for any i from 0."""
REPEATS = 1000
"""Repeated pictures in a row after which a held-out set is taken to have no others."""


class ExampleStream(Iterator[Example]):
    """Endless conversations, sources mixed by weight. Made by `example_stream`."""

    def __init__(
        self,
        sources: Sequence[Source],
        seed: int,
        response_needed: bool = True,
        side: procedural.Side = "warm-up",
    ) -> None:
        """side: whose procedural pictures are drawn."""
        self._seed = seed
        self._names = _unique_names(sources)
        self._weights = [source.weight for source in sources]
        self._items = [
            _supply(source, f"{seed}/{name}", response_needed, side)
            for source, name in zip(sources, self._names, strict=True)
        ]
        self._given = [0] * len(sources)

    def __next__(self) -> Example:
        rng = random.Random(f"{self._seed}/mix/{sum(self._given)}")
        (chosen,) = rng.choices(range(len(self._items)), self._weights)
        example = self._items[chosen](self._given[chosen])
        self._given[chosen] += 1
        return _qualify(example, self._names[chosen])

    def draw(self, n: int) -> list[Example]:
        """The next `n` conversations."""
        return [next(self) for _ in range(n)]

    @property
    def weights(self) -> dict[str, float]:
        """Of each source, by its name."""
        return dict(zip(self._names, self._weights, strict=True))

    def stored(self) -> Iterator[Example]:
        """Every conversation of the file and hub sources, once; procedural ones have no end."""
        for name, items in zip(self._names, self._items, strict=True):
            if isinstance(items, _EpochShuffle):
                yield from (_qualify(example, name) for example in items.examples)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs; JSON and pickle take it."""
        return {"seed": self._seed, "given": dict(zip(self._names, self._given, strict=True))}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken.

        Raises:
            ValueError: it is of other data.
        """
        if state["seed"] != self._seed or list(state["given"]) != self._names:
            raise ValueError(
                f"the saved data position is of seed {state['seed']} and sources "
                f"{', '.join(state['given'])}, but the recipe has seed {self._seed} and sources "
                f"{', '.join(self._names)}; resume with the recipe that the run was started with"
            )
        self._given = list(state["given"].values())


class ProblemStream(Iterator[Problem]):
    """Endless problems, sources mixed by weight. Made by `problem_stream`."""

    def __init__(self, sources: Sequence[Source], seed: int, side: procedural.Side) -> None:
        self._examples = ExampleStream(sources, seed, response_needed=False, side=side)

    def __next__(self) -> Problem:
        return next(self._examples).problem

    def draw(self, n: int) -> list[Problem]:
        """The next `n` problems."""
        return [next(self) for _ in range(n)]

    @property
    def weights(self) -> dict[str, float]:
        """Of each source, by its name."""
        return self._examples.weights

    def stored(self) -> Iterator[Problem]:
        """Every problem of the file and hub sources, once; procedural ones have no end."""
        return (example.problem for example in self._examples.stored())

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs; JSON and pickle take it."""
        return self._examples.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken.

        Raises:
            ValueError: it is of other data.
        """
        self._examples.load_state_dict(state)


def problem_stream(
    sources: Sequence[Source], seed: int, side: procedural.Side = "rl"
) -> ProblemStream:
    """Endless problems to train on, mixed by weight, fixed by seed.

    A file or hub source is shuffled anew each epoch; a procedural one gives the pictures of its
    `side` alone: by default none that is held out or that `example_stream` gives. Ids are
    `source/id`, unique in the whole mix.

    Raises:
        ValueError: a source or a row cannot be used.
    """
    return ProblemStream(sources, seed, side)


def example_stream(sources: Sequence[Source], seed: int) -> ExampleStream:
    """Endless conversations to learn from; like `problem_stream`.

    Raises:
        ValueError: a source or a row cannot be used, or a row has no response.
    """
    return ExampleStream(sources, seed)


def fixed_problems(sources: Sequence[Source], n: int, seed: int) -> list[Problem]:
    """`n` problems to evaluate on, shared out over the sources by weight, fixed by seed.

    Procedural ones come from the held-out fifth of all pictures, which training never draws (see
    `thinking_rl.data.procedural`). No picture comes twice, and a file or hub source gives each
    problem at most once, so easy levels and small sources make the list shorter.
    """
    problems = []
    shares = _shares([source.weight for source in sources], n)
    for source, name, share in zip(sources, _unique_names(sources), shares, strict=True):
        if source.format == "procedural":
            examples = _distinct(_procedural_supply(source, f"{seed}/{name}", "held-out"), share)
        else:
            examples = load_examples(source)
            random.Random(f"{seed}/{name}/fixed").shuffle(examples)
        problems += [_qualify(example, name).problem for example in examples[:share]]
    return problems


def _distinct(supply: Supply, n: int) -> list[Example]:
    """`n` problems, no picture twice; fewer where `REPEATS` in a row bring no new one."""
    examples: dict[tuple[ImageSource, ...], Example] = {}
    index = repeats = 0
    while len(examples) < n and repeats < REPEATS:
        example = supply(index)
        index += 1
        repeats = repeats + 1 if example.problem.images in examples else 0
        examples.setdefault(example.problem.images, example)
    return list(examples.values())


def _supply(source: Source, key: str, response_needed: bool, side: procedural.Side) -> Supply:
    if source.format == "procedural":
        return _procedural_supply(source, key, side)
    return _EpochShuffle(load_examples(source, response_needed), key)


def _procedural_supply(source: Source, key: str, side: procedural.Side) -> Supply:
    families = source.families or FAMILIES
    return lambda i: procedural.generate(
        f"{side}/{key}/{i}", families, source.levels, side, source.direct
    )


class _EpochShuffle:
    """A finite source without end: every epoch in an order of its own."""

    def __init__(self, examples: list[Example], key: str) -> None:
        self.examples, self._key = examples, key
        self._epoch, self._order = -1, list[int]()

    def __call__(self, number: int) -> Example:
        epoch, position = divmod(number, len(self.examples))
        if epoch != self._epoch:
            self._epoch, self._order = epoch, list(range(len(self.examples)))
            random.Random(f"{self._key}/epoch/{epoch}").shuffle(self._order)
        return self.examples[self._order[position]]


def _qualify(example: Example, name: str) -> Example:
    """Ids are unique within a source only; with the source's name in front, in the mix too."""
    problem = replace(example.problem, id=f"{name}/{example.problem.id}", source=name)
    return replace(example, problem=problem)


def _unique_names(sources: Sequence[Source]) -> list[str]:
    """The sources' names; the second of one name gets `#2`."""
    names: list[str] = []
    for source in sources:
        name = source_name(source)
        same = sum(1 for other in names if other.split("#")[0] == name)
        names.append(f"{name}#{same + 1}" if same else name)
    return names


def _shares(weights: Sequence[float], n: int) -> list[int]:
    """Split `n` in proportion to the weights (largest remainders are rounded up)."""
    exact = [n * weight / sum(weights) for weight in weights]
    shares = [int(value) for value in exact]
    by_remainder = sorted(range(len(exact)), key=lambda i: shares[i] - exact[i])
    for i in by_remainder[: n - sum(shares)]:
        shares[i] += 1
    return shares
