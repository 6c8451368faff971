"""`responses.jsonl`: every response that a run sampled, with what it takes to grade it again."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from thinking_rl.files.json_files import finite
from thinking_rl.files.run_folder import RunFolder
from thinking_rl.report.pictures import PictureFolder
from thinking_rl.types import Group, Problem, Score, Trajectory


class ResponseLog:
    """Appends rows to a run's `responses.jsonl`, and the pictures that they show to its `images/`,
    until both together have their full size.

    A row is one response: where it comes from (`stage`, `at`), the problem with its expected
    answer, the response with tokens, log-probs and policy versions by segment, its score with
    parts, and its advantage. `python -m rewards.grade` takes the rows as they are; what it does not
    apply is the recipe's word on responses that were cut off.
    """

    def __init__(
        self,
        folder: RunFolder,
        limit_gib: float,
        picture: Callable[[str], bytes] | None = None,
    ) -> None:
        """
        Args:
            limit_gib: size above which rows are counted, not kept.
            picture: the encoded bytes of a picture, by its hash; None: no pictures are kept.
        """
        folder.path.mkdir(parents=True, exist_ok=True)
        self._file = folder.responses.open("ab")
        self._limit_bytes = limit_gib * 2**30
        self._left_out = 0
        self._pictures = PictureFolder(folder)
        self._picture = picture

    def write(
        self,
        stage: str,
        at: str | int,
        groups: Sequence[Group],
        learned: Mapping[str, Sequence[Sequence[float]]] | None = None,
    ) -> None:
        """Keep every response of some groups.

        Args:
            stage: `rl`, `evaluation`, or `proof`, that engine and learner agree.
            at: the iteration, the evaluation's name, or the policy version.
            learned: `learner_logprobs` and `entropies` of each response's tokens, in nats, where
                the learner has them.
        """
        number = -1
        for group in groups:
            for index in range(len(group.trajectories)):
                number += 1
                row = {"stage": stage, "at": at, **response_row(group, index)}
                for name, values in (learned or {}).items():
                    row[name] = [round(value, 5) for value in values[number]]
                line = json.dumps(finite(row), allow_nan=False, default=repr).encode() + b"\n"
                if self._keep_pictures(row["image_hashes"], len(line)):
                    self._file.write(line)
                else:
                    self._left_out += 1
        self._file.flush()

    def _keep_pictures(self, hashes: Sequence[str], row_bytes: int) -> bool:
        """Whether there is room for a row and for its pictures, which are then kept."""
        new = [key for key in dict.fromkeys(hashes) if key not in self._pictures]
        data = {key: self._picture(key) for key in new} if self._picture else {}
        size = self._file.tell() + self._pictures.bytes + row_bytes
        if size + sum(map(len, data.values())) > self._limit_bytes:
            return False
        for key, one in data.items():
            self._pictures.keep(key, one)
        return True

    @property
    def left_out(self) -> int:
        """Responses that the file had no room for."""
        return self._left_out

    def state_dict(self) -> dict[str, Any]:
        """The file's length in bytes, and how many rows it lacks."""
        return {"bytes": self._file.tell(), "left_out": self._left_out}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Drop the rows that came after `state_dict` was taken: they are sampled again."""
        self._file.flush()
        size = min(state["bytes"], os.path.getsize(self._file.name))
        self._file.truncate(size)
        self._file.seek(size)
        self._left_out = state["left_out"]

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        self._file.close()


def response_row(group: Group, index: int) -> dict[str, Any]:
    """Response `index` of a group, ready for JSON."""
    response = group.trajectories[index]
    advantage = group.advantages[index] if group.advantages else None
    score = group.scores[index] if group.scores else None
    return {
        **_problem(group.problem),
        "sample": index,
        **_response(response),
        **(_score(score) if score else {}),
        "advantage": advantage,
    }


def _problem(problem: Problem) -> dict[str, Any]:
    return {
        "id": problem.id,
        "question": problem.question,
        "answer": problem.answer,
        "choices": list(problem.choices),
        "source": problem.source,
        "subject": problem.subject,
        "level": problem.level,
        "metadata": dict(problem.metadata),
    }


def _response(response: Trajectory) -> dict[str, Any]:
    return {
        "response": response.text,
        "finish": response.finish_reason.value,
        "length": response.length,
        "image_hashes": list(response.image_hashes),
        "segments": [
            {
                "policy_version": segment.policy_version,
                "token_ids": list(segment.token_ids),
                "logprobs": [round(value, 5) for value in segment.logprobs],
            }
            for segment in response.segments
        ],
    }


def _score(score: Score) -> dict[str, Any]:
    return {
        "value": score.value,
        "correct": score.correct,
        "outcome": score.outcome.value,
        "extracted": score.extracted,
        "parts": dict(score.parts),
        "error": score.error,
        "note": score.note,
    }
