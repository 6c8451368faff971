"""What a person sees of a run while it goes, and the one object the stages report to."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from thinking_rl.files.json_files import finite
from thinking_rl.files.run_folder import ITERATION, RunFolder
from thinking_rl.recipe.schema import RL_STAGE, Recipe
from thinking_rl.report.evaluation import percent, table_text
from thinking_rl.report.events import EventLog, this_process
from thinking_rl.report.metrics import MetricsWriter, read_metrics
from thinking_rl.report.picture import draw_run
from thinking_rl.report.summary import MILESTONES, write_summary
from thinking_rl.report.trackers import open_trackers, rows_of
from thinking_rl.types import Group

HEADLINE = ("loss", "reward", "accuracy", "length", "tokens_per_s")
"""Metrics shown while a run goes, where a step has them; metrics.jsonl holds them all."""
LINE_INTERVAL_S = 1.0
"""Least time between two lines of one stage, where the output is no terminal."""


class Reporter:
    """Takes what the stages report: writes it down, and shows how far the run is.

        with reporter.stage("rl", recipe.rl.iterations):
            for iteration in range(recipe.rl.iterations):
                with reporter.timer("rollout"):
                    ...
                reporter.step(iteration, {"reward": 0.4, "length": 51.0, "tokens": 9000})

    On a terminal there is one live line; elsewhere one plain line a step. Trouble with the display
    turns the display off and never reaches the run; trouble writing files does (OSError).
    """

    def __init__(
        self,
        folder: RunFolder,
        recipe: Recipe,
        console: Console | None = None,
    ) -> None:
        """Rows that are there already stay, and their evaluations count as done."""
        self.folder = folder
        self._recipe = recipe
        folder.path.mkdir(parents=True, exist_ok=True)
        config = recipe.model_dump(mode="json")
        trackers = open_trackers(recipe.trackers, folder, config)
        self._metrics = MetricsWriter(folder, trackers, self.log)
        self._events = EventLog(folder)
        self.evaluations = self._evaluations()
        self._counts: dict[str, int] = defaultdict(int)
        self._display = Display(console or Console(), folder.log)
        self._stage, self._unit = "", "iteration"
        self._stage_seconds: dict[str, float] = defaultdict(float)
        self._stage_started = time.monotonic()
        self._phase_seconds: dict[str, float] = defaultdict(float)
        self._last_step = time.monotonic()
        self.event("started", "the run starts", **this_process())

    @contextmanager
    def stage(self, name: str, total: int, unit: str = "iteration") -> Iterator[None]:
        """The time in which stage `name` makes its `total` steps, which rows count as `unit`; also
        adds to its seconds."""
        self._unit = unit
        self._stage_started = self._last_step = time.monotonic()
        self._phase_seconds.clear()  # what was timed before belongs to no step
        self._stage = name
        self.event("stage", f"{name} begins, {total} {unit}s", total=total)
        self._display.start(name, total)
        try:
            yield
        finally:
            self._display.stop()
            self._stage_seconds = defaultdict(float, self.seconds())
            self._stage = ""

    def seconds(self) -> dict[str, float]:
        """Wall time so far, by stage."""
        running = {self._stage: time.monotonic() - self._stage_started} if self._stage else {}
        return {
            name: self._stage_seconds.get(name, 0.0) + running.get(name, 0.0)
            for name in self._stage_seconds.keys() | running.keys()
        }

    def count(self, name: str, number: int) -> None:
        """Adds to a number that `summary.json` gives under `counts`."""
        self._counts[name] += number

    def state_dict(self) -> dict[str, Any]:
        """Length of metrics.jsonl in bytes, and wall time so far, by stage."""
        return {"metrics_bytes": self._metrics.size, "seconds": self.seconds()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken: rows beyond it are dropped, to be measured again."""
        self._metrics.truncate(state["metrics_bytes"])
        self._stage_seconds = defaultdict(float, state["seconds"])
        self.evaluations = self._evaluations()

    def _evaluations(self) -> dict[str, dict[str, Any]]:
        return {
            row["name"]: row["result"]
            for row in read_metrics(self.folder)
            if row["stage"] == "evaluation"
        }

    @contextmanager
    def between_steps(self) -> Iterator[None]:
        """Time for the stage but for no step: evaluations, checkpoints."""
        started, phases = time.monotonic(), dict(self._phase_seconds)
        try:
            yield
        finally:
            self._last_step += time.monotonic() - started
            self._phase_seconds = defaultdict(float, phases)

    @contextmanager
    def timer(self, phase: str) -> Iterator[None]:
        """Adds the time inside to `seconds/<phase>` of the next step's row."""
        started = time.monotonic()
        try:
            yield
        finally:
            self._phase_seconds[phase] += time.monotonic() - started

    def step(self, iteration: int, metrics: Mapping[str, Any]) -> None:
        """One step of the stage is done. `iteration` counts from 0: an optimizer step in SFT, an
        iteration in RL. `seconds` is added to metrics that do not have it, and `tokens_per_s` to
        those that have `tokens` (all tokens of the step)."""
        now = time.monotonic()
        seconds = now - self._last_step
        self._last_step = now
        row = {"seconds": seconds, **metrics}
        if "tokens" in row and row["seconds"] > 0:
            row.setdefault("tokens_per_s", row["tokens"] / row["seconds"])
        row |= {f"seconds/{phase}": value for phase, value in self._phase_seconds.items()}
        self._phase_seconds.clear()
        self._metrics.write(self._stage, {self._unit: iteration}, row)
        self._display.advance(iteration + 1, row)

    def evaluation(self, name: str, result: Mapping[str, Any]) -> None:
        """The result of evaluating at `start`, `after_sft`, `after_rl` or `iteration_<N>` (see
        `held_out_result`), or on a benchmark: `benchmark/<name>@iteration_<N>`."""
        result = dict(finite(result))
        self.evaluations[name] = result
        self._metrics.write(
            "evaluation",
            {"iteration": self._iterations_at(name)},
            {"name": name, "result": result},
        )
        self.event("evaluation", f"{name}: {_describe(result)}")
        self.log(f"evaluation {name}: {_describe(result)}")

    def _iterations_at(self, name: str) -> int:
        """How many RL iterations lie before the evaluation of this name."""
        if name == f"after_{RL_STAGE}" and self._recipe.rl:
            return self._recipe.rl.iterations
        number = name.rpartition("@")[2].removeprefix(ITERATION)
        return int(number) if number.isdecimal() else 0

    def samples(self, name: str, groups: Sequence[Group], picture: Callable[[str], bytes]) -> None:
        """Shows some graded groups to the trackers.

        Args:
            picture: the encoded bytes of a picture, by its hash.
        """
        self._metrics.table(name, rows_of(groups, picture))

    def event(self, kind: str, text: str, **details: Any) -> None:
        """Keeps what happened in `events.jsonl`, with the stage in which it did."""
        self._events.write(kind, text, **({"stage": self._stage} if self._stage else {}), **details)

    def log(self, text: str) -> None:
        """Shows one message; square brackets in it are text."""
        self._display.log(text)

    def finish(self) -> dict[str, Any]:
        """Writes `summary.json` and the picture, shows the scores, closes the files; returns the
        summary."""
        summary = write_summary(
            self.folder, self._recipe, self.evaluations, self._stage_seconds, self._counts
        )
        measured = {n: self.evaluations[n] for n in MILESTONES if n in self.evaluations}
        try:
            draw_run(read_metrics(self.folder), measured, self.folder.picture)
        except Exception as error:  # a picture must not end a run of hours
            self.log(f"no picture: {type(error).__name__}: {error}")
        self.event("finished", "the run is finished")
        self.log(f"finished: {self._recipe.run_dir}\n{table_text(measured)}")
        self.close()
        return summary

    def close(self) -> None:
        """Stops the display and closes the files; for a run that ends early."""
        self._display.stop()
        self._metrics.close()


class Display:
    """A live progress line on a terminal, plain lines elsewhere. Never raises."""

    def __init__(self, console: Console, log: Path) -> None:
        """log: the file that keeps every line."""
        self._console = console
        self._log = log
        self._broken = False
        self._live: Progress | None = None
        self._name, self._total, self._steps = "", 0, 0
        self._started = self._last_line = 0.0

    def start(self, name: str, total: int) -> None:
        """A stage of `total` steps begins."""
        self._name, self._total, self._steps = name, total, 0
        self._started, self._last_line = time.monotonic(), float("-inf")
        if self._console.is_terminal:
            self._guarded(self._start_live)

    def advance(self, done: int, metrics: Mapping[str, Any]) -> None:
        """`done` of the stage's steps are made; the newest measured `metrics`."""
        self._guarded(lambda: self._advance(done, metrics))

    def _advance(self, done: int, metrics: Mapping[str, Any]) -> None:
        self._steps += 1
        now = time.monotonic()
        if self._steps == 1:  # what it took to start is no measure of what is left
            self._started = now - (metrics["seconds"] - metrics.get("seconds/start", 0.0))
        left_s = (now - self._started) / self._steps * max(0, self._total - done)
        parts = [
            f"{name} {_short(metrics[name])}" for name in HEADLINE if metrics.get(name) is not None
        ]
        text = "  ".join([*parts, f"left {_clock(left_s)}"])
        if self._live:
            self._live.update(self._live.task_ids[0], completed=done, metrics=text)
        elif now - self._last_line >= LINE_INTERVAL_S or done == self._total:
            self._last_line = now
            self.log(f"{self._name} {done}/{self._total}  {text}")

    def log(self, text: str) -> None:
        """Shows a message above the live line, and keeps it in the log."""
        with suppress(OSError), self._log.open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
        self._guarded(
            lambda: self._console.print(text, markup=False, highlight=False, soft_wrap=True)
        )

    def stop(self) -> None:
        """The stage is over, whether it succeeded or not."""
        if self._live:
            self._broken = False  # stopping ends a thread: worth a try even now
            self._guarded(self._live.stop)
            self._live = None

    def _start_live(self) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[metrics]}", markup=False),
        )
        live = Progress(*columns, console=self._console)
        live.add_task(self._name, total=self._total, metrics="")
        live.start()
        self._live = live

    def _guarded(self, show: Callable[[], object]) -> None:
        """A closed pipe or an odd terminal must not end a run of hours."""
        if self._broken:
            return
        try:
            show()
        except Exception:
            self._broken = True
        except SystemExit as stop:
            if stop.code != 1:
                raise
            self._broken = True  # rich's answer to a closed pipe


def _describe(result: Mapping[str, Any]) -> str:
    """One line: of a benchmark its accuracy, of the held-out problems both ways of sampling."""
    if "greedy" not in result:
        return f"{percent(result['accuracy'])} right"
    greedy, sampled = result["greedy"], result["sampled"]
    return (
        f"greedy {percent(greedy['accuracy'])} right, sampled {percent(sampled['accuracy'])}, "
        f"step by step {percent(result['step_by_step'])} ({result['problems']} problems)"
    )


def _short(value: Any) -> str:
    return f"{float(value):,.0f}" if abs(value) >= 1000 else f"{float(value):.3g}"


def _clock(seconds: float) -> str:
    """7384 -> 2:03:04; under an hour, 3:04."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
