"""Responses written to hang, crash, mislead or take over a grader. Each is (expected, response)."""

from __future__ import annotations

import time
from pathlib import Path

from thinking_rl.types import Problem, Score

MARKER = Path("/tmp/thinking_rl_grader_was_taken_over")
"""A file that exists only if some text of a response was run as code."""


def box(content: str) -> str:
    """A response that puts `content` into a box."""
    return "Therefore \\boxed{" + content + "}"


def hostile_answers() -> list[tuple[str, str]]:
    """Sixty pairs of an expected answer and a hostile response; none of them is right."""
    touch = f"__import__('os').system('touch {MARKER}')"
    opened = f"open('{MARKER}','w').write('x')"
    pairs = [
        # numbers that nobody can compute
        ("3", box("9^{9^{9^{9}}}")),
        ("3", box("9**9**9**9")),
        ("2", box("10^{10^{10}}")),
        ("1", box("(10^{10^{10}})!")),
        ("5", box("2^{2^{2^{2^{2^{2}}}}}")),
        ("x^2", box("x^{10^{9}}")),
        ("x+1", box("(x+1)^{9999999}")),
        ("1", box("factorial(10^9)")),
        ("1", box("1000000000!")),
        ("1", box("99999!!!!")),
        ("0", box("\\sqrt[1000000007]{2}")),
        ("7", box("\\sin(10^{10^{8}})")),
        ("7", box("\\exp(\\exp(\\exp(\\exp(10))))")),
        ("7", box("\\binom{10^{9}}{10^{8}}")),
        ("7", box("\\binom{1000000000}{500000000}")),
        ("7", box("0." + "1" * 900)),
        ("7", box("1e999999999")),
        ("7", box("1/10^{-999999999}")),
        ("7", box("\\frac{1}{" * 100 + "1" + "}" * 100)),
        # sums and integrals without end
        ("7", box("\\sum_{n=1}^{\\infty} \\frac{\\sin n^n}{n!}")),
        ("7", box("\\sum_{n=1}^{10^{9}} \\frac{1}{n^3+n+1}")),
        ("7", box("\\int_0^{\\infty} e^{-x^x} \\sin(x^5) dx")),
        ("7", box("\\int \\sqrt{1+x^7+\\sin x} dx")),
        ("7", box("\\prod_{n=1}^{10^{8}} (1+\\frac{1}{n^2+n+7})")),
        ("7", box("\\lim_{x \\to 0} (\\sin x)^{(\\sin x)^{\\sin x}}")),
        ("\\int_0^1 x^x dx", box("\\int_0^1 x^x dx + \\int_0^1 \\sin(x^{x^x}) dx")),
        # depth
        ("7", box("(" * 10_000 + "7" + ")" * 10_000)),
        ("7", box("{" * 10_000 + "8" + "}" * 10_000)),
        ("7", box("\\sqrt{" * 10_000 + "49" + "}" * 10_000)),
        ("7", box("\\frac{1}{" * 10_000)),
        ("7", "\\boxed{" * 10_000 + "8"),
        ("7", box("-" * 10_000 + "7")),
        ("7", box("[" * 450 + "8" + "]" * 450)),
        ("7", box("x^" * 400 + "x")),
        # size
        ("7", "a" * 1_000_000),
        ("7", box("1+" * 500_000 + "1")),
        ("7", box("9" * 1_000_000)),
        ("7", "\\boxed{" * 100_000),
        ("7", "the answer is " * 70_000),
        ("7", "\\boxed{8} " * 100_000),
        ("7", "$" * 1_000_000),
        ("7", "◁think▷" * 100_000),
        # patterns that make a backtracking regex explode
        ("7", "\\boxed " + " " * 200_000 + "x"),
        ("7", box("1" + ",111" * 200_000 + ",")),
        ("7", box(" " * 900 + "!")),
        ("7", box("a" * 900 + "!")),
        ("7", box("1 " * 450 + "!")),
        ("7", "answer" + " answer:" * 100_000),
        ("7", "\\(" * 300_000),
        # bytes that break pipes and parsers
        ("7", box("\x00" * 100)),
        ("7", box("\ud800\udfff\ud83d")),
        ("7", "\udc80" * 1000 + box("8\n\x00\r\x1b[2J")),
        ("7", box("\\u0000\\x00 %s %n {0}")),
        # code
        ("7", box(touch)),
        ("7", box(f"eval({touch!r})")),
        ("7", "The answer is $" + touch + "$"),
        ("7", touch),
        ("7", box(f"lambda: {opened}")),
        ("[1, 2]", box(f"[{opened}, 2]")),
        ("7", box("().__class__.__bases__[0].__subclasses__()")),
    ]
    assert len(pairs) == 60
    return pairs


def as_items(pairs: list[tuple[str, str]]) -> list[tuple[Problem, str]]:
    """The pairs as problems and responses."""
    return [
        (Problem(id=f"hostile {number}", question="", answer=answer), response)
        for number, (answer, response) in enumerate(pairs)
    ]


# Reward functions that misbehave on the response "bad"


def sleeps_forever(problem: Problem, response: str) -> float:
    if response == "bad":
        time.sleep(1e6)
    return 1.0


def exits(problem: Problem, response: str) -> float:
    import os

    if response == "bad":
        os._exit(3)
    return 1.0


def eats_memory(problem: Problem, response: str) -> float:
    kept = []
    while response == "bad":
        kept.append("x" * 10_000_000)
    return 1.0


def returns_nan(problem: Problem, response: str) -> float:
    return float("nan") if response == "bad" else 1.0


def returns_text(problem: Problem, response: str) -> object:
    return "1.0" if response == "bad" else 1.0


def returns_nothing(problem: Problem, response: str) -> Score | None:
    return None if response == "bad" else Score(1.0, True)


def raises(problem: Problem, response: str) -> float:
    if response == "bad":
        raise KeyError("no such thing")
    return 1.0


MISBEHAVIOUR = {
    "sleeps_forever": "timeout",
    "exits": "crash",
    "eats_memory": "memory",
    "returns_nan": "bad_type",
    "returns_text": "bad_type",
    "returns_nothing": "bad_type",
    "raises": "error",
}
"""Function of this file -> the kind of failure it comes to."""
