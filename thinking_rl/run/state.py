"""What a run leaves behind to go on from: `state.json` in the folder of a checkpoint.

It is written when everything else in the folder is, so its presence says that the checkpoint is
whole. Whoever has something that a resumed run needs registers it in `RunState`, under a name. No
torch here: whether a run can go on is known before anything heavy is imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from thinking_rl.files.json_files import read_json, write_json
from thinking_rl.files.run_folder import RunFolder
from thinking_rl.recipe.load import load_recipe
from thinking_rl.recipe.schema import SFT_STAGE, Recipe

STATE_FILE = "state.json"
MAY_CHANGE = frozenset(
    {
        "run_dir",
        "overwrite",
        "resume",
        "ray_address",
        "responses_gib",
        "trackers",
        "data.image_store_gib",
        "rollout.engines",
        "rollout.tensor_parallel",
        "rollout.placement",
        "rollout.max_sequences",
        "rollout.gpu_memory_share",
        "rollout.kv_cache_gib",
        "rollout.start_timeout_s",
        "rollout.silence_s",
        "rollout.timeout_s",
        "learner.workers",
        "learner.tokens_per_microbatch",
        "learner.activation_checkpointing",
        "learner.threads",
        "learner.timeout_s",
        "rewards.timeout_s",
        "rewards.memory_gib",
        "rewards.workers",
        "rewards.max_failure_share",
        "rl.iterations",
        "rl.evaluate_every",
        "rl.benchmarks_every",
        "rl.checkpoint_every",
        "sft.checkpoint_every",
    }
)
"""Keys of the recipe that a resumed run may have otherwise: where and how fast it runs, and how
long. Whatever decides what is sampled or learned stays."""


class Stateful(Protocol):
    """Whatever a resumed run needs to find as it was."""

    def state_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        ...


@dataclass(frozen=True)
class Position:
    """Where a run stands, as a checkpoint's `state.json` says."""

    folder: Path
    """`checkpoints/sft`, or `checkpoints/sft_step_<N>` or `checkpoints/iteration_<N>` with the
    ranks' sharded state."""
    iteration: int
    """RL iterations done; 0 after the warm-up and inside it."""
    step: int = 0
    """Of the warm-up, where it is not done: steps that are."""
    state: dict[str, Any] = field(default_factory=dict)
    """What each registered name left."""
    files: dict[str, int] = field(default_factory=dict)
    """Bytes of each file of the folder."""
    skipped: tuple[str, ...] = ()
    """Checkpoints that lie further and are damaged, with what is wrong."""

    def __str__(self) -> str:
        if self.iteration:
            return f"after RL iteration {self.iteration}"
        return f"after step {self.step} of the warm-up" if self.step else "after the warm-up"


class RunState:
    """Everything of a run that a checkpoint holds beside the weights."""

    def __init__(self, position: Position | None = None) -> None:
        """position: where the run goes on; None: it starts."""
        self.position = position
        self._owners: dict[str, Stateful] = {}

    def register(self, name: str, owner: Stateful) -> None:
        """Save `owner`'s state from now on; where the run goes on, it gets its old one now.

        Raises:
            ValueError: the state does not belong to this owner.
        """
        self._owners[name] = owner
        if self.position and name in self.position.state:
            owner.load_state_dict(self.position.state[name])

    def snapshot(self) -> dict[str, Any]:
        """What every owner would leave now."""
        return {name: owner.state_dict() for name, owner in self._owners.items()}

    def save(
        self, folder: Path, iteration: int, state: dict[str, Any] | None = None, *, step: int = 0
    ) -> None:
        """Complete a checkpoint's folder.

        Args:
            state: a `snapshot`; None: one of now.
            step: of the warm-up, where it goes on.
        """
        write_position(Position(folder, iteration, step, state or self.snapshot()))


class Course:
    """How many iterations the run was planned with when it began: learning rates follow it, also
    where a resumed run makes more."""

    def __init__(self, iterations: int) -> None:
        self.iterations = iterations

    def state_dict(self) -> dict[str, Any]:
        """The plan."""
        return {"iterations": self.iterations}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Keep to the plan of the run that goes on."""
        self.iterations = state["iterations"]


def write_position(position: Position) -> None:
    """Complete a checkpoint's folder."""
    values = asdict(position)
    del values["folder"], values["skipped"]
    write_json(position.folder / STATE_FILE, values | {"files": _sizes(position.folder)})


def _sizes(folder: Path) -> dict[str, int]:
    files = [file for file in folder.iterdir() if file.is_file() and file.name != STATE_FILE]
    return {file.name: file.stat().st_size for file in sorted(files)}


def _read_position(folder: Path, skipped: Sequence[str]) -> Position:
    position = Position(folder, **read_json(folder / STATE_FILE), skipped=tuple(skipped))
    found = _sizes(folder)
    for name, size in position.files.items():
        if found.get(name) != size:
            raise ValueError(f"{name} has {found.get(name, 0)} bytes and was written with {size}")
    return position


def find_position(folder: RunFolder) -> Position | None:
    """The furthest whole checkpoint of a run, if it has one; `skipped` names those that are damaged
    and lie further.

    Raises:
        ValueError: all that the run has are damaged.
    """
    candidates = [*reversed(folder.rl_checkpoints()), folder.stage_weights(SFT_STAGE)]
    candidates += reversed(folder.sft_checkpoints())
    damaged: list[str] = []
    for checkpoint in candidates:
        if (checkpoint / STATE_FILE).is_file():
            try:
                return _read_position(checkpoint, damaged)
            except (TypeError, ValueError) as error:
                damaged.append(f"{checkpoint / STATE_FILE}: {error}")
    if damaged:
        raise ValueError(
            f"no checkpoint is whole: {'; '.join(damaged)}; overwrite=true starts anew"
        )
    return None


def check_same_recipe(recipe: Recipe) -> None:
    """See that a run goes on as it began.

    Raises:
        ValueError: the recipe would not continue the run in `run_dir` but make another one of it.
    """
    path = RunFolder.at(recipe.run_dir).recipe
    before, now = (_flat(one.model_dump()) for one in (load_recipe(path), recipe))
    changed = [
        f"{key} was {before.get(key)!r} and is {now.get(key)!r}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and key not in MAY_CHANGE
    ]
    if changed:
        raise ValueError(
            f"resume: the recipe is not that of {path}: {'; '.join(changed)}; set it back, or "
            "start a new run with run_dir=FOLDER"
        )


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested sections as dotted keys."""
    if isinstance(value, dict) and value:
        parts = [_flat(one, f"{prefix}{name}.") for name, one in value.items()]
        return {key: one for part in parts for key, one in part.items()}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return _flat(dict(enumerate(value)), prefix)
    return {prefix.rstrip("."): value}
