"""An iteration's responses to scores, in the killable pool."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from rewards.processes.pool import GradingPool, check_failure_share
from rewards.truncation import readable, settled
from thinking_rl.recipe.schema import Rewards
from thinking_rl.types import FinishReason, Group, Outcome, Problem, Score, Trajectory


class Grader:
    """Grades whole groups; what could not be graded is counted, shown, and kept with its input."""

    def __init__(self, rewards: Rewards, not_graded: Path, log: Callable[[str], None]) -> None:
        """
        Args:
            not_graded: the file that keeps what could not be graded.
            log: shows a message.

        Raises:
            ValueError: a grader cannot be found or loaded.
        """
        self._pool = GradingPool(
            [(part.grader, part.weight) for part in rewards.parts],
            timeout_s=rewards.timeout_s,
            memory_gib=rewards.memory_gib,
            workers=rewards.workers,
        )
        self._rewards = rewards
        self._not_graded = not_graded
        self._log = log

    def grade(self, groups: Sequence[Group], may_mask: bool = True) -> list[Group]:
        """The groups with a score for every response; those that were cut off, or whose thinking
        is not closed, earn what the recipe says.

        Args:
            may_mask: False in evaluations, where what training would mask is wrong: an accuracy
                over the finished responses alone would be too high.

        Raises:
            RuntimeError: too many could not be graded (`rewards.max_failure_share`).
        """
        thinking, truncated = self._rewards.thinking, self._rewards.truncated
        if truncated == "masked" and not may_mask:
            truncated = "wrong"
        pairs = [(group.problem, t) for group in groups for t in group.trajectories]
        items = [(problem, readable(t.text, thinking)) for problem, t in pairs]
        self._pool.reset_statistics()
        scores = self._pool.grade(items)
        keep_not_graded(items, scores, self._not_graded)
        check_failure_share(scores, self._rewards.max_failure_share, self._pool)
        errors = [score.error for score in scores if score.outcome is Outcome.NOT_GRADED]
        if errors:
            self._log(f"{len(errors)} of {len(scores)} not graded, such as: {errors[0]}")
        remaining = iter(
            settled(t, score, truncated, thinking)
            for (_, t), score in zip(pairs, scores, strict=True)
        )
        return [
            replace(
                group,
                scores=tuple(self._charged(one, next(remaining)) for one in group.trajectories),
            )
            for group in groups
        ]

    def _charged(self, response: Trajectory, score: Score) -> Score:
        if response.finish_reason is not FinishReason.REPETITION or score.error is not None:
            return score
        return replace(score, value=score.value - self._rewards.repetition_penalty)

    def metrics(self) -> dict[str, float]:
        """Latency and failures by grader of the last `grade`: `grader/<name>/<what>`."""
        return {
            f"grader/{name}/{what}": value
            for name, entry in self._pool.statistics().items()
            for what, value in (
                ("p50_s", entry["p50_s"]),
                ("p99_s", entry["p99_s"]),
                *entry["failures"].items(),
            )
        }

    def close(self) -> None:
        """End the grading processes."""
        self._pool.close()


def keep_not_graded(
    items: Sequence[tuple[Problem, str]], scores: Sequence[Score], path: Path
) -> None:
    """Append each response that could not be graded to a jsonl file, with what it takes to try it
    again by `python -m rewards.grade`."""
    failed = [
        item for item in zip(items, scores, strict=True) if item[1].outcome is Outcome.NOT_GRADED
    ]
    if not failed:
        return
    with path.open("a", encoding="utf-8") as file:
        for (problem, response), score in failed:
            row = {
                "id": problem.id,
                "response": response,
                "answer": problem.answer,
                "choices": problem.choices,
                "metadata": dict(problem.metadata),
                "error": score.error,
            }
            file.write(json.dumps(row, default=repr) + "\n")
