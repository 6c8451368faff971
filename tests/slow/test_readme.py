"""The README's code for the export, run as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from short_run import ROOT, ShortRun

PRINT = "import builtins; print = lambda one: builtins.print(ascii(one))\n"
"""Texts of odd characters as one line each."""


def printed(code: str, folder: Path) -> list[str]:
    """What a block of the README prints for another checkpoint, one entry for each `print`."""
    code = code.replace('folder = "runs/quickstart/export"', f"folder = {str(folder)!r}")
    code = PRINT + code
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [line for line in done.stdout.splitlines() if line.startswith(("'", '"'))]


def test_the_ways_to_read_the_export_answer_alike(finished_run: ShortRun) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    theirs, engine = (code for code in blocks if "runs/quickstart/export" in code)
    export = finished_run.run_dir / "export"
    generated, piped = printed(theirs, export)
    assert generated
    assert generated == piped
    assert printed(engine, export) == [generated]
