"""What the page asks, answered from the files of some runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from thinking_rl.report.view.index import FILTERS
from thinking_rl.report.view.notes import add_note, remove_note, rows_to_grade
from thinking_rl.report.view.run import RunView

Question = Mapping[str, str]
"""Names and values of a request; `run` is the run's place in the list."""


def run_of(runs: Sequence[RunView], question: Question) -> RunView:
    """The run that is asked about.

    Raises:
        ValueError: there is none of this number.
    """
    number = int(question.get("run", "0"))
    if not 0 <= number < len(runs):
        raise ValueError(f"there is no run {number}")
    return runs[number]


def answer(runs: Sequence[RunView], what: str, question: Question) -> Any:
    """The answer to a question that changes nothing.

    Raises:
        ValueError: there is no such question, or something it names is not there.
    """
    if what == "runs":
        return [{"name": run.name, "path": str(run.folder.path)} for run in runs]
    if what not in ANSWERS:
        raise ValueError(f"no question {what!r}; there are runs, {', '.join(ANSWERS)}")
    return ANSWERS[what](run_of(runs, question), question)


def _overview(run: RunView, question: Question) -> Any:
    check = question.get("check")
    return run.overview(int(question.get("start", "0")), int(check) if check else None)


def _problems(run: RunView, question: Question) -> Any:
    return run.index.problems(
        {name: question[name] for name in FILTERS if question.get(name)},
        text=question.get("text", ""),
        sort=question.get("sort", "time"),
        descending=question.get("order", "down") == "down",
        offset=int(question.get("offset", "0")),
        limit=int(question.get("limit", "50")),
    )


ANSWERS: dict[str, Callable[[RunView, Question], Any]] = {
    "overview": _overview,
    "facets": lambda run, _: run.index.facets(),
    "problems": _problems,
    "group": lambda run, asked: run.group(int(asked["problem"]), asked["stage"], asked["at"]),
    "scores": lambda run, asked: run.scores(asked["stage"], asked["at"]),
    "notes": lambda run, _: run.notes(),
    "marks": lambda run, _: rows_to_grade(run.folder),
}


def annotate(runs: Sequence[RunView], said: Mapping[str, Any]) -> Any:
    """Keep a note on a response (`run`, `number`, `kind`, `text`), or take one back (`run`,
    `remove`).

    Raises:
        ValueError: there is no such response, or the note is none.
    """
    run = run_of(runs, {"run": str(said.get("run", 0))})
    if "remove" in said:
        remove_note(run.folder, str(said["remove"]))
        return {"removed": said["remove"]}
    row = run.index.row(int(said["number"]))
    return add_note(run.folder, row, str(said.get("kind")), str(said.get("text", "")))
