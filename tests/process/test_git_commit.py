import subprocess
from pathlib import Path

import pytest

from thinking_rl.report import summary


def test_git_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = tmp_path / "code" / "thinking_rl" / "report" / "summary.py"
    code.parent.mkdir(parents=True)
    monkeypatch.setattr(summary, "__file__", str(code))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    assert summary.git_commit() is None

    def git(folder: Path, *arguments: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        command = ["git", "-C", str(folder), *identity, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    root = tmp_path / "code"
    git(root, "init")
    git(root, "commit", "--allow-empty", "-m", "first")
    assert summary.git_commit() == git(root, "rev-parse", "HEAD")
    code.touch()
    assert summary.git_commit() == git(root, "rev-parse", "HEAD") + "-dirty"
    inside = root / "lib" / "thinking_rl" / "report" / "summary.py"  # installed in a checkout
    monkeypatch.setattr(summary, "__file__", str(inside))
    inside.parent.mkdir(parents=True)
    assert summary.git_commit() is None
