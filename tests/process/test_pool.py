"""The grading pool: order, composition, and what one bad grader or answer may cost."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from benchmarks.hostile import MARKER, MISBEHAVIOUR, as_items, hostile_answers
from rewards.processes.pool import GradingPool, check_failure_share
from rewards.processes.process import ROOT
from thinking_rl.types import Outcome, Problem

PROBLEM = Problem("p", "", "5")

OWN_REWARDS = """
import asyncio, os, sys, time
from rewards import batched
from thinking_rl.types import Score

def number(problem, response):
    return float(response)

def verdict(problem, response):
    return response == problem.answer

async def slow_for_some(problem, response):
    await asyncio.sleep(1000 if response == "bad" else 0.01)
    return 1

async def blocks(problem, response):
    if response == "bad":
        time.sleep(1000)
    return 1

@batched
def together(problems, responses):
    if "bad" in responses:
        os._exit(1)
    return [float(len(response)) for response in responses]

@batched
def too_few(problems, responses):
    return [1.0]

def prints(problem, response):
    print("noise" * 1000)
    return 1.0

def stops(problem, response):
    sys.exit(0)

def leaves_a_child(problem, response):
    import subprocess
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)  # left behind"])
    time.sleep(1000)

def leaves_a_detached_child(problem, response):
    import subprocess
    program = "import time; time.sleep(1000)  # detached " + response
    subprocess.Popen([sys.executable, "-c", program], start_new_session=True)
    return 1.0

def numpy_scalar(problem, response):
    import numpy
    return numpy.float32(0.5) if response == "number" else numpy.bool_(True)

def torch_scalar(problem, response):
    import torch
    return torch.tensor(0.5) if response == "number" else torch.tensor([True])

def numpy_score(problem, response):
    import numpy
    return Score(numpy.float32(0.5), numpy.bool_(True))

@batched
def numpy_array(problems, responses):
    import numpy
    return numpy.array([response == "verdict" for response in responses])

def an_array_is_no_reward(problem, response):
    import numpy
    return numpy.zeros(3)

def infinite_part(problem, response):
    return Score(1.0, True, parts={"a": float("inf")})
"""


@pytest.fixture
def own(tmp_path):
    file = tmp_path / "own_rewards.py"
    file.write_text(OWN_REWARDS)
    return lambda name: (f"{file}:{name}", 1.0)


def answers(*responses):
    return [(PROBLEM, response) for response in responses]


def values(scores):
    return [score.value for score in scores]


def test_order_and_weighted_sum(own):
    file = own("number")[0]
    with GradingPool([(file, 2.0), ("math_answer", 0.5)]) as pool:
        scores = pool.grade(answers(*[str(number) for number in range(200)]))
    assert values(scores) == [2.0 * number + 0.5 * (number == 5) for number in range(200)]
    assert dict(scores[5].parts) == {"number": 5.0, "math_answer": 1.0}
    assert [score.correct for score in scores[4:7]] == [False, True, False]
    assert scores[7].outcome is Outcome.WRONG
    assert scores[5].extracted == "5"


def test_a_bool_is_a_verdict_and_a_number_is_none(own):
    with GradingPool([own("verdict")], workers=1) as pool:
        assert [score.correct for score in pool.grade(answers("5", "6"))] == [True, False]
    with GradingPool([own("number")], workers=1) as pool:
        assert [score.correct for score in pool.grade(answers("5"))] == [None]


@pytest.mark.parametrize(("name", "kind"), MISBEHAVIOUR.items())
def test_a_misbehaving_reward_costs_one_answer(name, kind):
    part = (f"benchmarks.hostile:{name}", 1.0)
    timeout_s = 1 if kind == "timeout" else 20
    with GradingPool([part, ("math_answer", 1.0)], timeout_s, memory_gib=0.3) as pool:
        scores = pool.grade(answers(*["good"] * 20, "bad", *["good"] * 20))
        assert [index for index, score in enumerate(scores) if score.error] == [20]
        assert scores[20].outcome is Outcome.NOT_GRADED
        assert scores[20].correct is None
        assert str(scores[20].error).startswith(f"{name}: {kind}: ")
        failures = pool.statistics()[name]["failures"]
        assert {key: count for key, count in failures.items() if count} == {kind: 1}
        assert [(failure.kind, failure.response) for failure in pool.failures] == [(kind, "bad")]
        assert values(pool.grade(answers("good"))) == [1.0]  # it goes on


@pytest.mark.parametrize(
    ("name", "kind"), [("slow_for_some", "timeout"), ("blocks", "timeout"), ("together", "crash")]
)
def test_async_and_batched_rewards_lose_only_the_guilty(own, name, kind):
    with GradingPool([own(name)], timeout_s=0.5) as pool:
        scores = pool.grade(answers(*["good"] * 30, "bad", *["good"] * 10))
        assert [index for index, score in enumerate(scores) if score.error] == [30]
        assert pool.statistics()[name]["failures"][kind] == 1


@pytest.mark.parametrize(("name", "kind"), [("too_few", None), ("stops", "crash")])
def test_other_failures(own, name, kind):
    with GradingPool([own(name)], workers=1) as pool:
        scores = pool.grade(answers("a", "b"))
        kinds = [score.error and score.error.split(": ")[1] for score in scores]
        assert kinds == [kind, kind]  # a list too short is graded one by one


def test_what_a_reward_prints_does_no_harm(own):
    with GradingPool([own("prints")], workers=1) as pool:
        assert values(pool.grade(answers("a", "b"))) == [1.0, 1.0]


def test_an_infinite_part_is_not_graded(own):
    with GradingPool([own("infinite_part")], workers=1) as pool:
        assert "bad_type" in str(pool.grade(answers("a"))[0].error)


def test_children_of_a_grader_are_killed(own):
    with GradingPool([own("leaves_a_child")], timeout_s=1, workers=1) as pool:
        pool.grade(answers("a"))
    assert not [p for p in psutil.process_iter(["cmdline"]) if "left behind" in str(p.info)]


def test_a_detached_child_of_a_grader_is_killed(own):
    with GradingPool([own("leaves_a_detached_child")], workers=1) as pool:
        assert values(pool.grade(answers("one", "two"))) == [1.0, 1.0]
    left = [p for p in psutil.process_iter(["cmdline"]) if "# detached " in str(p.info)]
    assert not psutil.wait_procs(left, timeout=10)[1]  # a killed one may take a moment to be gone


def test_scalars_of_numpy_and_torch_are_what_they_are(own):
    for name in ("numpy_scalar", "torch_scalar"):
        with GradingPool([own(name)], timeout_s=2, workers=1) as pool:  # less than torch's import
            number, verdict = pool.grade(answers("number", "verdict"))
        assert (number.value, number.correct, number.error) == (0.5, None, None)
        assert (verdict.value, verdict.correct, verdict.error) == (1.0, True, None)
        assert pool.statistics()[name]["p99_s"] < 1
    with GradingPool([own("numpy_score")], workers=1) as pool:
        assert (pool.grade(answers("a"))[0].value, pool.grade(answers("a"))[0].correct) == (
            0.5,
            True,
        )
    with GradingPool([own("numpy_array")], workers=1) as pool:
        assert [s.correct for s in pool.grade(answers("a", "verdict"))] == [False, True]
    with GradingPool([own("an_array_is_no_reward")], workers=1) as pool:
        assert "bad_type" in str(pool.grade(answers("a"))[0].error)


def test_text_that_breaks_pipes_survives():
    nasty = ["\x00", "\ud800\udfff", "a" * 1_000_000, "\n\r\x1b[2J", "é" * 1000, ""]
    with GradingPool([("math_answer", 1.0)], workers=1) as pool:
        scores = pool.grade([(Problem("p", "", text), f"\\boxed{{{text}}}") for text in nasty])
    assert all(score.outcome is not Outcome.NOT_GRADED for score in scores)


def test_from_many_threads_at_once():
    with GradingPool([("math_answer", 1.0)]) as pool:
        seen = {}

        def grade(number):
            problem = Problem("p", "", str(number))
            seen[number] = values(pool.grade([(problem, str(n)) for n in range(8)]))

        threads = [threading.Thread(target=grade, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert seen == {n: [float(m == n) for m in range(8)] for n in range(8)}


def test_workers_outlive_the_thread_that_made_them():
    made = []
    thread = threading.Thread(target=lambda: made.append(GradingPool([("math_answer", 1.0)])))
    thread.start()
    thread.join()
    time.sleep(0.2)
    with made[0] as pool:
        assert values(pool.grade(answers("5"))) == [1.0]
        assert pool.statistics()["math_answer"]["failures"]["crash"] == 0


def test_workers_do_not_load_torch():
    with GradingPool([("math_answer", 1.0)], workers=1) as pool:
        worker = pool._processes[0].process.pid
        # libgomp from torch's folder may be there: vLLM preloads it into all later processes.
        assert "libtorch" not in Path(f"/proc/{worker}/maps").read_text()


def test_no_process_outlives_a_killed_parent(tmp_path):
    program = (
        "import sys; from rewards.processes.pool import GradingPool\n"
        "from thinking_rl.types import Problem\n"
        "pool = GradingPool([('benchmarks.hostile:sleeps_forever', 1.0)], timeout_s=1)\n"
        "print(*[p.process.pid for p in pool._processes], flush=True)\n"
        "pool.grade([(Problem('p', '', ''), 'bad')] * 2 if sys.argv[1] == 'busy' else [])\n"
        "sys.stdin.read()"
    )
    for state, patience_s in (("idle", 5), ("busy", 10)):
        parent = subprocess.Popen(
            [sys.executable, "-c", program, state],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        time.sleep(0.3)
        parent.kill()
        parent.wait()
        deadline = time.monotonic() + patience_s
        while any(psutil.pid_exists(pid) for pid in pids) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not [pid for pid in pids if psutil.pid_exists(pid)], state


def test_a_killed_worker_is_replaced():
    with GradingPool([("math_answer", 1.0)]) as pool:
        for process in pool._processes:
            process.process.kill()
        time.sleep(0.2)
        assert sum(values(pool.grade(answers(*["5"] * 100)))) >= 98


def test_bad_settings_are_named(own, tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text("import no_such_module_here\ndef f(p, r): return 1\n")
    cases = [
        ([], "at least one part"),
        ([("math_anwser", 1.0)], "math_answer"),
        ([("math_answer", 1.0), ("math_answer", 2.0)], "different names"),
        ([(f"{broken}:f", 1.0)], "no_such_module_here"),
    ]
    for parts, message in cases:
        with pytest.raises(ValueError, match=message):
            GradingPool(parts)


def test_unpicklable_metadata_is_named():
    problem = Problem("odd one", "", "5", metadata={"f": lambda: 0})
    with GradingPool([("math_answer", 1.0)]) as pool:
        with pytest.raises(ValueError, match="odd one"):
            pool.grade([(problem, "5")])
        assert values(pool.grade(answers("5"))) == [1.0]


def test_failure_share_stops_with_examples(own):
    with GradingPool([own("number")], workers=1) as pool:
        scores = pool.grade(answers("1", "2", "x", "y"))
        check_failure_share(scores, 0.5, pool)
        with pytest.raises(RuntimeError, match=r"2 of 4[^$]*could not convert[^$]*'y'"):
            check_failure_share(scores, 0.4, pool)


def test_statistics_can_be_reset(own):
    with GradingPool([own("number")], workers=1) as pool:
        pool.grade(answers("1", "x"))
        entry = pool.statistics()["number"]
        assert (entry["count"], entry["failures"]["error"]) == (2, 1)
        assert 0 < entry["p50_s"] <= entry["p99_s"] < 1
        pool.reset_statistics()
        assert pool.statistics()["number"]["count"] == 0


def test_hostile_answers_cost_only_themselves():
    MARKER.unlink(missing_ok=True)
    normal = [(Problem("n", "", str(n)), f"\\boxed{{{n + n % 2}}}") for n in range(200)]
    bad = as_items(hostile_answers())
    mixed = [item for pair in zip(normal, bad * 4, strict=False) for item in pair]
    with GradingPool([("math_answer", 1.0)], timeout_s=1.5, memory_gib=1.0) as pool:
        scores = pool.grade(mixed)
    assert [score.correct for score in scores[0::2]] == [n % 2 == 0 for n in range(200)]
    assert not [score for score in scores[1::2] if score.correct]
    assert not MARKER.exists()
