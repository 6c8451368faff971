"""Every path of a run's folder. Nothing else in the project knows their names."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

KEPT = 2
"""RL checkpoints that stay."""
PART = ".part"
"""Ends the name of a checkpoint that is being written."""
SFT_STEP = "sft_step_"
"""How the names of the warm-up's checkpoints begin."""
ITERATION = "iteration_"
"""How the names of RL checkpoints, and of evaluations between iterations, begin."""


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run; it may not exist yet."""

    path: Path
    """Absolute, so that workers in other folders find it too."""

    @classmethod
    def at(cls, run_dir: str | Path) -> RunFolder:
        """The folder that the recipe's `run_dir` names."""
        return cls(Path(run_dir).expanduser().resolve())

    @property
    def recipe(self) -> Path:
        """Every setting of the run, resolved."""
        return self.path / "recipe.yaml"

    @property
    def metrics(self) -> Path:
        """A row for each step and each evaluation."""
        return self.path / "metrics.jsonl"

    @property
    def responses(self) -> Path:
        """A row for each sampled response."""
        return self.path / "responses.jsonl"

    @property
    def images(self) -> Path:
        """The pictures that those responses show, named by the hash of their bytes."""
        return self.path / "images"

    @property
    def index(self) -> Path:
        """Where which response stands, for who looks at the run; made anew when it is gone."""
        return self.path / "index.sqlite"

    @property
    def events(self) -> Path:
        """What happened beside the steps."""
        return self.path / "events.jsonl"

    @property
    def report(self) -> Path:
        """The finished run as one page."""
        return self.path / "report.html"

    @property
    def notes(self) -> Path:
        """What people wrote of its responses: beside the folder, so that it outlives the run."""
        return self.path.with_name(f"{self.path.name}.notes.jsonl")

    @property
    def not_graded(self) -> Path:
        """Responses that could not be graded, as `rewards.grade` reads them."""
        return self.path / "not_graded.jsonl"

    @property
    def summary(self) -> Path:
        """The outcome; that it is there says that the run is finished."""
        return self.path / "summary.json"

    @property
    def picture(self) -> Path:
        """Reward, length and accuracy along training, and accuracy against a cap."""
        return self.path / "training.png"

    @property
    def log(self) -> Path:
        """What the console and the workers said."""
        return self.path / "run.log"

    @property
    def error_log(self) -> Path:
        """The traceback of a run that failed."""
        return self.path / "error.log"

    @property
    def tensorboard(self) -> Path:
        """The numbers of `metrics`, for tensorboard."""
        return self.path / "tensorboard"

    @property
    def small_model(self) -> Path:
        """The random checkpoint that is made where the recipe's model is `tiny`."""
        return self.path / "tiny"

    @property
    def export(self) -> Path:
        """The finished checkpoint."""
        return self.path / "export"

    @property
    def checkpoints(self) -> Path:
        """Weights after each stage, and what a run goes on from."""
        return self.path / "checkpoints"

    def stage_weights(self, stage: str) -> Path:
        """Released weights after a stage."""
        return self.checkpoints / stage

    def sft_checkpoint(self, step: int) -> Path:
        """The warm-up's sharded state after so many steps."""
        return self.checkpoints / f"{SFT_STEP}{step:06d}"

    def sft_checkpoints(self) -> list[Path]:
        """Those that are there, whole or not, oldest first."""
        return sorted(self.checkpoints.glob(f"{SFT_STEP}*"))

    def rl_checkpoint(self, iteration: int) -> Path:
        """The learner's sharded state after so many RL iterations."""
        return self.checkpoints / f"{ITERATION}{iteration:05d}"

    def rl_checkpoints(self) -> list[Path]:
        """The RL checkpoints that are there, oldest first."""
        found = self.checkpoints.glob(f"{ITERATION}*")
        return sorted(one for one in found if one.suffix != PART)

    @contextmanager
    def whole(self, checkpoint: Path) -> Iterator[Path]:
        """A folder to write a checkpoint to, which gets its name when all is written."""
        part = checkpoint.with_suffix(PART)
        for left in (part, checkpoint):
            if left.exists():
                shutil.rmtree(left)
        part.mkdir(parents=True)
        yield part
        part.rename(checkpoint)

    def drop_old_checkpoints(self) -> None:
        """Keep the last few RL checkpoints."""
        for old in self.rl_checkpoints()[:-KEPT]:
            shutil.rmtree(old)

    def clear(self) -> None:
        """Remove what an earlier run left. A folder that no run has made is left alone."""
        if not self.recipe.exists():
            return
        for path in self._all():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with suppress(FileNotFoundError):
                    path.unlink()

    def _all(self) -> Iterator[Path]:
        yield from (self.recipe, self.metrics, self.responses, self.not_graded, self.summary)
        yield from (self.picture, self.log, self.error_log, self.events, self.report, self.images)
        yield from (Path(f"{self.index}{end}") for end in ("", "-wal", "-shm"))
        yield from (self.path / name for name in ("wandb", "artifacts", "mlflow", "trackio"))
        yield from (self.tensorboard, self.small_model, self.export, self.checkpoints)
