"""The page as static files, which open from a folder without any server."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from thinking_rl.files.run_folder import RunFolder
from thinking_rl.report.pictures import KINDS, picture_file
from thinking_rl.report.view.run import RunView
from thinking_rl.report.view.server import PAGE

REPORT_GROUPS = 50
"""Groups that a run's `report.html` holds."""
PLACE = "<!-- BUNDLE -->"
Place = tuple[int, str, str]
"""A group: the problem's number, stage and time."""


def write_bundle(runs: Sequence[RunView], folder: str | Path) -> Path:
    """Write the page, with all groups and pictures of some runs, into a folder; returns the page.

    Raises:
        ValueError: the folder holds other things.
    """
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()) and not (folder / "data").is_dir():
        raise ValueError(f"{folder}: holds other files; name a new folder, or an earlier bundle's")
    for name in ("data", "images"):
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).mkdir(parents=True)
    files, pictures = {}, {}
    described = []
    for number, run in enumerate(runs):
        run.index.update()
        described.append(describe(run))
        for place, (problem, stage, at) in enumerate(group_places(run)):
            name = f"{number}/{problem}/{stage}/{at}"
            files[name] = f"data/group-{number}-{place}.js"
            value = run.group(problem, stage, at)
            (folder / files[name]).write_text(
                f"THINKING_RL_BUNDLE.groups[{script_json(name)}] = {script_json(value)};\n",
                encoding="utf-8",
            )
        for file in pictures_of(run):
            shutil.copyfile(file, folder / "images" / file.name)
            pictures[file.stem] = f"images/{file.name}"
    bundle = {"runs": described, "groups": {}, "files": files, "pictures": pictures}
    (folder / "data" / "bundle.js").write_text(
        f"window.THINKING_RL_BUNDLE = {script_json(bundle)};\n", encoding="utf-8"
    )
    page = folder / "index.html"
    page.write_text(with_bundle('<script src="data/bundle.js"></script>'), encoding="utf-8")
    return page


def write_report(folder: RunFolder) -> Path:
    """Write a run's `report.html`: one file with its overview, its problems' scores of the last
    evaluation, and up to 50 of their groups with pictures."""
    run = RunView(folder.path)
    run.index.update()
    places = report_places(run)
    groups = {f"0/{key}/{stage}/{at}": run.group(key, stage, at) for key, stage, at in places}
    shown = {problem for problem, _, _ in places}
    described = describe(run, shown)
    keys = {key for row in described["problems"] for key in row["images"]}
    pictures = {key: url for key in sorted(keys) if (url := picture_url(folder, key))}
    bundle = {"runs": [described], "groups": groups, "files": {}, "pictures": pictures}
    script = f"<script>window.THINKING_RL_BUNDLE = {script_json(bundle)};</script>"
    part = folder.report.with_suffix(".part")
    part.write_text(with_bundle(script), encoding="utf-8")
    part.replace(folder.report)
    return folder.report


def describe(run: RunView, problems: set[int] | None = None) -> dict[str, Any]:
    """What the page asks of one run, beside its groups.

    Args:
        problems: the numbers of those that are told of; None: all.
    """
    rows = list(problem_rows(run, problems))
    overview = run.overview()
    return {
        "overview": overview,
        "facets": run.index.facets(),
        "problems": rows,
        "notes": run.notes(),
    }


def problem_rows(run: RunView, problems: set[int] | None) -> Iterator[dict[str, Any]]:
    """Each problem with a mark for each response: stage, time, outcome, finish, correct, reward,
    length, disagreement, text, number."""
    offset = 0
    while rows := run.index.problems({}, sort="time", descending=False, offset=offset)["rows"]:
        offset += len(rows)
        for row in rows:
            if problems is None or row["key"] in problems:
                yield {**row, "marks": run.index.marks(row["key"])}


def group_places(run: RunView) -> Iterator[Place]:
    """Every group of a run."""
    offset = 0
    while rows := run.index.problems({}, sort="time", descending=False, offset=offset)["rows"]:
        offset += len(rows)
        for row in rows:
            yield from ((row["key"], group["stage"], group["at"]) for group in row["groups"])


def report_places(run: RunView) -> list[Place]:
    """The groups of a report: those of the last evaluation, else of the last iteration; evenly
    spread from those that went worst to those that went best."""
    times = [time for time in run.index.facets()["at"] if time["stage"] != "proof"]
    if not times:
        return []
    evaluations = [time for time in times if time["stage"] == "evaluation"]
    last = (evaluations or times)[-1]
    scores = sorted(
        run.index.scores(last["stage"], last["at"]).values(),
        key=lambda row: (row["pass_rate"] is None, row["pass_rate"], row["key"]),
    )
    count = min(REPORT_GROUPS, len(scores))
    picked = [scores[i * len(scores) // count] for i in range(count)]
    return [(row["key"], last["stage"], last["at"]) for row in picked]


def pictures_of(run: RunView) -> list[Path]:
    """The picture files of a run."""
    folder = run.folder.images
    return [file for file in sorted(folder.glob("*")) if file.suffix[1:] in KINDS]


def picture_url(folder: RunFolder, key: str) -> str | None:
    """A picture as a `data:` address; None where the run does not keep it."""
    file = picture_file(folder, key)
    if file is None:
        return None
    data = base64.b64encode(file.read_bytes()).decode()
    return f"data:{KINDS[file.suffix[1:]][0]};base64,{data}"


def with_bundle(script: str) -> str:
    """The page with its data."""
    return PAGE.read_text(encoding="utf-8").replace(PLACE, script, 1)


def script_json(value: Any) -> str:
    """JSON that may stand in a script: nothing in it can end the script."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
