"""What is found out before a run, and what would stop it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.text import Text

from thinking_rl.recipe.load import RecipeError


@dataclass
class Plan:
    """Findings as (heading, name, text), and what would stop the run."""

    rows: list[tuple[str, str, str]] = field(default_factory=list)
    """(heading, name, text), in the order in which they are printed."""
    problems: list[str] = field(default_factory=list)
    """What would stop the run, each with the recipe key that it is about."""
    warnings: list[str] = field(default_factory=list)
    """What may stop or slow the run: estimates, and what cannot be known beforehand."""

    def add(self, heading: str, name: str, text: str) -> None:
        """Adds one line under a heading."""
        self.rows.append((heading, name, text))

    @contextmanager
    def looking_at(self, key: str) -> Iterator[None]:
        """Turns a ValueError about what recipe key `key` names into a problem of the plan."""
        try:
            yield
        except ValueError as error:
            self.problems.append(f"{key}: {error}")

    def raise_problems(self) -> None:
        """See that nothing would stop the run.

        Raises:
            RecipeError: something would; names all of it.
        """
        if self.problems:
            raise RecipeError("; ".join(self.problems))


def print_plan(plan: Plan, console: Console) -> None:
    """Prints the plan under its headings; without colours where the output is no terminal."""
    headings = dict.fromkeys(heading for heading, _, _ in plan.rows)
    width = max(len(name) for _, name, _ in plan.rows)
    for heading in headings:
        console.print(Text(heading, style="bold"), soft_wrap=True)
        for _, name, text in (row for row in plan.rows if row[0] == heading):
            console.print(Text(f"  {name:<{width}}  {text}"), soft_wrap=True)
    for warning in plan.warnings:
        console.print(Text(f"warning: {warning}", style="yellow"), soft_wrap=True)
