import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import gpu_check

ROOT = Path(__file__).parents[2]


def test_the_checks_hold_for_the_paths_of_cpus(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["gpu_check", "--device", "cpu"])
    assert gpu_check.main() == 0
    assert len(capsys.readouterr().out.splitlines()) == 8


def test_a_wrong_kernel_is_found(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["gpu_check", "--device", "cpu"])
    monkeypatch.setattr(
        gpu_check, "attend", lambda q, k, v, layout, scale: v + 0.0 * (q.mean() + k.mean())
    )
    assert gpu_check.main() == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_what_it_needs():
    done = subprocess.run(
        ["make", "gpu-check"], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 2
    assert "NVIDIA GPU" in done.stderr
