"""The house: imports point down its floors, in no circle, and heavy libraries stay where they may
be. The floors are those of the table in CONTRIBUTING.md."""

from __future__ import annotations

import ast
import re
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("thinking_rl", "rewards", "rollouts", "eval")
HEAVY = {"torch", "transformers", "ray", "vllm", "trl", "datasets", "pydantic"}
MOST_LOOSE_MODULES = 10
ROW = re.compile(r"^\| (\d) \| `([\w.]+)` \| ([\w, ]*?) *\|", re.MULTILINE)


@cache
def floors() -> dict[str, tuple[int, set[str]]]:
    """Room -> its floor, and the heavy libraries that it may import."""
    table = ROW.findall((ROOT / "CONTRIBUTING.md").read_text())
    return {room: (int(floor), set(re.findall(r"\w+", heavy))) for floor, room, heavy in table}


@cache
def modules() -> dict[str, Path]:
    """Every module of the four packages, by its dotted name."""
    files = [file for package in PACKAGES for file in (ROOT / package).rglob("*.py")]
    return {
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file
        for file in files
    }


def room_of(module: str) -> str:
    """`thinking_rl.model.images` is in `model`, `rewards.choice` in `rewards`; a module with a row
    of its own is a room of its own."""
    package, *rest = module.split(".")
    if package == "thinking_rl" and ".".join(rest) in floors():
        return ".".join(rest)
    return rest[0] if package == "thinking_rl" and rest else package


@cache
def imports(module: str) -> frozenset[str]:
    """Dotted names that a module imports, inside functions and for type checkers alone too."""
    found = set()
    for node in ast.walk(ast.parse(modules()[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            assert node.module
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in modules() else node.module)
    return frozenset(found)


def own_imports(module: str) -> set[str]:
    return {name for name in imports(module) if name in modules()} - {module}


def test_every_room_has_a_floor() -> None:
    rooms = {room_of(module) for module in modules()} - {"thinking_rl"}
    assert rooms == set(floors())


@pytest.mark.parametrize("module", modules())
def test_imports_point_down_or_stay_in_the_room(module: str) -> None:
    if module == "thinking_rl":
        return
    room = room_of(module)
    top = {name for name, (floor, _) in floors().items() if floor == floors()[room][0]}
    loose = {room_of(name) for name in modules() if name.count(".") == 1}
    for other in own_imports(module):
        if room_of(other) in (room, "thinking_rl"):
            continue
        same_folder = {room, room_of(other)} <= top & loose  # modules of thinking_rl itself
        below = floors()[room_of(other)][0] < floors()[room][0]
        assert below or same_folder, f"{module} imports {other}"


def test_no_circle() -> None:
    try:
        TopologicalSorter({module: own_imports(module) for module in modules()}).prepare()
    except CycleError as error:
        pytest.fail(f"imports in a circle: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("module", modules())
def test_heavy_libraries_stay_where_they_may_be(module: str) -> None:
    used = {name.split(".")[0] for name in imports(module)} & HEAVY
    allowed = floors()[room_of(module)][1] if module != "thinking_rl" else set()
    assert used <= allowed, f"{module} imports {used - allowed}"


def test_a_rank_needs_torch_and_transformers_alone() -> None:
    seen, waiting = set[str](), ["thinking_rl.learner.rank"]
    while waiting:
        module = waiting.pop()
        seen.add(module)
        package = module.rpartition(".")[0]
        waiting += (own_imports(module) | {package}) & set(modules()) - seen
    libraries = {name.split(".")[0] for module in seen for name in imports(module)}
    third_party = libraries - set(sys.stdlib_module_names) - set(PACKAGES)
    # The tokenizer's tiktoken is imported where a vocabulary is read, huggingface_hub where a
    # checkpoint is fetched; both come with transformers' own set-up.
    assert third_party <= {
        "torch",
        "transformers",
        "numpy",
        "PIL",
        "safetensors",
        "tiktoken",
        "huggingface_hub",
        "tokenizers",
    }


def test_few_modules_stand_loose() -> None:
    assert len(list((ROOT / "thinking_rl").glob("*.py"))) <= MOST_LOOSE_MODULES
