"""How fast the page on a run answers, and what its server holds: `python -m benchmarks.view`.

For each size a folder of made responses (groups of 8 of 64 tokens, every second with a picture) is
written, its server started in a process of its own, and every answer of the page asked for over
HTTP, several times; the slowest counts. With Chromium and playwright the page itself is opened too.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import psutil

sys.path.append(str(Path(__file__).parents[1] / "tests" / "support"))
import made_run

SAMPLES, PROBLEMS, REPEATS = 8, 64, 5
FILTERS = (
    {},
    {"outcome": "wrong"},
    {"level": "3", "source": "sums"},
    {"finish": "length", "outcome": "right"},
    {"stage": "rl", "at": "3"},
    {"text": "squares, plus 77"},
    {"text": "boxed{44}", "outcome": "right"},
    {"text": "nowhere to be found"},
    {"sort": "pass_rate", "order": "up"},
    {"sort": "length"},
    {"sort": "disagreement"},
)


def main() -> None:
    """Prints a line for each size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", nargs="*", type=int, default=[10_000, 100_000])
    for size in parser.parse_args().sizes:
        with tempfile.TemporaryDirectory() as folder:
            written = write(Path(folder) / "run", size)
            print(json.dumps({"responses": size, **written, **measure(Path(folder) / "run")}))


def write(path: Path, size: int) -> dict[str, float]:
    """A run of so many responses."""
    iterations = size // (SAMPLES * PROBLEMS) + 1
    writer = made_run.Writer(path, iterations)
    writer.warm_up()
    draw, left = random.Random(0), size
    for number in range(iterations):
        count = min(PROBLEMS, -(-left // SAMPLES))
        if count:
            problems = [made_run.problem(number * PROBLEMS + i) for i in range(count)]
            left -= count * SAMPLES
            writer.write("rl", number, problems, SAMPLES)
        writer.row(stage="rl", iteration=number, seconds=10.0, reward=draw.random(), groups=64)
        writer.pictures.clear()
    writer.finish()
    return {"responses_mib": round(writer.folder.responses.stat().st_size / 2**20, 1)}


@contextmanager
def server(path: Path) -> Iterator[tuple[str, psutil.Process]]:
    """The page's server in a process of its own: its address and process."""
    line = [sys.executable, "-m", "thinking_rl.view", str(path), "--port", "0"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            yield process.stdout.readline().split()[1], psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait(20)


def ask(url: str, what: str, **question: Any) -> Any:
    """The answer to a question of the page."""
    with urllib.request.urlopen(f"{url}api/{what}?{urlencode(question)}", timeout=60) as response:
        return json.loads(response.read())


def slowest(url: str, what: str, **question: Any) -> float:
    """Seconds of the slowest of a few askings."""
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        ask(url, what, **question)
        times.append(time.perf_counter() - started)
    return max(times)


def measure(path: Path) -> dict[str, Any]:
    """Seconds of the page's answers, and the server's memory in MiB."""
    found: dict[str, Any] = {}
    started = time.perf_counter()
    with server(path) as (url, process):
        ask(url, "overview")
        found["command_to_overview_s"] = time.perf_counter() - started
        found["page_while_indexing_s"] = browser(url, "overview")
        while (index := ask(url, "overview")["index"])["bytes"] < index["total"]:
            time.sleep(0.1)
        found["indexed_after_s"] = time.perf_counter() - started
        found["memory_after_indexing_mib"] = process.memory_info().rss / 2**20
    with server(path) as (url, process):
        found["memory_idle_mib"] = process.memory_info().rss / 2**20
        found["overview_s"] = slowest(url, "overview")
        found["filter_s"] = max(slowest(url, "problems", limit=50, **one) for one in FILTERS)
        found["facets_s"] = slowest(url, "facets")
        [row] = ask(url, "problems", stage="rl", limit=1)["rows"]
        at = row["groups"][0]["at"]
        found["group_s"] = slowest(url, "group", problem=row["key"], stage="rl", at=at)
        found["page_s"] = browser(url, "overview")
        found["page_of_problems_s"] = browser(url, "problems")
        found["page_of_group_s"] = browser(url, f"group?problem={row['key']}&stage=rl&at={at}")
        found["memory_mib"] = process.memory_info().rss / 2**20
    return {k: v if v is None else round(v, 3) for k, v in found.items()}


def browser(url: str, view: str) -> float | None:
    """Seconds from opening a view to having drawn it; None where there is no browser."""
    chromium = shutil.which("chromium")
    with suppress(ImportError):
        from playwright.sync_api import sync_playwright

        if chromium:
            with sync_playwright() as playwright:
                one = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
                page = one.new_page()
                started = time.perf_counter()
                page.goto(f"{url}#/{view}")
                page.wait_for_selector("body[data-ready]")
                taken = time.perf_counter() - started
                one.close()
                return taken
    return None


if __name__ == "__main__":
    main()
