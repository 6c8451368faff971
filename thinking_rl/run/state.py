"""What a run leaves behind to go on from: `state.json` in the folder of a checkpoint.

It is written when everything else in the folder is, so its presence says that the checkpoint is
whole. No torch here: whether a run can go on is known before anything heavy is imported.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from thinking_rl.files.checkpoint import read_json
from thinking_rl.recipe.load import load_recipe
from thinking_rl.recipe.schema import Recipe

STATE_FILE = "state.json"
KEPT = 2
MAY_CHANGE = (
    "run_dir",
    "overwrite",
    "resume",
    "ray_address",
    "rollout",
    "learner",
    "rl.iterations",
    "rl.evaluate_every",
    "rl.benchmarks_every",
    "rl.checkpoint_every",
)
"""Keys and sections of the recipe that a resumed run may have otherwise."""


@dataclass(frozen=True)
class Saved:
    """A run's position."""

    folder: Path
    """`checkpoints/sft`, or `checkpoints/iteration_<N>` with the learner's sharded state"""
    iteration: int
    """RL iterations done"""
    metrics_bytes: int
    """length of metrics.jsonl; rows beyond it will be measured again"""
    seconds: dict[str, float] = field(default_factory=dict)
    """wall time so far, by stage"""
    sampler: dict[str, Any] = field(default_factory=dict)
    """which problems come next"""

    def __str__(self) -> str:
        return f"after RL iteration {self.iteration}" if self.iteration else "after the warm-up"


def write_saved(saved: Saved) -> None:
    """Complete a checkpoint's folder."""
    state = asdict(saved)
    del state["folder"]
    part = saved.folder / f"{STATE_FILE}.part"
    part.write_text(json.dumps(state), encoding="utf-8")
    part.replace(saved.folder / STATE_FILE)


def find_saved(run_dir: str | Path) -> Saved | None:
    """The furthest whole checkpoint of a run, if it has one.

    Raises:
        ValueError: its state.json is damaged.
    """
    for folder in [*reversed(rl_checkpoints(run_dir)), Path(run_dir) / "checkpoints" / "sft"]:
        if (folder / STATE_FILE).is_file():
            try:
                return Saved(folder, **read_json(folder / STATE_FILE))
            except TypeError as error:
                raise ValueError(f"{folder / STATE_FILE}: {error}; remove {folder}") from None
    return None


def rl_checkpoints(run_dir: str | Path) -> list[Path]:
    """The folders of RL checkpoints, oldest first; the last may be unfinished."""
    return sorted((Path(run_dir) / "checkpoints").glob("iteration_*"))


def drop_old(run_dir: str | Path) -> None:
    """Keep the last few RL checkpoints."""
    for old in rl_checkpoints(run_dir)[:-KEPT]:
        shutil.rmtree(old)


def check_same_recipe(recipe: Recipe) -> None:
    """Raises ValueError where the recipe would not continue the run in `run_dir` but make another
    one of it."""
    path = Path(recipe.run_dir) / "recipe.yaml"
    before, now = (_flat(one.model_dump()) for one in (load_recipe(path), recipe))
    changed = [
        f"{key} was {before.get(key)!r} and is {now.get(key)!r}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and not f"{key}.".startswith(_MAY_CHANGE)
    ]
    if changed:
        raise ValueError(
            f"resume: the recipe is not that of {path}: {'; '.join(changed)}; set it back, or "
            "start a new run with run_dir=FOLDER"
        )


_MAY_CHANGE = tuple(f"{key}." for key in MAY_CHANGE)


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested sections as dotted keys."""
    if isinstance(value, dict) and value:
        parts = [_flat(one, f"{prefix}{name}.") for name, one in value.items()]
        return {key: one for part in parts for key, one in part.items()}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return _flat(dict(enumerate(value)), prefix)
    return {prefix.rstrip("."): value}
