"""Figures of the graders, one JSON line each: `python -m benchmarks.grading --data FOLDER`.

- speed: answers per second of the pool (two processes) and of a plain loop of math-verify, side by
  side on the recorded answers of MATH-Vision, with their agreement with the official verdicts;
- slowest: the same on the 500 rows of the table of forms that take us longest;
- recorded: all recorded answers (MATH-Vision, MMMU, MathVista, GSM8K's solutions): agreement with
  the official verdicts, and how many could not be graded;
- hostile: sixty hostile answers among a thousand, from here and from a thread of a Ray actor;
- rewards: reward functions that misbehave.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks.hostile import MARKER, MISBEHAVIOUR, as_items, hostile_answers
from rewards.processes.pool import GradingPool
from rewards.processes.process import ROOT
from thinking_rl.types import Outcome, Problem

GRADER = [("math_answer", 1.0)]
CHOICE = "multiple-choice"
RECORDED = "mathvision/recorded/Gemini-Pro-CoT.jsonl"


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a jsonl file."""
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


Item = tuple[Problem, str, bool]
"""A problem, a recorded response, and its official verdict."""


def mathvision(data: Path, file: Path) -> list[Item]:
    """The recorded responses of one file."""
    questions = {row["id"]: row for row in read(data / "mathvision/all_questions.jsonl")}
    items = []
    for row in read(file):
        question = questions[row["id"]]
        options = tuple(question["options"])
        problem = Problem(row["id"], "", question["answer"], choices=options)
        items.append((problem, row["response"], row["correct"]))
    return items


def mmmu(data: Path, kind: str) -> list[Item]:
    """The recorded responses to questions of one kind, multiple-choice or short-answer."""
    items = []
    for row in read(data / "mmmu/recorded_llava1.5_13b.jsonl"):
        choices = tuple(row["index2ans"].values()) if row["question_type"] == CHOICE else ()
        problem = Problem(row["id"], "", str(row["answer"]), choices=choices)
        if (row["question_type"] == CHOICE) == (kind == CHOICE):
            items.append((problem, row["response"], row["judge"] == "Correct"))
    return items


def mathvista(data: Path, text: str) -> list[Item]:
    """Whole recorded responses, or what was extracted from them."""
    items = []
    for row in read(data / "mathvista/recorded_bard.jsonl"):
        metadata = {key: row[key] for key in ("question_type", "answer_type", "precision")}
        choices = tuple(row["choices"] or ())
        problem = Problem(row["pid"], "", row["answer"], choices=choices, metadata=metadata)
        items.append((problem, row[text] or "", row["true_false"]))
    return items


def gsm8k(data: Path, split: str) -> list[Item]:
    """The worked solutions, which are right."""
    items = []
    for number, row in enumerate(read(data / f"gsm8k/{split}.jsonl")):
        problem = Problem(f"{split} {number}", "", row["answer"].rpartition("####")[2].strip())
        items.append((problem, row["answer"], True))
    return items


def plain_loop(items: list[tuple[Problem, str]]) -> list[bool]:
    """What most training code does: math-verify on every answer, an error being a wrong answer."""
    import math_verify

    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    verdicts = []
    for problem, response in items:
        try:
            gold, answer = math_verify.parse(f"${problem.answer}$"), math_verify.parse(response)
            verdicts.append(bool(math_verify.verify(gold, answer)))
        except Exception:
            verdicts.append(False)
    return verdicts


def speed(data: Path) -> dict[str, Any]:
    """Answers per second and agreement, ours and math-verify's, on the same answers."""
    recorded = mathvision(data, data / RECORDED)
    items, official = [item[:2] for item in recorded], [item[2] for item in recorded]
    start = time.perf_counter()
    theirs = plain_loop(items)
    their_seconds = time.perf_counter() - start
    with GradingPool(GRADER, workers=2) as pool:
        start = time.perf_counter()
        scores = pool.grade(items)
        seconds = time.perf_counter() - start
        latency = pool.statistics()["math_answer"]
    return {
        "figure": "speed",
        "answers": len(items),
        "per_second": round(len(items) / seconds, 1),
        "math_verify_per_second": round(len(items) / their_seconds, 1),
        "times_faster": round(their_seconds / seconds, 1),
        "agreement": sum(s.correct == v for s, v in zip(scores, official, strict=True)),
        "math_verify_agreement": sum(t == v for t, v in zip(theirs, official, strict=True)),
        "not_graded": sum(score.outcome is Outcome.NOT_GRADED for score in scores),
        "p50_ms": round(1000 * latency["p50_s"], 3),
        "p99_ms": round(1000 * latency["p99_s"], 3),
    }


def slowest(count: int = 500) -> dict[str, Any]:
    """Ours and math-verify's on the rows of the table of forms that take ours longest, each graded
    once by each, one after the other in this process."""
    sys.path.append(str(ROOT / "tests/support"))
    import answer_forms

    from rewards.math_answer import math_answer

    timed = []
    for row in answer_forms.rows():
        item = Problem("", "", row.gold, choices=row.choices), row.response
        start = time.perf_counter()
        math_answer(*item)
        timed.append((time.perf_counter() - start, item))
    timed.sort(key=lambda pair: -pair[0])
    seconds = [spent for spent, _ in timed]
    start = time.perf_counter()
    plain_loop([item for _, item in timed[:count]])
    their_seconds = time.perf_counter() - start
    return {
        "figure": "slowest",
        "rows": len(timed),
        "slowest_rows": count,
        "seconds": round(sum(seconds[:count]), 3),
        "math_verify_seconds": round(their_seconds, 3),
        "times_faster": round(their_seconds / sum(seconds[:count]), 1),
        "p50_ms": round(1000 * seconds[len(seconds) // 2], 3),
        "p99_ms": round(1000 * seconds[len(seconds) // 100], 3),
        "slowest_ms": round(1000 * seconds[0], 3),
        "slowest_response": timed[0][1][1],
    }


def recorded(data: Path) -> dict[str, Any]:
    """All recorded answers: how many got the official verdict, and how many none (not graded)."""
    files = sorted((data / "mathvision/recorded").glob("*.jsonl"))
    jobs = {file.stem: ("math_answer", mathvision(data, file)) for file in files}
    jobs |= {f"gsm8k {split}": ("math_answer", gsm8k(data, split)) for split in ("train", "test")}
    jobs["choice"] = ("choice", mmmu(data, CHOICE))
    for name in ("open_answer", "open_answer_strict"):
        jobs[name] = (name, mmmu(data, "open"))
    for name in ("mathvista", "mathvista_strict"):
        for text in ("extraction", "response"):
            jobs[f"{name} {text}"] = (name, mathvista(data, text))
    agree, not_graded = {}, 0
    for name, (grader, items) in jobs.items():
        with GradingPool([(grader, 1.0)], workers=2) as pool:
            scores = pool.grade([item[:2] for item in items])
        agree[name] = sum(s.correct == item[2] for s, item in zip(scores, items, strict=True))
        not_graded += sum(score.outcome is Outcome.NOT_GRADED for score in scores)
    return {
        "figure": "recorded",
        "answers": sum(len(items) for _, items in jobs.values()),
        "not_graded": not_graded,
        "agree": agree,
        "of": {name: len(items) for name, (_, items) in jobs.items()},
    }


def normal_items(count: int) -> list[tuple[Problem, str]]:
    """Ordinary answers of several forms, every third one wrong."""
    items = []
    for number in range(count):
        answer = [str(number), f"\\frac{{{number}}}{{7}}", f"{number}\\sqrt{{3}}"][number % 3]
        given = answer if number % 9 < 6 else f"{answer}+1"
        items.append((Problem(f"normal {number}", "", answer), f"So \\boxed{{{given}}}"))
    return items


def hostile(timeout_s: float = 2.0, memory_gib: float = 1.0) -> dict[str, Any]:
    """Sixty hostile answers spread among a thousand: what they cost and what they change."""
    MARKER.unlink(missing_ok=True)
    normal, bad = normal_items(1000), as_items(hostile_answers())
    mixed = list(normal)
    for number, item in enumerate(bad):
        mixed.insert(number * 17, item)
    before = set(_children())
    with GradingPool(GRADER, timeout_s, memory_gib, workers=2) as pool, PeakMemory() as peak:
        alone = {p.id: s for (p, _), s in zip(normal, pool.grade(normal), strict=True)}
        start = time.perf_counter()
        scores = {p.id: s for (p, _), s in zip(mixed, pool.grade(mixed), strict=True)}
        seconds = time.perf_counter() - start
        failures = pool.statistics()["math_answer"]["failures"]
    outcomes = [scores[problem.id].outcome.value for problem, _ in bad]
    return {
        "figure": "hostile",
        "seconds": round(seconds, 1),
        "limit_s": len(bad) * timeout_s / 2,
        "changed_verdicts": sum(scores[key].correct != alone[key].correct for key in alone),
        "hostile_outcomes": {kind: outcomes.count(kind) for kind in sorted(set(outcomes))},
        "failures": failures,
        "code_run": MARKER.exists(),
        "peak_gib": round(peak.gib, 3),
        "cap_gib": memory_gib,
        "processes_left": len(set(_children()) - before),
    }


def _children() -> list[int]:
    """Ids of the grading processes that run anywhere below this process."""
    found = []
    for process in psutil.Process(os.getpid()).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "rewards.processes.worker" in process.cmdline():
                found.append(process.pid)
    return found


class PeakMemory:
    """The most resident memory that one grading process took, looked at every 20 ms."""

    gib = 0.0

    def __enter__(self) -> PeakMemory:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            for pid in _children():
                with contextlib.suppress(psutil.Error):
                    self.gib = max(self.gib, psutil.Process(pid).memory_info().rss / 2**30)


def hostile_in_ray() -> dict[str, Any]:
    """The same from a thread of a Ray actor."""
    import ray

    class Grader:
        def grade(self) -> dict[str, Any]:
            return hostile()

    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        actor = ray.remote(Grader).options(max_concurrency=2).remote()  # methods run in threads
        return {**ray.get(actor.grade.remote(), timeout=600), "where": "Ray actor thread"}
    finally:
        ray.shutdown()


def misbehaving_rewards() -> dict[str, Any]:
    """Reward functions that hang, exit, eat memory or return no number on one answer of fifty."""
    problem = Problem("p", "", "1")
    seen = {}
    for name, kind in MISBEHAVIOUR.items():
        part = (f"benchmarks.hostile:{name}", 1.0)
        timeout_s = 1.0 if kind == "timeout" else 20.0
        with GradingPool([part], timeout_s, memory_gib=0.3, workers=2) as pool:
            scores = pool.grade([(problem, "bad" if i == 20 else "good") for i in range(50)])
            graded = sum(score.value == 1.0 for score in scores)
            seen[name] = {"graded": graded, "failure": [f.kind for f in pool.failures]}
            assert seen[name] == {"graded": 49, "failure": [kind]}, (name, seen[name])
    return {"figure": "rewards", **seen}


def main() -> None:
    """Print the chosen figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("THINKING_RL_DATA"))
    names = ("speed", "slowest", "recorded", "hostile", "ray", "rewards")
    parser.add_argument("--only", choices=names, action="append")
    options = parser.parse_args()
    for name in options.only or names:
        if name in ("speed", "recorded"):
            if options.data is None:
                raise SystemExit(f"{name} needs --data FOLDER or THINKING_RL_DATA")
            figure = {"speed": speed, "recorded": recorded}[name](options.data)
        else:
            figure = {
                "slowest": slowest,
                "hostile": hostile,
                "ray": hostile_in_ray,
                "rewards": misbehaving_rewards,
            }[name]()
        print(json.dumps(figure), flush=True)


if __name__ == "__main__":
    main()
