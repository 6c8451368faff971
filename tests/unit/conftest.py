"""Keeps the fast tier fast: a test here that starts a process is told where it belongs."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

QUESTIONS = {"git", "nvidia-smi", "fc-list"}
"""Short commands by which the code and its libraries ask the machine something."""


@pytest.fixture(autouse=True)
def _no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    start = subprocess.Popen.__init__

    def refuse(self, args, *others, **options) -> None:
        name = Path(args[0]).name
        if name not in QUESTIONS:
            pytest.fail(f"starts {name}: tests that start a process belong in tests/process")
        start(self, args, *others, **options)

    monkeypatch.setattr(subprocess.Popen, "__init__", refuse)
