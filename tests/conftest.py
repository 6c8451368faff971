from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from short_run import ShortRun

    from benchmarks.agreement import Reference
    from rollouts.engine import Engine

# Several small processes beat many threads on small tensors; also for the processes tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """What the recipes' relative paths name, one row each."""
    row = {"question": "2 + 3?", "answer": "#### 5", "response": "It is 5."}
    for name in ("mathvision/train", "mathvision/testmini", "gsm8k/train", "gsm8k/test"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row))
    (tmp_path / "long_cot.jsonl").write_text(json.dumps(row))
    return tmp_path


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory):
    """The folder of a complete small random checkpoint; not to be written to."""
    from thinking_rl.model.tiny import write_tiny

    return write_tiny(tmp_path_factory.mktemp("tiny"), seed=0)


@pytest.fixture(scope="session")
def sharp_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small checkpoint with larger weights: every part of the model shows in its answers."""
    from benchmarks.agreement import write_sharp

    return write_sharp(tmp_path_factory.mktemp("checkpoint") / "sharp")


@pytest.fixture(scope="session")
def engine(sharp_checkpoint: Path) -> Engine:
    """The one engine of this process; `reference` gives it the first weights back."""
    from benchmarks.agreement import engine_settings
    from rollouts.engine import Engine

    return Engine(engine_settings(sharp_checkpoint))


@pytest.fixture
def reference(engine: Engine, sharp_checkpoint: Path) -> Reference:
    """Our model with the first weights, which the engine is given as well."""
    from benchmarks.agreement import Reference

    reference = Reference(sharp_checkpoint)
    if engine.version:
        reference.publish(engine)
    return reference


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> ShortRun:
    """A short run of both stages that went well."""
    from short_run import ShortRun

    run = ShortRun(tmp_path_factory.mktemp("finished"))
    code, out, err = run.run()
    assert code == 0, out + err
    return run
