"""What each tracker holds after a short run, read back; those that are not installed are skipped,
but for what is said then."""

from __future__ import annotations

import io
import os
import random
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import cast

import made_run
import pytest
from PIL import Image

from thinking_rl.files.run_folder import RunFolder
from thinking_rl.model.image_store import hash_of
from thinking_rl.plan.inputs import check_tracker
from thinking_rl.report.metrics import MetricsWriter, read_metrics
from thinking_rl.report.trackers import Tracker, open_trackers, rows_of

CONFIG = {"seed": 3, "rl": {"tau": 0.5}}
WRITE = """
import sys
from pathlib import Path
sys.path.append({support!r})
import test_trackers
test_trackers.write(sys.argv[1], Path(sys.argv[2]))
"""


def write(name: str, path: Path) -> None:
    """A short run with one tracker."""
    folder = RunFolder(path)
    writer = MetricsWriter(folder, open_trackers([name], folder, CONFIG), print)
    for iteration in range(3):
        values = {"reward": 0.25 * iteration, "seconds/rollout": 1.5, "kl": float("nan")}
        writer.write("rl", {"iteration": iteration}, values)
    problem = made_run.problem(0)
    group = made_run.group(problem, 2, 1.0, random.Random(0))
    picture = {hash_of(made_run.picture(0)): made_run.picture(0)}
    writer.table("after_rl", rows_of([group], picture.__getitem__))
    writer.close()
    writer.close()


def tracked(name: str, path: Path) -> Path:
    """The folder of a short run that another process wrote, without a network."""
    pytest.importorskip(name)
    code = WRITE.format(support=str(Path(__file__).parent))
    support = str(Path(__file__).parents[1] / "support")
    environment = {"HOME": str(path), "http_proxy": "http://127.0.0.1:9", **paths(support)}
    done = subprocess.run(
        [sys.executable, "-c", code, name, str(path / "run")],
        env=environment,
        cwd=path,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "tracker: " not in done.stdout
    return path / "run"


def paths(support: str) -> dict[str, str]:
    """What a new process needs to find us."""
    known = os.environ.get("PYTHONPATH", "")
    return {"PYTHONPATH": f"{support}:{known}", "PATH": os.environ["PATH"]}


def same_picture(data: bytes) -> bool:
    if not data.startswith(b"\x89PNG"):
        return False
    expected = Image.open(io.BytesIO(made_run.picture(0))).convert("RGB")
    return Image.open(io.BytesIO(data)).convert("RGB").tobytes() == expected.tobytes()


def test_wandb_offline(tmp_path: Path) -> None:
    path = tracked("wandb", tmp_path)
    [run] = path.glob("wandb/offline-run-*")
    assert any(same_picture(one.read_bytes()) for one in path.rglob("artifacts/staging/**/*"))
    [table] = run.glob("files/media/table/**/*.json")
    assert made_run.problem(0).question in table.read_text().replace("\\\\", "\\")
    [log] = run.glob("*.wandb")
    data = log.read_bytes()
    for text in (b"rl/reward", b"rl/seconds/rollout", b"rl/step", b"tau"):
        assert text in data


def test_mlflow_to_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    path = tracked("mlflow", tmp_path)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    client = mlflow.MlflowClient((path / "mlflow").as_uri())
    [experiment] = [one for one in client.search_experiments() if one.name == "thinking_rl"]
    [run] = client.search_runs([experiment.experiment_id])
    history = client.get_metric_history(run.info.run_id, "rl/reward")
    assert [(one.step, one.value) for one in history] == [(0, 0.0), (1, 0.25), (2, 0.5)]
    files = path / "mlflow"
    assert '"tau"' in next(files.rglob("recipe.json")).read_text()
    assert "shapes-0" in next(files.rglob("after_rl.json")).read_text()
    assert same_picture(next(files.rglob("after_rl-0.png")).read_bytes())


def test_trackio_on_this_machine(tmp_path: Path) -> None:
    path = tracked("trackio", tmp_path)
    [file] = [one for one in (path / "trackio").rglob("*.db") if "thinking_rl" in one.name]
    with sqlite3.connect(file) as database:
        logged = [row[0] for row in database.execute("SELECT metrics FROM metrics ORDER BY id")]
        [config] = database.execute("SELECT config FROM configs").fetchall()
    text = "\n".join(one if isinstance(one, str) else one.decode() for one in logged)
    assert text.count("rl/reward") == 3
    assert "shapes-0" in text
    assert "tau" in str(config)
    assert any(same_picture(one.read_bytes()) for one in (path / "trackio").rglob("*.png"))


@pytest.mark.parametrize("name", ["wandb", "mlflow", "trackio"])
def test_one_that_is_not_installed_is_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ValueError, match=rf"{name} is not installed.*pip install {name}"):
        open_trackers([name], RunFolder(tmp_path), {})
    monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ValueError, match=rf"{name} is not installed; pip install {name}"):
        check_tracker(name)


class Broken:
    """A tracker whose every call fails."""

    def log(self, *_: object, **__: object) -> None:
        raise ConnectionError("no route to host")

    table = close = log


def test_trouble_in_a_tracker_ends_no_run(tmp_path: Path) -> None:
    said: list[str] = []
    writer = MetricsWriter(RunFolder(tmp_path), [cast(Tracker, Broken())], said.append)
    writer.write("rl", {"iteration": 0}, {"reward": 0.5})
    writer.table("after_rl", [])
    writer.close()
    assert said == ["tracker: ConnectionError: no route to host"] * 3
    assert read_metrics(RunFolder(tmp_path))[0]["reward"] == 0.5
