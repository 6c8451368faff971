"""Names of reward functions, and how they are found.

A reward function takes a `Problem` and a response and returns a `Score`, a number, or a bool
(which also says whether the answer is right). It is a plain function, an `async` one, or, marked
with `@batched`, one that takes a list of problems and a list of responses and returns a list.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import importlib
import importlib.metadata
import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

RewardFunction = Callable[..., Any]

ENTRY_POINT_GROUP = "thinking_rl.rewards"

BUILT_IN = {
    name: f"rewards.{name}:{name}"
    for name in (
        "math_answer",
        "choice",
        "open_answer",
        "open_answer_strict",
        "mathvista",
        "mathvista_strict",
        "format",
        "repetition",
    )
}


def batched(function: RewardFunction) -> RewardFunction:
    """Mark a reward function that takes lists (problems, responses) and returns a list."""
    function.batched = True  # type: ignore[attr-defined]
    return function


def resolve(spec: str) -> RewardFunction:
    """Load the reward function that `spec` names.

    `spec` is a registry key, `package.module:function`, `path/to/file.py:function` (relative to
    the working directory), or the name of an entry point in the group `thinking_rl.rewards`.

    Raises:
        ValueError: it cannot be found or is not callable.
    """
    place, function_name = _locate(spec)
    if isinstance(place, Path):
        module = _module_of_file(_existing(place, spec).resolve())
    else:
        try:
            module = importlib.import_module(place)
        except ModuleNotFoundError as error:
            raise ValueError(f"reward {spec!r}: {error}") from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise ValueError(f"reward {spec!r}: no function {function_name!r} in {place}")
    return function


def _module_of_file(file: Path) -> Any:
    """A file as a module that is registered, so that its dataclasses work and its objects can be
    pickled, and that finds its neighbours. A name that is taken gets a prefix.
    """
    loaded = sys.modules.get(file.stem) or sys.modules.get(f"reward_file_{file.stem}")
    if getattr(loaded, "__file__", None) == str(file):
        return loaded
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))
    found = importlib.util.find_spec(file.stem) if file.stem.isidentifier() else None
    is_own = found is not None and found.origin == str(file)
    name = file.stem if is_own and file.stem not in sys.modules else f"reward_file_{file.stem}"
    module_spec = importlib.util.spec_from_file_location(name, file)
    assert module_spec is not None
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[name] = module
    try:
        module_spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def import_what_it_uses(function: RewardFunction) -> None:
    """Import what the functions in a reward's file import when they are called.

    The first answer would otherwise pay for it, in time and in memory. What cannot be imported is
    left for the function to meet.
    """
    module = inspect.getmodule(function)
    if module is None or module.__name__.startswith("rewards."):
        return
    try:
        tree = ast.parse(inspect.getsource(module))
    except (OSError, TypeError, SyntaxError):
        return
    for body in ast.walk(tree):
        if isinstance(body, ast.FunctionDef | ast.AsyncFunctionDef):
            for name in _imported_in(body):
                with contextlib.suppress(Exception):
                    importlib.import_module(name, module.__package__ or None)


def _imported_in(body: ast.AST) -> list[str]:
    names = []
    for node in ast.walk(body):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names.append("." * node.level + (node.module or ""))
    return names


def check(spec: str) -> None:
    """See that `spec` names a reward function, without running any code of its module.

    Raises:
        ValueError: it names none.
    """
    place, function_name = _locate(spec)
    if isinstance(place, Path):
        source = _existing(place, spec)
    else:
        try:
            module_spec = importlib.util.find_spec(place)
        except ModuleNotFoundError as error:
            raise ValueError(f"reward {spec!r}: {error}") from error
        if module_spec is None:
            raise ValueError(f"reward {spec!r}: no module named {place!r}")
        if module_spec.origin is None or not module_spec.origin.endswith(".py"):
            return  # a compiled module: only importing it would tell
        source = Path(module_spec.origin)
    names = _top_level_names(source, spec)
    if function_name not in names and "*" not in names:
        hint = _nearest(function_name, names)
        raise ValueError(f"reward {spec!r}: no function {function_name!r} in {source}{hint}")


def _locate(spec: str) -> tuple[Path | str, str]:
    """The file or the module's name, and the function's name."""
    target = BUILT_IN.get(spec)
    if target is None and ":" not in spec:
        entry_points = importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)
        targets = {entry_point.name: entry_point.value for entry_point in entry_points}
        target = targets.get(spec)
        if target is None:
            known = sorted([*BUILT_IN, *targets])
            raise ValueError(
                f"unknown reward {spec!r}{_nearest(spec, known)}; known: {', '.join(known)}; "
                "or give package.module:function or path/to/file.py:function"
            )
    place, _, function_name = (target or spec).rpartition(":")
    if not place or not function_name.isidentifier():
        raise ValueError(
            f"reward {spec!r}: expected package.module:function or path/to/file.py:function"
        )
    return (Path(place) if place.endswith(".py") else place), function_name


def _existing(path: Path, spec: str) -> Path:
    if not path.is_file():
        raise ValueError(f"reward {spec!r}: no file {path.absolute()}")
    return path


def _nearest(name: str, known: list[str] | set[str]) -> str:
    matches = difflib.get_close_matches(name, sorted(known), n=3)
    return f" (did you mean {' or '.join(matches)}?)" if matches else ""


def _top_level_names(source: Path, spec: str) -> set[str]:
    """Names that a module's top level binds; `*` where only importing it would tell."""
    try:
        tree = ast.parse(source.read_bytes(), filename=str(source))
    except SyntaxError as error:
        raise ValueError(f"reward {spec!r}: {source}:{error.lineno}: {error.msg}") from error
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add("*" if node.name == "__getattr__" else node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names.update((alias.asname or alias.name) for alias in node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names
