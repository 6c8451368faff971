r"""Form: one closed thinking part, then one final answer in a `\boxed{}`."""

from __future__ import annotations

from rewards.reading.extraction import BOX, THINK_CLOSE, THINK_OPEN, boxes
from thinking_rl.types import Problem


def format(problem: Problem, response: str) -> float:
    """1.0 if the thinking is opened at most once, at the start, and closed once, and the summary
    after it holds exactly one complete box; else 0.0. Does not judge the answer.
    """
    thinking, closer, summary = response.partition(THINK_CLOSE)
    opener_at = thinking.rfind(THINK_OPEN)
    opens_at_start = opener_at <= 0 or not thinking[:opener_at].strip()
    is_single = response.count(THINK_OPEN) <= 1 and response.count(THINK_CLOSE) == 1
    one_box = summary.count(BOX) == 1 and len(boxes(summary)) == 1
    return float(bool(closer) and opens_at_start and is_single and one_box)
