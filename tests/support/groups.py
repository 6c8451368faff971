"""Groups of responses, made by hand."""

from __future__ import annotations

from thinking_rl.types import FinishReason, Group, Problem, Score, Segment, Trajectory


def make_group(name: str, *responses: str) -> Group:
    """`R30`: right, of 30 tokens; `W`: wrong; `U`: not judged; `C`: cut off and so wrong; `F`: not
    graded; `G`: goes on."""
    trajectories, scores = [], []
    for text in responses:
        kind, length = text[0], int(text[1:])
        reason = {"C": FinishReason.LENGTH, "G": FinishReason.UNFINISHED}.get(
            kind, FinishReason.STOP
        )
        segments = (
            Segment((7,) * (length - 1), (-0.5,) * (length - 1), 0),
            Segment((8,), (-1,), 1),
        )
        trajectories.append(Trajectory(name, (1,), (), segments, "", reason))
        correct = {"R": True, "W": False, "C": False}.get(kind)
        error = "timeout" if kind == "F" else None
        scores.append(Score(1.0 if kind in "RU" else 0.0, correct, error=error))
    return Group(Problem(name, "q", "1"), tuple(trajectories), tuple(scores))
