"""A run's numbers, and some of its responses, in the tools that people already look at.

Each is optional to install and works without a network: what it keeps is under the run's folder,
unless its own environment variables (`WANDB_MODE`, `MLFLOW_TRACKING_URI`, `TRACKIO_DIR`...) say
otherwise.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Protocol

from PIL import Image

from thinking_rl.files.run_folder import RunFolder
from thinking_rl.types import Group

SHOWN_GROUPS = 8
"""Groups of one table."""
COLUMNS = ("problem", "question", "expected", "response", "answer", "outcome", "reward", "tokens")
PROJECT = "thinking_rl"

Row = tuple[Sequence[Any], bytes | None]
"""Values of COLUMNS, and the first picture of the problem."""


class Tracker(Protocol):
    """One tool."""

    def log(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        """Numbers of one step of a stage."""
        ...

    def table(self, name: str, rows: Sequence[Row]) -> None:
        """Sampled responses with pictures; nothing where the tool has no tables."""
        ...

    def close(self) -> None:
        """Everything is written; a second time does nothing."""
        ...


class TensorBoard:
    """Scalars under `tensorboard/`."""

    def __init__(self, folder: RunFolder, config: Mapping[str, Any]) -> None:
        from tensorboard.summary import Writer  # half a second that a dry run need not wait

        self._writer = Writer(str(folder.tensorboard))
        self._open = True

    def log(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(f"{stage}/{name}", value, step)
        self._writer.flush()

    def table(self, name: str, rows: Sequence[Row]) -> None:
        pass

    def close(self) -> None:
        if self._open:
            self._open = False
            self._writer.close()


class Wandb:
    """Weights & Biases, offline: `wandb sync` sends it. The same calls reach trackio."""

    def __init__(self, folder: RunFolder, config: Mapping[str, Any]) -> None:
        # Pictures of tables wait here until they are sent.
        os.environ.setdefault("WANDB_DATA_DIR", str(folder.path))
        self._module = required("wandb")
        settings = {"dir": str(folder.path), "mode": os.environ.get("WANDB_MODE", "offline")}
        self._run = self._module.init(
            project=PROJECT, name=folder.path.name, config=dict(config), **settings
        )

    def log(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        numbers = {f"{stage}/{name}": value for name, value in values.items()}
        self._module.log({**numbers, f"{stage}/step": step})

    def table(self, name: str, rows: Sequence[Row]) -> None:
        columns = ["picture", *COLUMNS]
        data = [[self._picture(picture), *map(self._cell, values)] for values, picture in rows]
        self._module.log({f"responses/{name}": self._new_table(columns, data)})

    def _new_table(self, columns: list[str], data: list[list[Any]]) -> Any:
        return self._module.Table(columns=columns, data=data)

    def _picture(self, data: bytes | None) -> Any:
        return self._module.Image(opened(data)) if data else None

    def _cell(self, value: Any) -> Any:
        return value

    def close(self) -> None:
        if self._run is not None:
            self._run = None
            self._module.finish()


class Trackio(Wandb):
    """trackio, whose calls are those of wandb."""

    def __init__(self, folder: RunFolder, config: Mapping[str, Any]) -> None:
        os.environ.setdefault("TRACKIO_DIR", str(folder.path / "trackio"))
        self._module = required("trackio")
        self._run = self._module.init(
            project=PROJECT, name=folder.path.name, config=dict(config), embed=False
        )

    def _new_table(self, columns: list[str], data: list[list[Any]]) -> Any:
        import pandas

        return self._module.Table(dataframe=pandas.DataFrame(data, columns=columns))


class Mlflow:
    """MLflow, in files under `mlflow/`."""

    def __init__(self, folder: RunFolder, config: Mapping[str, Any]) -> None:
        self._module = required("mlflow")
        if "MLFLOW_TRACKING_URI" not in os.environ:
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
            self._module.set_tracking_uri((folder.path / "mlflow").as_uri())
        self._module.set_experiment(PROJECT)
        self._run = self._module.start_run(run_name=folder.path.name)
        self._module.log_dict(dict(config), "recipe.json")

    def log(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        numbers = {f"{stage}/{name}": value for name, value in values.items()}
        self._module.log_metrics(numbers, step=step)

    def table(self, name: str, rows: Sequence[Row]) -> None:
        listed = {column: [values[i] for values, _ in rows] for i, column in enumerate(COLUMNS)}
        self._module.log_table(listed, f"responses/{name}.json")
        for number, (_, picture) in enumerate(rows):
            if picture:
                self._module.log_image(opened(picture), f"responses/{name}-{number}.png")

    def close(self) -> None:
        if self._run is not None:
            self._run = None
            self._module.end_run()


TRACKERS: dict[str, Callable[[RunFolder, Mapping[str, Any]], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": Wandb,
    "mlflow": Mlflow,
    "trackio": Trackio,
}


def required(name: str) -> ModuleType:
    """A tracker's package.

    Raises:
        ValueError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(
            f"trackers: {name} is not installed ({error}); pip install {name}, or take it out of "
            "`trackers:`"
        ) from None


def open_trackers(
    names: Sequence[str], folder: RunFolder, config: Mapping[str, Any]
) -> list[Tracker]:
    """The trackers of some names.

    Raises:
        ValueError: one is not installed.
    """
    return [TRACKERS[name](folder, config) for name in names]


@contextmanager
def told(log: Callable[[str], None]) -> Iterator[None]:
    """What goes wrong in somebody else's tool is said, and ends no run of hours."""
    try:
        yield
    except Exception as error:
        log(f"tracker: {type(error).__name__}: {error}")


def rows_of(groups: Sequence[Group], picture: Callable[[str], bytes]) -> list[Row]:
    """The first responses of the first groups, as rows of a table."""
    rows: list[Row] = []
    for group in groups[:SHOWN_GROUPS]:
        response, score = group.trajectories[0], group.scores[0]
        problem, hashes = group.problem, response.image_hashes
        values = (
            problem.id,
            problem.question,
            problem.answer,
            response.text,
            score.extracted or "",
            score.outcome.value,
            score.value,
            response.length,
        )
        rows.append((values, picture(hashes[0]) if hashes else None))
    return rows


def opened(data: bytes) -> Image.Image:
    """A picture as the tools take it."""
    with contextlib.closing(Image.open(io.BytesIO(data))) as image:
        return image.convert("RGB")
