"""The pages of docs/ say what the code says."""

from __future__ import annotations

import ast
import re
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

from thinking_rl.recipe.reference import page
from thinking_rl.recipe.schema import Recipe
from thinking_rl.recipe.section import Section

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PACKAGES = ("thinking_rl", "rewards", "rollouts", "eval")


def test_the_page_of_recipe_keys_is_written_anew() -> None:
    assert (DOCS / "recipe.md").read_text() == page(), (
        "python -m thinking_rl.recipe.reference > docs/recipe.md"
    )


def keys_below(section: type[Section]) -> set[str]:
    """Names of the keys of a section and of all sections in it."""
    names = set(section.model_fields)
    for field in section.model_fields.values():
        for module, part in re.findall(r"(thinking_rl\.recipe\.\w+)\.(\w+)", str(field.annotation)):
            names |= keys_below(getattr(import_module(module), part))
    return names


def test_every_recipe_key_is_on_its_page() -> None:
    keys = keys_below(Recipe)
    assert {"seed", "max_response_tokens", "final_share", "grader"} <= keys
    shown = set(re.findall(r"^\| `(\w+)` \|", (DOCS / "recipe.md").read_text(), re.MULTILINE))
    assert keys == shown


@cache
def texts_of_the_code() -> tuple[str, ...]:
    """Every piece of text in the packages."""
    return tuple(
        node.value
        for package in PACKAGES
        for file in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


MESSAGES = [
    message
    for line in (DOCS / "troubleshooting.md").read_text().splitlines()
    if line.startswith("| ") and "| message |" not in line
    for message in re.findall(r"`([^`]+)`", line.split(" | ")[0])
]


@pytest.mark.parametrize("message", MESSAGES)
def test_messages_that_are_explained_are_those_of_the_code(message: str) -> None:
    assert any(message in text for text in texts_of_the_code())
