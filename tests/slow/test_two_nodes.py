"""A cluster of two stand-in nodes with eight stand-in GPUs each, on this machine: which actor runs
where, and what is refused before an engine starts."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from thinking_rl.cluster.devices import cluster, own_threads
from thinking_rl.cluster.nodes import check_nodes
from thinking_rl.cluster.placement import Placement

STORE_BYTES = 80 * 2**20
HUB_ID, REVISION = "moonshotai/Kimi-VL-A3B-Instruct", "0" * 40


def made(**second: str) -> Iterator[str]:
    """The address of two nodes, the second one's processes with another environment."""
    node: dict[str, Any] = {"num_cpus": 20, "num_gpus": 8, "object_store_memory": STORE_BYTES}
    both = Cluster(initialize_head=True, head_node_args=node | {"include_dashboard": False})
    try:
        both.add_node(**node, env_vars=second)
        both.wait_for_nodes()
        assert both.address
        yield both.address
    finally:
        ray.shutdown()
        both.shutdown()


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    yield from made()


@ray.remote
class Actor:
    """In place of an engine or a rank."""

    def where(self) -> tuple[str, str]:
        return ray.get_runtime_context().get_node_id(), os.environ["CUDA_VISIBLE_DEVICES"]

    def told(self, name: str) -> str | None:
        return os.environ.get(name)

    def threads(self) -> int:
        return own_threads()


def places(options: list[dict]) -> tuple[list, list[tuple[str, str]]]:
    actors: list[Any] = [Actor.options(**one).remote() for one in options]  # pyright: ignore[reportAttributeAccessIssue]
    return actors, ray.get([actor.where.remote() for actor in actors], timeout=120)


def test_shared_placement_pairs_engines_and_ranks(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "eth7")
    with cluster(Placement(16, 1, 16, shared=True, ray_address=address, small=False)) as devices:
        engines, of_engines = places(devices.engines)
        ranks, of_ranks = places(devices.learners)
        assert of_engines == of_ranks  # the same node, the same GPU
        assert len(set(of_engines)) == 16
        assert len({node for node, _ in of_engines}) == 2
        assert ray.get(engines[-1].told.remote("NCCL_SOCKET_IFNAME")) == "eth7"
        assert ray.get([rank.threads.remote() for rank in (ranks[0], ranks[-1])]) == [1, 1]
        assert devices.threads == 0


def test_separate_placement_keeps_an_engine_on_one_node(address: str) -> None:
    with cluster(Placement(4, 2, 8, ray_address=address)) as devices:
        _, of_engines = places(devices.engines)
        _, of_ranks = places(devices.learners)
        taken = [(node, gpu) for node, gpus in of_engines + of_ranks for gpu in gpus.split(",")]
        assert len(taken) == len(set(taken)) == 16


@pytest.fixture
def joined(address: str) -> Iterator[str]:
    ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    yield address
    ray.shutdown()


def test_nodes_that_share_everything_are_taken(
    joined: str, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    check_nodes(tmp_path, str(tiny_checkpoint), str(tiny_checkpoint.resolve()), small=True)
    assert not list(tmp_path.iterdir())


def test_a_run_folder_that_others_do_not_see(joined: str, tiny_checkpoint: Path, tmp_path: Path):
    place = str(tiny_checkpoint.resolve())
    handle = os.open(tmp_path, os.O_RDONLY)
    own = Path(f"/proc/self/fd/{handle}")  # another process has another folder, or none, there
    with pytest.raises(ValueError, match=r"run_dir: node .* does not see"):
        check_nodes(own, place, place, small=True)
    os.close(handle)


def test_a_checkpoint_that_others_do_not_have(joined: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"model.path: .* nowhere: .*own"):
        check_nodes(tmp_path, "/own/model", "/own/model", small=True)


def test_an_object_store_that_weights_do_not_fit(
    joined: str, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    place = str(tiny_checkpoint.resolve())
    with pytest.raises(ValueError, match=r"object store has 0.1 GiB"):
        check_nodes(tmp_path, place, place, small=False)


def snapshot(home: Path, checkpoint: Path) -> Path:
    """A hub id's files as they lie in a cache that has them."""
    folder = home / "hub" / f"models--{HUB_ID.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(REVISION)
    (folder / "snapshots").mkdir()
    (folder / "snapshots" / REVISION).symlink_to(checkpoint)
    return folder / "snapshots" / REVISION


@pytest.mark.parametrize(
    ("differs", "said"),
    [("PYTHONPATH", "other packages: trl 0.0.1, here"), ("HF_HOME", "give all the same HF_HOME")],
)
def test_a_second_node_that_was_set_up_otherwise(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, differs: str, said: str
) -> None:
    copy, own = tmp_path / "copy", tmp_path / "own"
    copy.mkdir()
    for file in tiny_checkpoint.iterdir():
        (copy / file.name).hardlink_to(file)
    snapshot(own, tiny_checkpoint.resolve())
    snapshot(tmp_path / "others", copy)
    site = tmp_path / "site" / "trl-0.0.1.dist-info"
    site.mkdir(parents=True)
    (site / "METADATA").write_text("Metadata-Version: 2.1\nName: trl\nVersion: 0.0.1\n")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(own))
    path = f"{site.parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    second = {"PYTHONPATH": path, "HF_HOME": str(tmp_path / "others")}
    for address in made(**{differs: second[differs]}):
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        with pytest.raises(ValueError, match=said):
            check_nodes(tmp_path, HUB_ID, str(tiny_checkpoint.resolve()), small=True)


def test_a_cluster_without_gpus_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="no GPU that Ray knows of"):  # noqa: SIM117
        with cluster(Placement(2, 1, 2, small=False)):
            pass
