"""A recipe from its file: YAML, overrides from the command line, errors that name the key.

Imports as little as `schema.py`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import ValidationError

from thinking_rl.files.hub import DATA_SUFFIXES
from thinking_rl.names import nearest
from thinking_rl.recipe.schema import Recipe
from thinking_rl.recipe.section import Section


class RecipeError(ValueError):
    """A recipe that cannot be used: the message names the file, the key and what was expected."""


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Reads and checks a recipe file.

    `overrides` are `dotted.key=value`, values read as YAML: `rl.iterations=3`,
    `data.train.0.path=/data/train.jsonl`. In the result `run_dir` is set, and the sources' file
    paths are absolute: the relative ones are under `data_dir`, or else the current folder.

    Raises:
        RecipeError: anything is wrong with the file or the overrides.
    """
    document = _read(Path(path))
    overridden = [_override(document, text) for text in overrides]
    try:
        recipe = Recipe.model_validate(document, strict=True)
    except ValidationError as error:
        raise RecipeError(f"{path}: {_explain(error, overridden)}") from None
    try:
        recipe = _with_paths(recipe)
    except RecipeError as error:
        raise RecipeError(f"{path}: {error}") from None
    return recipe.model_copy(update={"run_dir": recipe.run_dir or f"runs/{Path(path).stem}"})


def save_resolved(recipe: Recipe, path: str | Path) -> None:
    """Writes the recipe with every default filled in; `load_recipe` reads it back unchanged."""
    text = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    Path(path).write_text(text, encoding="utf-8")


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice, reads 1e-4 as the number it looks like, and no
    number as another than it looks like: YAML 1.1 takes 010 for 8, and 1:30 for 90."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        first_line: dict[str, int] = {}
        for key, _ in node.value:
            name = str(key.value)
            if name in first_line:
                problem = f"key {name!r} is given twice, first in line {first_line[name]}"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            first_line[name] = key.start_mark.line + 1
        return super().construct_mapping(node, deep)


def _plain_integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    if re.fullmatch(r"[-+]?(0|[1-9][0-9_]*)", node.value):
        return loader.construct_yaml_int(node)
    problem = f"{node.value} is no plain whole number; write it in decimal, without zeros in front"
    raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


_Loader.add_constructor("tag:yaml.org,2002:int", _plain_integer)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def _read(path: Path) -> dict[str, Any]:
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such recipe file") from None
    except OSError as error:
        raise RecipeError(f"{path}: no recipe file: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise RecipeError(f"{path}: {_yaml_problem(error)}") from None
    if not isinstance(document, dict):
        raise RecipeError(f"{path}: expected a mapping of keys to values, such as `seed: 0`")
    return document


def _yaml_problem(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply for a recipe"
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        return f"line {error.problem_mark.line + 1}: {error.problem}"
    return f"not readable as YAML: {error}"


def _override(document: dict[str, Any], text: str) -> str:
    """Sets one `dotted.key=value` in the document; returns the key."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise RecipeError(f"{text!r}: an override looks like key=value, such as rl.iterations=3")
    try:
        parsed = yaml.load(value, _Loader) if value else ""
    except (yaml.YAMLError, RecursionError) as error:
        raise RecipeError(f"override {text!r}: {_yaml_problem(error)}") from None
    *parents, last = key.split(".")
    place: Any = document
    for parent in parents:
        if isinstance(place, dict) and place.get(parent) is None:
            place[parent] = {}
        place = place[_slot(place, parent, key)]
    place[_slot(place, last, key)] = parsed
    return key


def _slot(place: Any, name: str, key: str) -> str | int:
    """The key or the index that `name` means in this mapping or list."""
    if isinstance(place, dict):
        return name
    if not isinstance(place, list):
        raise RecipeError(f"override {key}: there is no {name!r} in the value {place!r}")
    if not name.isdecimal() or int(name) >= len(place):
        raise RecipeError(
            f"override {key}: expected the number of an entry, 0 to {len(place) - 1}, not {name!r}"
        )
    return int(name)


def _explain(error: ValidationError, overridden: Sequence[str]) -> str:
    """One line that names each wrong key and what was expected there."""
    problems = []
    for item in error.errors(include_url=False):
        key = ".".join(str(part) for part in item["loc"])
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "missing":
            message = "required, but missing"
        elif item["type"] == "extra_forbidden":
            message = f"unknown key; {_suggestion(item['loc'])}"
        elif message.startswith("Input should be "):
            expected = message.removeprefix("Input should be ")
            if item["type"] == "model_type":
                expected = "a section of `key: value` lines"
            message = f"expected {expected}, not {item['input']!r:.80}"
        if any(f"{key}.".startswith(f"{given}.") for given in overridden):
            message += " (given on the command line)"
        problems.append(f"{key}: {message}" if key else message)
    return "; ".join(problems)


def _suggestion(location: tuple[int | str, ...]) -> str:
    """The valid key nearest to the unknown one: of its section, else of the whole recipe."""
    *parents, name = location
    section: type[Section] = Recipe
    for part in parents:
        if isinstance(part, str):
            section = _section_in(section.model_fields[part].annotation) or section
    near = nearest(str(name), section.model_fields)
    if near:
        return f"the nearest valid one is {near[0]!r}"
    elsewhere = [key for key in _all_keys(Recipe) if key.split(".")[-1] == name]
    if elsewhere:
        return f"the nearest valid one is {elsewhere[0]!r}"
    return f"valid here: {', '.join(section.model_fields)}"


def _section_in(annotation: Any) -> type[Section] | None:
    """The section class in an annotation such as `SFT | None` or `list[Source]`, if any."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return next((found for a in get_args(annotation) if (found := _section_in(a))), None)


def _all_keys(section: type[Section], prefix: str = "") -> list[str]:
    keys = []
    for name, field in section.model_fields.items():
        keys.append(prefix + name)
        if inner := _section_in(field.annotation):
            keys += _all_keys(inner, f"{prefix}{name}.")
    return keys


def _with_paths(recipe: Recipe) -> Recipe:
    """The recipe with absolute paths to its sources' files."""
    document = recipe.model_dump()
    if recipe.data_dir:
        folder = Path(recipe.data_dir).expanduser().absolute()
        if not folder.is_dir():
            raise RecipeError(f"data_dir: no such folder: {folder}")
        document["data_dir"] = str(folder)
    lists = {"data.train": document["data"]["train"], "data.eval": document["data"]["eval"]}
    lists["data.benchmarks"] = document["data"]["benchmarks"]
    if recipe.sft:
        lists["sft.data"] = document["sft"]["data"]
    for key, sources in lists.items():
        for index, source in enumerate(sources):
            for name in ("path", "image_root"):
                if source.get(name):
                    where = f"{key}.{index}.{name}"
                    source[name] = _located(source[name], document["data_dir"], where)
    return Recipe.model_validate(document)


def _located(path: str, data_dir: str, key: str) -> str:
    """`path` made absolute; a hub id (neither there nor named like a data file) stays as it is."""
    file = Path(data_dir).absolute() / Path(path).expanduser()
    try:
        if file.resolve().exists():
            return str(file)
    except (OSError, RuntimeError) as error:  # a name too long, links in a circle
        raise RecipeError(f"{key}: {path[:200]}: not a usable path ({error})") from None
    if file.suffix not in DATA_SUFFIXES and not key.endswith("image_root"):
        return path
    remedy = "" if data_dir else "; give data_dir=FOLDER, the folder that relative paths are under"
    raise RecipeError(f"{key}: no such file: {file}{remedy}")
