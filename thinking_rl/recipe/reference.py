"""Every recipe key as a page: `python -m thinking_rl.recipe.reference > docs/recipe.md`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from thinking_rl.recipe.schema import Recipe

HEAD = """\
# Every recipe key

A recipe is a YAML file. Any of its keys can be given on the command line as `key=value`, with dots
for sections (`rl.iterations=3`) and numbers for places in lists (`data.train.0.weight=2`; such a
number is `N` below). A key that there is none of is an error that names the nearest valid one.
`python -m thinking_rl.train RECIPE --dry-run` checks a recipe without starting anything, and
`recipe.yaml` in a run's folder has every key as it was.

<!-- Written by `python -m thinking_rl.recipe.reference > docs/recipe.md`. -->
"""
BOUNDS = {
    "exclusiveMinimum": "above",
    "minimum": "at least",
    "exclusiveMaximum": "below",
    "maximum": "at most",
}


def page() -> str:
    """The page, in Markdown: a table for each section, in the order of a recipe."""
    schema = Recipe.model_json_schema()
    places = {"": schema} | dict(sections(schema, schema))
    parts = [HEAD]
    for title in dict.fromkeys(section["title"] for section in places.values()):
        alike = {path: one for path, one in places.items() if one["title"] == title}
        section = next(iter(alike.values()))
        heading = ", ".join(f"`{path}`" for path in alike if path) or "The recipe itself"
        parts += [f"## {heading}", one_line(section["description"]), table(section)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def sections(
    schema: dict[str, Any], section: dict[str, Any], path: str = ""
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(path, JSON schema) of all sections below one; places in lists are `N`."""
    for name, key in section["properties"].items():
        for part in alternatives(key):
            in_list = part.get("type") == "array"
            reference = (part.get("items", {}) if in_list else part).get("$ref")
            if reference:
                below = f"{path}{name}" + (".N" if in_list else "")
                named = schema["$defs"][reference.rpartition("/")[2]]
                yield below, named
                yield from sections(schema, named, f"{below}.")


def alternatives(key: dict[str, Any]) -> list[dict[str, Any]]:
    """The schemas that a value may meet."""
    return key.get("anyOf", [key])


def table(section: dict[str, Any]) -> str:
    """The keys of one section."""
    rows = ["| key | value | default | what |", "| --- | --- | --- | --- |"]
    for name, key in section["properties"].items():
        value = " or ".join(value_of(part) for part in alternatives(key))
        cells = (f"`{name}`", value, default_of(name, section), one_line(key["description"]))
        rows.append("| " + " | ".join(text.replace("|", "\\|") for text in cells) + " |")
    return "\n".join(rows)


def default_of(name: str, section: dict[str, Any]) -> str:
    """What a key is where a recipe does not name it."""
    if name in section.get("required", []):
        return "must be given"
    default = section["properties"][name].get("default")
    return "its defaults" if isinstance(default, dict) and default else f"`{json.dumps(default)}`"


def value_of(part: dict[str, Any]) -> str:
    """What a value may be, in words."""
    if "enum" in part:
        return ", ".join(f"`{value}`" for value in part["enum"])
    if "const" in part:
        return f"`{part['const']}`"
    if "$ref" in part:
        return "section"
    kind: str = part["type"]
    if kind == "array":
        items = part.get("prefixItems") or [part["items"]]
        return "list of " + " and ".join(value_of(item) for item in items)
    names = {"object": "mapping", "number": "number", "integer": "whole number", "null": "`null`"}
    bounds = [f"{word} {part[name]:g}" for name, word in BOUNDS.items() if name in part]
    return " ".join([names.get(kind, kind), ", ".join(bounds)]).strip()


def one_line(text: str) -> str:
    """Text of a docstring without its line breaks, in YAML's words."""
    return " ".join(text.split()).replace("None", "null")


if __name__ == "__main__":
    print(page(), end="")
