"""Every field of a record and every key of the recipe says what it is; lengths in tokens, times in
seconds and sizes in GiB say so too, in their name or in their text."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("thinking_rl", "rewards", "rollouts", "eval")
RECORDS = {"dataclass", "NamedTuple", "Section"}


def records() -> list[tuple[str, ast.ClassDef]]:
    """Every dataclass, named tuple and recipe section, with where it stands."""
    found = []
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.ClassDef) and names_of(node) & RECORDS:
                    found.append((f"{file.relative_to(ROOT)}:{node.name}", node))
    return found


def names_of(node: ast.ClassDef) -> set[str]:
    """Its bases and decorators."""
    given = [*node.bases, *(d.func if isinstance(d, ast.Call) else d for d in node.decorator_list)]
    return {one.id for one in given if isinstance(one, ast.Name)}


def undocumented(node: ast.ClassDef) -> list[str]:
    """Fields of a record that no docstring follows."""
    following = [*node.body[1:], None]
    return [
        ast.unparse(field.target)
        for field, text in zip(node.body, following, strict=True)
        if isinstance(field, ast.AnnAssign)
        and not ast.unparse(field.target).startswith("_")
        and not (isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant))
    ]


RECORDS_FOUND = records()


@pytest.mark.parametrize(("name", "node"), RECORDS_FOUND, ids=[name for name, _ in RECORDS_FOUND])
def test_every_field_says_what_it_is(name: str, node: ast.ClassDef) -> None:
    assert ast.get_docstring(node), f"{name} has no docstring"
    assert undocumented(node) == []


def test_one_style_of_raises() -> None:
    """A section of its own, as in CONTRIBUTING.md; not a sentence in the text."""
    odd = []
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                    text = ast.get_docstring(node) or ""
                    lines = [line.strip() for line in text.splitlines()]
                    if any("Raises " in line or line.startswith("Raise ") for line in lines):
                        odd.append(f"{file.relative_to(ROOT)}:{node.lineno} {node.name}")
    assert odd == []
